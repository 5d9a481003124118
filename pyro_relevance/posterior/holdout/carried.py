"""Which inputs carry each other, so that a test of one alone cannot see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from scipy.stats import rankdata

__all__ = ["Tree", "carried_together", "members", "nodes"]

Tree: TypeAlias = "int | tuple[Tree, Tree]"
"""A group, or two trees of groups that carry each other."""


def members(tree: Tree) -> tuple[int, ...]:
    """Return the numbers of the groups in a tree, ascending."""
    if isinstance(tree, int):
        return (tree,)
    return tuple(sorted((*members(tree[0]), *members(tree[1]))))


def nodes(tree: Tree) -> tuple[Tree, ...]:
    """Return a tree and all trees in it that have more than one group, parents first."""
    if isinstance(tree, int):
        return ()
    return (tree, *nodes(tree[0]), *nodes(tree[1]))


def carried_together(
    x: NDArray[np.floating], groups: Sequence[ArrayLike], *, correlation: float = 0.8
) -> tuple[Tree, ...]:
    """Return groups of columns that carry each other, as trees: the closest are joined first.

    Two columns carry each other by their correlation (of ranks or of values), or by their partial
    correlation where the others explain nine tenths of either (a column and its parts: ``c = a +
    b``). Groups are as similar as their most similar columns. Trees are the clusters of average
    linkage at `correlation`, each with the order in which it was joined: a pair of copies is a tree
    within that of columns that are merely correlated with them.

    Args:
        x: ``(num_rows, num_columns)`` inputs.
        groups: Columns of each group.
        correlation: Similarity, in (0, 1], from which on groups are in one tree.

    Returns:
        Trees of numbers of groups, each once, in the order of their first groups.
    """
    if len(groups) < 2:
        return tuple(range(len(groups)))
    similar = _similarity(np.asarray(x, dtype=np.float64))
    by_group = np.eye(len(groups))
    columns = [np.asarray(group, dtype=np.int64) for group in groups]
    for a, first in enumerate(columns):
        for b in range(a):
            value = similar[np.ix_(first, columns[b])].max(initial=0.0)
            by_group[a, b] = by_group[b, a] = value
    distance = squareform(1.0 - by_group, checks=False)
    # Exact copies have a correlation just below 1 by rounding.
    limit = 1.0 - correlation + 1e-9
    trees: dict[int, Tree] = dict(enumerate(range(len(groups))))
    for step, (a, b, height, _) in enumerate(hierarchy.linkage(distance, method="average")):
        if height <= limit:
            trees[len(groups) + step] = (trees.pop(int(a)), trees.pop(int(b)))
    return tuple(sorted(trees.values(), key=lambda tree: members(tree)[0]))


def _similarity(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the similarity of columns in [0, 1], ``(num_columns, num_columns)``."""
    ranks = np.apply_along_axis(rankdata, 0, x)
    values = np.maximum(np.abs(_correlation(x)), np.abs(_correlation(ranks)))
    # A penalty of a thousandth: enough for copies, too little to hide that parts make a whole.
    precision = np.linalg.inv(_correlation(x) + 1e-3 * np.eye(x.shape[1]))
    scale = np.sqrt(np.diag(precision))
    partial = np.abs(precision / np.outer(scale, scale))
    explained = 1.0 - 1.0 / np.diag(precision) > 0.9
    partial[~(explained[:, None] & explained[None])] = 0.0
    return np.asarray(np.clip(np.maximum(values, partial), 0.0, 1.0))


def _correlation(x: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = x - x.mean(0)
    length = np.sqrt(np.square(centred).sum(0))
    scaled = centred / np.where(length > 0, length, np.inf)
    return np.asarray(scaled.T @ scaled)
