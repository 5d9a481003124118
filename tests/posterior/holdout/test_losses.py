"""Losses by hand, and predictions that are the same at each call."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import pyro_relevance as pr
from pyro_relevance.posterior.holdout.losses import log_loss, loss_for, predictor, squared_error


@pytest.mark.exact
def test_squared_error_sums_over_targets() -> None:
    outputs = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    y = torch.tensor([[0.0, 4.0], [3.0, 0.0]])
    assert squared_error(outputs, y).tolist() == [5.0, 9.0]
    assert squared_error(torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, 2.0])).tolist() == [4, 0]


@pytest.mark.exact
def test_log_loss_of_classes_and_of_one_log_odds() -> None:
    probability = torch.tensor([[0.2, 0.5, 0.3]])
    assert log_loss(probability.log() + 3.0, torch.tensor([1])).item() == pytest.approx(
        -math.log(0.5)
    )
    log_odds = torch.tensor([math.log(3.0), math.log(3.0)])  # probability of a one is 3/4
    found = log_loss(log_odds, torch.tensor([1.0, 0.0]))
    assert found.tolist() == pytest.approx([-math.log(0.75), -math.log(0.25)])


@pytest.mark.contract
def test_the_loss_follows_the_targets() -> None:
    assert loss_for(None, torch.zeros(3)) is squared_error
    assert loss_for(None, torch.zeros(3, dtype=torch.int64)) is log_loss
    assert loss_for("log", torch.zeros(3)) is log_loss
    assert loss_for(torch.dist, torch.zeros(3)) is torch.dist  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Expected loss to be 'squared', 'log'.*'mse'"):
        loss_for("mse", torch.zeros(3))  # type: ignore[arg-type]


@pytest.mark.contract
def test_a_network_is_asked_in_evaluation_mode_and_left_in_its_own() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5), nn.Linear(3, 1))
    network[0].eval()
    predict = predictor(network, 1, 0)
    x = torch.randn(4, 2)
    assert torch.equal(predict(x), predict(x))
    assert [module.training for module in network] == [False, True, True]
    assert not predict(x).requires_grad
    with pytest.raises(TypeError, match="Expected a network, a Posterior or a function"):
        predictor(3, 1, 0)  # type: ignore[arg-type]


@pytest.mark.exact
@pytest.mark.parametrize("kind", ["Categorical", "Bernoulli", "Gaussian"])
def test_a_posterior_predicts_its_mean(kind: str) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2 if kind[0] == "C" else 1))
    model = pr.RelevanceModel(
        network,
        pr.find_edges(network, granularity="input"),
        likelihood=getattr(pr.likelihoods, kind)(),
        num_data=20,
        gate_prior=pr.priors.IndependentPrior(0.0),
    )
    x = torch.randn(20, 3)
    y = (x[:, 0] > 0).long() if kind == "Categorical" else (x[:, 0] > 0).float()
    posterior = pr.fit(model, (x, y), num_epochs=2, num_chains=2).posterior
    mean = posterior.predict(x, num_samples=7, seed=3).posterior_mean()
    predict = predictor(posterior, 7, 3)
    found = predict(x)
    if kind == "Gaussian":
        assert torch.allclose(found, mean)
    else:
        assert loss_for(None, y, posterior) is log_loss
        ones = mean[:, 1] if kind == "Categorical" else mean
        assert torch.allclose(found.exp()[:, 1], ones)
        assert torch.allclose(found.exp().sum(1), torch.ones(20))
    # The same draws for every row, wherever it stands.
    assert torch.allclose(predict(x.repeat(3, 1))[20:40], found, atol=1e-6)
