"""The contract of scikit-learn, by its own checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

import pyro_relevance as pr

SMALL: dict[str, Any] = {
    **{"hidden": (6,), "num_steps": 120, "num_chains": 1, "num_folds": 2},
    "rate": 0.3,  # fewer redraws
}


@pytest.mark.contract
# What few steps are for: many of these fits fail, and say so.
@pytest.mark.filterwarnings("ignore::pyro_relevance.errors.ConvergenceWarning")
@parametrize_with_checks(
    [
        pr.sklearn.RelevanceRegressor(**SMALL, noise_scales=(0.2,)),
        pr.sklearn.RelevanceClassifier(**SMALL, weight_scales=(3.0,), prior_log_odds=(-1.5,)),
    ]
)
def test_scikit_learn_accepts_it(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)
