"""Classes and their probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pyro_relevance.commands.estimators.classifier import RelevanceClassifier
from pyro_relevance.commands.table.settings import TableSettings
from tests.commands.estimators.test_base import rows

SMALL: dict[str, Any] = {
    **{"hidden": (6,), "num_steps": 200, "num_chains": 1, "num_folds": 2},
    **{"weight_scales": (3.0,), "prior_log_odds": (-1.5,), "random_state": 0},
}


@pytest.mark.exact
@pytest.mark.parametrize("labels", [("b", "a", "c"), (10, 9, 100), (2.0, 10.0, 1.0)])
def test_probabilities_are_in_the_order_of_the_classes(labels: tuple[Any, ...]) -> None:
    """The files hold text in another order: 10, 100, 9 as text, 9, 10, 100 as numbers."""
    frame, y = rows()
    target = np.array(labels)[np.digitize(y, [-10.0, 30.0])]
    made = RelevanceClassifier(**SMALL).fit(frame, target)
    assert made.classes_.tolist() == sorted(labels)
    shares = made.predict_proba(frame)
    np.testing.assert_allclose(shares.sum(1), 1.0, rtol=1e-6)
    predicted = made.predict(frame)
    assert predicted.dtype == target.dtype
    assert predicted.tolist() == made.classes_[shares.argmax(1)].tolist()
    assert made.score(frame, target) == (predicted == target).mean()
    most_frequent = np.unique(target, return_counts=True)[1].max() / len(target)
    assert made.score(frame, target) > most_frequent + 0.1
    assert made.relevant_[1]


@pytest.mark.contract
def test_the_defaults_are_those_of_the_command() -> None:
    assert RelevanceClassifier()._settings(0) == TableSettings()


@pytest.mark.contract
def test_wrong_targets_are_told() -> None:
    frame, y = rows(40)
    with pytest.raises(ValueError, match="Expected at least two classes in y, but got one class"):
        RelevanceClassifier(**SMALL).fit(frame, ["a"] * 40)
    with pytest.raises(ValueError, match="Unknown label type"):
        RelevanceClassifier(**SMALL).fit(frame, y)
    with pytest.raises(ValueError, match="Expected at least one candidate in prior_log_odds"):
        RelevanceClassifier(**{**SMALL, "prior_log_odds": ()}).fit(frame, y > 0)
