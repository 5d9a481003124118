"""What architectures have in common: features for a regression of their value.

Features are those of the function that an architecture is, not of its text: edges that no path uses
do not count, and identities are seen through.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import nn

from pyro_relevance.graphs.architectures import (
    Architecture,
    free_edges,
    is_identity,
    operations_of,
    structures,
)
from pyro_relevance.graphs.graph import Graph

__all__ = ["edge_features", "operation_counts", "path_features"]

_Array = npt.NDArray[np.float64]


def edge_features(network: nn.Module, architectures: Sequence[Architecture]) -> _Array:
    """Return one column for each operation of each edge, 1 where it is in use.

    Args:
        network: The network with relaxed graphs.
        architectures: Choices of operations.

    Returns:
        ``(num_architectures, num_columns)`` zeros and ones; ``none`` has no column.
    """
    rows = []
    for architecture in architectures:
        free = set(free_edges(network, architecture))
        rows.append(Counter(pair for pair in _in_use(architecture, free)))
    return _table(rows)


def path_features(network: nn.Module, architectures: Sequence[Architecture]) -> _Array:
    """Return one column for each sequence of operations that a path can have, with their number.

    A path leads from an input to an output, without the identities on it.

    Args:
        network: The network with relaxed graphs.
        architectures: Choices of operations.

    Returns:
        ``(num_architectures, num_columns)`` counts.

    References:
        White, Neiswanger, Savani, BANANAS, AAAI 2021, section 3 (path encoding).
    """
    graphs = structures(network)
    rows = []
    for architecture in architectures:
        counts: Counter[tuple[str, ...]] = Counter()
        for name, graph in graphs.items():
            for path in _paths(graph, architecture):
                counts[(name, *path)] += 1
        rows.append(counts)
    return _table(rows)


def _in_use(architecture: Architecture, free: set[str]) -> list[tuple[str, ...]]:
    return [
        (name, operation)
        for name, operation in architecture.operations.items()
        if name not in free and operation != "none"
    ]


def _paths(graph: Graph, architecture: Architecture) -> list[tuple[str, ...]]:
    chosen = operations_of(graph, architecture)
    leading: dict[str, list[tuple[str, ...]]] = {node: [(node,)] for node in graph.inputs}
    for edge in graph.order:
        operation = chosen.get((edge.source, edge.target))
        if operation is None:
            continue
        added = () if is_identity(graph, edge.source, edge.target, operation) else (operation,)
        more = [(*path, *added) for path in leading.get(edge.source, [])]
        leading.setdefault(edge.target, []).extend(more)
    return [path for node in graph.outputs for path in leading.get(node, [])]


def _table(rows: Sequence[Counter[tuple[str, ...]]]) -> _Array:
    columns = {
        name: position for position, name in enumerate(sorted({n for row in rows for n in row}))
    }
    table = np.zeros((len(rows), len(columns)))
    for index, row in enumerate(rows):
        for name, count in row.items():
            table[index, columns[name]] = count
    return table


def operation_counts(network: nn.Module, architectures: Sequence[Architecture]) -> _Array:
    """Return how often each operation is in use, and how many paths there are of each length.

    Args:
        network: The network with relaxed graphs.
        architectures: Choices of operations.

    Returns:
        ``(num_architectures, num_columns)`` counts.
    """
    graphs = structures(network)
    rows = []
    for architecture in architectures:
        free = set(free_edges(network, architecture))
        counts: Counter[tuple[str, ...]] = Counter()
        for _, operation in _in_use(architecture, free):
            counts[("operation", operation)] += 1
        for graph in graphs.values():
            for path in _paths(graph, architecture):
                counts[("length", str(len(path)))] += 1
        rows.append(counts)
    return _table(rows)
