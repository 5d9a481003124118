"""Simple models on the same rows: a constant, a linear model, boosted trees.

A network that does not beat them is not worth reading. They see the same encoded training rows as
the networks, their settings are chosen on folds of these rows, and they are scored on the same test
rows by the same functions. Noise of new rows is fitted to their own held-out predictions, as it is
for the networks.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_relevance.commands.scoring.scores import Score, score_outputs
from pyro_relevance.data.splits import cross_validation_folds
from pyro_relevance.data.tables import Encoder
from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.model.noise import fit_noise

__all__ = ["ABOUT", "baseline_scores"]

ABOUT = {
    "constant": "mean, or shares of the classes, of the training rows",
    "ridge": "scikit-learn's Ridge, penalty by held-out rows of the folds",
    "logistic": "scikit-learn's LogisticRegression, penalty by held-out rows of the folds",
    "boosting": "scikit-learn's histogram gradient boosting, default settings",
}
"""What the baselines are, by their names."""

PENALTIES = tuple(float(value) for value in np.logspace(-3.0, 4.0, 8))
"""Candidates for the ridge penalty, and for that of logistic regression."""

MOST_ROWS = 5_000
"""Training rows from which the penalty and the noise of new rows are found, at most."""

LEAST = 1e-6
"""Probability of a class that a fold did not have, and the least of any class."""

Floats = NDArray[np.float64]


def baseline_scores(
    training: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    noise: Likelihood,
    encoder: Encoder,
    *,
    num_folds: int = 5,
    seed: int = 0,
) -> dict[str, Score]:
    """Return the test results of the baselines by their names, those of `ABOUT`.

    Args:
        training: ``(num_rows, num_columns)`` encoded training rows and their targets.
        test: The same of the test rows.
        noise: Noise model of new rows, before it is fitted.
        encoder: Units of the target, and the classes.
        num_folds: Folds of the training rows; fewer where there are few rows.
        seed: Seed of the folds and of the trees.
    """
    some = np.random.default_rng(seed).permutation(len(training[0]))[:MOST_ROWS]
    folds, rest = cross_validation_folds(len(some), min(num_folds, len(some)), seed=seed)
    pairs = [(some[fold], some[other]) for fold, other in zip(folds, rest, strict=True)]
    data = _Data(
        training[0].double().numpy(), training[1].numpy(), len(encoder.classes), tuple(pairs)
    )
    found = {}
    with warnings.catch_warnings(), _one_thread():
        # A fit at its limit of iterations, or a fold without a class, is still a baseline.
        warnings.simplefilter("ignore")
        for name, make, size in _models(data, seed):
            law = noise
            if not data.num_classes:
                held, y = data.held_out(make)
                law = fit_noise(noise, _as_outputs(held), torch.as_tensor(y, dtype=torch.float32))
            model = make()
            model.fit(data.x, data.y)
            outputs = _as_outputs(data.predicted(model, test[0].double().numpy()))
            found[name] = score_outputs(outputs, law, test[1], encoder, size(model))
    return found


@dataclass(frozen=True, eq=False)
class _Data:
    """Training rows and their folds: pairs of held-out rows and the others."""

    x: Floats
    y: NDArray[Any]
    num_classes: int
    folds: tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...]

    def predicted(self, model: Any, x: Floats) -> Floats:
        """Return ``(num_rows, 1)`` predictions, or log probabilities of all classes."""
        if not self.num_classes:
            return np.asarray(model.predict(x), dtype=np.float64).reshape(-1, 1)
        probability = np.zeros((len(x), self.num_classes))
        probability[:, model.classes_.astype(int)] = model.predict_proba(x)
        probability = np.maximum(probability, LEAST)
        return np.asarray(np.log(probability / probability.sum(1, keepdims=True)))

    def held_out(self, make: Callable[[], Any]) -> tuple[Floats, NDArray[Any]]:
        """Return what models of the other folds predict for each, and the targets."""
        parts = []
        for held, others in self.folds:
            model = make()
            model.fit(self.x[others], self.y[others])
            parts.append(self.predicted(model, self.x[held]))
        return np.concatenate(parts), self.y[np.concatenate([held for held, _ in self.folds])]

    def loss(self, make: Callable[[], Any]) -> float:
        """Return the mean held-out squared error or log loss."""
        predicted, y = self.held_out(make)
        if self.num_classes:
            return -float(predicted[np.arange(len(y)), y.astype(int)].mean())
        return float(((predicted[:, 0] - y) ** 2).mean())


Made = tuple[str, Callable[[], Any], Callable[[Any], float]]
"""Name, what makes the model, and its number of parameters once it is fitted."""


def _models(data: _Data, seed: int) -> Sequence[Made]:
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge

    linear: Made
    constant: Callable[[], Any]
    trees: Callable[[], Any]
    if data.num_classes:
        if len(np.unique(data.y)) < 2:
            return [("constant", lambda: DummyClassifier(strategy="prior"), lambda model: 1.0)]
        inverse = min(
            PENALTIES, key=lambda c: data.loss(lambda: LogisticRegression(C=1.0 / c, max_iter=300))
        )
        linear = (
            "logistic",
            lambda: LogisticRegression(C=1.0 / inverse, max_iter=1000),
            lambda model: float(model.coef_.size + model.intercept_.size),
        )
        constant = lambda: DummyClassifier(strategy="prior")  # noqa: E731
        trees = lambda: HistGradientBoostingClassifier(random_state=seed)  # noqa: E731
    else:
        best = min(PENALTIES, key=lambda alpha: data.loss(lambda: Ridge(alpha)))
        linear = ("ridge", lambda: Ridge(best), lambda model: float(model.coef_.size + 1))
        constant = DummyRegressor
        trees = lambda: HistGradientBoostingRegressor(random_state=seed)  # noqa: E731
    free = float(max(1, data.num_classes - 1))
    return [
        ("constant", constant, lambda model: free),
        linear,
        # Leaves and splits are no parameters of the same kind.
        ("boosting", trees, lambda model: math.nan),
    ]


def _as_outputs(values: Floats) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32).unsqueeze(0)


def _one_thread() -> Any:
    """The trees of a small table are quickest on one thread."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)
