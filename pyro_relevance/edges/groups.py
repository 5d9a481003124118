"""Groups of edges gated at one granularity, and where they touch the tensors of a network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from pyro_relevance.edges.slots import Slot

__all__ = [
    "EdgeGroup",
    "GridLabels",
    "Skipped",
    "Slot",
    "group_from_dict",
    "group_to_dict",
    "sizes",
]

_MOST_OUTPUTS = 2**20
"""Most outputs of a network that no tensor of a file reads."""
_GRANULARITIES = ("input", "unit", "weight", "operation", "output")


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


def group_from_dict(
    content: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]
) -> EdgeGroup:
    """Rebuild a group from :func:`group_to_dict`.

    Args:
        content: The group, of any origin.
        tensors: Shape of every parameter and buffer of the network.

    Raises:
        ValueError: The content is no group over these tensors.
        KeyError, TypeError: A part is missing or of another kind.
    """
    name, granularity, labels = content["name"], content["granularity"], content["labels"]
    if not isinstance(name, str) or granularity not in _GRANULARITIES:
        raise ValueError(f"expected one of {_GRANULARITIES}, but got {granularity!r:.60}")
    shape = sizes(content["shape"])
    num_edges = math.prod(shape)
    if labels is not None and (
        not isinstance(labels, list)
        or len(labels) != num_edges
        or not all(isinstance(label, str) for label in labels)
    ):
        raise ValueError(f"expected {num_edges} labels of group {name!r}")
    slots = {
        key: tuple(_slot(item, shape, tensors) for item in content[key])
        for key in ("consumers", "producers")
    }
    most = _MOST_OUTPUTS if granularity == "output" else 0
    if (
        labels is None
        and num_edges > most
        and not any(
            num_edges <= math.prod(tensors[slot.tensor]) for part in slots.values() for slot in part
        )
    ):
        raise ValueError(f"expected tensors with the {num_edges} edges of group {name!r}")
    named = GridLabels(shape) if labels is None else tuple(labels)
    return EdgeGroup(name, granularity, shape, named, slots["consumers"], slots["producers"])


def sizes(content: Any) -> tuple[int, ...]:
    """Return a shape that was read from JSON.

    Raises:
        ValueError: It is no list of sizes, or of more entries than any tensor has.
    """
    if (
        not isinstance(content, list)
        or len(content) > 64
        or not all(type(size) is int and 0 <= size < 2**40 for size in content)
        or math.prod(content) >= 2**60
    ):
        raise ValueError(f"expected a shape, but got {repr(content)[:60]}")
    return tuple(content)


def _slot(item: Any, gates: tuple[int, ...], tensors: Mapping[str, tuple[int, ...]]) -> Slot:
    """Return a slot whose positions are those of its tensor, and whose gates are the group's."""
    tensor, dim, index = item
    if not isinstance(tensor, str) or tensor not in tensors:
        raise ValueError(f"expected a tensor of the network, but got {tensor!r:.60}")
    shape, num_gates = tensors[tensor], math.prod(gates)
    known = dim is None or (type(dim) is int and -len(shape) <= dim < len(shape))
    if not known:
        raise ValueError(f"expected an axis of {tensor!r}, but got {dim!r:.60}")
    num_positions = math.prod(shape) if dim is None else shape[dim]
    if index is None:
        fits = num_positions == num_gates
    else:
        fits = (
            isinstance(index, list)
            and len(index) == num_positions
            and all(type(gate) is int and -1 <= gate < num_gates for gate in index)
        )
    if not fits:
        raise ValueError(f"expected a gate of {num_gates} for each position along {tensor!r}")
    return Slot(tensor, dim, None if index is None else tuple(index))
