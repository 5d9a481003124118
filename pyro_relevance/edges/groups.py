"""Groups of edges gated at one granularity, and where they touch the tensors of a network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

from pyro_relevance.edges.slots import Slot

__all__ = ["EdgeGroup", "GridLabels", "Skipped", "Slot", "group_from_dict", "group_to_dict"]


@dataclass(frozen=True, slots=True)
class EdgeGroup:
    """Edges of one kind: units of one layer, weights of one layer, or input features.

    A group at granularity ``"operation"`` holds the candidates of one edge of a relaxed graph;
    exactly one of them is on. In all other groups each edge has its own gate.

    Args:
        name: ``"inputs"``, ``"<layer>.units"``, the name of a parameter, or
            ``"<structure>.<source>.<target>"`` of an edge of a graph.
        granularity: ``"input"``, ``"unit"``, ``"weight"`` or ``"operation"`` (``"output"`` only in
            :attr:`Edges.structure`).
        shape: Shape of the gates.
        labels: One name per edge, in row-major order.
        consumers: Tensors that read the edges; gates are multiplied into them.
        producers: Tensors that make the edges; they go when the edges are removed.
    """

    name: str
    granularity: str
    shape: tuple[int, ...]
    labels: Sequence[str]
    consumers: tuple[Slot, ...]
    producers: tuple[Slot, ...] = ()

    @property
    def num_edges(self) -> int:
        """Number of edges in the group."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A group that is not offered, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class GridLabels(Sequence[str]):
    """Labels of a grid of edges in row-major order, computed when they are read.

    A layer may have hundreds of thousands of edges.

    Args:
        shape: Shape of the group. ``(n,)`` gives ``"0", "1", ...``; ``(out, in)`` gives ``"3<-7"``
            (output 3 reads input 7); further axes follow in brackets, ``"3<-7[0,2]"``.

    Example:
        >>> list(GridLabels((2, 2)))
        ['0<-0', '0<-1', '1<-0', '1<-1']
    """

    shape: tuple[int, ...]

    def __len__(self) -> int:
        return math.prod(self.shape)

    @overload
    def __getitem__(self, item: int) -> str: ...
    @overload
    def __getitem__(self, item: slice) -> tuple[str, ...]: ...
    def __getitem__(self, item: int | slice) -> str | tuple[str, ...]:
        if isinstance(item, slice):
            return tuple(self._label(i) for i in range(*item.indices(len(self))))
        position = item + len(self) if item < 0 else item
        if not 0 <= position < len(self):
            raise IndexError(f"Expected a label position below {len(self)}, but got {item}.")
        return self._label(position)

    def __iter__(self) -> Iterator[str]:
        return map(self._label, range(len(self)))

    def _label(self, position: int) -> str:
        coordinates = []
        for size in reversed(self.shape):
            position, coordinate = divmod(position, size)
            coordinates.append(str(coordinate))
        coordinates.reverse()
        text = "<-".join(coordinates[:2])
        return f"{text}[{','.join(coordinates[2:])}]" if len(coordinates) > 2 else text


def group_to_dict(group: EdgeGroup) -> dict[str, Any]:
    """JSON-able content of a group; labels made on demand become ``None``."""
    lazy = isinstance(group.labels, GridLabels)
    return {
        "name": group.name,
        "granularity": group.granularity,
        "shape": list(group.shape),
        "labels": None if lazy else list(group.labels),
        "consumers": [[slot.tensor, slot.dim, slot.index] for slot in group.consumers],
        "producers": [[slot.tensor, slot.dim, slot.index] for slot in group.producers],
    }


def group_from_dict(content: dict[str, Any]) -> EdgeGroup:
    """Rebuild a group from :func:`group_to_dict`."""

    def slots(items: list[tuple[str, int | None, list[int] | None]]) -> tuple[Slot, ...]:
        return tuple(
            Slot(name, dim, None if index is None else tuple(index)) for name, dim, index in items
        )

    shape = tuple(content["shape"])
    labels = GridLabels(shape) if content["labels"] is None else tuple(content["labels"])
    return EdgeGroup(
        content["name"],
        content["granularity"],
        shape,
        labels,
        slots(content["consumers"]),
        slots(content["producers"]),
    )
