"""The search space of DARTS: a normal and a reduction cell with two inputs each.

References:
    Liu, Simonyan, Yang, DARTS: differentiable architecture search, ICLR 2019, sections 2.1, 2.4 and
    3.1.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from pyro_relevance.edges.edges import Edges
from pyro_relevance.graphs.architectures import Architecture
from pyro_relevance.graphs.convolutions import DARTS_OPERATIONS, FactorizedReduce, ReluConvNorm
from pyro_relevance.graphs.graph import Graph, GraphEdge
from pyro_relevance.graphs.primitives import Place

__all__ = ["DartsNetwork", "top_edges"]


class DartsNetwork(nn.Module):
    """Relaxed cells, each of which reads the two before it.

    The cells at one and two thirds of the depth halve the resolution and double the channels;
    they share the structure ``"reduction"``, all others ``"normal"``.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        channels: Channels of each node in the first cells.
        num_cells: Cells in all.
        num_nodes: Intermediate nodes of a cell; their channels are concatenated.
        operations: What each edge can be.
        affine: See ``Place``; off in a search.
        statistics: See ``Place``; off in a search.

    Raises:
        ValueError: If a number is not positive or an operation is unknown.
    """

    def __init__(
        self,
        num_classes: int = 10,
        *,
        in_channels: int = 3,
        channels: int = 16,
        num_cells: int = 8,
        num_nodes: int = 4,
        operations: Sequence[str] = DARTS_OPERATIONS,
        affine: bool = False,
        statistics: bool = False,
    ) -> None:
        super().__init__()
        if num_cells < 1 or num_nodes < 1:
            raise ValueError(
                f"Expected positive numbers, but got num_cells={num_cells} and "
                f"num_nodes={num_nodes}."
            )
        stem = 3 * channels
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, stem, 3, padding=1, bias=False),
            nn.BatchNorm2d(stem, affine=True, track_running_stats=statistics),
        )
        self.before_last = nn.ModuleList()
        self.last = nn.ModuleList()
        self.cells = nn.ModuleList()
        widths, width, reduced = (stem, stem), channels, False
        for index in range(num_cells):
            reduce = num_cells >= 3 and index in (num_cells // 3, 2 * num_cells // 3)
            width *= 2 if reduce else 1
            first = Place(widths[0], width, 2 if reduced else 1, affine, statistics)
            second = Place(widths[1], width, 1, affine, statistics)
            self.before_last.append(FactorizedReduce(first) if reduced else ReluConvNorm(first, 1))
            self.last.append(ReluConvNorm(second, 1))
            self.cells.append(
                _cell(width, num_nodes, tuple(operations), reduce, affine, statistics)
            )
            widths, reduced = (widths[1], num_nodes * width), reduce
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[1], num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(num_examples, num_classes)`` of ``(num_examples, in_channels, ...)``."""
        before = now = self.stem(x)
        for first, second, cell in zip(self.before_last, self.last, self.cells, strict=True):
            before, now = now, cell(first(before), second(now))
        logits: Tensor = self.head(now)
        return logits


def _cell(
    width: int,
    num_nodes: int,
    operations: tuple[str, ...],
    reduce: bool,
    affine: bool,
    statistics: bool,
) -> Graph:
    names = [f"n{node}" for node in range(num_nodes)]
    edges = []
    for index, target in enumerate(names):
        edges += [
            GraphEdge(source, target, operations, stride=2 if reduce else 1)
            for source in ("before", "last")
        ]
        edges += [GraphEdge(source, target, operations) for source in names[:index]]
    return Graph(
        dict.fromkeys(("before", "last", *names), width),
        edges,
        output=names,
        structure="reduction" if reduce else "normal",
        affine=affine,
        statistics=statistics,
    )


def top_edges(edges: Edges, probability: Mapping[str, Tensor], num_edges: int = 2) -> Architecture:
    """Return the architecture of the DARTS rule: the strongest edges into each node.

    The strength of an edge is the probability of its most probable operation other than ``none``;
    the strongest ``num_edges`` into each node have that operation, all others are ``none``.

    Args:
        edges: The gated edges.
        probability: Group -> ``(num_operations,)``.
        num_edges: Edges that each node keeps.

    References:
        Liu, Simonyan, Yang, DARTS, ICLR 2019, section 2.4.
    """
    into: dict[tuple[str, str], list[tuple[float, str, str]]] = {}
    for group in edges.operations:
        ranked = [
            (float(chance), label)
            for chance, label in zip(probability[group.name], group.labels, strict=True)
            if label != "none"
        ]
        chance, label = max(ranked)
        structure, _, target = group.name.split(".")
        into.setdefault((structure, target), []).append((chance, group.name, label))
    chosen = {group.name: "none" for group in edges.operations}
    for candidates in into.values():
        for _, name, label in sorted(candidates, reverse=True)[:num_edges]:
            chosen[name] = label
    return Architecture(chosen)
