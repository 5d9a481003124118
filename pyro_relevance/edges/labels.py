"""Names of the edges of a group, made on demand: a layer may have hundreds of thousands."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

__all__ = ["GridLabels"]


@dataclass(frozen=True, slots=True)
class GridLabels(Sequence[str]):
    """Labels of a grid of edges in row-major order, computed when they are read.

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
