"""The symbolic graph of a network, and which of its layers own their tensors alone."""

from __future__ import annotations

import operator
import warnings
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.utils.parametrize import is_parametrized

from pyro_relevance.edges.modules import copy_of, example_arguments, not_accepted
from pyro_relevance.edges.operators.calls import operator_name
from pyro_relevance.edges.operators.registry import find, registered
from pyro_relevance.edges.reasons import Reason, Why
from pyro_relevance.errors import EdgeError

__all__ = [
    "LAYERS",
    "function_name",
    "is_flatten",
    "join_name",
    "keeps_last_axis",
    "layer_faults",
    "shape_of",
    "trace_graph",
]

LAYERS = cast(
    "tuple[type[nn.Linear] | type[nn.Conv1d], ...]",
    tuple(
        kind
        for entry in registered()
        if entry.layer is not None and entry.layer.reads == 1
        for kind in entry.modules
    ),
)
"""Layers whose rows make units; transposed convolutions are not followed layer by layer."""


def trace_graph(
    network: nn.Module, example_input: Tensor | tuple[Tensor, ...] | None
) -> tuple[fx.Graph, dict[str, nn.Module]]:
    """Graph of a copy in evaluation mode, with shapes if there is an example; its modules."""
    try:
        tracer = fx.Tracer()
        copied = copy_of(network).eval()
        is_layer = tracer.is_leaf_module(copied, "")
        root = _Wrapper(copied) if is_layer else copied
        graph = tracer.trace(root)
    except Exception as error:
        raise EdgeError(
            f"Expected a network that torch.fx can trace, but tracing {type(network).__name__} "
            f"failed: {error}. "
            "Avoid control flow that depends on values in forward()."
        ) from error
    if example_input is not None:
        arguments = example_arguments(example_input)
        try:
            # At its first use torch imports sympy, which leaves warning filters behind.
            kept = warnings.catch_warnings()
            with kept, torch.no_grad(), torch.random.fork_rng(devices=[]):
                ShapeProp(fx.GraphModule(root, graph)).propagate(*arguments)
        except Exception as error:
            raise EdgeError(not_accepted(arguments, error)) from error
    if is_layer:
        for node in graph.nodes:
            if node.op == "call_module":
                node.target = ""
        return graph, {"": copied}
    return graph, dict(copied.named_modules())


def layer_faults(graph: fx.Graph, modules: dict[str, nn.Module]) -> dict[str, Reason]:
    """Why the tensors of a layer cannot be changed on their own, as the end of a sentence."""
    calls: dict[str, int] = {}
    direct = set()
    for node in graph.nodes:
        if node.op == "call_module":
            calls[str(node.target)] = calls.get(str(node.target), 0) + 1
        elif node.op == "get_attr":
            direct.add(str(node.target))
    owners: dict[int, set[str]] = {}
    for name, module in modules.items():
        for tensor in module.parameters(recurse=False):
            owners.setdefault(id(tensor), set()).add(name)
    faults: dict[str, Reason] = {}
    for name, module in modules.items():
        own = dict(module.named_parameters(recurse=False))
        shared = [key for key, tensor in own.items() if len(owners[id(tensor)]) > 1]
        if module._forward_hooks or module._forward_pre_hooks:
            faults[name] = Why.HOOKED.reason()
        elif is_parametrized(module):
            faults[name] = Why.PARAMETRISED.reason()
        elif isinstance(module, LAYERS) and "weight" not in own:
            faults[name] = Why.COMPUTED_WEIGHT.reason()
        elif shared:
            others = ", ".join(map(repr, sorted(owners[id(own[shared[0]])] - {name})))
            faults[name] = Why.SHARED.reason(tensor=shared[0], others=others)
        elif any(join_name(name, key) in direct for key in own):
            faults[name] = Why.USED_DIRECTLY.reason()
        elif isinstance(module, LAYERS) and name not in calls:
            faults[name] = Why.NOT_CALLED.reason()
        elif calls.get(name, 0) > 1:
            faults[name] = Why.CALLED_TWICE.reason()
    return faults


def function_name(node: fx.Node) -> str:
    """Name of a called function or method; functions from outside of torch keep their module."""
    if isinstance(node.target, str):
        return node.target
    if isinstance(node.target, torch._ops.OpOverload):
        return operator_name(node)
    module = getattr(node.target, "__module__", None) or "torch"
    name = getattr(node.target, "__name__", str(node.target))
    known = module in ("_operator", "builtins") or module.partition(".")[0] == "torch"
    return name if known else f"{module}.{name}"


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Shape of a traced tensor; empty where it is unknown."""
    meta = node.meta.get("tensor_meta")
    return tuple(meta.shape) if meta is not None and hasattr(meta, "shape") else ()


def join_name(module: str, tensor: str) -> str:
    """Qualified name of a module's tensor."""
    return f"{module}.{tensor}" if module else tensor


def is_flatten(node: fx.Node, name: str, shapes_known: bool) -> bool:
    """Whether the operation turns (n, ...) into (n, all the rest)."""
    if find(name).last_axis == "flattened":
        start = node.args[1] if len(node.args) > 1 else node.kwargs.get("start_dim", 0)
        end = node.args[2] if len(node.args) > 2 else node.kwargs.get("end_dim", -1)
        return (start, end) == (1, -1)
    if find(name).last_axis != "reshaped":
        return False
    if shapes_known:
        before, after = shape_of(node.all_input_nodes[0]), shape_of(node)
        return len(after) == 2 and len(before) >= 2 and after[0] == before[0]
    sizes = node.args[1:] if len(node.args) != 2 else node.args[1]
    return bool(
        isinstance(sizes, (tuple, list))
        and len(sizes) == 2
        and isinstance(sizes[0], fx.Node)
        and sizes[1] == -1
        and _is_batch_size(sizes[0], node.args[0])
    )


def keeps_last_axis(node: fx.Node, name: str, shapes_known: bool) -> bool:
    """Whether the operation merges or splits only axes before the last."""
    if find(name).last_axis != "reshaped" or not shapes_known:
        return False
    before, after = shape_of(node.all_input_nodes[0]), shape_of(node)
    return len(after) >= 2 and before[-1:] == after[-1:]


def _is_batch_size(node: fx.Node, value: object) -> bool:
    """Whether the node is ``value.size(0)`` or ``value.shape[0]``."""
    if node.op == "call_method" and node.target == "size":
        return node.args == (value, 0)
    if node.target is operator.getitem and node.args[1] == 0 and isinstance(node.args[0], fx.Node):
        origin = node.args[0]
        return (origin.target is getattr and origin.args == (value, "shape")) or (
            origin.op == "call_method" and origin.target == "size" and origin.args == (value,)
        )
    return False


class _Wrapper(nn.Module):
    """Lets a network that is a single layer be traced as a call of that layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        return self.layer(x)
