"""Disjoint sets over integers, joined in bulk: which labels belong together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["DisjointSets"]

Ints = NDArray[np.int64]


class DisjointSets:
    """Sets of the numbers ``0 .. num_elements - 1`` that can be joined, but not divided.

    Layers have tens of thousands of labels. Pairs are therefore collected, and scipy joins all of
    them in one call when the sets are read.

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
            one, other = (parents[np.concatenate(side)] for side in zip(*self._pairs, strict=True))
            shape = (self.num_elements, self.num_elements)
            links = coo_array((np.ones(len(one), dtype=bool), (one, other)), shape=shape)
            _, component = connected_components(links, directed=False)
            _, smallest = np.unique(component, return_index=True)
            parents = smallest[component[parents]]
            self._pairs = []
        self._parents = parents
        return parents
