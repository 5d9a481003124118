"""Predictions and intervals of a quantity."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import pyro_relevance as pr
from pyro_relevance.commands.estimators.regressor import RelevanceRegressor
from pyro_relevance.commands.table.settings import TableSettings
from tests.commands.estimators.test_base import SMALL, rows


@pytest.fixture(scope="module")
def fitted() -> RelevanceRegressor:
    return RelevanceRegressor(**SMALL).fit(*rows())


@pytest.mark.exact
def test_predictions_are_those_of_the_pruned_network(fitted: RelevanceRegressor) -> None:
    frame, y = rows()
    predicted = fitted.predict(frame)
    assert predicted.tolist() == fitted.predictor_.predict(frame).tolist()
    rest = ((predicted - y) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert fitted.score(frame, y) == pytest.approx(1.0 - rest)
    assert rest < 0.1


@pytest.mark.statistical
def test_intervals_hold_what_they_say(fitted: RelevanceRegressor) -> None:
    frame, y = rows()
    narrow, wide = fitted.predict_interval(frame, 0.5), fitted.predict_interval(frame, 0.99)
    assert (wide[:, 0] < narrow[:, 0]).all()
    assert (wide[:, 1] > narrow[:, 1]).all()
    inside = int(((y > wide[:, 0]) & (y < wide[:, 1])).sum())
    # Rows that were trained on: at least as many as new ones would be.
    assert stats.binom.cdf(inside, len(y), 0.99) > 1e-6


@pytest.mark.contract
def test_the_defaults_are_those_of_the_command() -> None:
    assert RelevanceRegressor()._settings(0) == TableSettings()


@pytest.mark.contract
def test_wrong_settings_and_targets_are_told() -> None:
    frame, y = rows(40)
    with pytest.raises(ValueError, match="Expected rule to be 'median' or 'fdr'"):
        RelevanceRegressor(**{**SMALL, "rule": "none"}).fit(frame, y)
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
