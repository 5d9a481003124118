"""Priors over weights: contracts that all fulfil, and posteriors against closed forms."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import pytest
import torch
from pyro import poutine
from scipy import stats
from torch import nn

from pyro_relevance import (
    LeanELBO,
    RelevanceModel,
    find_edges,
    fit,
    likelihoods,
    networks,
    priors,
    relevance,
)
from pyro_relevance.model.guides import MeanFieldGuide
from pyro_relevance.training.schedules import Schedules, constant, exponential
from tests import oracles

ALL = [
    priors.PointWeights(),
    priors.GaussianWeights(),
    priors.ArdWeights(),
    priors.HorseshoeWeights(),
    priors.LogUniformWeights(),
]
SAMPLED = ALL[:-1]


def parameters_of(network):
    return {name: value.detach() for name, value in network.named_parameters()}


def type_name(value):
    return type(value).__name__


# Contracts.


@pytest.mark.contract
@pytest.mark.parametrize("prior", SAMPLED, ids=type_name)
@pytest.mark.parametrize(
    "network",
    [networks.MLP(3, [4], 2), nn.Sequential(nn.Conv1d(2, 3, 5), nn.Linear(3, 1)).double()],
)
def test_returns_the_parameters_in_shape_and_dtype_from_the_stated_sites(prior, network):
    assert isinstance(prior, priors.WeightPrior)
    parameters = parameters_of(network)
    trace = poutine.trace(prior.sample).get_trace(parameters)
    sampled = trace.nodes["_RETURN"]["value"]
    assert list(sampled) == list(parameters)
    for name, value in parameters.items():
        assert sampled[name].shape == value.shape
        assert sampled[name].dtype == value.dtype
    stated = {latent.name: tuple(latent.initial.shape) for latent in prior.latents(parameters)}
    sites = {name: tuple(trace.nodes[name]["value"].shape) for name in trace.stochastic_nodes}
    assert sites == stated
    assert set(prior.latent_parameters(parameters)) <= set(parameters)


@pytest.mark.contract
@pytest.mark.parametrize("prior", ALL, ids=type_name)
def test_guides_start_at_the_weights_of_the_network(prior):
    """With the stated starting values the program returns the network's own parameters."""
    network = networks.MLP(3, [4], 2)
    parameters = parameters_of(network)
    values = {latent.name: latent.initial for latent in prior.latents(parameters)}
    with poutine.trace(), poutine.condition(data=values):
        started = prior.sample(parameters)
    for name, value in parameters.items():
        torch.testing.assert_close(started[name], value)


@pytest.mark.contract
@pytest.mark.parametrize("prior", ALL, ids=type_name)
def test_first_loss_and_gradients_are_finite(prior):
    network = networks.MLP(3, [4], 1)
    network.output.weight.data.zero_()  # no division by the size of a weight
    model = RelevanceModel(
        network,
        find_edges(network, granularity="unit"),
        likelihood=likelihoods.Gaussian(),
        num_data=8,
        weight_prior=prior,
    )
    guide = MeanFieldGuide(model)
    loss = LeanELBO().differentiable_loss(model, guide, torch.randn(8, 3), torch.randn(8))
    loss.backward()
    assert bool(torch.isfinite(loss))
    for parameter in [*model.parameters(), *guide.parameters()]:
        assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all())


@pytest.mark.contract
@pytest.mark.parametrize("prior", ALL, ids=type_name)
def test_is_a_value(prior):
    assert prior == type(prior)(**prior.__dict__)
    with pytest.raises(AttributeError):
        prior.anything = 1


@pytest.mark.contract
def test_defaults_are_the_documented_ones():
    assert priors.PointWeights() == priors.PointWeights(1.0)
    assert priors.GaussianWeights() == priors.GaussianWeights(1.0, 0.05)
    assert priors.ArdWeights() == priors.ArdWeights(1.0, 0.1, 1.0, 0.05)
    assert priors.HorseshoeWeights() == priors.HorseshoeWeights(0.1, 1.0, 0.05)
    assert priors.LogUniformWeights() == priors.LogUniformWeights(1.0, 0.01)


@pytest.mark.contract
@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        (priors.PointWeights(2.0), []),
        (priors.GaussianWeights(2.0, 0.4), [("weights", "real", 0.4)]),
        (
            priors.ArdWeights(initial_scale=0.4),
            [("weight_scale", "positive", 0.3), ("weights", "real", 0.4)],
        ),
        (
            priors.HorseshoeWeights(initial_scale=0.4),
            [
                ("layer_scale", "positive", 0.3),
                ("weight_scale", "positive", 0.3),
                ("weights", "real", 0.4),
            ],
        ),
        (priors.LogUniformWeights(1.0, 0.4), [("weights", "multiplicative", 0.4)]),
    ],
    ids=type_name,
)
def test_sites_start_with_the_stated_kind_and_spread(prior, expected):
    found = prior.latents(parameters_of(networks.MLP(3, [4], 2)))
    assert [(latent.name, latent.kind, latent.initial_scale) for latent in found] == expected


def density_of(prior, parameters, values):
    """Return the log density of each site, with the values given."""
    with poutine.condition(data=values):
        trace = poutine.trace(prior.sample).get_trace(parameters)
    return {name: trace.nodes[name]["fn"].log_prob(value) for name, value in values.items()}


@pytest.mark.exact
def test_densities_of_the_sites_are_those_of_scipy():
    network = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Linear(3, 1)).double()
    parameters = parameters_of(network)
    sizes = [value.numel() for value in parameters.values()]  # 24, 3, 3, 1
    generator = torch.Generator().manual_seed(4)
    z = torch.randn(sum(sizes), generator=generator, dtype=torch.float64)
    scales = torch.rand(5, generator=generator, dtype=torch.float64) + 0.2
    layers = torch.tensor([0.05, 3.0], dtype=torch.float64)

    own = dict(zip(parameters, (0.5, 1.0, 2.0, 4.0), strict=True))
    each = torch.tensor([0.5] * 24 + [1.0] * 3 + [2.0] * 3 + [4.0])
    found = density_of(priors.GaussianWeights(own), parameters, {"weights": z})
    assert float(found["weights"]) == pytest.approx(stats.norm(0, each).logpdf(z).sum())

    # Kernels: column 0 or 1 of two; the layer: columns 2 to 4; biases have their own scale.
    column = scales[:2].view(1, 2, 1, 1).expand(3, 2, 2, 2).reshape(-1)
    bias = torch.full((1,), 0.7, dtype=torch.float64)
    each = torch.cat([column, bias.expand(3), scales[2:], bias])
    values = {"weight_scale": scales.square(), "weights": z}
    found = density_of(priors.ArdWeights(2.0, 0.3, 0.7), parameters, values)
    assert float(found["weights"]) == pytest.approx(stats.norm(0, each).logpdf(z).sum())
    inverse_gamma = stats.invgamma(2.0, scale=0.3).logpdf(scales.square()).sum()
    assert float(found["weight_scale"]) == pytest.approx(inverse_gamma)

    values = {"layer_scale": layers, "weight_scale": scales, "weights": z}
    found = density_of(priors.HorseshoeWeights(0.4, 0.7), parameters, values)
    assert float(found["weights"]) == pytest.approx(stats.norm.logpdf(z).sum())
    assert float(found["weight_scale"]) == pytest.approx(stats.halfcauchy.logpdf(scales).sum())
    half_cauchy = stats.halfcauchy(scale=0.4).logpdf(layers).sum()
    assert float(found["layer_scale"]) == pytest.approx(half_cauchy)


@pytest.mark.exact
@pytest.mark.parametrize("prior", SAMPLED[1:], ids=type_name)
def test_densities_of_many_chains_are_those_of_each(prior):
    """Chains train together, stacked along a dimension that the prior does not see."""
    parameters = parameters_of(networks.MLP(3, [4], 2))
    chains = {
        latent.name: latent.initial.abs() + 0.1 + torch.rand(3, *latent.initial.shape)
        for latent in prior.latents(parameters)
    }

    def density(values):
        return density_of(prior, parameters, values)

    together = torch.func.vmap(density)(chains)
    for chain in range(3):
        single = density({name: value[chain] for name, value in chains.items()})
        for name, value in single.items():
            torch.testing.assert_close(together[name][chain], value)


@pytest.mark.contract
def test_scales_of_the_horseshoe_start_at_the_size_of_the_weights():
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    network[1].weight.data.zero_()
    layer, column, weights = priors.HorseshoeWeights(bias_scale=0.5).latents(parameters_of(network))
    size = network[0].weight.detach().square().mean().sqrt()
    torch.testing.assert_close(layer.initial, torch.stack([size, torch.tensor(1e-3)]))
    assert column.initial.tolist() == [1.0] * 7
    torch.testing.assert_close(weights.initial[:12], network[0].weight.detach().view(-1) / size)
    torch.testing.assert_close(weights.initial[12:16], network[0].bias.detach() / 0.5)


@pytest.mark.exact
def test_point_weights_add_the_density_of_their_prior():
    parameters = parameters_of(networks.MLP(3, [4], 2))
    scales = {name: 0.5 + i for i, name in enumerate(parameters)}
    for scale in (0.7, scales):
        trace = poutine.trace(priors.PointWeights(scale).sample).get_trace(parameters)
        expected = sum(
            torch.distributions.Normal(0.0, scales[n] if scale is scales else 0.7).log_prob(v).sum()
            for n, v in parameters.items()
        )
        torch.testing.assert_close(trace.log_prob_sum(), expected)
    trace = poutine.trace(priors.PointWeights(None).sample).get_trace(parameters)
    assert not trace.observation_nodes


@pytest.mark.exact
def test_point_weights_of_large_networks_have_the_density_and_gradient_of_the_formula():
    """Many parameters take another way through memory."""
    network = networks.MLP(150, [120], 2)
    trace = poutine.trace(priors.PointWeights(0.7).sample).get_trace(
        dict(network.named_parameters())
    )
    density = trace.log_prob_sum()
    normal = torch.distributions.Normal(0.0, 0.7)
    torch.testing.assert_close(density, sum(normal.log_prob(p).sum() for p in network.parameters()))
    density.backward()
    for parameter in network.parameters():
        torch.testing.assert_close(parameter.grad, -parameter.detach() / 0.7**2)


@pytest.mark.exact
def test_column_scales_act_on_the_columns_of_each_layer():
    """Dimension 1 of a matrix or kernel; biases keep their own scale."""
    network = nn.Sequential(nn.Conv1d(2, 3, 5), nn.Linear(3, 1))
    parameters = parameters_of(network)
    scales = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    expected = {
        "0.weight": scales[:2].view(1, 2, 1).expand(3, 2, 5),
        "0.bias": torch.full((3,), 0.5),
        "1.weight": scales[2:].view(1, 3),
        "1.bias": torch.full((1,), 0.5),
    }
    vector = torch.cat([value.reshape(-1) for value in expected.values()])

    ard = {"weight_scale": scales.square()}
    with poutine.condition(data=ard):
        trace = poutine.trace(priors.ArdWeights(bias_scale=0.5).sample).get_trace(parameters)
    torch.testing.assert_close(trace.nodes["weights"]["fn"].base_dist.scale, vector)

    layers, ones = torch.tensor([10.0, 100.0]), torch.ones(len(vector))
    horseshoe = {"layer_scale": layers, "weight_scale": scales, "weights": ones}
    with poutine.condition(data=horseshoe), poutine.trace():
        sampled = priors.HorseshoeWeights(bias_scale=0.5).sample(parameters)
    torch.testing.assert_close(sampled["0.weight"], 10 * expected["0.weight"])
    torch.testing.assert_close(sampled["1.weight"], 100 * expected["1.weight"])
    torch.testing.assert_close(sampled["0.bias"], expected["0.bias"])


@pytest.mark.exact
def test_squared_scales_start_at_their_conditional_given_the_weights():
    network = nn.Sequential(nn.Conv1d(2, 3, 5), nn.Linear(3, 1))
    prior = priors.ArdWeights(concentration=2.0, rate=0.3)
    start = prior.latents(parameters_of(network))[0].initial
    column = network[0].weight.detach()[:, 1].reshape(-1)
    # s^2 | w ~ InverseGamma(a + n / 2, b + sum w^2 / 2), and E[1 / s^2] = a' / b'
    expected = (0.3 + column.square().sum() / 2) / (2.0 + 15 / 2)
    torch.testing.assert_close(start[1], expected)
    assert tuple(start.shape) == (5,)


@pytest.mark.contract
def test_log_uniform_weights_leave_vectors_as_points():
    prior = priors.LogUniformWeights(bias_scale=0.5)
    parameters = parameters_of(networks.MLP(3, [4], 2))
    assert prior.latent_parameters(parameters) == ("hidden1.weight", "output.weight")
    values = {"weights": torch.arange(1.0, 21.0)}
    with poutine.condition(data=values):
        trace = poutine.trace(prior.sample).get_trace(parameters)
    sampled = trace.nodes["_RETURN"]["value"]
    torch.testing.assert_close(sampled["hidden1.weight"], torch.arange(1.0, 13.0).view(4, 3))
    assert sampled["hidden1.bias"] is parameters["hidden1.bias"]
    normal = torch.distributions.Normal(0.0, 0.5)
    density = sum(normal.log_prob(parameters[n]).sum() for n in ("hidden1.bias", "output.bias"))
    trace.compute_log_prob()
    torch.testing.assert_close(trace.nodes["weight_prior"]["log_prob_sum"], density)


# Arguments.


@pytest.mark.contract
@pytest.mark.parametrize(
    ("make", "names"),
    [
        (priors.GaussianWeights, ["initial_scale"]),
        (priors.ArdWeights, ["concentration", "rate", "bias_scale", "initial_scale"]),
        (priors.HorseshoeWeights, ["layer_scale", "bias_scale", "initial_scale"]),
        (priors.LogUniformWeights, ["bias_scale", "initial_scale"]),
    ],
)
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_arguments_are_checked(make, names, value):
    for name in names:
        with pytest.raises(ValueError, match=rf"^Expected {name} > 0, but got {value}\.$"):
            make(**{name: value})


@pytest.mark.contract
@pytest.mark.parametrize("make", [priors.PointWeights, priors.GaussianWeights])
def test_scales_are_checked_against_the_parameters(make):
    parameters = parameters_of(nn.Linear(3, 1))
    text = "Expected a prior scale for exactly the parameters ['weight', 'bias'], but got ['bias']."
    with pytest.raises(ValueError, match=re.escape(text)):
        make({"bias": 1.0}).latents(parameters)
    for scale in (0.0, {"weight": -1.0, "bias": 1.0}, float("nan")):
        with pytest.raises(ValueError, match=r"^Expected a prior scale > 0 for 'weight', but got"):
            make(scale).latents(parameters)


# Posteriors of linear regression.


def fit_regression(prior, x, y, *, num_epochs, noise_scale=1.0, learning_rate=0.03):
    """Fit from half the least-squares weights of orthogonal inputs."""
    network = nn.Linear(x.shape[1], 1, bias=False)
    network.weight.data.copy_(0.5 * x.T @ y / len(x))
    model = RelevanceModel(
        network,
        find_edges(network, granularity="weight"),
        likelihood=likelihoods.Gaussian(noise_scale, learn_noise=False),
        num_data=len(x),
        gate_prior=None,
        weight_prior=prior,
    )
    schedules = Schedules(constant(1.0), constant(1.0), exponential(1.0, 0.01))
    return fit(
        model,
        (x.float(), y.float()),
        num_epochs=num_epochs,
        batch_size=None,
        learning_rate=learning_rate,
        schedules=schedules,
        num_chains=4,
        initial_weights="network",
    ).posterior


@pytest.mark.statistical
def test_gaussian_weights_find_the_posterior_of_linear_regression():
    """Orthogonal inputs: the exact posterior is a product of Normals, as the guide is."""
    x = oracles.orthogonal_design(30, 6)
    y = x @ torch.tensor([1.0, -0.5, 0.2, 0.0, 0.0, 2.0]).double() + 0.5 * torch.randn(30)
    mean, covariance, _ = oracles.gaussian_posterior(x, y, 0.8, 0.5)
    posterior = fit_regression(priors.GaussianWeights(0.8), x, y, num_epochs=800, noise_scale=0.5)
    loc = posterior.state["guide.latent_posteriors.loc.weights"].double()
    scale = posterior.state["guide.latent_posteriors.log_scale.weights"].exp().double()
    sd = covariance.diagonal().sqrt()
    assert ((loc - mean).abs() / sd).max() < 0.2
    assert (scale.mean(0) / sd - 1).abs().max() < 0.05
    assert (scale / sd - 1).abs().max() < 0.2
    found = posterior.network().weight.detach()[0].double()
    torch.testing.assert_close(found, loc[0], rtol=0, atol=1e-6)


@pytest.mark.statistical
@pytest.mark.parametrize(
    "prior", [priors.ArdWeights(rate=1e-3), priors.HorseshoeWeights()], ids=type_name
)
def test_learned_scales_shrink_the_columns_that_are_not_needed(prior):
    x = oracles.orthogonal_design(40, 8)
    truth = torch.tensor([1.0, -1.0, 0.7, 0, 0, 0, 0, 0]).double()
    y = x @ truth + 0.5 * torch.randn(40)
    least_squares = (x.T @ y / 40)[3:].abs().mean()
    posterior = fit_regression(prior, x, y, num_epochs=500, noise_scale=0.5, learning_rate=0.05)
    weights = torch.cat([posterior.network(i).weight.detach() for i in range(4)]).double()
    torch.testing.assert_close(weights[:, :3], truth[:3].expand(4, 3), rtol=0.3, atol=0)
    assert weights[:, 3:].abs().mean() < 0.9 * least_squares
    scales = posterior.state["guide.latent_posteriors.loc.weight_scale"].mean(0)
    assert scales[:3].min() > scales[3:].max() + 0.5


@pytest.mark.statistical
def test_log_uniform_weights_find_the_relevant_ones_by_their_noise():
    x = oracles.orthogonal_design(40, 8)
    truth = torch.tensor([1.0, -1.0, 0.7, 0, 0, 0, 0, 0]).double()
    y = x @ truth + 0.5 * torch.randn(40)
    posterior = fit_regression(priors.LogUniformWeights(), x, y, num_epochs=800, noise_scale=0.5)
    draws = posterior.sample(200)
    open_gates = {"weight": torch.ones_like(draws.weights["weight"])}
    draws = SimpleNamespace(gates=open_gates, weights=draws.weights)
    ratio = relevance.signal_to_noise(draws, posterior.edges)["weight"][:, 0]
    cut = math.exp(-1.5)  # log alpha > 3, Molchanov et al. 2017
    assert ratio[:, :3].min() > 4
    assert (ratio[:, 3:] < 2.5).all()
    assert (ratio[:, 3:] < cut).float().mean() > 0.3
