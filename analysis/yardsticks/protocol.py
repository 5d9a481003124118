"""How settings are chosen inside a training set, and the form in which results are returned.

`validation` holds out the last fifth of the rows, `folds_of` each fifth in turn.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.splits import Array, RawSplit

__all__ = [
    "NUM_FOLDS",
    "check_shapes",
    "folds_of",
    "gaussian_scores",
    "result_of",
    "validation",
]

NUM_FOLDS = 5


def validation(split: RawSplit) -> RawSplit:
    """Return the training set as a split of its own: the last fifth of its rows are held out."""
    x, y, _, _ = split
    rows = int(0.8 * len(x))
    return x[:rows], y[:rows], x[rows:], y[rows:]


def folds_of(split: RawSplit) -> list[RawSplit]:
    """Return the training set as splits of its own, of one size; a remainder is never held out."""
    x, y, _, _ = split
    held = np.arange(len(x) // NUM_FOLDS * NUM_FOLDS).reshape(NUM_FOLDS, -1)
    rest = [np.setdiff1d(np.arange(len(x)), rows) for rows in held]
    return [(x[a], y[a], x[b], y[b]) for a, b in zip(rest, held, strict=True)]


def check_shapes(splits: Sequence[RawSplit]) -> None:
    """Refuse splits of different shapes, whose networks cannot be stacked.

    Raises:
        ValueError: If there is more than one shape.
    """
    shapes = {tuple(part.shape for part in split) for split in splits}
    if len(shapes) != 1:
        raise ValueError(
            f"Expected splits of the same shapes, but got {len(shapes)} different ones. "
            "Pass the standard splits of one data set."
        )


def gaussian_scores(y: Array, prediction: Array, variance: float) -> tuple[float, float]:
    """Return RMSE and mean log density of rows under Gaussian noise."""
    squared = np.square(y - prediction)
    density = -0.5 * (np.log(2 * np.pi * variance) + squared / variance)
    return float(np.sqrt(squared.mean())), float(density.mean())


def result_of(
    values: Sequence[tuple[float, float, float]], started: float, settings: dict[str, Any]
) -> dict[str, Any]:
    """Return the results of a yardstick by split.

    Args:
        values: RMSE, log likelihood and number of parameters of each split.
        started: When the work began, by ``time.perf_counter``.
        settings: The settings that were chosen.
    """
    rmse, log_likelihood, count = (list(column) for column in zip(*values, strict=True))
    return {
        "rmse": rmse,
        "test_log_likelihood": log_likelihood,
        "num_parameters": count,
        "seconds": time.perf_counter() - started,
        "settings": settings,
    }
