"""What both estimators share: fit, relevance of the columns, files."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from pyro_relevance.commands.estimators.files import read_fitted, write_fitted
from pyro_relevance.commands.estimators.frames import as_frame, as_table
from pyro_relevance.commands.table.fitting import fit_table
from pyro_relevance.commands.table.job import Job, one_thread
from pyro_relevance.commands.table.predictor import Predictor
from pyro_relevance.commands.table.settings import TableSettings
from pyro_relevance.commands.table.verdict import run_diagnosis
from pyro_relevance.data.tables.table import Task
from pyro_relevance.errors import ConvergenceWarning
from pyro_relevance.posterior.diagnosis import Diagnosis
from pyro_relevance.posterior.holdout import HoldoutTest, Verdict

__all__ = ["RelevanceEstimator"]

MOST_EXAMPLES = 1000
"""Rows on which the pruned network is compared and timed."""


class RelevanceEstimator(BaseEstimator):  # type: ignore[misc]
    """Shared part of the estimators of a quantity and of classes."""

    _task: ClassVar[Task]
    random_state: Any
    predictor_: Predictor
    holdout_test_: HoldoutTest
    diagnosis_: Diagnosis
    notes_: tuple[str, ...]
    n_features_in_: int

    def _settings(self, seed: int) -> TableSettings:
        """Return the settings of the job."""
        raise NotImplementedError

    def _fit(self, X: Any, target: pd.Series) -> Self:
        """Fit to all rows; ``X`` and the target were validated."""
        settings = self._settings(self._seed())
        table = as_table(as_frame(X, self._names()), target, self._task)
        rows = np.arange(table.num_rows), np.arange(0)
        with one_thread():
            job = Job.of(table, settings, rows)
            done = fit_table(job)
            network = done.pruned(job.training[0][:MOST_EXAMPLES])
            self.diagnosis_ = run_diagnosis(done.fit, done.mask, done.held, None)
        self.holdout_test_ = done.tested
        self.notes_ = (*table.notes, *job.encoder.notes)
        network.requires_grad_(False)
        self.predictor_ = Predictor(job.encoder, network, done.noise, self.diagnosis_.failed)
        if self.diagnosis_.failed:
            warnings.warn(str(self.diagnosis_), ConvergenceWarning, stacklevel=3)
        return self

    @property
    def feature_importances_(self) -> NDArray[np.float64]:
        """How much worse held-out predictions are without each column, ``(n_features,)``.

        The rise of the root mean squared error (target's units) or of the log loss (nats) of the
        networks of the cross-validation when a column is redrawn given all others, and 0 where it
        does not rise. A size, not a decision: ``relevant_`` is the decision at the rate.
        """
        check_is_fitted(self)
        scale = self.predictor_.encoder.target_scale
        found = {group.name: group.root_rise * scale for group in self.holdout_test_.groups}
        return np.array([max(0.0, found.get(name, 0.0)) for name in self._names()])

    @property
    def relevant_(self) -> NDArray[np.bool_]:
        """Whether each column is relevant at the false discovery rate, ``(n_features,)``.

        Columns that are relevant together but cannot be told apart are all True: to leave out all
        of them would lose what they say. ``holdout_test_.inseparable`` lists such sets.
        """
        check_is_fitted(self)
        found = {g.name for g in self.holdout_test_.groups if g.verdict is Verdict.RELEVANT}
        found.update(*self.holdout_test_.inseparable)
        return np.array([name in found for name in self._names()])

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a folder without pickle; ``pr.load_run`` reads it too.

        Args:
            folder: The folder; made where it is missing.

        Raises:
            NotFittedError: If the estimator is not fitted (scikit-learn's).
            TypeError: If a setting or a class label has no form in JSON.
            OSError: If the folder cannot be written.
        """
        check_is_fitted(self)
        write_fitted(self, Path(folder))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read a fitted estimator from the folder of ``save``.

        Args:
            folder: The folder.

        Raises:
            FileNotFoundError: If the folder lacks one of the files.
            CheckpointError: If a file is damaged, or of another kind of estimator.
        """
        estimator: Self = read_fitted(cls, Path(folder))
        return estimator

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "predictor_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags

    def _checked(self, X: ArrayLike | pd.DataFrame) -> pd.DataFrame:
        """Return new rows under the names of the columns."""
        check_is_fitted(self)
        validate_data(self, X, reset=False, dtype=None, ensure_all_finite="allow-nan")
        return as_frame(X, self._names())

    def _names(self) -> list[str]:
        """Return the names of the columns: the frame's, or x0, x1, ..."""
        if hasattr(self, "feature_names_in_"):
            return list(map(str, self.feature_names_in_))
        return [f"x{place}" for place in range(self.n_features_in_)]

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))
