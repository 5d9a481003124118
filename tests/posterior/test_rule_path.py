"""Errors and fits of a rule's masks, from the same draws for each mask."""

from __future__ import annotations

import numpy as np
import pytest

from pyro_relevance.masks import threshold
from pyro_relevance.posterior.rule_path import rule_path
from tests.fake_posterior import fake_data, fake_posterior


@pytest.fixture
def posterior():
    return fake_posterior()


def test_scores_every_mask(posterior):
    x, y = fake_data(posterior)
    scores = {name: p.mean(0) for name, p in posterior.probability.items()}
    masks = [threshold(scores, level) for level in (0.0, 0.5, 1.1)]
    found = rule_path(posterior, masks, (x, y), num_samples=6, seed=2)
    assert found["rmse"].dims == ("mask", "chain", "draw")
    assert found["density"].to_numpy().tolist() == sorted(float(mask.density) for mask in masks)
    assert found["num_parameters"].to_numpy()[-1] == 12 * 13 + 12 + 12 + 1
    assert found["rule"].to_numpy().tolist()[-1] == masks[0].rule
    predicted = posterior.predict(x, num_samples=6, seed=2, mask=masks[1]).mean
    rmse = (predicted - y).square().mean((-1, -2)).sqrt()
    np.testing.assert_allclose(found["rmse"][1], rmse, rtol=1e-6)
    scored = posterior.log_likelihood(x, y, num_samples=6, seed=2, mask=masks[1]).mean(-1)
    np.testing.assert_allclose(found["log_likelihood"][1], scored, rtol=1e-6)


def test_counts_right_classes():
    posterior = fake_posterior((13, 5, 3), classes=True)
    x, y = fake_data(posterior)
    masks = [threshold({name: p.mean(0) for name, p in posterior.probability.items()}, 0.0)]
    found = rule_path(posterior, masks, (x, y), num_samples=4, metric="accuracy")
    guess = posterior.predict(x, num_samples=4, mask=masks[0]).mean.argmax(-1)
    np.testing.assert_allclose(found["accuracy"][0], (guess == y).double().mean(-1))
    assert found["accuracy"].attrs["units"] == "fraction"


def test_refuses_nonsense(posterior):
    x, y = fake_data(posterior)
    with pytest.raises(
        ValueError, match=r"Expected metric in \['rmse', 'accuracy'\], but got 'mse'"
    ):
        rule_path(posterior, [], (x, y), metric="mse")
    with pytest.raises(ValueError, match="Expected at least one mask"):
        rule_path(posterior, [], (x, y))
    with pytest.raises(ValueError, match="of equal length"):
        rule_path(posterior, [None], (x, y[:3]))


def test_one_column_is_the_probability_of_the_second_class():
    posterior = fake_posterior((13, 5, 1))
    x, y = fake_data(posterior, num_data=40)
    classes = (y > y.median()).long()
    masks = [threshold({name: p.mean(0) for name, p in posterior.probability.items()}, 0.0)]
    found = rule_path(posterior, masks, (x, classes), num_samples=4, metric="accuracy")
    guess = posterior.predict(x, num_samples=4, mask=masks[0]).mean > 0.5
    right = (guess == (classes == 1)).double().mean((-1, -2))
    np.testing.assert_allclose(found["accuracy"][0], right)
    assert 0 < float(right.min()) < float(right.max()) < 1


def test_the_error_is_over_data_and_outputs():
    posterior = fake_posterior((13, 5, 3))
    x, y = fake_data(posterior)
    masks = [threshold({name: p.mean(0) for name, p in posterior.probability.items()}, 0.0)]
    found = rule_path(posterior, masks, (x, y), num_samples=4)
    error = posterior.predict(x, num_samples=4, mask=masks[0]).mean - y
    np.testing.assert_allclose(
        found["rmse"][0], (error.square().sum((2, 3)) / (20 * 3)).sqrt(), rtol=1e-6
    )
    assert found["rmse"].attrs["units"] == "unit of y"
    assert found["chain"].to_numpy().tolist() == [0, 1]
    assert found["draw"].to_numpy().tolist() == [0, 1, 2, 3]
