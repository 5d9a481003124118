"""Architectures: one operation for each edge of the relaxed graphs of a network.

Two architectures may be the same function: the operation of an edge that no path uses does not
matter, nor does the order of nodes. :func:`canonical` gives both the same text, so that the
posterior counts them as one.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyro_relevance.edges.edges import Edges
from pyro_relevance.errors import ArchitectureError
from pyro_relevance.graphs.derived import fed_by, reaching
from pyro_relevance.graphs.graph import Graph, MixedOperation, edge_key

__all__ = [
    "Architecture",
    "canonical",
    "choose",
    "free_edges",
    "is_connected",
    "mode",
    "most_probable",
    "structures",
]

_MOST_VISITED = 10_000


@dataclass(frozen=True)
class Architecture:
    """One operation for each edge of the relaxed graphs of a network.

    Args:
        operations: Group of ``edges.operations`` (``"<structure>.<source>.<target>"``) -> name of
            its operation.
    """

    operations: Mapping[str, str]

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.operations.items())))

    @classmethod
    def from_gates(cls, edges: Edges, gates: Mapping[str, Tensor]) -> Architecture:
        """Return the architecture of hard gates.

        Args:
            edges: The gated edges.
            gates: Group -> ``(num_operations,)`` gates, the largest of which is on.
        """
        return cls({g.name: g.labels[int(gates[g.name].argmax(-1))] for g in edges.operations})

    def gates(self, edges: Edges) -> dict[str, Tensor]:
        """Return hard gates, group -> ``(num_operations,)`` zeros and one 1.

        Args:
            edges: The gated edges.

        Raises:
            ArchitectureError: If an edge is missing or unknown, or has no such operation.
        """
        known = {group.name: tuple(group.labels) for group in edges.operations}
        check_choice(self.operations, known)
        return {
            name: torch.tensor([float(label == self.operations[name]) for label in labels])
            for name, labels in known.items()
        }

    def __str__(self) -> str:
        lines: dict[str, list[str]] = {}
        for name, operation in self.operations.items():
            structure, source, target = name.split(".")
            lines.setdefault(structure, []).append(f"{source} -> {target}: {operation}")
        return "\n".join(f"{name}\n  " + "\n  ".join(rows) for name, rows in lines.items())


def check_choice(operations: Mapping[str, str], known: Mapping[str, tuple[str, ...]]) -> None:
    """Check that a choice names one of the known operations of each edge.

    Args:
        operations: Group -> operation.
        known: Group -> names of its operations.

    Raises:
        ArchitectureError: If an edge is missing or unknown, or has no such operation.
    """
    if set(operations) != set(known):
        raise ArchitectureError(
            f"Expected an operation for each of the edges {sorted(known)}, but got "
            f"{sorted(operations)}."
        )
    for name, operation in operations.items():
        if operation not in known[name]:
            raise ArchitectureError(
                f"Expected one of {list(known[name])} for the edge {name!r}, but got {operation!r}."
            )


def choose(network: nn.Module, architecture: Architecture) -> None:
    """Set the gates of a relaxed network to those of an architecture, in place.

    Args:
        network: A network with relaxed graphs.
        architecture: A choice of operations.

    Raises:
        ArchitectureError: If the architecture does not fit the network.
    """
    placed: list[tuple[str, MixedOperation]] = []
    for graph in network.modules():
        if isinstance(graph, Graph):
            placed += graph.choices()
    known = {name: mixed.names for name, mixed in placed}
    check_choice(architecture.operations, known)
    for name, mixed in placed:
        chosen = [float(label == architecture.operations[name]) for label in mixed.names]
        mixed.gate = torch.tensor(chosen, dtype=mixed.gate.dtype, device=mixed.gate.device)


def structures(network: nn.Module) -> dict[str, Graph]:
    """Return the first graph of each structure in a network, by the structure's name.

    Args:
        network: A network with relaxed graphs.
    """
    found: dict[str, Graph] = {}
    for module in network.modules():
        if isinstance(module, Graph):
            found.setdefault(module.structure, module)
    return found


def operations_of(graph: Graph, architecture: Architecture) -> dict[tuple[str, str], str]:
    """Return the operation of each edge of a graph that is not ``none``, fixed edges too.

    Args:
        graph: The graph.
        architecture: A choice of operations.

    Returns:
        ``(source, target)`` -> name, in the order of computing.
    """
    chosen = {}
    for edge in graph.order:
        name = edge.names[0]
        if isinstance(graph.edges[edge_key(edge)], MixedOperation):
            name = architecture.operations[graph.group_name(edge)]
        if name != "none":
            chosen[edge.source, edge.target] = name
    return chosen


def is_connected(network: nn.Module, architecture: Architecture) -> bool:
    """Return whether a path leads from an input to an output in each graph.

    Args:
        network: The network with relaxed graphs.
        architecture: A choice of operations.
    """
    return all(
        bool(set(graph.outputs) & fed_by(list(operations_of(graph, architecture)), graph.inputs))
        for graph in structures(network).values()
    )


def free_edges(network: nn.Module, architecture: Architecture) -> tuple[str, ...]:
    """Return the groups whose operation does not matter, since no path uses the edge.

    An edge is in use if it is not ``none`` and lies on a path of operations from an input to an
    output. The posterior of any other edge returns to its prior: report it as free, not as chosen.

    Args:
        network: The network with relaxed graphs.
        architecture: A choice of operations.
    """
    free = []
    for graph in structures(network).values():
        chosen = operations_of(graph, architecture)
        fed = fed_by(list(chosen), graph.inputs)
        live = reaching(list(chosen), graph.outputs)
        for edge in graph.order:
            group = graph.group_name(edge)
            used = edge.source in fed and edge.target in live
            if group in architecture.operations and not used:
                free.append(group)
    return tuple(free)


def canonical(network: nn.Module, architecture: Architecture) -> str:
    """Return a text that is the same for architectures that are the same function.

    Edges that no path uses are omitted, an identity is replaced by what it reads, and the order of
    the edges into a node does not matter. An operation of zeros counts as zero, as in
    NAS-Bench-201. That benchmark counts 6,466 different cells, because a sum with zeros is another
    text there. This function counts 4,930, one for each different function.

    Args:
        network: The network with relaxed graphs.
        architecture: A choice of operations.

    References:
        Dong, Yang, NAS-Bench-201, ICLR 2020, section 2.1 (15,625 cells).
    """
    texts = []
    for name, graph in structures(network).items():
        chosen = operations_of(graph, architecture)
        # The terms of the sum at each node; a node that nothing leads to has none.
        terms: dict[str, tuple[str, ...]] = {node: (node,) for node in graph.inputs}
        for node in graph.nodes:
            if node in terms:
                continue
            found: list[str] = []
            for (source, target), operation in chosen.items():
                if target != node or not terms[source]:
                    continue
                if is_identity(graph, source, target, operation):
                    found += terms[source]
                else:
                    found.append(f"{operation}({'+'.join(terms[source])})")
            terms[node] = tuple(sorted(found))
        texts.append(f"{name}: {' | '.join('+'.join(terms[node]) for node in graph.outputs)}")
    return "\n".join(texts)


def is_identity(graph: Graph, source: str, target: str, operation: str) -> bool:
    """Return whether an operation is the identity at its position."""
    if operation != "skip_connect":
        return operation == "identity"
    edge = next(e for e in graph.connections if (e.source, e.target) == (source, target))
    return edge.stride == 1 and graph.nodes[source] == graph.nodes[target]


def mode(
    edges: Edges, probability: Mapping[str, Tensor], *, network: nn.Module | None = None
) -> Architecture:
    """Return the most probable operation of each edge.

    Args:
        edges: The gated edges.
        probability: Group -> ``(num_operations,)`` of independent edges, as
            ``posterior.operation_probability()`` gives for a chain.
        network: The network with relaxed graphs. If given, architectures without a path from input
            to output in each graph are skipped, so that the result can be derived.

    Raises:
        ArchitectureError: If none of the most probable architectures has such a path.
    """
    likely = Architecture.from_gates(edges, probability)
    if network is None or is_connected(network, likely):
        return likely
    for architecture, _ in itertools.islice(_descending(edges, probability), _MOST_VISITED):
        if is_connected(network, architecture):
            return architecture
    raise ArchitectureError(
        f"Expected a path from input to output in one of the {_MOST_VISITED} most probable "
        f"architectures, but the posterior has 'none' on too many edges:\n{likely}\n"
        "Leave 'none' out of the operations, or give it a lower prior."
    )


def most_probable(
    edges: Edges,
    probability: Mapping[str, Tensor],
    num_architectures: int,
    *,
    key: Callable[[Architecture], str] | None = None,
    num_visited: int = _MOST_VISITED,
) -> list[tuple[Architecture, float]]:
    """Return architectures in the order of their probability, equivalent ones counted as one.

    Args:
        edges: The gated edges.
        probability: Group -> ``(num_operations,)`` of independent edges.
        num_architectures: How many to return, at most.
        key: Architectures with the same key are equivalent, such as
            ``lambda a: canonical(network, a)``. By default none are.
        num_visited: How many are visited in the order of their own probability; the probability of
            each class is that of its visited members.

    Returns:
        The most probable member of each class and the probability of the class, the largest first.

    Raises:
        ValueError: If a number is not positive.
    """
    if num_architectures < 1 or num_visited < 1:
        raise ValueError(
            f"Expected positive numbers, but got num_architectures={num_architectures} and "
            f"num_visited={num_visited}."
        )
    classes: dict[str, list[tuple[float, Architecture]]] = {}
    for number, (architecture, chance) in enumerate(_descending(edges, probability)):
        if number >= num_visited or (key is None and number >= num_architectures):
            break
        name = str(sorted(architecture.operations.items())) if key is None else key(architecture)
        classes.setdefault(name, []).append((chance, architecture))
    ranked = sorted(
        (
            (members[0][1], math.fsum(chance for chance, _ in members))
            for members in classes.values()
        ),
        key=lambda pair: -pair[1],
    )
    return ranked[:num_architectures]


def _descending(
    edges: Edges, probability: Mapping[str, Tensor]
) -> Iterator[tuple[Architecture, float]]:
    """All architectures of independent edges, the most probable first (a search with a heap)."""
    groups = edges.operations
    tables = []
    for group in groups:
        values = probability[group.name].double()
        order = values.argsort(descending=True)
        tables.append([(float(values[i]), group.labels[int(i)]) for i in order])
    start = (0,) * len(groups)
    heap = [(-math.prod(table[0][0] for table in tables), start)]
    seen = {start}
    while heap:
        negative, ranks = heapq.heappop(heap)
        chosen = {g.name: tables[i][ranks[i]][1] for i, g in enumerate(groups)}
        yield Architecture(chosen), -negative
        for i, rank in enumerate(ranks):
            if rank + 1 < len(tables[i]):
                following = (*ranks[:i], rank + 1, *ranks[i + 1 :])
                if following not in seen:
                    seen.add(following)
                    chance = math.prod(t[p][0] for t, p in zip(tables, following, strict=True))
                    heapq.heappush(heap, (-chance, following))
