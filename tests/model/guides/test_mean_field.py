"""The mean-field guide and the posteriors of the other sites that all explicit guides share."""

from __future__ import annotations

import pyro
import pytest
import torch
from pyro import poutine

from pyro_relevance import RelevanceModel, find_edges, likelihoods, networks, priors
from pyro_relevance.model.guides import MeanFieldGuide
from pyro_relevance.model.guides._weights import LatentPosteriors
from pyro_relevance.model.latents import Latent
from tests.bounds import assert_mean

WEIGHT_PRIORS = [
    priors.PointWeights(),
    priors.GaussianWeights(),
    priors.ArdWeights(),
    priors.HorseshoeWeights(),
    priors.LogUniformWeights(),
]


def make_model(gate_prior=priors.IndependentPrior(), weight_prior=priors.PointWeights()):  # noqa: B008
    network = networks.MLP(3, [4], 1)
    edges = find_edges(network, granularity=("input", "unit"))
    return RelevanceModel(
        network,
        edges,
        likelihood=likelihoods.Gaussian(),
        num_data=10,
        gate_prior=gate_prior,
        weight_prior=weight_prior,
    )


@pytest.mark.contract
@pytest.mark.parametrize("weight_prior", WEIGHT_PRIORS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("gate_prior", [priors.HierarchicalPrior(), None])
def test_has_the_sites_of_the_model_in_its_order(gate_prior, weight_prior):
    """In the same order, so that Pyro's check of the mean-field condition passes."""
    model = make_model(gate_prior, weight_prior)
    x, y = torch.randn(5, 3), torch.randn(5)
    guide = poutine.trace(MeanFieldGuide(model)).get_trace(x, y)
    replayed = poutine.trace(poutine.replay(model, guide)).get_trace(x, y)
    assert guide.stochastic_nodes == [n for n in replayed.stochastic_nodes if n != "data"]
    for name in guide.stochastic_nodes:
        ours, theirs = guide.nodes[name]["fn"], replayed.nodes[name]["fn"]
        assert (ours.batch_shape, ours.event_shape) == (theirs.batch_shape, theirs.event_shape)


@pytest.mark.contract
def test_makes_all_parameters_at_construction():
    model = make_model(priors.HierarchicalPrior(), priors.ArdWeights())
    guide = MeanFieldGuide(model, initial_log_odds=1.5)
    before = {name: tuple(p.shape) for name, p in guide.named_parameters()}
    guide(torch.randn(5, 3))
    assert {name: tuple(p.shape) for name, p in guide.named_parameters()} == before
    assert before["gate_log_odds"] == (7,)
    assert set(guide.gate_parameters) <= set(before)
    assert bool((guide.gate_log_odds == 1.5).all())
    assert not any(name.startswith("_model") for name in before)


@pytest.mark.contract
def test_without_gates_there_is_no_gate_site():
    guide = MeanFieldGuide(make_model(None, priors.GaussianWeights()))
    assert not hasattr(guide, "gate_log_odds")
    assert set(guide()) == {"weights"}


@pytest.mark.contract
def test_inclusion_log_odds_are_the_parameters_without_a_gradient():
    guide = MeanFieldGuide(make_model())
    log_odds = guide.inclusion_log_odds()
    torch.testing.assert_close(log_odds, guide.gate_log_odds.detach())
    assert not log_odds.requires_grad


@pytest.mark.contract
def test_starts_at_the_weights_of_the_network():
    model = make_model(None, priors.GaussianWeights(initial_scale=0.02))
    guide = MeanFieldGuide(model)
    weights = torch.cat([p.detach().reshape(-1) for p in model.network.parameters()])
    torch.testing.assert_close(guide.latent_posteriors.mean()["weights"], weights)
    scale = guide.latent_posteriors.posterior("weights").scale
    torch.testing.assert_close(scale, torch.full_like(scale, 0.02))


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["real", "positive", "multiplicative"])
def test_stated_means_are_the_means_of_the_draws(kind):
    initial = torch.tensor([0.5, 1.0, 2.0])
    posteriors = LatentPosteriors([Latent("site", kind, initial, 0.3)])
    with torch.no_grad():
        draws = posteriors.posterior("site").rsample((20_000,))
    assert_mean(draws, posteriors.mean()["site"])
    if kind != "positive":
        assert_mean((draws - initial).square(), torch.full((3,), 0.09))
    else:
        assert_mean(draws.log(), initial.log())
        assert_mean((draws.log() - initial.log()).square(), torch.full((3,), 0.09))


@pytest.mark.contract
def test_a_weight_at_zero_keeps_its_noise_finite():
    """Multiplicative noise is stated by mean and standard deviation, not by their ratio."""
    posteriors = LatentPosteriors([Latent("weights", "multiplicative", torch.zeros(2), 0.1)])
    draw = posteriors()["weights"]
    draw.sum().backward()
    for parameter in posteriors.parameters():
        assert bool(torch.isfinite(parameter.grad).all())


@pytest.mark.contract
def test_gates_are_drawn_for_each_example_where_the_model_says_so():
    model = make_model()
    model.set_mode(noise="per_example")
    assert MeanFieldGuide(model)(torch.randn(5, 3))["gate"].shape == (5, 7)
    assert MeanFieldGuide(model)()["gate"].shape == (1, 7)


@pytest.mark.contract
def test_shares_nothing_with_a_second_guide_and_not_the_parameter_store():
    model = make_model()
    first, second = MeanFieldGuide(model), MeanFieldGuide(model)
    first.gate_log_odds.data.zero_()
    assert bool((second.gate_log_odds == 2.0).all())
    first()
    assert not list(pyro.get_param_store())
