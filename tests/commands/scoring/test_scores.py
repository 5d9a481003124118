"""Test results of models, against scikit-learn and by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn import metrics

from pyro_relevance.commands.scoring.scores import (
    Score,
    class_score,
    confusion_matrix,
    paired,
    score_outputs,
)
from pyro_relevance.model import likelihoods


def some_probabilities(num_rows: int, num_classes: int, seed: int = 0):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(num_rows, num_classes)).round(1)  # with ties
    labels = (logits + 2.0 * generator.gumbel(size=logits.shape)).argmax(1)
    shares = np.exp(logits)
    return shares / shares.sum(1, keepdims=True), labels


@pytest.mark.exact
@pytest.mark.parametrize("seed", range(5))
def test_two_classes_are_ranked_as_scikit_learn_does(seed: int) -> None:
    probability, labels = some_probabilities(61, 2, seed)
    rare = int(np.bincount(labels).argmin())
    found = class_score(probability, labels)
    own = probability[:, rare]
    assert found.auc == pytest.approx(metrics.roc_auc_score(labels == rare, own))
    assert found.average_precision == pytest.approx(
        metrics.average_precision_score(labels == rare, own)
    )
    # scikit-learn's Brier score of two classes is of one of them: half of the sum over both.
    brier = metrics.brier_score_loss(labels == rare, own)
    assert found.brier == pytest.approx(2 * brier)
    predicted = probability.argmax(1)
    assert found.balanced_accuracy == pytest.approx(
        metrics.balanced_accuracy_score(labels, predicted)
    )
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(labels, predicted))


@pytest.mark.exact
def test_many_classes_are_averaged_one_against_the_rest() -> None:
    probability, labels = some_probabilities(200, 4)
    found = class_score(probability, labels)
    assert found.auc == pytest.approx(
        metrics.roc_auc_score(labels, probability, multi_class="ovr", average="macro")
    )
    each = [metrics.average_precision_score(labels == k, probability[:, k]) for k in range(4)]
    assert found.average_precision == pytest.approx(np.mean(each))


@pytest.mark.exact
def test_a_class_that_no_row_has_is_left_out() -> None:
    probability, labels = some_probabilities(50, 3)
    labels = np.where(labels == 2, 1, labels)
    found = class_score(probability, labels)
    each = [metrics.roc_auc_score(labels == k, probability[:, k]) for k in range(2)]
    assert found.auc == pytest.approx(np.mean(each))
    assert math.isnan(class_score(probability[:3], np.zeros(3, dtype=int)).auc)


@pytest.mark.exact
def test_calibration_error_by_hand() -> None:
    probability = np.tile([0.8, 0.2], (40, 1))
    labels = np.array([0] * 20 + [1] * 20)
    found = class_score(probability, labels)
    # Two bins of 20 rows, in their order: all right and all wrong.
    assert found.calibration_error == pytest.approx((0.2 + 0.8) / 2)
    assert found.calibration_error_by_chance == pytest.approx(
        math.sqrt(2 / math.pi * 0.8 * 0.2 / 20)
    )


@pytest.mark.statistical
def test_a_faultless_model_has_the_calibration_error_of_chance() -> None:
    generator = np.random.default_rng(1)
    found = []
    for _ in range(200):
        p = generator.uniform(size=200)
        labels = (generator.uniform(size=200) < p).astype(int)
        score = class_score(np.stack([1 - p, p], 1), labels)
        found.append(score.calibration_error - score.calibration_error_by_chance)
    # The normal approximation of bins of 20 rows is right to a tenth of about 0.05.
    assert abs(np.mean(found)) < 0.005


@pytest.mark.exact
def test_regression_in_units_with_standard_errors_over_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, y = torch.randn(1, 30, 1, generator=generator), torch.randn(30, generator=generator)
    encoder = SimpleNamespace(target_scale=2.0)
    score = score_outputs(outputs, likelihoods.Gaussian(1.0), y, encoder, 7)
    squares = 4.0 * (outputs[0, :, 0] - y).square().double().numpy()
    assert score.error == pytest.approx(math.sqrt(squares.mean()))
    standard = squares.std(ddof=1) / math.sqrt(30)
    assert score.error_se == pytest.approx(standard / (2 * math.sqrt(squares.mean())))
    densities = torch.distributions.Normal(2.0 * outputs[0, :, 0], 2.0).log_prob(2.0 * y)
    np.testing.assert_allclose(score.densities, densities.numpy(), rtol=1e-5)
    assert score.log_likelihood == pytest.approx(float(densities.mean()), rel=1e-5)
    assert score.log_likelihood_se == pytest.approx(float(densities.std()) / math.sqrt(30))
    assert score.classes is None
    assert score.num_parameters == 7


@pytest.mark.exact
def test_classes_of_draws_are_mixed_before_they_are_scored() -> None:
    logits = torch.tensor([[[4.0, 0.0], [0.0, 0.1]], [[-1.0, 0.0], [0.0, 0.1]]])
    y = torch.tensor([0, 0])
    score = score_outputs(logits, likelihoods.Categorical(), y, SimpleNamespace(), 3)
    assert score.error == 0.5
    assert score.error_se == pytest.approx(0.5)
    mixed = logits.softmax(-1).mean(0)[:, 0].log()
    np.testing.assert_allclose(score.densities, mixed.numpy(), rtol=1e-5)
    assert score.classes is not None
    assert score.classes.confusion == ((1, 1), (0, 0))


@pytest.mark.exact
def test_models_are_compared_row_by_row() -> None:
    one = Score(0.0, 1.0, 1.0, densities=np.array([1.0, 2.0, 0.0]))
    other = Score(0.0, 0.5, 1.0, densities=np.array([0.5, 1.5, -0.5]))
    assert paired(one, other) == (0.5, 0.0)
    difference, error = paired(one, Score(0.0, 0.25, 1.0))
    assert difference == 0.75
    assert math.isnan(error)


@pytest.mark.exact
def test_confusion_counts_every_row_once() -> None:
    found = confusion_matrix(np.array([0, 2, 2, 1]), np.array([0, 1, 2, 1]), 3)
    np.testing.assert_array_equal(found, [[1, 0, 0], [0, 1, 1], [0, 0, 1]])
