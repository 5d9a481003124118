"""One walk over an exported graph, each operator by its rule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map

import pyro_relevance.edges.operators as operators
from pyro_relevance.edges.coupling.label_tensors import compact, narrowed
from pyro_relevance.edges.coupling.labelling import Coupling, Labelling, Labels, tensors_of
from pyro_relevance.edges.exported import Exported, export_graph, value_of
from pyro_relevance.edges.operators.calls import operator_name
from pyro_relevance.edges.operators.pointwise import pointwise, unknown
from pyro_relevance.edges.operators.registry import Rule
from pyro_relevance.errors import EdgeError

__all__ = ["follow_channels", "follow_graph"]


def follow_channels(network: nn.Module, arguments: tuple[Any, ...]) -> Coupling:
    """Find out which channels of a network must be pruned together.

    Args:
        network: Any network that ``torch.export`` traces; it is not touched.
        arguments: Example inputs; one example is enough.

    Returns:
        The coupling.

    Raises:
        EdgeError: The network cannot be traced.
    """
    one = tree_map(lambda a: a[:1] if isinstance(a, Tensor) and a.ndim else a, arguments)
    return _walk(Labelling(export_graph(network, one)))


def follow_graph(exported: Exported) -> tuple[Coupling, Labels, dict[fx.Node, Any]]:
    """Do the same for a graph, and also return the labels of each value.

    Args:
        exported: The graph.

    Returns:
        The coupling, labels by node, and values of the nodes that do not depend on the inputs.
    """
    run = Labelling(exported, keep=True)
    return _walk(run), run.labels, run.constants


def _walk(run: Labelling) -> Coupling:
    """Label all values of a graph."""
    last = {}
    for node in run.exported.graph.nodes:
        for source in node.all_input_nodes:
            last[source] = node
    for node in run.exported.graph.nodes:
        if node.op == "placeholder":
            run.enter(node)
        elif node.op == "output":
            for leaf in tree_leaves(node.args):
                if isinstance(leaf, fx.Node) and leaf in run.labels:
                    run.outputs += [compact(t) for t in tensors_of(run.labels[leaf])]
        else:
            _call(run, node)
        for source in node.all_input_nodes:
            if last[source] is node and not run.keep:
                run.labels.pop(source, None)
    return run.coupling()


_FAULTS = (
    *(AssertionError, AttributeError, IndexError, KeyError, LookupError, NotImplementedError),
    *(RuntimeError, TypeError, ValueError),
)
"""What a rule raises for a call of a form that it does not know."""


def _call(run: Labelling, node: fx.Node) -> None:
    if node.op != "call_function":
        run.constants[node] = None  # a block of code of its own, which no rule follows
        return
    name, value = operator_name(node), value_of(node)
    if _is_constant(run, node):
        arguments = tree_map(run.constant, (node.args, node.kwargs))
        try:
            with torch.no_grad():
                run.constants[node] = node.target(*arguments[0], **arguments[1])  # type: ignore[operator]
            return
        except _FAULTS:
            pass
    if value is None or isinstance(value, (bool, int, float)):
        run.constants[node] = value  # a size, or a check of one
        return
    result = _labels_of(run, node, name, value)
    if result is None:
        return
    if isinstance(result, Tensor):
        result = compact(result)
        if sum(size > 1 for size in narrowed(result)[0].shape) > 1:
            run.grids.append(result)
    run.labels[node] = result


def _is_constant(run: Labelling, node: fx.Node) -> bool:
    """Whether a value is the same in each call, for inputs of one size."""
    tags = getattr(node.target, "tags", ())
    random = torch.Tag.nondeterministic_seeded in tags
    block = isinstance(node.target, torch._ops.HigherOrderOperator)
    return not random and not block and all(n in run.constants for n in node.all_input_nodes)


def _labels_of(run: Labelling, node: fx.Node, name: str, value: Any) -> Any:
    """Return what the rule of an operator says; that of a user's is checked."""
    rule = _rule(node, name)
    if getattr(rule, "__module__", "").startswith(f"{__name__.partition('.')[0]}."):
        try:
            return rule(run, node, name)
        except _FAULTS:
            return unknown(run, node, name)
    asked = (
        f"Expected the rule of the operator {name!r} (run, node, name) to return labels of shape "
        f"{tuple(value.shape) if isinstance(value, Tensor) else 'of each result'}, one for each "
        "position of its result"
    )
    try:
        result = rule(run, node, name)
    except EdgeError:
        raise
    except Exception as error:
        raise EdgeError(f"{asked}, but it fails: {type(error).__name__}: {error}.") from error
    shape = result.shape if isinstance(result, Tensor) else None
    if isinstance(value, Tensor) and shape != value.shape:
        got = type(result).__name__ if shape is None else tuple(shape)
        raise EdgeError(
            f"{asked}, but got {got}. Rules to build on are in pr.operators, such as pointwise."
        )
    return result


def _rule(node: fx.Node, name: str) -> Rule:
    known = operators.find(name).couples
    if known is not None:
        return known
    is_operator = isinstance(node.target, torch._ops.OpOverload)
    tagged = is_operator and torch.Tag.pointwise in node.target.tags  # type: ignore[union-attr]
    in_place = operators.find(name.rstrip("_")).couples is pointwise
    return pointwise if tagged or in_place else unknown
