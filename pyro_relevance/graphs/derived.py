"""The plain graph of an architecture, in which each edge is one operation."""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx, nn

from pyro_relevance.errors import ArchitectureError
from pyro_relevance.graphs.graph import Graph, GraphEdge, MixedOperation, edge_key
from pyro_relevance.graphs.primitives import Place, Zero, make_primitive
from pyro_relevance.surgery.plain_modules import Constant

__all__ = ["derived_graph", "fed_by", "reaching"]


def written_graph(
    inputs: Sequence[str],
    steps: Sequence[tuple[str, str, str]],
    outputs: Sequence[str],
    dim: int,
    edges: Mapping[str, nn.Module],
) -> fx.GraphModule:
    """Write a graph of single operations down as a list of calls, as ``torch.fx`` would.

    Args:
        inputs: Names of the nodes that it is given, in order.
        steps: ``(source, target, key)`` of each edge, in the order of computing.
        outputs: Names of the nodes that it returns, concatenated along ``dim``.
        dim: Dimension of features or channels.
        edges: Key -> operation.
    """
    root = nn.Module()
    root.edges = nn.ModuleDict(edges)
    graph = fx.Graph()
    values = {name: graph.placeholder(name) for name in inputs}
    for source, target, key in steps:
        made = graph.call_module(f"edges.{key}", (values[source],))
        known = values.get(target)
        values[target] = made if known is None else graph.call_function(operator.add, (known, made))
    parts = [values[name] for name in outputs]
    graph.output(parts[0] if len(parts) == 1 else graph.call_function(torch.cat, (parts, dim)))
    return fx.GraphModule(root, graph, "DerivedGraph")


def _chosen_operations(
    graph: Graph, choice: Mapping[tuple[str, str], str], *, reinitialised: bool
) -> dict[GraphEdge, nn.Module]:
    """Return the module of each edge that is not ``none``: a copy, or one with new weights."""
    operations: dict[GraphEdge, nn.Module] = {}
    for edge in graph.order:
        name = choice.get((edge.source, edge.target))
        module = graph.edges[edge_key(edge)]
        if name is None:
            continue
        if isinstance(module, MixedOperation):
            module = module.operations[name]
        if isinstance(module, Zero):
            continue
        if reinitialised:
            ends = graph.nodes[edge.source], graph.nodes[edge.target]
            module = make_primitive(name, Place(*ends, edge.stride))
        operations[edge] = module if reinitialised else copy.deepcopy(module)
    return operations


def derived_graph(
    graph: Graph,
    choice: Mapping[tuple[str, str], str],
    *,
    sizes: Mapping[str, torch.Size],
    reinitialised: bool,
) -> tuple[nn.Module, list[str]]:
    """Return the plain graph of a choice, and a note on each further edge that was removed.

    Edges that are ``none`` and nodes that do not reach the output are removed. A node that no
    operation leads to is zero. What reads it is zero, too, or a constant, which is kept.

    Args:
        graph: The relaxed graph; it is not changed.
        choice: ``(source, target)`` of each edge that is not ``none`` -> name of its operation.
        sizes: Node -> size of its representation, ``(num_examples, ...)``.
        reinitialised: Whether operations are new modules with normalisation of their own, and
            without constants, or copies with the weights of the relaxed graph.

    Raises:
        ArchitectureError: If no path leads from an input to the output.
    """
    operations = _chosen_operations(graph, choice, reinitialised=reinitialised)
    live = reaching([(edge.source, edge.target) for edge in operations], graph.outputs)
    fed = fed_by([(edge.source, edge.target) for edge in operations], graph.inputs)
    empty = [name for name in graph.outputs if name not in fed]
    if len(empty) == len(graph.outputs):
        raise ArchitectureError(
            f"Expected a path of operations from {list(graph.inputs)} to {list(graph.outputs)}, "
            "but every path has an edge that is 'none': the network would be a constant. Take "
            "another architecture."
        )
    steps: list[tuple[str, str, str]] = []
    kept: dict[str, nn.Module] = {}
    notes: list[str] = []
    known = set(graph.inputs)
    for edge, module in operations.items():
        key, where = edge_key(edge), f"{graph.structure}: {edge.source} -> {edge.target}"
        source = edge.source
        if edge.target not in live:
            notes.append(f"{where} is not read.")
            continue
        if source not in known:
            value = None if reinitialised else _of_zeros(module, sizes[source])
            if value is None:
                notes.append(f"{where} reads nothing.")
                continue
            notes.append(f"{where} reads nothing and is a constant.")
            module, source = Constant(value), graph.inputs[0]
        steps.append((source, edge.target, key))
        kept[key] = module
        known.add(edge.target)
    for name in graph.outputs:
        if name not in known:  # a part of a concatenation
            source = graph.inputs[0]
            stride = max(1, sizes[source][-1] // sizes[name][-1])
            kept[name] = Zero(Place(graph.nodes[source], graph.nodes[name], stride))
            steps.append((source, name, name))
    made = written_graph(graph.inputs, steps, graph.outputs, graph.dim, kept)
    return made, notes


def _of_zeros(module: nn.Module, size: torch.Size) -> Tensor | None:
    """Return what an operation makes of zeros, ``(...)`` for one example, or None for zeros."""
    like = next(module.parameters(), torch.zeros(()))
    training = {part: part.training for part in module.modules()}
    with torch.no_grad():
        value: Tensor = module.eval()(like.new_zeros((2, *size[1:])))[0]
    for part, mode in training.items():
        part.training = mode
    return value if bool(value.any()) else None


def reaching(edges: Sequence[tuple[str, str]], outputs: Sequence[str]) -> set[str]:
    """Return the nodes from which a path leads to an output, these included."""
    return fed_by([(target, source) for source, target in edges], outputs)


def fed_by(edges: Sequence[tuple[str, str]], inputs: Sequence[str]) -> set[str]:
    """Return the nodes to which a path leads from an input, these included."""
    found = set(inputs)
    while more := {target for source, target in edges if source in found} - found:
        found |= more
    return found
