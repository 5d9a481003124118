"""Rare classes: how a prediction is decided, and what another threshold would do.

A network is trained without weights of classes, so that its probabilities stay those of the table,
and the most probable class is predicted. Where a class is rare that rule may never choose it. The
report then says so, and states a threshold that is found on held-out training rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_relevance.commands.scoring.scores import confusion_matrix

__all__ = ["RARE", "Decision", "decision_of"]

RARE = 0.2
"""Share of the largest class's training rows below which a class is rare."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How classes are decided.

    Args:
        shares: Class -> share of the training rows.
        rare: Classes with less than `RARE` times the rows of the largest class.
        positive: Of two classes the rarer one, for which `threshold` is; empty for more classes.
        threshold: Probability of `positive` above which predicting it has the best balanced
            accuracy on held-out training rows; nan where there are more than two classes.
        confusion: Test rows by class and prediction under `threshold`, the order of `shares`.
    """

    shares: dict[str, float]
    rare: tuple[str, ...]
    positive: str
    threshold: float
    confusion: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        return {**asdict(self), "rare": list(self.rare), "confusion": [*map(list, self.confusion)]}


def decision_of(
    classes: Sequence[Any],
    labels: NDArray[np.int64],
    held_out: tuple[NDArray[np.float64], NDArray[np.int64]],
    test: tuple[NDArray[np.float64], NDArray[np.int64]],
) -> Decision:
    """Return how classes are decided, and the threshold that held-out rows would choose.

    Args:
        classes: Names of the classes.
        labels: ``(num_train,)`` classes of the training rows.
        held_out: ``(num_held, num_classes)`` probabilities of training rows by networks that did
            not see them, and their classes.
        test: The same of the test rows, by the network that is reported.
    """
    names = [str(label) for label in classes]
    shares = np.bincount(labels, minlength=len(names)) / len(labels)
    small = shares < RARE * shares.max()
    rare = tuple(name for name, is_small in zip(names, small, strict=True) if is_small)
    of = dict(zip(names, map(float, shares), strict=True))
    if len(names) != 2:
        return Decision(of, rare, "", float("nan"), ())
    positive = int(shares.argmin())
    threshold = _best_threshold(held_out[0][:, positive], held_out[1] == positive)
    chosen = np.where(test[0][:, positive] > threshold, positive, 1 - positive)
    cells = confusion_matrix(chosen, test[1], 2)
    return Decision(
        of, rare, names[positive], threshold, tuple(tuple(map(int, row)) for row in cells)
    )


def _best_threshold(probability: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Return the threshold with the best balanced accuracy; 1/2 where one class is missing."""
    if positive.all() or not positive.any():
        return 0.5
    order = np.argsort(-probability, kind="stable")
    sorted_p = probability[order]
    recall = np.cumsum(positive[order]) / positive.sum()
    false = np.cumsum(~positive[order]) / (~positive).sum()
    gain = recall - false
    # A threshold lies between two different probabilities.
    gain[:-1][sorted_p[:-1] == sorted_p[1:]] = -np.inf
    best = int(gain.argmax())
    below = sorted_p[best + 1] if best + 1 < len(sorted_p) else 0.0
    return float((sorted_p[best] + below) / 2.0)
