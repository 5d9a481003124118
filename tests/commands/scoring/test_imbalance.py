"""Rare classes are never decided silently."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics

from pyro_relevance.commands.scoring.imbalance import decision_of
from pyro_relevance.commands.scoring.lines import class_lines, decision_sentences
from pyro_relevance.commands.scoring.scores import Score, class_score


def two(p):
    return np.stack([1 - np.asarray(p), np.asarray(p)], 1)


@pytest.mark.exact
@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_has_the_best_balanced_accuracy(seed: int) -> None:
    generator = np.random.default_rng(seed)
    p = generator.uniform(size=80).round(2)
    labels = (generator.uniform(size=80) < 0.4 * p).astype(int)
    found = decision_of(("no", "yes"), labels, (two(p), labels), (two(p), labels))
    assert found.positive == "yes"
    tried = np.linspace(0, 1, 1001)
    scores = [metrics.balanced_accuracy_score(labels, p > t) for t in tried]
    own = metrics.balanced_accuracy_score(labels, p > found.threshold)
    assert own == pytest.approx(max(scores))
    np.testing.assert_array_equal(
        found.confusion, metrics.confusion_matrix(labels, p > found.threshold)
    )


@pytest.mark.exact
def test_a_rare_class_is_told_with_its_share() -> None:
    labels = np.array([0] * 5 + [1] * 95)
    p = np.where(labels == 0, 0.7, 0.9)
    found = decision_of(("ill", "well"), labels, (two(p), labels), (two(p), labels))
    assert found.rare == ("ill",)
    text = " ".join(decision_sentences(found))
    assert "no weights in training" in text
    assert "'ill' above a probability of 0.5" in text
    assert "imbalanced ('ill' 5.0% of the training rows)" in text
    # Between the probabilities 0.1 and 0.3 of 'ill': all are found.
    assert found.threshold == pytest.approx(0.2)
    assert "finds 5 of 5 of 'ill', and 95 of 95 of 'well'" in text


@pytest.mark.exact
def test_balanced_and_many_classes() -> None:
    labels = np.array([0, 1] * 10)
    even = decision_of(("a", "b"), labels, (two(labels), labels), (two(labels), labels))
    assert even.rare == ()
    assert "imbalanced" not in " ".join(decision_sentences(even))
    labels = np.array([0] * 50 + [1] * 50 + [2] * 9)
    three = decision_of(("a", "b", "c"), labels, (np.eye(3), labels), (np.eye(3), labels))
    assert three.rare == ("c",)
    assert math.isnan(three.threshold)
    assert len(decision_sentences(three)) == 2
    assert decision_sentences(None) == []


@pytest.mark.exact
def test_one_class_among_held_out_rows_leaves_one_half() -> None:
    ones = np.ones(4, dtype=int)
    train = np.array([0, 1, 1, 1])
    found = decision_of(("a", "b"), train, (two([0.5] * 4), ones), (two([0.5] * 4), ones))
    assert found.threshold == 0.5


@pytest.mark.contract
def test_lines_of_classes_have_measures_and_confusion() -> None:
    labels = np.array([0, 0, 1, 1, 1])
    p = two([0.1, 0.6, 0.7, 0.8, 0.9])
    score = Score(0.2, -0.3, 4.0, 0.1, 0.1, class_score(p, labels))
    lines = class_lines({"pruned": score}, ("no", "yes"))
    assert lines[0].split("  ")[0] == "classes"
    assert lines[1].split()[:3] == ["pruned", "1", "1"]
    assert lines[-2].split() == ["no", "1", "1"]
    assert lines[-1].split() == ["yes", "0", "3"]
    many = Score(0.2, -0.3, 4.0, 0.1, 0.1, class_score(np.eye(12), np.arange(12)))
    text = class_lines({"pruned": many}, [str(k) for k in range(12)])
    assert text[-1] == "The confusion matrix of 12 classes is in record.json."
