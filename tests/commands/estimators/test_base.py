"""Relevance of the columns, and the estimator among scikit-learn's own tools."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectFromModel
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import pyro_relevance as pr
from pyro_relevance.errors import ConvergenceWarning

SMALL: dict[str, Any] = {
    **{"hidden": (6,), "num_steps": 200, "num_chains": 1, "num_folds": 2},
    **{"noise_scales": (0.2,), "random_state": 0},
}


def rows(num_rows: int = 120) -> tuple[pd.DataFrame, np.ndarray]:
    """``y`` is 30 times ``size`` and 20 where ``colour`` is red."""
    generator = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "noise": generator.normal(size=num_rows),
            "size": generator.normal(size=num_rows),
            "same": 1.0,
            "colour": generator.choice(["red", "green"], size=num_rows),
        }
    )
    return frame, (30.0 * frame["size"] + 20.0 * (frame["colour"] == "red")).to_numpy()


@pytest.fixture(scope="module")
def fitted() -> pr.sklearn.RelevanceRegressor:
    return pr.sklearn.RelevanceRegressor(**SMALL).fit(*rows())


@pytest.mark.exact
def test_importances_are_the_rises_of_the_test(fitted: pr.sklearn.RelevanceRegressor) -> None:
    assert fitted.feature_names_in_.tolist() == ["noise", "size", "same", "colour"]
    scale = fitted.predictor_.encoder.target_scale
    tested = fitted.holdout_test_
    wanted = [max(0.0, tested[name].root_rise * scale) for name in ("noise", "size", "colour")]
    found = fitted.feature_importances_
    assert found[[0, 1, 3]].tolist() == wanted
    assert found[2] == 0.0  # constant: it was left out
    assert "Column 'same' is constant and was left out." in fitted.notes_
    # In the target's units: without the column the RMSE is of the order of its effect.
    assert 10.0 < found[1] < 60.0


@pytest.mark.statistical
def test_columns_that_matter_are_relevant(fitted: pr.sklearn.RelevanceRegressor) -> None:
    assert fitted.relevant_[[1, 3]].all()
    assert fitted.relevant_[2] == np.False_
    names = set(fitted.feature_names_in_[fitted.relevant_])
    assert names == {*fitted.holdout_test_.relevant}
    assert not fitted.diagnosis_.failed


@pytest.mark.exact
def test_columns_that_cannot_be_told_apart_are_all_relevant() -> None:
    frame, y = rows()
    frame = frame[["noise", "size"]].assign(copy=frame["size"])
    made = pr.sklearn.RelevanceRegressor(**SMALL).fit(frame, y)
    assert made.holdout_test_.inseparable == (("size", "copy"),)
    assert made.relevant_[1:].tolist() == [True, True]


@pytest.mark.contract
def test_a_fit_that_failed_warns() -> None:
    generator = np.random.default_rng(0)
    X, y = generator.normal(size=(40, 2)), generator.normal(size=40)
    made = pr.sklearn.RelevanceRegressor(**SMALL)
    with pytest.warns(ConvergenceWarning, match="The fit failed") as caught:
        made.fit(X, y)
    assert caught[0].filename == __file__
    assert made.diagnosis_.failed
    assert made.predictor_.failed


@pytest.mark.contract
@pytest.mark.filterwarnings("ignore::pyro_relevance.errors.ConvergenceWarning")  # two steps
def test_it_works_among_the_tools(fitted: pr.sklearn.RelevanceRegressor) -> None:
    frame, y = rows()
    numbers = frame[["noise", "size"]].to_numpy()
    assert clone(fitted).get_params() == fitted.get_params()
    assert not hasattr(clone(fitted), "predictor_")
    chosen = SelectFromModel(fitted, prefit=True, threshold=1.0)
    assert chosen.get_support().tolist() == (fitted.feature_importances_ >= 1.0).tolist()
    pipeline = make_pipeline(StandardScaler(), pr.sklearn.RelevanceRegressor(**SMALL))
    search = GridSearchCV(pipeline, {"relevanceregressor__num_steps": [2, 200]}, cv=2)
    search.fit(numbers, y)
    assert search.best_params_ == {"relevanceregressor__num_steps": 200}
    assert search.best_score_ > 0.5
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_allclose(again.predict(frame), fitted.predict(frame), rtol=1e-9)


@pytest.mark.contract
def test_nothing_is_told_before_a_fit() -> None:
    made = pr.sklearn.RelevanceRegressor()
    for ask in (lambda: made.relevant_, lambda: made.feature_importances_, lambda: made.save("x")):
        with pytest.raises(NotFittedError, match="is not fitted yet"):
            ask()


@pytest.mark.exact
@pytest.mark.filterwarnings("ignore::pyro_relevance.errors.ConvergenceWarning")
def test_the_seed_decides() -> None:
    frame, y = rows(60)

    def predicted(seed: Any) -> Any:
        made = pr.sklearn.RelevanceRegressor(**{**SMALL, "num_steps": 20, "random_state": seed})
        return made.fit(frame, y).predict(frame)

    first = predicted(3)
    np.testing.assert_allclose(predicted(3), first, rtol=1e-4)
    assert not np.allclose(predicted(4), first, rtol=1e-2)
    drawn = predicted(np.random.RandomState(3))
    np.testing.assert_allclose(predicted(np.random.RandomState(3)), drawn, rtol=1e-4)
