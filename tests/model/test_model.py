"""The model as a Pyro program and as a guest in the user's process."""

from __future__ import annotations

import copy
import pickle
import re

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch import nn

from pyro_relevance import (
    LeanELBO,
    RelevanceModel,
    find_edges,
    fit,
    likelihoods,
    networks,
    priors,
)
from pyro_relevance.errors import EdgeError
from pyro_relevance.model.guides import LowRankGuide, MeanFieldGuide
from pyro_relevance.model.relaxations import HardConcreteGate, StraightThrough
from pyro_relevance.training.schedules import Schedules, constant
from tests.bounds import assert_mean

GRANULARITY = ("input", "unit", "weight")


def make_model(network=None, granularity=GRANULARITY, num_data=20, **settings):
    network = network or networks.MLP(3, [4], 1)
    edges = find_edges(network, granularity=granularity)
    settings = {"likelihood": likelihoods.Gaussian()} | settings
    return RelevanceModel(network, edges, num_data=num_data, **settings)


def make_data(num_data=20):
    x = torch.randn(num_data, 3)
    return x, x[:, 0] - x[:, 1]


def fit_quickly(model, data, **settings):
    settings = {"num_epochs": 60, "batch_size": 10, "learning_rate": 0.02} | settings
    settings["schedules"] = Schedules(kl_weight=constant(1.0))
    return fit(model, data, **settings)


# The program.


@pytest.mark.contract
@pytest.mark.parametrize(
    ("gate_prior", "weight_prior", "shapes"),
    [
        (priors.IndependentPrior(), priors.PointWeights(), {"weight_prior": (0,), "gate": (23,)}),
        (priors.DescriptionLengthPrior(), priors.PointWeights(None), {"gate": (23,)}),
        (
            priors.HierarchicalPrior(),
            priors.GaussianWeights(),
            {"weights": (21,), "inclusion_logit": (4,), "gate": (23,)},
        ),
        (None, priors.ArdWeights(), {"weight_scale": (7,), "weights": (21,)}),
        (
            None,
            priors.HorseshoeWeights(),
            {"layer_scale": (2,), "weight_scale": (7,), "weights": (21,)},
        ),
    ],
)
def test_sites_have_these_names_and_shapes(gate_prior, weight_prior, shapes):
    model = make_model(gate_prior=gate_prior, weight_prior=weight_prior)
    trace = poutine.trace(model).get_trace(*make_data(5))
    sites = {
        name: tuple(site["value"].shape)
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and name != "data"
    }
    assert sites == {**shapes, "y": (5,)}
    assert list(sites) == [*shapes, "y"]


@pytest.mark.contract
def test_log_uniform_weights_are_a_site_that_is_given_by_a_guide():
    model = make_model(gate_prior=None, weight_prior=priors.LogUniformWeights())
    guide = poutine.trace(MeanFieldGuide(model)).get_trace()
    trace = poutine.trace(poutine.replay(model, guide)).get_trace(*make_data(5))
    assert {"weights", "weight_prior", "y"} <= set(trace.nodes)
    assert tuple(trace.nodes["weights"]["value"].shape) == (16,)


@pytest.mark.exact
def test_joint_density_is_that_of_the_formula():
    model = make_model(gate_prior=priors.IndependentPrior(-1.0), granularity="unit")
    model.set_mode(temperature=0.5)
    x, y = make_data(5)
    trace = poutine.trace(model).get_trace(x, y)
    value = trace.nodes["gate"]["value"]
    hidden, output = model.network.hidden1, model.network.output
    mean = output(torch.relu(hidden(x)) * torch.sigmoid(value)).squeeze(-1)
    normal = torch.distributions.Normal(0.0, 1.0)
    expected = 20 / 5 * torch.distributions.Normal(mean, 1.0).log_prob(y).sum()
    expected = expected + sum(normal.log_prob(p).sum() for p in model.network.parameters())
    expected = expected + torch.nn.functional.logsigmoid(-(value * 0.5 + 1.0)).mul(2).sum()
    expected = expected + (value * 0.5 + 1.0 + torch.tensor(0.5).log()).sum()
    torch.testing.assert_close(trace.log_prob_sum(), expected)


@pytest.mark.exact
def test_minibatches_estimate_the_likelihood_of_all_data():
    model = make_model()
    guide = MeanFieldGuide(model)
    x, y = make_data(20)
    with torch.no_grad(), pyro.poutine.seed(rng_seed=0):
        values = guide()
    with torch.no_grad(), poutine.condition(data=values):
        whole = poutine.trace(model).get_trace(x, y)
        parts = [poutine.trace(model).get_trace(x[i : i + 5], y[i : i + 5]) for i in (0, 5, 10, 15)]
    for trace in (whole, *parts):
        trace.compute_log_prob()
    likelihood = torch.stack([part.nodes["y"]["log_prob_sum"] for part in parts])
    torch.testing.assert_close(likelihood.mean(), whole.nodes["y"]["log_prob_sum"])
    gates = [part.nodes["gate"]["log_prob_sum"] for part in (whole, *parts)]
    assert len({float(gate) for gate in gates}) == 1


@pytest.mark.contract
@pytest.mark.parametrize("weight_prior", [priors.PointWeights(), priors.HorseshoeWeights()])
def test_can_be_called_outside_of_inference(weight_prior):
    """Draws from the prior, without the warnings that Pyro has for factors there."""
    outputs = make_model(weight_prior=weight_prior)(make_data(5)[0])
    assert tuple(outputs.shape) == (5, 1)


@pytest.mark.contract
def test_predictive_of_pyro_works():
    model = make_model(weight_prior=priors.GaussianWeights())
    guide = MeanFieldGuide(model)
    x, _ = make_data(5)
    draws = Predictive(model, guide=guide, num_samples=7, return_sites=("y", "gate", "_RETURN"))(x)
    assert {name: tuple(d.shape) for name, d in draws.items()} == {
        "y": (7, 5),
        "gate": (7, 1, 23),  # 1 for the plate of the data
        "_RETURN": (7, 5, 1),
    }


@pytest.mark.contract
@pytest.mark.parametrize("relaxation", [HardConcreteGate(), StraightThrough()])
def test_relaxation_decides_what_the_network_sees(relaxation):
    model = make_model(relaxation=relaxation)
    _, gates = model.sample_latents()
    values = torch.cat([gate.detach().reshape(-1) for gate in gates.values()])
    assert bool(((values >= 0) & (values <= 1)).all())
    assert bool(((values == 0) | (values == 1)).any())


@pytest.mark.contract
def test_float64_networks_give_float64_sites():
    model = make_model(
        networks.MLP(3, [4], 1).double(),
        gate_prior=priors.HierarchicalPrior(),
        weight_prior=priors.HorseshoeWeights(),
        likelihood=likelihoods.StudentT(),
    )
    x, y = make_data(5)
    trace = poutine.trace(model).get_trace(x.double(), y.double())
    values = {n: s["value"].dtype for n, s in trace.nodes.items() if s["type"] == "sample"}
    values.pop("data")
    assert set(values.values()) == {torch.float64}
    assert {p.dtype for p in MeanFieldGuide(model).parameters()} == {torch.float64}
    assert {p.dtype for p in LowRankGuide(model).parameters()} == {torch.float64}
    y = poutine.trace(model).get_trace(x.double()).nodes["y"]["value"]
    assert y.dtype == torch.float64


# A guest in the user's process.


def snapshot(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


class Net(nn.Sequential):
    """With BatchNorm, whose statistics move in training mode."""

    def __init__(self):
        super().__init__(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))


@pytest.mark.contract
@pytest.mark.parametrize("weight_prior", [priors.PointWeights(), priors.GaussianWeights()])
@pytest.mark.parametrize("training", [True, False])
def test_the_users_network_stays_as_it_is(weight_prior, training):
    network = Net().train(training)
    objects = dict(network.named_parameters())
    before = snapshot(network)
    model = make_model(network, ("input", "unit"), weight_prior=weight_prior)
    model.set_mode(noise="per_example")
    x, y = make_data()
    posterior = fit_quickly(model, (x, y), noise="per_example", num_epochs=3).posterior
    posterior.predict(x, num_samples=2)
    posterior.log_likelihood(x, y, num_samples=2)
    model(x)
    torch.testing.assert_close(snapshot(network), before, rtol=0, atol=0)
    for name, parameter in network.named_parameters():
        assert parameter is objects[name]
        assert parameter.requires_grad
        assert parameter.grad is None
    for module in network.modules():
        assert module.training is training
        assert not module._forward_pre_hooks
        assert not module._forward_hooks


@pytest.mark.contract
def test_the_model_given_to_fit_stays_as_it_is():
    model = make_model()
    before = snapshot(model)
    fit_quickly(model, make_data(), num_epochs=3)
    torch.testing.assert_close(snapshot(model), before, rtol=0, atol=0)
    assert model.temperature == 1.0
    assert model.noise == "shared"


@pytest.mark.contract
def test_a_second_model_trains_and_shares_nothing():
    """The trap of Pyro's global store: the second model of the same names trains nothing."""
    network = networks.MLP(3, [4], 1)
    data = make_data()
    first = make_model(network)
    fitted = fit_quickly(first, data).posterior
    state = {name: tensor.clone() for name, tensor in fitted.state.items()}
    second = make_model(network, weight_prior=priors.PointWeights(2.0))
    result = fit_quickly(second, data)
    assert result.history.loss[0, -10:].mean() < result.history.loss[0, :10].mean()
    moved = result.posterior.state["model.network.hidden1.weight"][0]
    assert not torch.allclose(moved, network.hidden1.weight)
    torch.testing.assert_close(fitted.state, state, rtol=0, atol=0)
    ours = {p.data_ptr() for p in first.parameters()} | {p.data_ptr() for p in network.parameters()}
    assert ours.isdisjoint(p.data_ptr() for p in second.parameters())
    assert not list(pyro.get_param_store())


@pytest.mark.contract
def test_the_likelihood_given_stays_as_it_is():
    likelihood = likelihoods.Gaussian(0.5)
    model = make_model(likelihood=likelihood)
    assert model.likelihood is not likelihood
    fit_quickly(model, make_data(), num_epochs=3)
    assert float(likelihood.log_scale.exp().detach()) == pytest.approx(0.5)


@pytest.mark.contract
@pytest.mark.parametrize("noise", ["shared", "per_example"])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_give_the_same_numbers_and_stand_alone(noise, duplicate):
    model = make_model(granularity=("input", "unit"))
    model.set_mode(noise=noise)
    other = duplicate(model)
    x, y = make_data()
    losses = []
    for each in (model, other):
        pyro.set_rng_seed(0)
        losses.append(LeanELBO().loss(each, MeanFieldGuide(each), x, y))
    assert losses[0] == losses[1]
    # Gates of the copy act in the copy, and only there.
    closed = {group.name: torch.zeros(20, *group.shape) for group in model.edges}
    if noise == "per_example":
        parameters = dict(other.network.named_parameters())
        bias = parameters["output.bias"].expand(20, 1)
        torch.testing.assert_close(other.run(x, parameters, closed), bias)
        torch.testing.assert_close(model.network(x), other.network(x))
    other.set_mode(noise="shared")
    for parameter in other.parameters():
        parameter.data.zero_()
    assert any(bool(p.any()) for p in model.parameters())
    assert not any(module._forward_pre_hooks for module in other.modules())


@pytest.mark.contract
def test_parameters_that_are_latent_take_no_gradient():
    model = make_model(gate_prior=None, weight_prior=priors.LogUniformWeights())
    learned = {n for n, p in model.network.named_parameters() if p.requires_grad}
    assert learned == {"hidden1.bias", "output.bias"}
    frozen = make_model(weight_prior=priors.GaussianWeights())
    assert not any(p.requires_grad for p in frozen.network.parameters())


# Other people's guides.


@pytest.mark.contract
@pytest.mark.parametrize("make_guide", [AutoNormal, AutoDelta])
def test_automatic_guides_of_pyro_train(make_guide):
    model = make_model(granularity="input", weight_prior=priors.GaussianWeights(0.5))
    data = make_data()
    result = fit_quickly(model, data, guide=make_guide, num_epochs=100)
    assert result.history.loss[0, -10:].mean() < result.history.loss[0, :10].mean()
    gates = result.posterior.sample(3).gates["inputs"]
    assert tuple(gates.shape) == (1, 3, 3)


class HandWritten(nn.Module):
    """A guide that a user could write: gates that share one log-odds, weights as points."""

    def __init__(self, model):
        super().__init__()
        self.model = (model,)
        self.log_odds = nn.Parameter(torch.tensor(1.0))

    def forward(self, x=None, y=None):
        model = self.model[0]
        log_odds = self.log_odds.expand(model.edges.num_edges)
        pyro.sample("gate", model.gate_distribution(log_odds, 1 if x is None else len(x)))


@pytest.mark.contract
def test_a_hand_written_guide_trains():
    model = make_model(gate_prior=priors.IndependentPrior(-3.0))
    result = fit_quickly(model, make_data(), guide=HandWritten, gate_learning_rate=0.1)
    assert float(result.posterior.state["guide.log_odds"]) != 1.0
    probability = result.posterior.inclusion_probability()["inputs"]
    assert tuple(probability.shape) == (1, 3)
    torch.testing.assert_close(probability, probability[:, :1].expand(1, 3))


# Noise.


@pytest.mark.statistical
def test_a_draw_per_example_estimates_the_same_elbo_with_less_variance():
    network = networks.MLP(3, [4], 1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3.0)
    model = make_model(
        network, ("input", "unit"), likelihood=likelihoods.Gaussian(0.5), num_data=50
    )
    model.set_mode(temperature=0.3)
    guide = MeanFieldGuide(model, initial_log_odds=1.0)
    x, y = make_data(50)
    losses, gradients = {}, {}
    for noise in ("shared", "per_example"):
        model.set_mode(noise=noise)
        module = LeanELBO()(model, guide)

        def loss(log_odds, module=module):
            state = {"guide.gate_log_odds": log_odds}
            return torch.func.functional_call(module, state, (x, y))

        starts = guide.gate_log_odds.detach().expand(4000, -1)
        call = torch.func.vmap(torch.func.grad_and_value(loss), randomness="different")
        gradients[noise], losses[noise] = call(starts)
    difference = losses["shared"] - losses["per_example"]
    assert_mean(difference, torch.zeros(()))
    assert_mean(gradients["shared"] - gradients["per_example"], torch.zeros(7))
    variance = {noise: gradient.detach().var(0) for noise, gradient in gradients.items()}
    assert bool((variance["shared"] > 1.1 * variance["per_example"]).all())
    assert variance["shared"].sum() > 3 * variance["per_example"].sum()


@pytest.mark.contract
def test_unknown_noise_is_refused():
    text = r"^Expected noise to be 'shared' or 'per_example', but got 'both'\.$"
    with pytest.raises(ValueError, match=text):
        make_model().set_mode(noise="both")


@pytest.mark.contract
def test_statistics_of_normalisation_can_be_held():
    model = make_model(Net(), ("input", "unit"))
    before = snapshot(model)
    model.set_mode(update_statistics=False)
    model(make_data()[0])
    torch.testing.assert_close(snapshot(model), before, rtol=0, atol=0)
    model.set_mode(update_statistics=True)
    model(make_data()[0])
    assert not torch.equal(model.network[1].running_mean, before["network.1.running_mean"])


# Arguments.


@pytest.mark.contract
@pytest.mark.parametrize("num_data", [0, -5, 1.5, True, None])
def test_num_data_is_checked(num_data):
    text = (
        f"Expected num_data, the number of training examples, as a positive integer, but got "
        f"{num_data!r}. It scales the likelihood of a minibatch against the KL: pass len(train), "
        "not the batch size."
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        make_model(num_data=num_data)


@pytest.mark.contract
def test_edges_of_another_network_are_refused():
    edges = find_edges(networks.MLP(3, [4], 1), granularity="unit")
    settings = {"likelihood": likelihoods.Gaussian(), "num_data": 5}
    text = (
        "Expected edges of this network, but group 'hidden1.units' is read by 'output.weight', "
        "which the network does not have. Call find_edges on the network that is passed."
    )
    with pytest.raises(EdgeError, match=re.escape(text)):
        RelevanceModel(nn.Linear(3, 1), edges, **settings)
    text = (
        "Expected 'output.weight' of shape (1, 4) as when the edges were found, but the network "
        "has (1, 5). Call find_edges on the network that is passed."
    )
    with pytest.raises(EdgeError, match=re.escape(text)):
        RelevanceModel(networks.MLP(3, [5], 1), edges, **settings)


@pytest.mark.contract
@pytest.mark.parametrize(
    ("likelihood", "got"),
    [(likelihoods.Gaussian, "the class Gaussian"), ("normal", "'normal'"), (None, "None")],
)
def test_likelihood_is_checked(likelihood, got):
    text = f"^Expected a likelihood such as likelihoods.Gaussian\\(\\), but got {got}\\.$"
    with pytest.raises(TypeError, match=text):
        make_model(likelihood=likelihood)


@pytest.mark.contract
def test_prior_scales_are_checked_against_the_network():
    text = "Expected a prior scale for exactly the parameters ['hidden1.weight', 'hidden1.bias', "
    for prior in (priors.PointWeights({"a": 1.0}), priors.GaussianWeights({"a": 1.0})):
        with pytest.raises(ValueError, match=re.escape(text)):
            make_model(weight_prior=prior)


@pytest.mark.contract
def test_model_is_a_program_for_effect_handlers():
    model = make_model(granularity="input")
    x, y = make_data(5)
    gate = torch.tensor([9.0, -9.0, 9.0])
    trace = poutine.trace(poutine.condition(model, data={"gate": gate})).get_trace(x, y)
    assert trace.nodes["gate"]["is_observed"]
    blocked = poutine.trace(poutine.block(model, expose=["y"])).get_trace(x, y)
    assert "gate" not in blocked.nodes
    assert "y" in blocked.nodes
