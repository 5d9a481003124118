"""Disjoint sets over integers, joined in bulk: which labels belong together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["DisjointSets"]

Ints = NDArray[np.int64]


class DisjointSets:
    """Sets of the numbers ``0 .. num_elements - 1`` that only ever grow together.

    Pairs are collected and joined when the sets are asked for.

    Example:
        >>> sets = DisjointSets()
        >>> sets.extend(4)
        0
        >>> sets.join(np.array([0, 3]), np.array([1, 1]))
        >>> sets.roots().tolist()
        [0, 0, 2, 0]
    """

    def __init__(self) -> None:
        self._parents: Ints = np.empty(0, dtype=np.int64)
        self._pairs: list[tuple[Ints, Ints]] = []
        self.num_elements = 0

    def extend(self, count: int) -> int:
        """Add ``count`` sets of one number each; return the first number."""
        first = self.num_elements
        self.num_elements += count
        return first

    def join(self, one: Ints, other: Ints) -> None:
        """Join the sets of ``one[i]`` and ``other[i]`` for every i."""
        differ = one != other
        if differ.any():
            self._pairs.append((one[differ], other[differ]))

    def roots(self) -> Ints:
        """Return the smallest member of each number's set, ``(num_elements,)``."""
        if not self._pairs and len(self._parents) == self.num_elements:
            return self._parents
        parents = np.arange(self.num_elements)
        parents[: len(self._parents)] = self._parents
        if self._pairs:
            one, other = (np.concatenate(side) for side in zip(*self._pairs, strict=True))
            while True:
                a, b = parents[one], parents[other]
                if np.array_equal(a, b):
                    break
                # Hook the larger root below the smaller one, then point everybody at roots.
                np.minimum.at(parents, np.maximum(a, b), np.minimum(a, b))
                while True:
                    shorter = parents[parents]
                    if np.array_equal(shorter, parents):
                        break
                    parents = shorter
            self._pairs = []
        self._parents = parents
        return parents
