"""Boosted regression trees."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor
from sklearn.model_selection import KFold

from analysis.splits import Array, RawSplit
from analysis.yardsticks.protocol import NUM_FOLDS, gaussian_scores, result_of

__all__ = ["gradient_boosting"]

MAX_TREES = 300
LARGE = 2000
"""Training rows above which trees bin the features."""


def gradient_boosting(
    splits: Sequence[RawSplit], *, max_depths: Sequence[int] = (3, 5), seed: int = 0
) -> dict[str, Any]:
    """Boosted regression trees; depth and number of trees by cross-validation.

    Shrinkage 0.1 and half of the rows for each tree; above ``LARGE`` training rows trees on binned
    features with all rows. The noise is Gaussian, with the mean squared error of the held-out folds
    as its variance.

    Args:
        splits: Training and test sets.
        max_depths: Candidates for the depth of a tree.
        seed: Seed of folds and trees.

    Returns:
        Results by split; ``num_parameters`` counts two for each stored node (feature and threshold,
        or a value and its position), not the noise scale.
    """
    started = time.perf_counter()
    values, chosen = [], []
    for x, y, x_test, y_test in splits:
        squared = np.zeros((len(max_depths), MAX_TREES))
        for rows, held in KFold(NUM_FOLDS, shuffle=True, random_state=seed).split(x):
            for i, depth in enumerate(max_depths):
                model = _trees(len(x), depth, MAX_TREES, seed, x[rows], y[rows])
                for k, prediction in enumerate(model.staged_predict(x[held])):
                    squared[i, k] += np.square(prediction - y[held]).sum() / len(x)
        best, last = np.unravel_index(squared.argmin(), squared.shape)
        depth, number = max_depths[int(best)], int(last) + 1
        model = _trees(len(x), depth, number, seed, x, y)
        scores = gaussian_scores(y_test, model.predict(x_test), squared.min())
        values.append((*scores, 2 * _num_nodes(model)))
        chosen.append({"max_depth": depth, "num_trees": number})
    return result_of(values, started, {"chosen": chosen, "num_folds": NUM_FOLDS})


def _trees(num_rows: int, depth: int, number: int, seed: int, x: Array, y: Array) -> Any:
    common = {"learning_rate": 0.1, "max_depth": depth, "random_state": seed}
    model: Any = GradientBoostingRegressor(
        n_estimators=number, subsample=0.5, min_samples_leaf=3, **common
    )
    if num_rows > LARGE:
        model = HistGradientBoostingRegressor(max_iter=number, early_stopping=False, **common)
    # Its threads each swap the warning filters for their own, and may leave one behind.
    with warnings.catch_warnings():
        return model.fit(x, y)


def _num_nodes(model: Any) -> int:
    if isinstance(model, GradientBoostingRegressor):
        return sum(tree.tree_.node_count for tree in model.estimators_[:, 0])
    # There is no public way to the nodes of this class.
    return sum(len(tree.nodes) for (tree,) in model._predictors)
