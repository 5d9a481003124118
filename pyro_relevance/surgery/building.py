"""From the description of a network to the network; nothing in a file is trusted.

Each module is one of the registry's, with arguments by its signature. Each name, step, shape and
constant is checked before it is used, and sizes are compared with tensors that exist, before memory
is taken. What ``description`` writes is documented there.
"""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pyro_relevance.edges.operators.registry import module_arguments, module_named
from pyro_relevance.surgery.arguments import check_arguments
from pyro_relevance.surgery.naming import check_name
from pyro_relevance.surgery.plain_modules import Constant, SelectFeatures
from pyro_relevance.surgery.steps import GraphNetwork, Step
from pyro_relevance.surgery.values import DTYPES, from_json

__all__ = ["FLAGS", "MAX_VALUES", "build", "build_without_memory", "check_state"]

FLAGS = ("inplace", "return_indices")
"""Arguments written only where they are true; the meaning of older descriptions is the same."""
MAX_VALUES = 65536
"""Most numbers of a constant that lies in the description."""
_FURTHER = frozenset((*FLAGS, "bias"))
_FAULTS = (
    *(ArithmeticError, AssertionError, AttributeError, IndexError, KeyError, TypeError),
    *(RuntimeError, ValueError),
)
"""What torch raises for arguments that do not fit each other."""


def build(description: Mapping[str, Any]) -> nn.Module:
    """Make the network that :func:`describe` described, with re-initialised parameters.

    Nothing outside of the lists of modules and operations is imported or called, whatever the
    description says, and no code is made from it. The random state stays as it was.

    Args:
        description: What :func:`describe` returned, possibly read from JSON.

    Returns:
        A network of ``nn.Sequential``, standard modules and ``GraphNetwork``, in training mode.

    Raises:
        ValueError: The description is damaged or names an unknown module or operation.
    """
    with _quiet(), torch.random.fork_rng(devices=[]):
        return _build(description)


def build_without_memory(description: Mapping[str, Any]) -> nn.Module:
    """Do the same as :func:`build`, with tensors that have shapes but no numbers."""
    with torch.device("meta"):
        return build(description)


def check_state(description: Mapping[str, Any], state: Mapping[str, tuple[Any, ...]]) -> None:
    """Check that a network has tensors of given names and shapes, before one is made.

    Args:
        description: Of the network.
        state: Name -> shape of each tensor; those that are no part of a state dict may be missing.

    Raises:
        ValueError: The description is damaged, or does not fit the tensors.
    """
    network = build_without_memory(description)
    saved = network.state_dict()
    expected = {
        name: tuple(tensor.shape)
        for name, tensor in (*network.named_parameters(), *network.named_buffers())
        if name in saved or name in state
    }
    for name in sorted(expected.keys() | state.keys()):
        if expected.get(name) != state.get(name):
            raise ValueError(
                f"Expected tensor {name!r} of shape {expected.get(name)}, as the architecture "
                f"says, but got {state.get(name)}."
            )


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        yield


def _build(description: Any) -> nn.Module:
    try:
        _check_keys(description, {"type"}, {"arguments", "children", "modules", "tensors", "steps"})
        kind = description["type"]
        if kind == "Sequential":
            _check_keys(description, {"type", "children"})
            children = _mapping(description["children"])
            for name in children:
                check_name(name)
            return nn.Sequential(OrderedDict((key, _build(c)) for key, c in children.items()))
        if kind == "Graph":
            _check_keys(description, {"type", "modules", "tensors", "steps"})
            return _build_graph(description)
        _check_keys(description, {"type", "arguments"})
        return _build_module(kind, _mapping(description["arguments"]))
    except _FAULTS as error:
        if isinstance(error, ValueError) and str(error).startswith("Expected"):
            raise
        shown = repr(description)[:200]
        raise ValueError(
            f"Expected a description made by describe(), but got {shown}: {error!r}"
        ) from error


def _build_module(kind: Any, written: Mapping[str, Any]) -> nn.Module:
    arguments = {
        key: tuple(value) if isinstance(value, list) else value for key, value in written.items()
    }
    if kind == "SelectFeatures":
        (count,) = _shape([arguments.pop("num_features")])
        _check_keys(arguments, set())
        module = SelectFeatures(())
        module.index = torch.zeros(count, dtype=torch.int32)
        return module
    if kind == "Constant":
        shape = _shape(list(arguments.pop("shape")))
        _check_keys(arguments, set())
        return Constant(torch.zeros(shape))
    made = module_named(kind) if isinstance(kind, str) else None
    if made is None:
        raise KeyError(kind)
    known = {*(module_arguments(made) or "").split(), *_FURTHER}
    _check_keys(arguments, set(), known)
    # The constructors of recurrent modules state their arguments in that of their base alone.
    if issubclass(made, nn.RNNBase):
        check_arguments(nn.RNNBase, arguments, omitted="mode")
    else:
        check_arguments(made, arguments)
    return made(**arguments)


def _build_graph(description: Mapping[str, Any]) -> GraphNetwork:
    steps = [_build_step(entry) for entry in _list(description["steps"])]
    modules, entries = _mapping(description["modules"]), _mapping(description["tensors"])
    for name in (*modules, *entries):
        check_name(name)
    tensors = {key: _build_tensor(_mapping(entry), key) for key, entry in entries.items()}
    unsaved = [key for key, entry in entries.items() if "values" in entry]
    return GraphNetwork(steps, {key: _build(m) for key, m in modules.items()}, tensors, unsaved)


def _build_step(entry: Any) -> Step:
    if not isinstance(entry, list) or not 2 <= len(entry) <= 4:
        raise ValueError(f"Expected a step of 2 to 4 parts, but got {repr(entry)[:60]}.")
    op, target, *rest = entry
    if not isinstance(op, str) or not isinstance(target, str):
        raise ValueError(f"Expected texts as kind and target of a step, but got {op} {target}.")
    if op in ("call_module", "get_attr"):
        check_name(target)
    args = tuple(from_json(value) for value in _list(rest[0])) if rest else ()
    kwargs = {key: from_json(v) for key, v in _mapping(rest[1]).items()} if rest[1:] else {}
    return Step(op, target, args, kwargs)


def _build_tensor(entry: Mapping[str, Any], name: str) -> Tensor:
    _check_keys(entry, {"dtype", "shape"}, {"values", "parameter"})
    dtype, shape = DTYPES[entry["dtype"]], _shape(entry["shape"])
    if "values" in entry:
        values = from_json(entry["values"])
        if not isinstance(values, list) or not len(values) == math.prod(shape) <= MAX_VALUES:
            raise ValueError(
                f"Expected {math.prod(shape)} values of constant {name!r}, at most {MAX_VALUES}, "
                f"but got {repr(values)[:60]}."
            )
        kinds = (bool,) if dtype is torch.bool else (int, float) if dtype.is_floating_point else int
        if not all(
            isinstance(v, kinds) and isinstance(v, bool) == (kinds == (bool,)) for v in values
        ):
            raise ValueError(f"Expected {dtype} in constant {name!r}, but got {repr(values)[:60]}.")
        return torch.tensor(values, dtype=dtype).reshape(shape)
    tensor = torch.zeros(shape, dtype=dtype)
    parameter = entry.get("parameter", False)
    if not isinstance(parameter, bool):
        raise ValueError(f"Expected parameter of {name!r} as a flag, but got {parameter!r}.")
    if not parameter:
        return tensor
    return nn.Parameter(tensor, requires_grad=tensor.is_floating_point() or tensor.is_complex())


def _shape(sizes: Any) -> tuple[int, ...]:
    known = isinstance(sizes, list) and len(sizes) <= 64
    if (
        not known
        or not all(type(size) is int and 0 <= size < 2**40 for size in sizes)
        or math.prod(sizes) >= 2**60
    ):
        raise ValueError(f"Expected the shape of a tensor, but got {repr(sizes)[:60]}.")
    return tuple(sizes)


def _check_keys(content: Any, needed: set[str], further: set[str] | None = None) -> None:
    keys = _mapping(content).keys()
    known = needed | (further or set())
    if not needed <= keys <= known:
        raise TypeError(f"expected {sorted(known)}, but got {sorted(map(str, keys))[:20]}")


def _mapping(content: Any) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise TypeError(f"expected a mapping, but got {repr(content)[:60]}")
    return content


def _list(content: Any) -> list[Any]:
    if not isinstance(content, list):
        raise TypeError(f"expected a list, but got {repr(content)[:60]}")
    return content
