"""Predictions and intervals of a quantity."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import pyro_relevance as pr
from pyro_relevance.commands.estimators.regressor import RelevanceRegressor
from pyro_relevance.commands.table.settings import TableSettings
from tests.bounds import FAILURE_RATE
from tests.commands.estimators.test_base import SMALL, rows


@pytest.fixture(scope="module")
def fitted() -> RelevanceRegressor:
    return RelevanceRegressor(**SMALL).fit(*rows())


@pytest.mark.exact
def test_predictions_are_those_of_the_pruned_network(fitted: RelevanceRegressor) -> None:
    frame, y = rows()
    predicted = fitted.predict(frame)
    np.testing.assert_allclose(predicted, fitted.predictor_.predict(frame), rtol=1e-9)
    rest = ((predicted - y) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert fitted.score(frame, y) == pytest.approx(1.0 - rest)
    assert rest < 0.1


@pytest.mark.statistical
def test_intervals_hold_new_rows_as_often_as_they_say() -> None:
    """Not more rarely: the noise is that of networks of fewer rows, and a bit too wide."""
    frame, y = rows(600)
    y = y + np.random.default_rng(2).normal(scale=10.0, size=len(y))
    made = RelevanceRegressor(**{**SMALL, "num_folds": 5}).fit(frame[:200], y[:200])
    ends = made.predict_interval(frame[200:], 0.8)
    inside = int(((y[200:] > ends[:, 0]) & (y[200:] < ends[:, 1])).sum())
    assert stats.binom.cdf(inside, 400, 0.8) > FAILURE_RATE
    assert inside < 400  # nor all of them
    np.testing.assert_allclose(ends.mean(1), made.predict(frame[200:]), rtol=1e-6, atol=1e-5)


@pytest.mark.contract
def test_the_defaults_are_those_of_the_command() -> None:
    assert RelevanceRegressor()._settings(0) == TableSettings()


@pytest.mark.contract
def test_wrong_settings_and_targets_are_told() -> None:
    frame, y = rows(40)
    with pytest.raises(ValueError, match="Expected rule to be 'median' or 'fdr'"):
        RelevanceRegressor(**{**SMALL, "rule": "none"}).fit(frame, y)
    with pytest.raises(ValueError, match="Expected num_steps >= 1, but got 0"):
        RelevanceRegressor(**{**SMALL, "num_steps": 0}).fit(frame, y)
    with pytest.raises(ValueError, match="Expected units of each hidden layer >= 1, but got 0"):
        RelevanceRegressor(**{**SMALL, "hidden": (5, 0)}).fit(frame, y)
    with pytest.raises(ValueError, match="Expected a y that varies, but got 1 in all 40 rows"):
        RelevanceRegressor(**SMALL).fit(frame, np.ones(40))
    with pytest.raises(ValueError, match="Input y contains NaN"):
        RelevanceRegressor(**SMALL).fit(frame, np.where(y > 0, np.nan, y))


@pytest.mark.contract
def test_levels_that_are_new_are_told(fitted: RelevanceRegressor) -> None:
    frame, _ = rows(20)
    with pytest.warns(UserWarning, match="'pink' of 'colour' did not occur"):
        fitted.predict(frame.assign(colour="pink"))
    assert pr.sklearn.RelevanceRegressor is RelevanceRegressor
