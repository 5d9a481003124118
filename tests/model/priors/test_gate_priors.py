"""Priors over gates: their odds, their sites, and the posteriors that they lead to."""

from __future__ import annotations

import re
from functools import partial

import pyro
import pytest
import torch
from pyro import poutine
from torch import nn

from pyro_relevance import RelevanceModel, find_edges, fit, likelihoods, networks, priors
from pyro_relevance.training.schedules import Schedules, constant, exponential
from tests import oracles

NETWORK = networks.MLP(3, [4], 2)
EDGES = find_edges(NETWORK, granularity=("input", "unit", "weight"))
ALL = [
    priors.IndependentPrior(-1.0),
    priors.HierarchicalPrior(2.0, 3.0),
    priors.DescriptionLengthPrior(0.5),
]


@pytest.mark.contract
@pytest.mark.parametrize("prior", ALL, ids=lambda p: type(p).__name__)
def test_has_one_log_odds_per_edge_and_the_sites_that_it_states(prior):
    assert isinstance(prior, priors.GatePrior)
    fixed = prior.log_odds(EDGES).double()
    assert tuple(fixed.shape) == (EDGES.num_edges,)
    trace = poutine.trace(prior.sample).get_trace(fixed, EDGES)
    sampled = trace.nodes["_RETURN"]["value"]
    assert tuple(sampled.shape) == (EDGES.num_edges,)
    assert sampled.dtype == torch.float64
    stated = {latent.name: tuple(latent.initial.shape) for latent in prior.latents(EDGES)}
    sites = {name: tuple(trace.nodes[name]["value"].shape) for name in trace.stochastic_nodes}
    assert sites == stated


@pytest.mark.contract
@pytest.mark.parametrize("prior", ALL, ids=lambda p: type(p).__name__)
def test_is_a_value(prior):
    assert prior == type(prior)(**prior.__dict__)
    with pytest.raises(AttributeError):
        prior.anything = 1


@pytest.mark.contract
def test_defaults_are_the_documented_ones():
    assert priors.IndependentPrior() == priors.IndependentPrior(0.0)
    assert priors.HierarchicalPrior() == priors.HierarchicalPrior(1.0, 1.0)
    default = priors.DescriptionLengthPrior(nats=1.0, per="parameter", num_bytes=4.0)
    assert priors.DescriptionLengthPrior() == default


# Independent.


@pytest.mark.contract
def test_independent_odds_by_group_and_edge():
    unit = torch.tensor([1.0, 2.0, 3.0, 4.0])
    given = {name: -1.0 for name in EDGES.names} | {"hidden1.units": unit}
    parts = EDGES.split(priors.IndependentPrior(given).log_odds(EDGES))
    torch.testing.assert_close(parts["hidden1.units"], unit)
    torch.testing.assert_close(parts["inputs"], torch.full((3,), -1.0))
    torch.testing.assert_close(parts["output.weight"], torch.full((2, 4), -1.0))


@pytest.mark.contract
@pytest.mark.parametrize("probability", [1e-6, 0.12, 0.5, 1 - 1e-6])
def test_independent_from_probability(probability):
    log_odds = priors.IndependentPrior.from_probability(probability).log_odds(EDGES)
    expected = torch.full((EDGES.num_edges,), probability)
    torch.testing.assert_close(torch.sigmoid(log_odds), expected)


@pytest.mark.contract
@pytest.mark.parametrize("probability", [0.0, 1.0, -0.1, float("nan")])
def test_probability_is_checked(probability):
    text = f"Expected a prior inclusion probability in (0, 1), but got {probability}."
    with pytest.raises(ValueError, match=re.escape(text)):
        priors.IndependentPrior.from_probability(probability)


@pytest.mark.contract
@pytest.mark.parametrize(
    ("given", "text"),
    [
        (float("inf"), "Expected a finite prior_log_odds, but got inf."),
        (
            {"inputs": 0.0, "other": 1.0},
            "Expected prior_log_odds for exactly the groups ['inputs'], but got ['inputs', "
            "'other'].",
        ),
        (
            {"inputs": torch.zeros(4)},
            "Expected prior_log_odds['inputs'] of shape (3,) or a number, but got (4,).",
        ),
        (
            {"inputs": torch.tensor([0.0, float("nan"), 0.0])},
            "Expected finite prior_log_odds['inputs'], but got a NaN or infinite entry.",
        ),
    ],
)
def test_independent_odds_are_checked(given, text):
    edges = find_edges(NETWORK, granularity="input")
    with pytest.raises(ValueError, match=re.escape(text)):
        priors.IndependentPrior(given).log_odds(edges)


# Description length.


@pytest.mark.exact
def test_description_length_counts_what_disappears():
    """An input: its column. A unit: its row, bias and columns. A weight: itself."""
    parts = EDGES.split(priors.DescriptionLengthPrior(0.5).log_odds(EDGES))
    torch.testing.assert_close(parts["inputs"], torch.full((3,), -0.5 * 4))
    torch.testing.assert_close(parts["hidden1.units"], torch.full((4,), -0.5 * (3 + 1 + 2)))
    torch.testing.assert_close(parts["hidden1.weight"], torch.full((4, 3), -0.5))
    torch.testing.assert_close(parts["output.weight"], torch.full((2, 4), -0.5))


@pytest.mark.exact
def test_description_length_equals_the_parameters_of_smaller_networks():
    def size(num_inputs, hidden):
        return sum(p.numel() for p in networks.MLP(num_inputs, hidden, 2).parameters())

    edges = find_edges(networks.MLP(5, [6, 7], 2), granularity=("input", "unit"))
    parts = edges.split(priors.DescriptionLengthPrior(1.0).log_odds(edges))
    full = size(5, [6, 7])
    assert {name: {-float(v) for v in part} for name, part in parts.items()} == {
        "inputs": {full - size(4, [6, 7])},
        "hidden1.units": {full - size(5, [5, 7])},
        "hidden2.units": {full - size(5, [6, 6])},
    }


@pytest.mark.exact
def test_description_length_in_bytes():
    by_byte = priors.DescriptionLengthPrior(0.25, per="byte", num_bytes=2.0)
    by_parameter = priors.DescriptionLengthPrior(0.5)
    torch.testing.assert_close(by_byte.log_odds(EDGES), by_parameter.log_odds(EDGES))
    half_bytes = priors.DescriptionLengthPrior(1.0, per="byte", num_bytes=0.5)
    torch.testing.assert_close(half_bytes.log_odds(EDGES), by_parameter.log_odds(EDGES))
    assert float(priors.DescriptionLengthPrior(0.0).log_odds(EDGES).abs().max()) == 0.0


@pytest.mark.contract
@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"nats": -1.0}, "Expected nats >= 0 per parameter, but got -1.0."),
        ({"nats": -0.5}, "Expected nats >= 0 per parameter, but got -0.5."),
        ({"num_bytes": -1.0}, "Expected num_bytes > 0, but got -1.0."),
        ({"nats": float("inf"), "per": "byte"}, "Expected nats >= 0 per byte, but got inf."),
        ({"per": "mac"}, "Expected per to be 'parameter' or 'byte', but got 'mac'."),
        ({"num_bytes": 0.0}, "Expected num_bytes > 0, but got 0.0."),
    ],
)
def test_description_length_is_checked(settings, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        priors.DescriptionLengthPrior(**settings)


# Hierarchical.


@pytest.mark.contract
def test_hierarchical_rates_belong_to_groups():
    prior = priors.HierarchicalPrior(2.0, 3.0)
    rates = torch.tensor([1.0, 2.0, 3.0, 4.0])
    with poutine.condition(data={"inclusion_logit": rates}), poutine.trace():
        log_odds = prior.sample(torch.zeros(EDGES.num_edges), EDGES)
    for rate, part in zip(rates, EDGES.split(log_odds).values(), strict=True):
        torch.testing.assert_close(part, rate.expand(part.shape))


@pytest.mark.exact
def test_hierarchical_rates_start_at_the_mean_of_the_prior():
    (latent,) = priors.HierarchicalPrior(2.0, 3.0).latents(EDGES)
    assert (latent.name, latent.kind, latent.initial_scale) == ("inclusion_logit", "real", 0.3)
    torch.testing.assert_close(latent.initial.sigmoid(), torch.full((4,), 2.0 / 5.0))


@pytest.mark.exact
def test_hierarchical_rates_are_beta():
    prior = priors.HierarchicalPrior(2.0, 3.0)
    trace = poutine.trace(prior.sample).get_trace(torch.zeros(EDGES.num_edges), EDGES)
    site = trace.nodes["inclusion_logit"]
    rate = torch.sigmoid(site["value"])
    beta = torch.distributions.Beta(2.0, 3.0).log_prob(rate) + (rate * (1 - rate)).log()
    torch.testing.assert_close(site["fn"].log_prob(site["value"]), beta.sum())


@pytest.mark.contract
@pytest.mark.parametrize("name", ["concentration1", "concentration0"])
def test_concentrations_are_checked(name):
    with pytest.raises(ValueError, match=rf"^Expected {name} > 0, but got 0\.0\.$"):
        priors.HierarchicalPrior(**{name: 0.0})


@pytest.mark.statistical
def test_hierarchical_rate_is_close_to_the_enumerated_posterior():
    """Ten inputs, seven of them plainly relevant: the rate rises and pulls the doubtful ones up."""
    x = oracles.orthogonal_design(60, 10)
    weights = torch.full((10,), 0.4).double()
    effect = torch.tensor([1.0] * 7 + [0.5] * 3).double()
    y = x @ (effect * weights)
    likelihood = oracles.log_likelihood_of_fixed_weights(x, y, weights, 1.0)
    exact = oracles.GatePosterior(likelihood + oracles.hierarchical_log_prior(10, 1.0, 1.0))
    # Beta(1 + on, 1 + off) given the gates
    on = oracles.configurations(10).sum(1)
    rate = float(exact.probability @ ((1 + on) / 12))

    network = nn.Linear(10, 1, bias=False).double()
    network.weight.data.copy_(weights[None])
    network.requires_grad_(False)
    posterior = fit(
        RelevanceModel(
            network,
            find_edges(network, granularity="input"),
            likelihood=likelihoods.Gaussian(learn_noise=False),
            num_data=60,
            gate_prior=priors.HierarchicalPrior(),
            weight_prior=priors.PointWeights(None),
        ),
        (x, y),
        num_epochs=600,
        batch_size=None,
        learning_rate=0.05,
        gate_learning_rate=0.1,
        schedules=Schedules(exponential(1.0, 0.1), constant(1.0), exponential(1.0, 0.03)),
        num_chains=8,
        initial_weights="network",
    ).posterior
    location = posterior.state["guide.latent_posteriors.loc.inclusion_logit"].mean()
    scale = posterior.state["guide.latent_posteriors.log_scale.inclusion_logit"].exp().mean()
    draws = torch.sigmoid(location + scale * torch.randn(5000))
    assert rate > 0.7
    assert float(draws.mean()) == pytest.approx(rate, abs=0.05)
    found = posterior.inclusion_probability()["inputs"].mean(0)
    # The relaxation and the independence of rate and gates pull doubtful gates towards 1/2.
    assert float(found[7:].mean()) == pytest.approx(
        float(exact.inclusion_probability[7:].mean()), abs=0.15
    )
    flat = oracles.GatePosterior(likelihood + oracles.independent_log_prior(torch.zeros(10)))
    assert found[7:].mean() > flat.inclusion_probability[7:].mean() + 0.1


@pytest.mark.contract
def test_hierarchical_prior_of_a_model_moves_with_its_dtype():
    network = networks.MLP(3, [4], 1).double()
    model = RelevanceModel(
        network,
        find_edges(network, granularity="unit"),
        likelihood=likelihoods.Gaussian(),
        num_data=5,
        gate_prior=priors.HierarchicalPrior(3.0, 1.0),
    )
    (latent,) = model.latents()
    assert latent.initial.dtype == torch.float64
    assert float(latent.initial) == pytest.approx(torch.tensor(3.0).log().item())
    with poutine.trace() as trace, pyro.poutine.seed(rng_seed=0):
        partial(model.sample_latents)()
    assert trace.trace.nodes["inclusion_logit"]["value"].dtype == torch.float64
