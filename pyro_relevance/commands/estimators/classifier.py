"""The main job for a target of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from pyro_relevance.commands.estimators.base import RelevanceEstimator
from pyro_relevance.commands.table.settings import TableSettings
from pyro_relevance.data.tables.columns import as_levels
from pyro_relevance.errors import DataError

__all__ = ["RelevanceClassifier"]


class RelevanceClassifier(ClassifierMixin, RelevanceEstimator):  # type: ignore[misc]
    """A small network for classes, and which columns are relevant for them.

    As `RelevanceRegressor`, with ``classes_`` and ``predict_proba``.

    Args:
        hidden: Units of each hidden layer.
        num_steps: Steps of each fit.
        batch_size: Rows in a step.
        num_chains: Independent fits; the best one is pruned.
        num_folds: Folds of the cross-validation.
        weight_scales: Candidates for the factor of the weights' prior scales, chosen by
            cross-validation.
        prior_log_odds: Candidates for the prior log-odds of every gate, in nats; lower keeps less.
        rule: What is kept: ``"median"`` or ``"fdr"``, see ``TableSettings``.
        rate: False discovery rate of the columns.
        random_state: Seed of everything.

    Example:
        >>> from pyro_relevance.commands.estimators import RelevanceClassifier
        >>> RelevanceClassifier(rate=0.05).get_params()["rate"]
        0.05
    """

    _task = "classification"
    classes_: NDArray[Any]

    def __init__(
        self,
        *,
        hidden: Sequence[int] = (50,),
        num_steps: int = 6000,
        batch_size: int = 91,
        num_chains: int = 8,
        num_folds: int = 5,
        weight_scales: Sequence[float] = (1.0, 3.0, 8.0),
        prior_log_odds: Sequence[float] = (-1.5, -3.0),
        rule: Literal["median", "fdr"] = "median",
        rate: float = 0.1,
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.num_steps = num_steps
        self.batch_size = batch_size
        self.num_chains = num_chains
        self.num_folds = num_folds
        self.weight_scales = weight_scales
        self.prior_log_odds = prior_log_odds
        self.rule = rule
        self.rate = rate
        self.random_state = random_state

    def fit(self, X: ArrayLike | pd.DataFrame, y: ArrayLike) -> Self:
        """Fit to all rows.

        Args:
            X: ``(num_rows, num_features)`` frame or array.
            y: ``(num_rows,)`` class labels, numbers or text.

        Returns:
            The estimator; a fit that failed gives a ``ConvergenceWarning``.

        Raises:
            ValueError: If X and y are no such rows, there is one class only, or a setting is out
                of range.
        """
        _, checked = validate_data(
            self, X, y, dtype=None, ensure_all_finite="allow-nan", ensure_min_samples=2
        )
        check_classification_targets(checked)
        self.classes_ = np.unique(checked)
        if len(self.classes_) < 2:
            raise DataError(
                f"Expected at least two classes in y, but got one class, {self.classes_[0]!r}, in "
                f"all {len(checked)} rows. Pass rows of other classes too."
            )
        labels = pd.Series(as_levels(pd.Series(checked)), name="y", dtype=object)
        return self._fit(X, labels)

    def predict(self, X: ArrayLike | pd.DataFrame) -> NDArray[Any]:
        """Return the most probable classes, ``(num_rows,)`` entries of ``classes_``.

        Args:
            X: ``(num_rows, num_features)``.
        """
        shares = self.predict_proba(X)
        labels: NDArray[Any] = self.classes_[shares.argmax(1)]
        return labels

    def predict_proba(self, X: ArrayLike | pd.DataFrame) -> NDArray[np.float64]:
        """Return the probabilities of ``classes_``, ``(num_rows, num_classes)``.

        Args:
            X: ``(num_rows, num_features)``.
        """
        frame = self._checked(X)
        probability = self.predictor_.predict_proba(frame)
        order = list(self.predictor_.encoder.classes)
        return probability[:, [order.index(name) for name in as_levels(pd.Series(self.classes_))]]

    def _settings(self, seed: int) -> TableSettings:
        if not len(self.prior_log_odds):
            raise ValueError("Expected at least one candidate in prior_log_odds, but got none.")
        first, *others = self.prior_log_odds
        recipe = replace(
            TableSettings().recipe,
            hidden=tuple(self.hidden),
            num_steps=self.num_steps,
            batch_size=self.batch_size,
            prior_log_odds=first,
        )
        return TableSettings(
            recipe=recipe,
            weight_scales=tuple(self.weight_scales),
            prior_log_odds=tuple(others),
            rule=self.rule,
            rate=self.rate,
            num_chains=self.num_chains,
            num_folds=self.num_folds,
            seed=seed,
        )
