"""One walk over an exported graph, each operator by its rule."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map

import pyro_relevance.edges.coupling.layers as layers
import pyro_relevance.edges.coupling.moves as moves
import pyro_relevance.edges.coupling.normalisation as normalisation
import pyro_relevance.edges.coupling.pointwise as elementwise
import pyro_relevance.edges.coupling.products as products
from pyro_relevance.edges.coupling.label_tensors import FILLER, compact, filled, narrowed
from pyro_relevance.edges.coupling.labelling import Coupling, Labelling, Labels, tensors_of
from pyro_relevance.edges.coupling.operators import operator_name
from pyro_relevance.edges.exported import Exported, export_graph, value_of

__all__ = ["follow_channels", "follow_graph"]

Rule = Callable[[Labelling, fx.Node, str], Any]
"""From what is known, a call and its operator's name to the labels of the result."""


def follow_channels(network: nn.Module, arguments: tuple[Any, ...]) -> Coupling:
    """Find out which channels of a network must be cut together.

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
    """Find out the same of a graph, and keep what was found of each value.

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
            run.place(node)
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


def _call(run: Labelling, node: fx.Node) -> None:
    nodes = node.all_input_nodes
    if all(n in run.constants for n in nodes):
        arguments = tree_map(run.constant, (node.args, node.kwargs))
        with torch.no_grad():
            run.constants[node] = node.target(*arguments[0], **arguments[1])  # type: ignore[operator]
        return
    name, value = operator_name(node), value_of(node)
    if value is None or isinstance(value, (bool, int, float)):
        run.constants[node] = value  # a size, or a check of one
        return
    if name in elementwise.CREATED:
        run.labels[node] = filled(tuple(value.shape), FILLER)
        return
    rule: Rule = _rule(run, node, name)
    result = rule(run, node, name)
    if result is None:
        return
    if isinstance(result, Tensor):
        result = compact(result)
        if sum(size > 1 for size in narrowed(result)[0].shape) > 1:
            run.grids.append(result)
    run.labels[node] = result


def _rule(run: Labelling, node: fx.Node, name: str) -> Rule:
    is_layer = name == "linear" or name in layers.CONVOLUTIONS
    if is_layer and run.name_of(node.args[1]) is not None:
        return layers.layer
    if name == "linear" and layers.rows_of(run, node.args[1]) is not None:
        return layers.part_of_layer
    if node.target is operator.getitem or name in moves.MOVES:
        return moves.move
    for names, rule in (
        (elementwise.AS_THEY_ARE, elementwise.same),
        (elementwise.SPATIAL, elementwise.spatial),
        (elementwise.ALONG, elementwise.along),
        (elementwise.REDUCTIONS, elementwise.reduce),
        (("batch_norm", "instance_norm"), normalisation.channels),
        (("prelu",), normalisation.prelu),
        (("group_norm",), normalisation.group_norm),
        (("layer_norm", "rms_norm"), normalisation.layer_norm),
        (("matmul", "bmm"), products.matmul),
        (("einsum",), products.einsum),
        (("scaled_dot_product_attention",), products.attention),
        (("embedding",), layers.embedding),
        (("expand_as",), elementwise.expand_as),
    ):
        if name in names:
            return rule
    is_operator = isinstance(node.target, torch._ops.OpOverload)
    tagged = is_operator and torch.Tag.pointwise in node.target.tags  # type: ignore[union-attr]
    return (
        elementwise.pointwise
        if tagged or name.rstrip("_") in elementwise.POINTWISE
        else elementwise.unknown
    )
