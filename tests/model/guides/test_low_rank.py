"""Correlated gates: what independent ones cannot say."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn

from pyro_relevance import RelevanceModel, find_edges, fit, likelihoods, priors
from pyro_relevance.model.guides import LowRankGuide, MeanFieldGuide
from pyro_relevance.training.schedules import Schedules, constant, exponential
from tests import oracles
from tests.bounds import assert_mean


def make_model(weights=(1.0, 1.0, 1.0, 1.0), num_data=40, **settings):
    network = nn.Linear(len(weights), 1, bias=False).double()
    network.weight.data.copy_(torch.tensor([weights]).double())
    network.requires_grad_(False)
    return RelevanceModel(
        network,
        find_edges(network, granularity="input"),
        likelihood=likelihoods.Gaussian(learn_noise=False),
        num_data=num_data,
        weight_prior=priors.PointWeights(None),
        **settings,
    )


@pytest.mark.statistical
def test_says_that_one_of_two_copies_of_an_input_is_needed():
    x = oracles.orthogonal_design(40, 3)
    x = torch.cat([x[:, :1], x], 1)
    weights = torch.full((4,), 0.6).double()
    y = 0.6 * x[:, 0]
    likelihood = oracles.log_likelihood_of_fixed_weights(x, y, weights, 1.0)
    exact = oracles.GatePosterior(likelihood + oracles.independent_log_prior(torch.zeros(4)))
    assert exact.covariance[0, 1] < -0.24

    def covariance(guide):
        posterior = fit(
            make_model(weights.tolist()),
            (x, y),
            guide=guide,
            num_epochs=700,
            batch_size=None,
            learning_rate=0.05,
            gate_learning_rate=0.05,
            schedules=Schedules(exponential(1.0, 0.1), constant(1.0), exponential(1.0, 0.1)),
            num_chains=8,
            initial_weights="network",
        ).posterior
        gates = posterior.sample(400).gates["inputs"]
        return torch.stack([torch.cov(chain[:, :2].T)[0, 1] for chain in gates])

    low_rank = partial(LowRankGuide, rank=1, initial_log_odds=0.0, initial_factor=2.0)
    assert covariance(low_rank).median() < -0.1
    mean_field = partial(MeanFieldGuide, initial_log_odds=0.0)
    assert covariance(mean_field).abs().median() < 0.02


@pytest.mark.statistical
def test_auxiliary_bound_is_above_the_kl():
    """E[log q(factor) - log r(factor | gates)] >= 0 for any reverse model, 0 for the exact one."""
    model = make_model()
    guide = LowRankGuide(model, rank=2, initial_factor=1.0)
    factor, gate = torch.randn(5000, 2).double(), torch.randn(5000, 4).double()
    q = torch.distributions.Normal(0.0, 1.0).log_prob(factor).sum(-1)
    with torch.no_grad():
        # The reverse model starts at the distribution of the factors, which ignores the gates.
        r = torch.func.vmap(guide._reverse)(factor, gate)
        torch.testing.assert_close(r, q)
        guide.reverse_weight.normal_()
        guide.reverse_log_scale.fill_(0.3)
        r = torch.func.vmap(guide._reverse)(factor, gate)
    gates = torch.sigmoid(gate)
    location = gates @ guide.reverse_weight.detach().T
    expected = torch.distributions.Normal(location, math.exp(0.3)).log_prob(factor).sum(-1)
    torch.testing.assert_close(r, expected)
    assert (q - r).mean() > 0


@pytest.mark.statistical
def test_stated_log_odds_are_close_to_those_of_the_draws():
    """Worst error of the probit approximation: about 0.02 in probability."""
    model = make_model()
    guide = LowRankGuide(model, rank=2)
    with torch.no_grad():
        guide.gate_log_odds.copy_(torch.tensor([-2.0, 0.0, 1.0, 3.0]))
        guide.gate_factor_loadings.copy_(torch.randn(4, 2))
        noise = torch.randn(50_000, 2).double()
        draws = torch.sigmoid(guide.gate_log_odds + noise @ guide.gate_factor_loadings.T)
    assert_mean(draws, torch.sigmoid(guide.inclusion_log_odds()), rounding=0.025)


@pytest.mark.contract
def test_draws_one_factor_for_all_gates_and_examples():
    model = make_model()
    guide = LowRankGuide(model, rank=3)
    assert set(guide()) == {"gate"}
    assert guide(torch.randn(5, 4))["gate"].shape == (4,)
    model.set_mode(noise="per_example")
    assert guide(torch.randn(5, 4))["gate"].shape == (5, 4)


@pytest.mark.contract
def test_names_the_parameters_of_the_gates():
    guide = LowRankGuide(make_model(), rank=2)
    shapes = {name: tuple(p.shape) for name, p in guide.named_parameters()}
    assert [shapes[name] for name in guide.gate_parameters] == [(4,), (4, 2)]
    assert not guide.independent_gates
    assert all(p.dtype == torch.float64 for p in guide.parameters())


@pytest.mark.contract
@pytest.mark.parametrize("rank", [0, 5, -1])
def test_rank_is_checked(rank):
    text = rf"^Expected 1 <= rank <= 4 \(the number of edges\), but got {rank}\.$"
    with pytest.raises(ValueError, match=text):
        LowRankGuide(make_model(), rank=rank)


@pytest.mark.contract
def test_gates_are_needed():
    text = r"^Expected a model with gates, but its gate_prior is None\. Use MeanFieldGuide\.$"
    with pytest.raises(ValueError, match=text):
        LowRankGuide(make_model(gate_prior=None))
