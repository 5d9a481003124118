"""Errors and fits of a rule's masks, from the same draws for each mask."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pyro_relevance.edges.find import Edges, find_edges
from pyro_relevance.masks import Mask, threshold
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
    with pytest.raises(ValueError, match="got 3 inputs and 20 targets"):
        rule_path(posterior, [None], (x[:3], y))


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


@dataclass
class Stated:
    """A posterior whose predictions are stated; the density of the mask is added to them."""

    mean: torch.Tensor
    edges: Edges
    calls: list[tuple[int, int]] = field(default_factory=list)

    def predict(self, x, *, num_samples, seed, mask):
        self.calls.append((num_samples, seed))
        return SimpleNamespace(mean=self.mean[:, :num_samples] + float(mask.density) - 1)

    def log_likelihood(self, x, y, *, num_samples, seed, mask):
        mean = self.predict(x, num_samples=num_samples, seed=seed, mask=mask).mean
        return -mean.reshape(*mean.shape[:3], -1).sum(-1)


def stated(mean):
    network = torch.nn.Linear(2, 1)
    edges = find_edges(network, granularity="input", input_labels=("a", "b"))
    return Stated(torch.as_tensor(mean), edges)


def mask_of(*keep):
    return Mask({"inputs": torch.tensor(keep)})


@pytest.mark.exact
def test_errors_of_stated_predictions_by_hand():
    # One chain, two draws, three data, two outputs: (chain, draw, num_data, output).
    mean = [[[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]]]
    y = torch.tensor([[1.0, 0.0], [3.0, 4.0], [5.0, 3.0]])
    masks = [mask_of(True, True), mask_of(True, False), mask_of(False, False)]
    found = rule_path(stated(mean), masks, (torch.zeros(3, 2), y), num_samples=2)
    assert found["density"].to_numpy().tolist() == [0.0, 0.5, 1.0]
    assert found["num_parameters"].to_numpy().tolist() == [1, 2, 3]
    # Whole: errors 0, 2, 0, 0, 0, 3; and -y. Half of the edges: all predictions 0.5 lower.
    squares = [[13.0, 1 + 9 + 16 + 25 + 9], [13 - 5 + 1.5, 60 + 16 + 1.5]]
    for row, both in zip((2, 1), squares, strict=True):
        expected = [(value / 6) ** 0.5 for value in both]
        assert found["rmse"][row].to_numpy().tolist() == [pytest.approx(expected)]
    # Mean over the data of the stated -sum: -(3 + 7 + 11) / 3 for the first draw.
    assert found["log_likelihood"][2].to_numpy().tolist() == [pytest.approx([-7.0, 0.0])]


@pytest.mark.exact
def test_right_classes_of_stated_probabilities_by_hand():
    # Two chains, one draw, four data, one column: the probability of class 1.
    column = torch.tensor([[[[0.9], [0.4], [0.6], [0.1]]], [[[0.2], [0.5], [0.8], [0.3]]]])
    y = torch.tensor([1, 1, 0, 0])
    data = (torch.zeros(4, 2), y)
    posterior = stated(column)
    found = rule_path(posterior, [mask_of(True, True)], data, metric="accuracy")
    assert set(posterior.calls) == {(100, 0)}
    assert found["accuracy"][0].to_numpy().tolist() == [[0.5], [0.25]]
    assert found["accuracy"].dims == ("mask", "chain", "draw")
    same = rule_path(stated(column[..., 0]), [mask_of(True, True)], data, metric="accuracy")
    assert same["accuracy"].equals(found["accuracy"])
    # Two and three columns: the largest one, also where the first column is above a half or not.
    two = torch.stack([1 - column[..., 0], column[..., 0]], -1)
    found = rule_path(stated(two), [mask_of(True, True)], data, metric="accuracy")
    assert found["accuracy"][0].to_numpy().tolist() == [[0.5], [0.25]]
    three = torch.tensor([[[[0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.4, 0.3, 0.3]]]])
    for y, share in (([1, 0, 2, 0], 1.0), ([0, 1, 2, 0], 0.5), ([2, 2, 1, 1], 0.0)):
        found = rule_path(
            stated(three),
            [mask_of(True, True)],
            (torch.zeros(4, 2), torch.tensor(y)[:, None]),
            metric="accuracy",
        )
        assert found["accuracy"].to_numpy().tolist() == [[[share]]]
