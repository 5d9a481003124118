"""The main job for a target that is a quantity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.utils.validation import validate_data

from pyro_relevance.commands.estimators.base import RelevanceEstimator
from pyro_relevance.commands.table.settings import TableSettings
from pyro_relevance.errors import DataError

__all__ = ["RelevanceRegressor"]


class RelevanceRegressor(RegressorMixin, RelevanceEstimator):  # type: ignore[misc]
    """A small network for a quantity, and which columns are relevant for it.

    What ``pyro-relevance table`` does, on all rows that are given. Text and categories are one-hot
    with one decision for each column, missing values are allowed. Attributes after ``fit``:
    ``relevant_``, ``feature_importances_``, ``holdout_test_`` (which columns matter),
    ``diagnosis_`` (did the fit work), ``predictor_`` (encoder, pruned network with its receipt,
    noise), ``notes_`` (what was done with the columns), ``feature_names_in_``, ``n_features_in_``.

    Args:
        hidden: Units of each hidden layer.
        num_steps: Steps of each fit.
        batch_size: Rows in a step.
        num_chains: Independent fits; the best one is pruned.
        num_folds: Folds of the cross-validation.
        noise_scales: Candidates for the training noise (fractions of the target's standard
            deviation), chosen by cross-validation.
        prior_log_odds: Prior log-odds of every gate, in nats; lower keeps less.
        rule: What is kept: ``"median"`` or ``"fdr"``, see ``TableSettings``.
        rate: False discovery rate of the columns.
        random_state: Seed of everything.

    Example:
        >>> from pyro_relevance.commands.estimators import RelevanceRegressor
        >>> RelevanceRegressor(num_steps=2000).get_params()["num_steps"]
        2000
    """

    _task = "regression"

    def __init__(
        self,
        *,
        hidden: Sequence[int] = (50,),
        num_steps: int = 6000,
        batch_size: int = 91,
        num_chains: int = 8,
        num_folds: int = 5,
        noise_scales: Sequence[float] = (0.1, 0.2),
        prior_log_odds: float = -1.5,
        rule: Literal["median", "fdr"] = "median",
        rate: float = 0.1,
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.num_steps = num_steps
        self.batch_size = batch_size
        self.num_chains = num_chains
        self.num_folds = num_folds
        self.noise_scales = noise_scales
        self.prior_log_odds = prior_log_odds
        self.rule = rule
        self.rate = rate
        self.random_state = random_state

    def fit(self, X: ArrayLike | pd.DataFrame, y: ArrayLike) -> Self:
        """Fit to all rows.

        Args:
            X: ``(num_rows, num_features)`` frame or array.
            y: ``(num_rows,)`` finite numbers.

        Returns:
            The estimator; a fit that failed gives a ``ConvergenceWarning``.

        Raises:
            ValueError: If X and y are no such rows, or a setting is out of range.
        """
        _, checked = validate_data(
            self,
            X,
            y,
            dtype=None,
            ensure_all_finite="allow-nan",
            ensure_min_samples=2,
            y_numeric=True,
        )
        target = pd.Series(checked, name="y", dtype=np.float64)
        if target.nunique() < 2:
            raise DataError(
                f"Expected a y that varies, but got {target.iloc[0]:g} in all {len(target)} rows. "
                "Pass other rows, or another target."
            )
        return self._fit(X, target)

    def predict(self, X: ArrayLike | pd.DataFrame) -> NDArray[np.float64]:
        """Return the predictions of the pruned network, ``(num_rows,)`` in units of ``y``.

        Args:
            X: ``(num_rows, num_features)``.
        """
        frame = self._checked(X)
        return self.predictor_.predict(frame)

    def predict_interval(
        self, X: ArrayLike | pd.DataFrame, probability: float = 0.89
    ) -> NDArray[np.float64]:
        """Return equal-tailed intervals for ``y``, ``(num_rows, 2)``; see ``Predictor``.

        Args:
            X: ``(num_rows, num_features)``.
            probability: Probability of ``y`` to lie inside.
        """
        frame = self._checked(X)
        return self.predictor_.predict_interval(frame, probability)

    def _settings(self, seed: int) -> TableSettings:
        recipe = replace(
            TableSettings().recipe,
            hidden=tuple(self.hidden),
            num_steps=self.num_steps,
            batch_size=self.batch_size,
            prior_log_odds=self.prior_log_odds,
        )
        return TableSettings(
            recipe=recipe,
            noise_scales=tuple(self.noise_scales),
            rule=self.rule,
            rate=self.rate,
            num_chains=self.num_chains,
            num_folds=self.num_folds,
            seed=seed,
        )
