"""A network that is a list of steps, each of which calls one module or one operation of torch."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx, nn

from pyro_relevance.surgery.operations import (
    ATTRIBUTE_OF,
    ATTRIBUTES,
    function_named,
    is_method,
)

__all__ = ["GraphNetwork", "Result", "SizeError", "Step", "owned_tensor", "plain_containers"]


@dataclass(frozen=True, slots=True)
class Result:
    """A reference to the result of an earlier step, as an argument of a step.

    Args:
        step: Position of that step.
    """

    step: int


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a :class:`GraphNetwork`, in the words of ``torch.fx``.

    Args:
        op: ``placeholder``, ``get_attr``, ``call_module``, ``call_function``, ``call_method`` or
            ``output``; or ``check``, which compares two sizes: the size found, one of ``==``,
            ``!=``, ``<``, ``<=``, ``>``, ``>=``, and the size expected.
        target: Name of the input, tensor, module, function (see :func:`function_named`) or method;
            for a check, what is compared, in words.
        args: Positional arguments; a placeholder's is its default.
        kwargs: Arguments by name.
    """

    op: str
    target: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


class SizeError(ValueError):
    """An input has a size for which a list of operations was not made."""


class GraphNetwork(nn.Module):
    """A network that is a list of steps over modules and tensors; no code is made from the list.

    Args:
        steps: The steps in the order in which they run; placeholders first, the output last.
        modules: Called modules by qualified name.
        tensors: Other parameters, and tensors that become buffers, by qualified name.
        unsaved: Names of those tensors that are no part of the state dict.

    Raises:
        ValueError: A step calls a forbidden operation, reads a later step, or names something that
            does not exist.
    """

    def __init__(
        self,
        steps: Iterable[Step],
        modules: Mapping[str, nn.Module],
        tensors: Mapping[str, Tensor],
        unsaved: Iterable[str] = (),
    ) -> None:
        super().__init__()
        self._graph_steps = tuple(steps)
        skipped = frozenset(unsaved)
        for name, module in modules.items():
            owner, _, key = name.rpartition(".")
            _container(self, owner).add_module(key, module)
        for name, tensor in tensors.items():
            owner, _, key = name.rpartition(".")
            holder = _container(self, owner)
            if isinstance(tensor, nn.Parameter):
                holder.register_parameter(key, tensor)
            else:
                holder.register_buffer(key, tensor, persistent=name not in skipped)
        self._check()
        self._graph_finished = _last_uses(self._graph_steps)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps in the order in which they run."""
        return self._graph_steps

    def forward(self, x: Tensor, *others: Tensor) -> Any:
        """Run the steps; inputs are passed by position, as for the original network."""
        results: list[Any] = []
        for step, finished in zip(self._graph_steps, self._graph_finished, strict=True):
            args = _filled(step.args, results)
            kwargs = {key: _filled(value, results) for key, value in step.kwargs.items()}
            if step.op == "placeholder":
                results.append(_input(step, len(results), x, others))
            elif step.op == "get_attr":
                results.append(owned_tensor(self, step.target))
            elif step.op == "call_module":
                results.append(self.get_submodule(step.target)(*args, **kwargs))
            elif step.op == "call_function":
                results.append(function_named(step.target)(*args, **kwargs))
            elif step.op == "call_method":
                results.append(getattr(args[0], step.target)(*args[1:], **kwargs))
            elif step.op == "check":
                _compare(step.target, *args)
                results.append(None)
            else:
                return args[0]
            for position in finished:
                results[position] = None  # frees a result that no later step reads
        raise AssertionError("the last step is an output")

    def extra_repr(self) -> str:
        """Number of steps, for printing."""
        return f"num_steps={len(self._graph_steps)}"

    def _check(self) -> None:
        if not self._graph_steps or self._graph_steps[-1].op != "output":
            raise ValueError("Expected steps that end in an output, but got none.")
        for position, step in enumerate(self._graph_steps):
            arguments = (step.args, dict(step.kwargs))
            if any(not 0 <= read < position for read in _reads(arguments)):
                raise ValueError(f"Expected a step to read earlier steps, but got {step!r}.")
            if step.op == "call_function":
                function_named(step.target)
                if step.target.startswith(("math.", "operator.")) and not _reads(arguments):
                    raise ValueError(f"Expected a function of earlier steps, but got {step!r}.")
                if step.target == ATTRIBUTE_OF:
                    _check_attribute(step)
            elif step.op == "call_method":
                if not is_method(step.target) or not _reads(step.args[:1]):
                    raise ValueError(f"Expected an operation on a tensor, but got {step!r}.")
            elif step.op == "call_module":
                _module_at(self, step.target)
            elif step.op == "get_attr":
                owned_tensor(self, step.target)
            elif step.op == "check":
                if len(step.args) != 3 or step.args[1] not in _RELATIONS or step.kwargs:
                    raise ValueError(f"Expected a check of two sizes, but got {step!r}.")
            elif step.op not in ("placeholder", "output"):
                raise ValueError(f"Expected a known kind of step, but got {step!r}.")


def plain_containers(value: Any) -> Any:
    """Return values in tuples, lists and dicts, without classes of other packages."""
    if isinstance(value, Mapping):
        return {str(key): plain_containers(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [plain_containers(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value


def owned_tensor(module: nn.Module, name: str) -> Tensor:
    """Parameter or buffer of a module by its qualified name.

    Args:
        module: The module.
        name: Qualified name.

    Returns:
        The tensor itself.

    Raises:
        ValueError: There is no such parameter or buffer.
    """
    owner, _, key = name.rpartition(".")
    holder = _module_at(module, owner)
    tensor: Tensor | None = holder._parameters.get(key)
    if tensor is None:
        tensor = holder._buffers.get(key)
    if tensor is None:
        raise ValueError(f"Expected a parameter or buffer {name!r}, but there is none.")
    return tensor


_RELATIONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _compare(what: str, found: Any, relation: str, expected: Any) -> None:
    """Raise an error where a size is not what the list of operations was made for."""
    if any(isinstance(size, fx.Proxy) for size in (found, expected)):
        return  # sizes are not known while torch.fx traces
    if not _RELATIONS[relation](found, expected):
        raise SizeError(
            f"Expected {what} {relation} {expected}, but got {found}. This network is a list of "
            "operations that was written down for such sizes. Prune again with an example_input "
            "of the size that you need."
        )


def _check_attribute(step: Step) -> None:
    known = len(step.args) == 2 and not step.kwargs and step.args[1] in ATTRIBUTES
    if not known or not isinstance(step.args[0], Result):
        raise ValueError(
            f"Expected an attribute among {', '.join(sorted(ATTRIBUTES))}, but got {step!r}."
        )


def _container(root: nn.Module, name: str) -> nn.Module:
    """Module of that name; modules that only hold others are made on the way."""
    module = root
    for key in name.split(".") if name else ():
        child = module._modules.get(key)
        if child is None:
            child = nn.Module()
            module.add_module(key, child)
        module = child
    return module


def _module_at(root: nn.Module, name: str) -> nn.Module:
    # Through the modules alone: getattr() would reach every attribute.
    module = root
    for key in name.split(".") if name else ():
        child = module._modules.get(key)
        if child is None:
            raise ValueError(f"Expected a module {name!r}, but there is none.")
        module = child
    return module


def _input(step: Step, position: int, x: Tensor, others: tuple[Tensor, ...]) -> Any:
    if step.target.startswith("*"):
        return (x, *others) if position == 0 else others[position - 1 :]
    if position == 0:
        return x
    # Under torch.fx the other inputs are a single symbol, which has no length.
    if not isinstance(others, tuple) or position <= len(others):
        return others[position - 1]
    if not step.args:
        raise TypeError(
            f"Expected an input {step.target!r}, but got {len(others) + 1} inputs. Pass all of the "
            "described network's inputs by position."
        )
    return step.args[0]


def _reads(value: Any) -> list[int]:
    """Positions of the steps that an argument reads."""
    if isinstance(value, Result):
        return [value.step]
    if isinstance(value, (tuple, list)):
        return [read for item in value for read in _reads(item)]
    if isinstance(value, dict):
        return [read for item in value.values() for read in _reads(item)]
    if isinstance(value, slice):
        return _reads((value.start, value.stop, value.step))
    return []


def _filled(value: Any, results: list[Any]) -> Any:
    """The argument with each reference replaced by its result."""
    if isinstance(value, Result):
        return results[value.step]
    if isinstance(value, (tuple, list)):
        return type(value)(_filled(item, results) for item in value)
    if isinstance(value, dict):
        return {key: _filled(item, results) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*(_filled(part, results) for part in (value.start, value.stop, value.step)))
    return value


def _last_uses(steps: Sequence[Step]) -> tuple[tuple[int, ...], ...]:
    """For each step, the results that no step after it reads."""
    last = {
        read: position
        for position, step in enumerate(steps)
        for read in _reads((step.args, dict(step.kwargs)))
    }
    finished: list[list[int]] = [[] for _ in steps]
    for read, position in last.items():
        finished[position].append(read)
    return tuple(map(tuple, finished))
