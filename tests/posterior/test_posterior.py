"""Posteriors: draws with hard gates, predictions, bounds, and nothing left behind."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pytest
import torch
from pyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoNormal
from torch import nn
from torch.func import functional_call

import pyro_relevance as pr
from pyro_relevance import likelihoods, priors
from pyro_relevance._random import local_pyro
from pyro_relevance.errors import NotFittedError
from pyro_relevance.posterior.posterior import Posterior
from tests import oracles
from tests.bounds import assert_frequency, assert_mean, standard_errors
from tests.small_fits import make_model, make_network, quick_fit, regression, same


def _state(model, guide, num_chains=1):
    """Return the state of a model and guide as they are, the same for each chain."""
    named = {f"model.{n}": t for n, t in [*model.named_parameters(), *model.named_buffers()]}
    named |= {f"guide.{n}": t for n, t in [*guide.named_parameters(), *guide.named_buffers()]}
    return {n: t.detach().expand(num_chains, *t.shape).clone() for n, t in named.items()}


def _posterior(model, guide=None, num_chains=1):
    with local_pyro():
        made = pr.guides.MeanFieldGuide(model) if guide is None else guide(model)
    return Posterior(model, made, _state(model, made, num_chains))


@pytest.fixture(scope="module")
def fitted():
    """A fit with BatchNorm, Gaussian weights, a learned noise scale and two chains."""
    model = make_model(
        make_network(batch_norm=True),
        weight_prior=priors.GaussianWeights(),
        gate_prior=priors.IndependentPrior(-0.5),
    )
    return quick_fit(model, num_chains=2, num_epochs=10, seed=1).posterior


@pytest.fixture(scope="module")
def point():
    """A fit with point weights and three chains."""
    return quick_fit(num_chains=3, num_epochs=10).posterior


@pytest.mark.contract
def test_a_posterior_needs_a_fit():
    model = make_model()
    with pytest.raises(NotFittedError, match=r"Call fit\(model, data, ...\) first"):
        Posterior(model, pr.guides.MeanFieldGuide(model), {})


@pytest.mark.contract
def test_shapes_and_hard_gates(fitted, point):
    for posterior, num_chains, num_weights in ((fitted, 2, 7), (point, 3, 1)):
        draws = posterior.sample(7)
        assert draws.num_chains == posterior.num_chains == num_chains
        assert draws.num_samples == 7
        assert list(draws.gates) == list(draws.inclusion_probability) == list(posterior.edges.names)
        for name, gate in draws.gates.items():
            assert gate.shape == (num_chains, 7, *posterior.edges[name].shape)
            assert set(gate.unique().tolist()) <= {0.0, 1.0}
            assert not gate.requires_grad
            assert draws.inclusion_probability[name].shape == gate.shape
        for name, weight in posterior.model.network.named_parameters():
            assert draws.weights[name].shape == (num_chains, num_weights, *weight.shape)
            assert not draws.weights[name].requires_grad


@pytest.mark.statistical
@pytest.mark.parametrize(
    "relaxation",
    [
        pr.relaxations.Concrete(),
        pr.relaxations.HardConcreteGate(),
        pr.relaxations.StraightThrough(),
    ],
)
def test_gates_are_drawn_with_their_probability(relaxation):
    posterior = quick_fit(make_model(relaxation=relaxation), gate_learning_rate=0.3).posterior
    draws = posterior.sample(4000)
    for name, probability in posterior.inclusion_probability().items():
        assert_frequency(draws.gates[name][0], probability[0])
        told = draws.inclusion_probability[name]
        torch.testing.assert_close(told, probability.unsqueeze(1).expand_as(told))
        log_odds = posterior.edges.split(posterior.state["guide.gate_log_odds"])[name]
        torch.testing.assert_close(probability, torch.sigmoid(log_odds))


# Predictions


def _by_hand(posterior, x, num_samples, seed, mask=None):
    """Return outputs of each draw by a plain loop over chains, draws and layers."""
    draws = posterior.sample(num_samples, seed=seed)
    outputs = []
    for chain in range(posterior.num_chains):
        for index in range(num_samples):
            network = make_network(batch_norm=len(posterior.model.network) == 4).eval()
            names = [name for name, _ in network.named_parameters()]
            with torch.no_grad():
                for name in names:
                    weight = draws.weights[name][chain]
                    network.get_parameter(name).copy_(weight[index if len(weight) > 1 else 0])
                for name, buffer in network.named_buffers():
                    buffer.copy_(posterior.state[f"model.network.{name}"][chain])
                gates = {name: gate[chain, index] for name, gate in draws.gates.items()}
                if mask is not None:
                    gates = {name: gate * mask[name] for name, gate in gates.items()}
                first, last = names[0], names[-2]
                network.get_parameter(first).mul_(gates["inputs"])
                network.get_parameter(last).mul_(gates["0.units"])
                outputs.append(network(x))
    return torch.stack(outputs).view(posterior.num_chains, num_samples, len(x), -1)


@pytest.mark.exact
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["fitted", "point"])
def test_predict_and_log_likelihood_equal_a_plain_loop(request, name, masked):
    posterior = request.getfixturevalue(name)
    x, y = regression(9, seed=4)
    mask = None
    if masked:
        mask = {"inputs": torch.tensor([1, 0, 1, 1]).bool(), "0.units": torch.arange(5) > 1}
    expected = _by_hand(posterior, x, 6, 11, mask)
    prediction = posterior.predict(x, num_samples=6, seed=11, mask=mask)
    torch.testing.assert_close(prediction.outputs, expected)
    torch.testing.assert_close(prediction.mean, expected.squeeze(-1))
    torch.testing.assert_close(prediction.posterior_mean(), expected.squeeze(-1).mean((0, 1)))
    scale = posterior.state["model.likelihood.log_scale"].exp().view(-1, 1, 1)
    normal = torch.distributions.Normal(expected.squeeze(-1), scale)
    pointwise = posterior.log_likelihood(x, y, num_samples=6, seed=11, mask=mask)
    torch.testing.assert_close(pointwise, normal.log_prob(y))
    assert pointwise.shape == (posterior.num_chains, 6, 9)
    assert not pointwise.requires_grad


@pytest.mark.exact
def test_a_mask_works_without_gates():
    model = make_model(gate_prior=None)
    posterior = quick_fit(model).posterior
    x, _ = regression(5)
    mask = {"inputs": torch.zeros(4).bool(), "0.units": torch.ones(5).bool()}
    outputs = posterior.predict(x, num_samples=2, mask=mask).outputs
    torch.testing.assert_close(outputs, outputs[:, :, :1].expand_as(outputs))
    assert posterior.sample(3).gates == {}
    with pytest.raises(ValueError, match="Expected a model with gates, but its gate_prior is None"):
        posterior.inclusion_probability()


@pytest.mark.contract
def test_masks_must_fit(point):
    x, y = regression(5)
    with pytest.raises(ValueError, match=r"mask\['0.units'\] of shape \(5,\), but got None"):
        point.predict(x, mask={"inputs": torch.ones(4).bool()})
    wrong = {"inputs": torch.ones(3).bool(), "0.units": torch.ones(5).bool()}
    with pytest.raises(ValueError, match=r"mask\['inputs'\] of shape \(4,\), but got \(3,\)"):
        point.log_likelihood(x, y, mask=wrong)


@pytest.mark.contract
@pytest.mark.parametrize("num_samples", [0, -1, 2.0, True])
def test_num_samples_is_checked(point, num_samples):
    x, y = regression(5)
    for call in (
        lambda: point.sample(num_samples),
        lambda: point.sample_prior(num_samples),
        lambda: point.predict(x, num_samples=num_samples),
        lambda: point.elbo(x, y, num_samples=num_samples),
    ):
        with pytest.raises(ValueError, match="num_samples to be a positive integer, but got"):
            call()


@pytest.mark.contract
def test_lengths_must_agree(point):
    with pytest.raises(ValueError, match=r"one row per example, but got \(5, 4\) and \(3,\)"):
        point.log_likelihood(torch.zeros(5, 4), torch.zeros(3))


@pytest.mark.statistical
def test_sampled_targets_have_the_noise_of_their_chain(point):
    x, _ = regression(3)
    state = {name: tensor.clone() for name, tensor in point.state.items()}
    state["model.likelihood.log_scale"] = torch.tensor([[0.1], [1.0], [10.0]]).log()
    posterior = Posterior(point.model, point.guide, state)
    prediction = posterior.predict(x, num_samples=1000)
    residual = (prediction.sample - prediction.mean) / torch.tensor([0.1, 1.0, 10.0]).view(3, 1, 1)
    residual = residual.transpose(0, 1)
    assert_mean(residual, torch.zeros(3, 3))
    assert_mean(residual.square(), torch.ones(3, 3))
    for chain, scale in enumerate((0.1, 1.0, 10.0)):
        likelihood = posterior.chain(chain).likelihood
        torch.testing.assert_close(likelihood.log_scale, torch.tensor([scale]).log())


@pytest.mark.statistical
def test_noise_of_targets_knows_nothing_of_the_weights(fitted):
    x, _ = regression(1)
    prediction = fitted.predict(x, num_samples=1500)
    weights = fitted.sample(1500).weights["0.weight"].reshape(2, 1500, -1)
    noise = (prediction.sample - prediction.mean)[:, :, 0]
    product = (weights - weights.mean(1, keepdim=True)) * noise.unsqueeze(-1)
    assert_mean(product.transpose(0, 1).double(), torch.zeros(2, weights.shape[-1]))


@pytest.mark.contract
def test_classes_and_counts():
    x = regression()[0]
    for likelihood, y, num_outputs, shape in (
        (likelihoods.Categorical(), (x[:, 0] > 0).long(), 3, (2, 48, 3)),
        (likelihoods.Bernoulli(), (x[:, 0] > 0).float(), 1, (2, 48)),
        (likelihoods.Poisson(), x[:, 0].abs().round(), 1, (2, 48)),
    ):
        network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, num_outputs))
        posterior = quick_fit(make_model(network, likelihood=likelihood), (x, y)).posterior
        prediction = posterior.predict(x, num_samples=2)
        assert prediction.outputs.shape == (1, 2, 48, num_outputs)
        assert prediction.mean.shape == (1, *shape)
        assert prediction.sample.shape == (1, 2, 48)
        assert posterior.log_likelihood(x, y, num_samples=2).shape == (1, 2, 48)
        assert bool(posterior.elbo(x, y).isfinite().all())


# What is left behind: nothing


def _everything(posterior):
    model = posterior.model
    return {
        "modes": [module.training for module in model.modules()],
        "guide modes": [module.training for module in posterior.guide.modules()],
        "noise": model.noise,
        "temperature": model.temperature,
        "relaxation": model.relaxation,
        "hooks": [len(module._forward_pre_hooks) for module in model.modules()],
        "buffers": {name: buffer.tolist() for name, buffer in model.named_buffers()},
        "parameters": {name: p.tolist() for name, p in model.named_parameters()},
        "state": {name: tensor.tolist() for name, tensor in posterior.state.items()},
        "gradients": [p.grad is None for p in model.parameters()],
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002 (the state that must not move)
        "pyro settings": pyro.settings.get(),
        "pyro parameters": list(pyro.get_param_store().keys()),
        "grad": torch.is_grad_enabled(),
    }


@pytest.mark.contract
@pytest.mark.parametrize("training", [True, False])
def test_looking_leaves_no_trace(fitted, training):
    x, y = regression(5)
    fitted.model.train(training)
    fitted.model.network.get_submodule("1").train(not training)
    before = _everything(fitted)
    fitted.sample(3)
    fitted.sample_prior(3)
    fitted.predict(x, num_samples=3)
    fitted.log_likelihood(x, y, num_samples=3)
    fitted.elbo(x, y, num_samples=3)
    fitted.inclusion_probability()
    fitted.network(1)
    fitted.chain(1).likelihood  # noqa: B018 (a property that copies)
    assert _everything(fitted) == before
    with pytest.raises(ValueError, match="cannot be multiplied"):
        fitted.predict(x[:, :2], num_samples=3)
    assert _everything(fitted) == before


@pytest.mark.exact
def test_looking_during_per_example_training():
    seen = []

    def look(state):
        if state.step == 5:
            posterior = state.make_posterior()
            hooks = [len(m._forward_pre_hooks) for m in state.model.network.modules()]
            seen.append((posterior, posterior.sample(4), posterior.network(), sum(hooks)))
            assert state.model.noise == "per_example"
            assert hooks == [len(m._forward_pre_hooks) for m in state.model.network.modules()]
            assert state.model.training

    fit = quick_fit(noise="per_example", num_epochs=2, callbacks=[look])
    posterior, draws, network, hooks = seen[0]
    assert hooks == 2
    assert sum(len(module._forward_pre_hooks) for module in network.modules()) == 0
    assert same(draws.gates, posterior.sample(4).gates)  # the same after the run
    assert posterior.model.noise == fit.posterior.model.noise == "shared"


@pytest.mark.exact
def test_draws_depend_on_the_seed_alone(fitted):
    x, _ = regression(4)
    first = fitted.predict(x, num_samples=3, seed=5)
    torch.rand(7)
    again = fitted.predict(x, num_samples=3, seed=5)
    other = fitted.predict(x, num_samples=3, seed=6)
    assert torch.equal(first.sample, again.sample)
    assert torch.equal(first.outputs, again.outputs)
    assert not torch.equal(first.outputs, other.outputs)
    with pytest.raises(ValueError, match="seed to be an integer"):
        fitted.sample(3, seed=0.5)


# Chains


@pytest.mark.exact
def test_a_chain_is_a_slice(fitted, point):
    x, y = regression(4)
    for posterior in (fitted, point):
        for index in (1, -1):
            chain, rows = posterior.chain(index), slice(index % posterior.num_chains, None)
            rows = slice(rows.start, rows.start + 1)
            assert chain.num_chains == 1
            assert same(chain.state, {n: t[rows] for n, t in posterior.state.items()})
            draws, whole = chain.sample(5), posterior.sample(5)
            assert same(draws.gates, {n: g[rows] for n, g in whole.gates.items()})
            assert same(draws.weights, {n: w[rows] for n, w in whole.weights.items()})
            prediction, all_of_them = chain.predict(x), posterior.predict(x)
            assert torch.equal(prediction.sample, all_of_them.sample[rows])
            assert torch.equal(chain.elbo(x, y), posterior.elbo(x, y)[rows])
            assert same(chain.network().state_dict(), posterior.network(index).state_dict())
            assert (chain.history.loss == posterior.history.loss[rows]).all()
            assert same(
                chain.inclusion_probability(),
                {n: p[rows] for n, p in posterior.inclusion_probability().items()},
            )
        assert same(posterior.chain(1).chain(0).sample(3).gates, posterior.chain(1).sample(3).gates)
        for index in (posterior.num_chains, -posterior.num_chains - 1):
            with pytest.raises(IndexError, match=r"Expected a chain among 0 .. \d, but got"):
                posterior.chain(index)
            with pytest.raises(IndexError, match="Expected a chain among"):
                posterior.network(index)


# The mean network


@pytest.mark.exact
def test_network_has_the_posterior_mean(fitted, point):
    network = point.network(2)
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter.detach(), point.state[f"model.network.{name}"][2])
        assert parameter.requires_grad
    assert type(network) is type(point.model.network)
    assert not network.training
    for chain in (0, 1):
        network = fitted.network(chain)
        loc = fitted.state["guide.latent_posteriors.loc.weights"][chain]
        packed = torch.cat([p.detach().reshape(-1) for p in network.parameters()])
        assert torch.equal(packed, loc)
        for name, buffer in network.named_buffers():
            assert torch.equal(buffer, fitted.state[f"model.network.{name}"][chain])
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()  # a copy
    assert bool(fitted.network().get_parameter("0.weight").any())


@pytest.mark.statistical
@pytest.mark.parametrize(
    "prior", [priors.HorseshoeWeights(), priors.ArdWeights(), priors.LogUniformWeights()]
)
def test_mean_of_other_weight_posteriors(prior):
    """Of draws in which all gates of a weight are on: elsewhere it may be at its prior."""
    posterior = quick_fit(make_model(weight_prior=prior), num_epochs=3).posterior
    network, draws = posterior.network(), posterior.sample(4000)
    inputs, units = (draws.gates[name][0] for name in ("inputs", "0.units"))
    used = {"0.weight": units[:, :, None] * inputs[:, None], "0.bias": units}
    used |= {"2.weight": units[:, None], "2.bias": torch.ones(4000, 1)}
    for name, parameter in network.named_parameters():
        weights = draws.weights[name][0]
        if len(weights) > 1:
            error = torch.where(used[name] > 0, weights - parameter.detach(), 0.0)
            assert_mean(error, torch.zeros(parameter.shape), rounding=1e-6)
        else:
            assert torch.equal(weights[0], parameter.detach())


# Bounds, against the enumeration of all gates


def _linear(num_inputs=6, **settings):
    """Return a linear model with fixed weights, its data and the log joint of each gating."""
    x = torch.randn(12, num_inputs, dtype=torch.float64)
    network = nn.Sequential(nn.Linear(num_inputs, 1, bias=False)).double()
    y = (x * network[0].weight.detach()).sum(1) + 0.5 * torch.randn(12, dtype=torch.float64)
    settings = {"gate_prior": priors.IndependentPrior(-0.7), **settings}
    model = make_model(
        network,
        granularity="input",
        num_data=12,
        likelihood=likelihoods.Gaussian(0.5, learn_noise=False),
        weight_prior=priors.PointWeights(None),
        **settings,
    )
    weights = network[0].weight.detach()
    return model, x, y, oracles.log_likelihood_of_fixed_weights(x, y, weights, 0.5)


def _elbos(posterior, x, y, num_seeds=60):
    values = [posterior.elbo(x, y, num_samples=64, seed=seed) for seed in range(num_seeds)]
    return torch.stack(values).squeeze(1)


@pytest.mark.statistical
def test_elbo_is_the_exact_one_of_independent_gates():
    model, x, y, log_likelihood = _linear()
    posterior = _posterior(model)
    log_odds = torch.randn(6, dtype=torch.float64)
    posterior.state["guide.gate_log_odds"][0] = log_odds
    log_joint = log_likelihood + oracles.independent_log_prior(torch.full((6,), -0.7))
    exact = oracles.bernoulli_elbo(log_joint, log_odds)
    values = _elbos(posterior, x, y)
    assert_mean(values, exact)
    assert float(exact) < oracles.GatePosterior(log_joint).log_evidence


@pytest.mark.statistical
@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
def test_elbo_of_correlated_gates_is_a_bound(temperature):
    model, x, y, log_likelihood = _linear()
    model.set_mode(temperature=temperature)  # of no account: gates are hard
    posterior = _posterior(model, lambda m: pr.guides.LowRankGuide(m, rank=2))
    log_joint = log_likelihood + oracles.independent_log_prior(torch.full((6,), -0.7))
    evidence = oracles.GatePosterior(log_joint)
    state = posterior.state
    state["guide.gate_log_odds"][0] = torch.logit(evidence.inclusion_probability)
    state["guide.gate_factor_loadings"][0] = 2 * torch.randn(6, 2, dtype=torch.float64)
    state["guide.reverse_weight"][0] = state["guide.gate_factor_loadings"][0].T / 4
    state["guide.reverse_log_scale"][0] = -0.5
    values = _elbos(posterior, x, y)
    error = values.std() / len(values) ** 0.5
    assert float(values.mean()) < evidence.log_evidence + standard_errors() * float(error)
    expected = _exact_low_rank_elbo(posterior, log_joint)
    assert_mean(values, expected, rounding=0.02)
    assert float(expected) < evidence.log_evidence


def _exact_low_rank_elbo(posterior, log_joint):
    """Return E[log p(data, gates) + log r(factor | gates) - log q(gates, factor)] on a grid."""
    state = {name: tensor[0] for name, tensor in posterior.state.items()}
    line = torch.linspace(-6, 6, 121, dtype=torch.float64)
    factor = torch.cartesian_prod(line, line)
    log_q_factor = -0.5 * factor.square().sum(1) - math.log(2 * math.pi)
    weight = log_q_factor.exp() * (line[1] - line[0]) ** 2
    log_odds = state["guide.gate_log_odds"] + factor @ state["guide.gate_factor_loadings"].T
    gates = oracles.configurations(6)
    log_q = log_odds @ gates.T - torch.nn.functional.softplus(log_odds).sum(1, keepdim=True)
    location = gates @ state["guide.reverse_weight"].T + state["guide.reverse_bias"]
    reverse = torch.distributions.Normal(location, state["guide.reverse_log_scale"].exp())
    log_r = reverse.log_prob(factor.unsqueeze(1)).sum(-1)
    terms = log_joint + log_r - log_q - log_q_factor.unsqueeze(1)
    return (weight.unsqueeze(1) * log_q.exp() * terms).sum()


@pytest.mark.statistical
def test_elbo_with_an_unknown_inclusion_rate_is_a_bound():
    model, x, y, log_likelihood = _linear(gate_prior=priors.HierarchicalPrior(1.5, 2.0))
    log_joint = log_likelihood + oracles.hierarchical_log_prior(6, 1.5, 2.0)
    evidence = oracles.GatePosterior(log_joint)
    posterior = _posterior(model)
    posterior.state["guide.gate_log_odds"][0] = torch.logit(evidence.inclusion_probability)
    posterior.state["guide.latent_posteriors.log_scale.inclusion_logit"][0] = -0.5
    values = _elbos(posterior, x, y)
    error = values.std() / len(values) ** 0.5
    assert float(values.mean()) < evidence.log_evidence + standard_errors() * float(error)
    assert float(values.mean()) > evidence.log_evidence - 20


@pytest.mark.statistical
def test_elbo_of_gaussian_weights_is_a_bound():
    torch.manual_seed(3)
    x = torch.randn(10, 3, dtype=torch.float64)
    y = x[:, 0] + 0.5 * torch.randn(10, dtype=torch.float64)
    network = nn.Sequential(nn.Linear(3, 1, bias=False)).double()
    model = make_model(
        network,
        granularity="input",
        num_data=10,
        gate_prior=None,
        likelihood=likelihoods.Gaussian(0.5, learn_noise=False),
        weight_prior=priors.GaussianWeights(1.0),
    )
    posterior = _posterior(model)
    mean, covariance, evidence = oracles.gaussian_posterior(x, y, 1.0, 0.5)
    posterior.state["guide.latent_posteriors.loc.weights"][0] = mean
    scale = 1 / torch.linalg.inv(covariance).diagonal().sqrt()  # the best independent Gaussian
    posterior.state["guide.latent_posteriors.log_scale.weights"][0] = scale.log()
    gap = 0.5 * (torch.logdet(covariance) - 2 * scale.log().sum())
    assert_mean(_elbos(posterior, x, y), torch.tensor(evidence) - gap)


@pytest.mark.statistical
def test_elbo_scales_held_out_data_to_the_training_set():
    model, x, y, _ = _linear()
    posterior = _posterior(model)
    one = torch.stack([posterior.elbo(x[:6], y[:6], num_samples=64, seed=s) for s in range(20)])
    two = torch.stack([posterior.elbo(x[6:], y[6:], num_samples=64, seed=s) for s in range(20)])
    both = torch.stack([posterior.elbo(x, y, num_samples=64, seed=s) for s in range(20)])
    torch.testing.assert_close((one + two) / 2, both)


@pytest.mark.exact
@pytest.mark.parametrize("guide", [pr.guides.MeanFieldGuide, pr.guides.LowRankGuide, AutoNormal])
def test_the_network_is_not_called_for_the_divergence(guide, monkeypatch):
    posterior = quick_fit(guide=guide, num_epochs=1).posterior
    x, y = regression(5)
    calls = []
    original = functional_call

    def counted(module, *arguments, **settings):
        calls.append(type(module).__name__)
        return original(module, *arguments, **settings)

    monkeypatch.setattr("pyro_relevance.posterior.evaluation.functional_call", counted)
    posterior.elbo(x, y, num_samples=3)
    assert calls.count("Sequential") == 3


# Other guides


@pytest.mark.statistical
def test_inclusion_probability_of_correlated_gates():
    model, *_ = _linear()
    posterior = _posterior(model, lambda m: pr.guides.LowRankGuide(m, rank=1))
    log_odds = torch.tensor([-3.0, -1.0, 0.0, 1.0, 2.0, 4.0], dtype=torch.float64)
    loadings = torch.tensor([3.0, 1.0, 2.0, 0.0, -3.0, 1.0], dtype=torch.float64)
    posterior.state["guide.gate_log_odds"][0] = log_odds
    posterior.state["guide.gate_factor_loadings"][0, :, 0] = loadings
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    nodes, weights = torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())
    exact = (torch.sigmoid(log_odds + nodes.unsqueeze(1) * loadings) * weights[:, None]).sum(0)
    draws = posterior.sample(20_000)
    assert_mean(draws.inclusion_probability["inputs"][0], exact, rounding=1e-9)
    assert_frequency(draws.gates["inputs"][0], exact)
    spread = torch.sigmoid(log_odds + nodes.unsqueeze(1) * loadings) - exact
    error = ((spread.square() * weights[:, None]).sum(0) / 1000).sqrt()
    distance = (posterior.inclusion_probability()["inputs"][0] - exact).abs()
    assert bool((distance <= standard_errors(6) * error + 1e-9).all())


@pytest.mark.contract
@pytest.mark.parametrize("guide", [AutoNormal, AutoLowRankMultivariateNormal])
def test_autoguides_are_sampled_without_data(guide):
    model = make_model(weight_prior=priors.GaussianWeights())
    posterior = quick_fit(model, guide=guide, num_chains=2).posterior
    draws = posterior.sample(6)
    assert draws.gates["inputs"].shape == (2, 6, 4)
    assert draws.weights["0.weight"].shape == (2, 6, 5, 4)
    share = draws.gates["inputs"].mean(1, keepdim=True).expand(2, 6, 4)
    assert torch.equal(draws.inclusion_probability["inputs"], share)
    x, y = regression(5)
    assert posterior.predict(x, num_samples=3).outputs.shape == (2, 3, 5, 1)
    assert bool(posterior.elbo(x, y).isfinite().all())
    assert posterior.inclusion_probability()["0.units"].shape == (2, 5)
    if guide is not AutoNormal:
        return
    network = posterior.network(1)
    weights = posterior.sample(200).weights["0.weight"][1]
    torch.testing.assert_close(
        network.get_parameter("0.weight").detach(), weights.mean(0), rtol=0, atol=0.1
    )


@pytest.mark.statistical
def test_prior_draws():
    model = make_model(gate_prior=priors.IndependentPrior({"inputs": -1.0, "0.units": 2.0}))
    posterior = quick_fit(model, num_epochs=1, num_chains=2).posterior
    draws = posterior.sample_prior(1000)
    assert draws.num_chains == 1
    for name, log_odds in (("inputs", -1.0), ("0.units", 2.0)):
        expected = torch.full(draws.gates[name].shape[2:], log_odds).sigmoid()
        assert_frequency(draws.gates[name][0], expected)
        torch.testing.assert_close(draws.inclusion_probability[name][0, 0], expected)
    hierarchical = make_model(gate_prior=priors.HierarchicalPrior(2.0, 1.0))
    draws = quick_fit(hierarchical, num_epochs=1).posterior.sample_prior(1000)
    assert_mean(draws.inclusion_probability["inputs"][0], torch.full((4,), 2 / 3))


@pytest.mark.contract
@pytest.mark.parametrize("points", [True, False])
def test_a_rate_from_point_weights_warns(points: bool) -> None:
    network = torch.nn.Linear(3, 1)
    model = pr.RelevanceModel(
        network,
        pr.find_edges(network, granularity="input"),
        likelihood=pr.likelihoods.Gaussian(),
        num_data=20,
        gate_prior=pr.priors.IndependentPrior(0.0),
        weight_prior=pr.priors.PointWeights() if points else pr.priors.GaussianWeights(),
    )
    x = torch.randn(20, 3)
    posterior = pr.fit(model, (x, x[:, 0]), num_epochs=1).posterior
    assert posterior.weights_are_points is points
    if points:
        with pytest.warns(pr.errors.ApproximationWarning, match="a false discovery rate of 0.1 is"):
            pr.masks.false_discovery_rate(posterior, 0.1)
    else:
        pr.masks.false_discovery_rate(posterior, 0.1)
