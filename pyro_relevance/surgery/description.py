"""A network's architecture as JSON, so that files are read without running code stored in them.

Trees of ``nn.Sequential`` over the modules listed here are described as such. Any other network
that ``torch.fx`` can follow is described by the modules that it calls and the list of its
operations, all of them from the list in ``operations``. The values of parameters and buffers are
not in the description; they are stored beside it.

A module is ``{"type": "Linear", "arguments": {...}}``, a tree
``{"type": "Sequential", "children": {name: module}}``, and a graph::

    {"type": "Graph",
     "modules": {qualified name: module},
     "tensors": {qualified name: {"dtype": "float32", "shape": [3], "parameter": true}},
     "steps": [["placeholder", "x"],
               ["call_module", "conv", [{"result": 0}]],
               ["call_function", "operator.add", [{"result": 1}, 1.0]],
               ["output", "output", [{"result": 2}]]]}

The operations of a step and their order are those of ``torch.fx``; ``{"result": 0}`` is the result
of step 0. A tensor that is no part of a state dict has its ``"values"`` in the description.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx, nn
from torch.fx.graph import CodeGen
from torch.nn.utils.parametrize import is_parametrized

from pyro_relevance.edges.modules import copy_of
from pyro_relevance.edges.operators.registry import module_arguments
from pyro_relevance.surgery.building import FLAGS, MAX_VALUES, build, build_without_memory
from pyro_relevance.surgery.operations import name_of_function
from pyro_relevance.surgery.plain_modules import Constant, SelectFeatures
from pyro_relevance.surgery.steps import GraphNetwork, Result, Step
from pyro_relevance.surgery.values import ADVICE, DTYPES, to_json

__all__ = ["build", "describe"]

_LEAVES = (SelectFeatures, Constant, GraphNetwork)


def describe(module: nn.Module) -> dict[str, Any]:
    """Describe a network by its modules and, where it is no ``nn.Sequential``, its operations.

    A network that is followed operation by operation is described as it computes in evaluation
    mode. In training mode the modules of the rebuilt network (dropout, batch normalisation) behave
    as before. A use of ``self.training`` in ``forward`` - another branch, the argument of a
    function such as ``F.dropout`` - is fixed at evaluation. Layers that are not called in
    evaluation keep their tensors and do nothing. An ``fx.GraphModule`` is described as it was
    traced. Tied parameters become separate ones of the same values. Inputs are passed by position.

    Args:
        module: A tree of ``nn.Sequential`` (or classes that only fill one, such as ``MLP``) over
            standard modules; or any module that ``torch.fx`` can trace, or an ``fx.GraphModule``,
            that calls standard modules and functions on tensors.

    Returns:
        A JSON-able description for :func:`build`.

    Raises:
        ValueError: A part has no description.
    """
    description = _describe(module, "")
    _check_shapes(module, description)
    return description


def _check_shapes(module: nn.Module, description: Mapping[str, Any]) -> None:
    """Check shapes now, not only when the file is read."""
    built = _shapes(build_without_memory(description))
    given = _shapes(module)
    wrong = sorted(
        name for name in given.keys() | built.keys() if given.get(name) != built.get(name)
    )
    if wrong:
        raise ValueError(
            "Expected modules whose settings say the shapes of their tensors, but got "
            f"{wrong[0]!r} of shape {given.get(wrong[0])} where the settings say "
            f"{built.get(wrong[0])}. {ADVICE}"
        )


def _shapes(module: nn.Module) -> dict[str, Any]:
    return {
        name: tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        for name, value in module.state_dict().items()
    }


def _describe(module: nn.Module, name: str) -> dict[str, Any]:
    where = f"module {name!r}" if name else "the network"
    if module._forward_hooks or module._forward_pre_hooks:
        raise ValueError(
            f"Expected modules without hooks, but got one on {where}. Remove it before describing."
        )
    if _is_sequential(module):
        children = {
            key: _describe(child, _join(name, key))
            for key, child in module._modules.items()
            if child
        }
        return {"type": "Sequential", "children": children}
    if type(module) is SelectFeatures:
        return {"type": "SelectFeatures", "arguments": {"num_features": len(module.index)}}
    if type(module) is Constant:
        return {"type": "Constant", "arguments": {"shape": list(module.value.shape)}}
    keys = module_arguments(type(module))
    if keys is not None:
        arguments = {key: _argument(module, key) for key in keys.split()}
        arguments |= {key: True for key in FLAGS if getattr(module, key, False)}
        if getattr(module, "affine", False) and getattr(module, "bias", True) is None:
            arguments["bias"] = False
        return {"type": type(module).__name__, "arguments": arguments}
    if type(module) is GraphNetwork:
        return _describe_steps(module, module.steps, name)
    is_known = isinstance(module, nn.Sequential) or not type(module).__module__.startswith(
        "torch.nn."
    )
    if not is_known or is_parametrized(module):
        raise ValueError(
            "Expected nn.Sequential over standard modules, or a network that calls them, but got "
            f"{type(module).__name__} as {where}. {ADVICE}"
        )
    return _describe_steps(*_followed(module, name, where), name)


def _is_sequential(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Sequential)
        and type(module).forward is nn.Sequential.forward
        and not module._parameters
        and not module._buffers
    )


def _argument(module: nn.Module, key: str) -> Any:
    value = getattr(module, key)
    if key == "bias":
        return value if isinstance(value, bool) else value is not None
    return list(value) if isinstance(value, tuple) else value


class _Tracer(fx.Tracer):
    """Follows a network down to the modules that have a description of their own."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        described = type(m) in _LEAVES or module_arguments(type(m)) is not None
        return described or super().is_leaf_module(m, module_qualified_name)


def _followed(module: nn.Module, name: str, where: str) -> tuple[nn.Module, tuple[Step, ...]]:
    for key, part in module.named_modules():
        if part._forward_hooks or part._forward_pre_hooks:
            raise ValueError(
                f"Expected modules without hooks, but got one on module {_join(name, key)!r}. "
                "Remove it before describing."
            )
    if isinstance(module, fx.GraphModule) and type(module.graph._codegen) is CodeGen:
        return module, _steps(module, module.graph, where)
    try:
        # Tracing adds constants to the network. Evaluation mode is the one that prune compares.
        module = copy_of(module).eval()
        graph = _Tracer().trace(module)
    except Exception as error:
        raise ValueError(
            f"Expected a network that torch.fx can follow, but tracing {type(module).__name__} as "
            f"{where} failed: {error}. {ADVICE}"
        ) from error
    return module, _steps(module, graph, where)


def _steps(root: nn.Module, graph: fx.Graph, where: str) -> tuple[Step, ...]:
    """Write each node as a step: results go by their number, functions by their name."""
    results: dict[fx.Node, Any] = {}
    steps: list[Step] = []
    for node in graph.nodes:
        args = _recorded(node.args, results)
        kwargs = _recorded(node.kwargs, results)
        if _is_stochastic_depth(node):
            results[node] = args[0]  # the identity in evaluation
            continue
        target = str(node.target)
        if node.op == "call_function":
            found = name_of_function(node.target)
            if found is None:
                module = getattr(node.target, "__module__", None) or "torch"
                raise ValueError(
                    "Expected functions of torch on tensors, but got "
                    f"{module}.{getattr(node.target, '__name__', node.target)} in {where}. "
                    f"{ADVICE}"
                )
            target = found
        elif node.op == "placeholder" and target.startswith("**"):
            raise ValueError(f"Expected inputs by position, but got {target} in {where}. {ADVICE}")
        results[node] = Result(len(steps))
        steps.append(Step(node.op, target, args, kwargs))
    return tuple(steps)


def _is_stochastic_depth(node: fx.Node) -> bool:
    function = node.target
    known = getattr(function, "__module__", "") == "torchvision.ops.stochastic_depth"
    training = node.args[3] if len(node.args) > 3 else node.kwargs.get("training", True)
    return known and node.op == "call_function" and training is False


def _recorded(value: Any, results: Mapping[fx.Node, Any]) -> Any:
    """A copy without symbols and without the immutable containers of torch.fx."""
    if isinstance(value, fx.Node):
        return results[value]
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(_recorded(item, results) for item in value)
    if isinstance(value, list):
        return [_recorded(item, results) for item in value]
    if isinstance(value, dict):
        return {key: _recorded(item, results) for key, item in value.items()}
    if isinstance(value, slice):
        parts = (value.start, value.stop, value.step)
        return slice(*(_recorded(part, results) for part in parts))
    return value


def _describe_steps(root: nn.Module, steps: tuple[Step, ...], name: str) -> dict[str, Any]:
    called = [step.target for step in steps if step.op == "call_module"]
    modules = {key: _describe(root.get_submodule(key), _join(name, key)) for key in called}
    saved = root.state_dict(keep_vars=True)
    read = [step.target for step in steps if step.op == "get_attr"]
    tensors = {}
    for key in dict.fromkeys((*saved, *read)):
        if not any(key.startswith(f"{module}.") for module in modules):
            tensors[key] = _describe_tensor(root, key, saved, name)
    written = [
        _written_step(step, f"step {i} of {name or 'the network'}") for i, step in enumerate(steps)
    ]
    return {"type": "Graph", "modules": modules, "tensors": tensors, "steps": written}


def _describe_tensor(
    root: nn.Module, key: str, saved: Mapping[str, Any], name: str
) -> dict[str, Any]:
    tensor = saved[key] if key in saved else _attribute(root, key)
    dtype = str(getattr(tensor, "dtype", "")).removeprefix("torch.")
    if not isinstance(tensor, Tensor) or dtype not in DTYPES:
        raise ValueError(
            f"Expected tensors of a common data type, but got {type(tensor).__name__} {dtype} as "
            f"{_join(name, key)!r}. {ADVICE}"
        )
    entry: dict[str, Any] = {"dtype": dtype, "shape": list(tensor.shape)}
    if isinstance(tensor, nn.Parameter):
        entry["parameter"] = True
    elif key not in saved:
        if tensor.numel() > MAX_VALUES or tensor.is_complex():
            raise ValueError(
                f"Expected real constants of at most {MAX_VALUES} entries, but got {dtype} of "
                f"shape {tuple(tensor.shape)} as {_join(name, key)!r}. Register it as a "
                "persistent buffer."
            )
        entry["values"] = to_json(tensor.detach().cpu().reshape(-1).tolist(), key)
    return entry


def _attribute(root: nn.Module, key: str) -> Any:
    value: Any = root
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _written_step(step: Step, where: str) -> list[Any]:
    written: list[Any] = [step.op, step.target]
    if step.args or step.kwargs:
        written.append([to_json(value, where) for value in step.args])
    if step.kwargs:
        written.append({key: to_json(value, where) for key, value in step.kwargs.items()})
    return written


def _join(module: str, name: str) -> str:
    return f"{module}.{name}".strip(".")
