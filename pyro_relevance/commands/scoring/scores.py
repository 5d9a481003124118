"""The test result of one model: error, log likelihood, and for classes how well it ranks them.

Every model goes through the same functions, so that no two numbers of a report are measured in
different ways. Standard errors are over test rows: they say how far another draw of test rows would
move the number, not how far another fit would.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_relevance.data.tables import Encoder
from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.model.noise import predictive_log_likelihood

__all__ = ["ClassScore", "Score", "class_score", "confusion_matrix", "paired", "score_outputs"]

ROWS_OF_A_BIN, MOST_BINS = 20, 10
"""Test rows in a bin of the calibration error, at least, and the number of bins, at most."""


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How well a model ranks and calibrates the classes of the test rows.

    Args:
        auc: Area under the ROC curve: the probability that a random row of a class gets a higher
            probability for it than a random row of another. For two classes that of the rarer one
            (it is the same for both), else the mean of one class against the rest.
        average_precision: Mean precision over the recalls of a class, averaged in the same way. Of
            a useless model it is the share of the class.
        brier: Mean over rows of the squared distances of the probabilities from the outcome, summed
            over classes: 0 is best, 2 is worst.
        calibration_error: Expected calibration error of the most probable class, over bins with the
            same number of rows.
        calibration_error_by_chance: What it would be on average for a model without fault, because
            bins hold few rows.
        balanced_accuracy: Mean over classes of the share of their rows that is classified rightly.
        confusion: ``(num_classes, num_classes)`` test rows by their class and the predicted one.
    """

    auc: float
    average_precision: float
    brier: float
    calibration_error: float
    calibration_error_by_chance: float
    balanced_accuracy: float
    confusion: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        return {
            "auc": self.auc,
            "average_precision": self.average_precision,
            "brier": self.brier,
            "calibration_error": self.calibration_error,
            "calibration_error_by_chance": self.calibration_error_by_chance,
            "balanced_accuracy": self.balanced_accuracy,
            "confusion": [list(row) for row in self.confusion],
        }


@dataclass(frozen=True, slots=True)
class Score:
    """Test result of one model.

    Args:
        error: RMSE in the target's units, or the share of rows classified wrongly.
        log_likelihood: Mean log predictive density of a test row, in nats (target's units).
        num_parameters: Parameters of the model; expected ones for the posterior mean.
        error_se: Standard error of `error` over test rows; nan for a single row.
        log_likelihood_se: That of `log_likelihood`.
        classes: More about classes; ``None`` where the target is a quantity.
        densities: ``(num_rows,)`` log predictive density of each test row, to compare models row by
            row.
    """

    error: float
    log_likelihood: float
    num_parameters: float
    error_se: float = math.nan
    log_likelihood_se: float = math.nan
    classes: ClassScore | None = None
    densities: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)


def score_outputs(
    outputs: Tensor, noise: Likelihood, y: Tensor, encoder: Encoder, size: float
) -> Score:
    """Return the test result of raw outputs.

    Args:
        outputs: ``(num_samples, num_rows, num_outputs)`` on the standardised target, or logits.
        noise: Noise of new rows around them.
        y: ``(num_rows,)`` standardised targets, or classes.
        encoder: Units of the target.
        size: Number of parameters.
    """
    with torch.no_grad():
        densities = predictive_log_likelihood(noise, outputs, y).double().numpy()
        if noise.task == "classification":
            probability = outputs.softmax(-1).mean(0).double().numpy()
            labels = y.numpy()
            wrong = (probability.argmax(-1) != labels).astype(float)
            error, error_se = float(wrong.mean()), _standard_error(wrong)
            classes = class_score(probability, labels)
        else:
            squares = (outputs[..., 0].mean(0) - y).square().double().numpy()
            squares *= encoder.target_scale**2
            error, classes = math.sqrt(squares.mean()), None
            # The root's standard error by the delta method.
            error_se = _standard_error(squares) / (2.0 * error) if error > 0 else 0.0
            densities = densities - math.log(encoder.target_scale)
    return Score(
        error,
        float(densities.mean()),
        size,
        error_se,
        _standard_error(densities),
        classes,
        densities,
    )


def paired(score: Score, other: Score) -> tuple[float, float]:
    """Return the difference of two log likelihoods and its standard error over the same rows.

    Args:
        score: A model.
        other: Another one, on the same rows.

    Returns:
        ``score - other`` in nats a row, and its standard error.
    """
    if score.densities is None or other.densities is None:
        return score.log_likelihood - other.log_likelihood, math.nan
    difference = score.densities - other.densities
    return float(difference.mean()), _standard_error(difference)


def class_score(probability: NDArray[np.float64], labels: NDArray[np.int64]) -> ClassScore:
    """Return how well probabilities rank and fit the classes of rows.

    Args:
        probability: ``(num_rows, num_classes)``, rows sum to one.
        labels: ``(num_rows,)`` classes, from 0.
    """
    num_classes = probability.shape[1]
    outcome = np.eye(num_classes)[labels]
    counts = outcome.sum(0)
    # A class that no row, or every row, has cannot be ranked.
    ranked = [k for k in range(num_classes) if 0 < counts[k] < len(labels)]
    if num_classes == 2 and ranked:
        ranked = [int(counts.argmin())]
    confusion = confusion_matrix(probability.argmax(-1), labels, num_classes)
    recall = np.diag(confusion)[counts > 0] / counts[counts > 0]
    found, chance = _calibration_error(probability, labels)
    return ClassScore(
        auc=_mean([_auc(probability[:, k], outcome[:, k]) for k in ranked]),
        average_precision=_mean(
            [_average_precision(probability[:, k], outcome[:, k]) for k in ranked]
        ),
        brier=float(((probability - outcome) ** 2).sum(1).mean()),
        calibration_error=found,
        calibration_error_by_chance=chance,
        balanced_accuracy=float(recall.mean()),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


def confusion_matrix(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int
) -> NDArray[np.int64]:
    """Return ``(num_classes, num_classes)`` rows by their class and by the predicted one.

    Args:
        predicted: ``(num_rows,)`` predicted classes.
        labels: ``(num_rows,)`` classes.
        num_classes: How many there are.
    """
    cells = np.bincount(num_classes * labels + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _auc(probability: NDArray[np.float64], outcome: NDArray[np.float64]) -> float:
    """The Mann-Whitney statistic; rows with the same probability count one half."""
    from scipy.stats import rankdata

    positive = outcome > 0
    most = float(positive.sum() * (~positive).sum())
    ranks, number = float(rankdata(probability)[positive].sum()), int(positive.sum())
    return (ranks - number * (number + 1) / 2.0) / most


def _average_precision(probability: NDArray[np.float64], outcome: NDArray[np.float64]) -> float:
    """Sum over thresholds of precision times the recall that the threshold adds."""
    order = np.argsort(-probability, kind="stable")
    hits = np.cumsum(outcome[order])
    # Rows with the same probability pass a threshold together.
    last = np.append(np.diff(probability[order]) != 0, True)
    hits, passed = hits[last], np.flatnonzero(last) + 1
    gained = np.diff(hits, prepend=0.0) / hits[-1]
    return float((gained * hits / passed).sum())


def _calibration_error(
    probability: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[float, float]:
    """Return the calibration error of the most probable class, and that of a faultless model."""
    confidence = probability.max(1)
    right = (probability.argmax(1) == labels).astype(float)
    num_bins = int(np.clip(len(labels) // ROWS_OF_A_BIN, 1, MOST_BINS))
    found = chance = 0.0
    for rows in np.array_split(np.argsort(confidence, kind="stable"), num_bins):
        p = confidence[rows]
        found += abs(float((right[rows] - p).sum()))
        # Of a sum of independent outcomes: the mean of a half-normal with its variance.
        chance += math.sqrt(2.0 / math.pi * float((p * (1.0 - p)).sum()))
    return found / len(labels), chance / len(labels)
