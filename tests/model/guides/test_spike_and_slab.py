"""The spike-and-slab guide: its ELBO, its joint draws, and where it is the default."""

from __future__ import annotations

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import nn
from torch.distributions import Normal, kl_divergence

from pyro_relevance import LeanELBO, RelevanceModel, find_edges, likelihoods, networks, priors
from pyro_relevance.model.elbo import site_terms
from pyro_relevance.model.guides import MeanFieldGuide, SpikeAndSlabGuide, default_guide
from pyro_relevance.model.relaxations import Concrete, Hardening
from pyro_relevance.posterior.guide_draws import DrawModule, draw_chain
from tests import small_fits, small_graphs
from tests.bounds import assert_frequency, assert_mean

LATENT_WEIGHTS = [priors.GaussianWeights(), priors.ArdWeights(), priors.HorseshoeWeights()]


@pytest.fixture(autouse=True)
def _local_parameters():
    with pyro.settings.context(module_local_params=True):
        yield


def make_model(weight_prior=priors.GaussianWeights(0.7), **settings):  # noqa: B008 (frozen)
    network = networks.MLP(3, [4], 1)
    edges = find_edges(network, granularity=settings.pop("granularity", ("input", "unit")))
    return RelevanceModel(
        network,
        edges,
        likelihood=likelihoods.Gaussian(0.5, learn_noise=False),
        num_data=10,
        weight_prior=weight_prior,
        **settings,
    )


def moved(guide):
    """A guide far from its start, with gates that are neither on nor off."""
    with torch.no_grad():
        guide.gate_log_odds.copy_(torch.linspace(-1.5, 2.0, len(guide.gate_log_odds)))
        for name, parameter in guide.latent_posteriors.named_parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
            if "log_scale" in name:
                parameter.clamp_(max=-0.5)
    return guide


def used_by_hand(inputs, units):
    """Use of the entries of an MLP of 3 inputs, 4 units and one output, in the order of weights."""
    hidden = units[..., :, None] * inputs[..., None, :]
    ones = torch.ones_like(units[..., :1])
    return torch.cat([hidden.flatten(-2), units, units, ones], -1)


# The objective


@pytest.mark.exact
def test_the_kl_of_each_weight_counts_as_often_as_its_gates_are_on():
    model = make_model()
    guide = moved(SpikeAndSlabGuide(model))
    terms = site_terms(model, guide, torch.randn(5, 3), torch.randn(5))
    p = torch.sigmoid(guide.gate_log_odds)
    slab = guide.latent_posteriors.posterior("weights")
    kl = kl_divergence(Normal(slab.loc, slab.scale), Normal(0.0, 0.7))
    torch.testing.assert_close(terms["weights"], (used_by_hand(p[:3], p[3:]) * kl).sum())


@pytest.mark.statistical
@pytest.mark.parametrize("weight_prior", LATENT_WEIGHTS, ids=lambda p: type(p).__name__)
def test_the_elbo_is_that_of_the_joint_draws(weight_prior):
    """The same ELBO from joint draws: log densities of both states, no closed form of the KL."""
    model = make_model(weight_prior, relaxation=Hardening(float("inf")))
    guide = moved(SpikeAndSlabGuide(model))
    x, y = torch.randn(10, 3), torch.randn(10)

    def difference(_):
        values, fn = {}, {}
        trace = poutine.trace(guide).get_trace()
        for name in trace.stochastic_nodes:
            values[name], fn[name] = trace.nodes[name]["value"], trace.nodes[name]["fn"]
        gates = model.gate(values["gate"])
        used = used_by_hand(gates[:3], gates[3:])
        prior = poutine.trace(poutine.condition(model, data=values)).get_trace(x, y)
        p = prior.nodes["weights"]["fn"].base_dist
        spike = torch.distributions.Normal(p.loc, p.scale).sample()
        w = torch.where(used > 0, values["weights"], spike)
        log_q = torch.where(used > 0, fn["weights"].base_dist.log_prob(w), p.log_prob(w)).sum()
        joint = poutine.trace(poutine.condition(model, data={**values, "weights": w}))
        nodes = joint.get_trace(x, y).nodes
        total = log_q - p.log_prob(w).sum()
        total = total - nodes["y"]["fn"].log_prob(y).sum()
        for name in values.keys() - {"weights"}:
            total = total + (
                fn[name].log_prob(values[name]) - nodes[name]["fn"].log_prob(values[name])
            )
        return total - LeanELBO().differentiable_loss(model, guide, x, y)

    with torch.no_grad():
        draws = torch.stack([difference(i) for i in range(1500)])
    assert_mean(draws, torch.zeros(()))


@pytest.mark.exact
def test_an_elbo_of_densities_counts_every_weight():
    model = make_model(relaxation=Concrete())
    guide, plain = SpikeAndSlabGuide(model), MeanFieldGuide(model)
    losses = []
    for each in (guide, plain):
        pyro.set_rng_seed(0)
        losses.append(
            Trace_ELBO().differentiable_loss(model, each, torch.ones(5, 3), torch.ones(5))
        )
    torch.testing.assert_close(*losses)
    pyro.set_rng_seed(0)
    with torch.no_grad():
        better = LeanELBO().loss(model, guide, torch.ones(5, 3), torch.ones(5))
        pyro.set_rng_seed(0)
        assert better < LeanELBO().loss(model, plain, torch.ones(5, 3), torch.ones(5))


@pytest.mark.exact
def test_gates_learn_from_the_kl_of_their_weights():
    """A weight far from its prior is charged to its gates: their log-odds fall."""
    model = make_model(granularity="unit", gate_prior=priors.IndependentPrior(2.0))
    guide = SpikeAndSlabGuide(model)
    with torch.no_grad():
        guide.latent_posteriors.loc["weights"].fill_(3.0)
    terms = site_terms(model, guide, torch.zeros(5, 3), torch.zeros(5))
    (gradient,) = torch.autograd.grad(terms["weights"], guide.gate_log_odds)
    assert bool((gradient > 0).all())


# Draws


def draws_of(model, guide, num_samples=6000):
    module = DrawModule(model, guide)
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return draw_chain(module, state, num_samples, False)


@pytest.mark.statistical
def test_weights_are_at_their_prior_where_a_gate_is_off_and_at_their_slab_where_all_are_on():
    model = make_model()
    guide = moved(SpikeAndSlabGuide(model))
    drawn = draws_of(model, guide)
    weights = torch.cat([t.flatten(1) for t in drawn.parameters.values()], 1)
    gates = drawn.sites["gate"]
    used = used_by_hand(gates[:, :3], gates[:, 3:]) > 0
    slab = guide.latent_posteriors.posterior("weights")
    p = torch.sigmoid(guide.gate_log_odds.detach())
    assert_frequency(used.float()[:, :-1], used_by_hand(p[:3], p[3:])[:-1])
    zero = torch.zeros(weights.shape[1])
    for where, mean, scale in ((used, slab.loc, slab.scale), (~used, zero, zero + 0.7)):
        error = torch.where(where, weights - mean.detach(), 0.0)
        assert_mean(error, zero)
        assert_mean(torch.where(where, error.square() - scale.detach() ** 2, 0.0), zero)


@pytest.mark.statistical
def test_a_prior_with_learned_scales_is_that_of_the_scales_drawn():
    model = make_model(priors.ArdWeights())
    guide = moved(SpikeAndSlabGuide(model))
    with torch.no_grad():
        guide.gate_log_odds.fill_(-20.0)
        guide.latent_posteriors.loc["weight_scale"].copy_(torch.linspace(-2.0, 2.0, 7))
        guide.latent_posteriors.log_scale["weight_scale"].fill_(-9.0)
    drawn = draws_of(model, guide)
    variance = torch.linspace(-2.0, 2.0, 7).exp()
    assert_mean(
        drawn.parameters["hidden1.weight"].square(), variance[:3].expand(4, 3), rounding=1e-3
    )


@pytest.mark.exact
def test_predictions_do_not_depend_on_weights_that_are_off():
    """The posterior's draws with weights of the prior give what those of the slab give."""
    model = small_fits.make_model(weight_prior=priors.GaussianWeights())
    posterior = small_fits.quick_fit(model, num_epochs=2, gate_learning_rate=0.5).posterior
    assert isinstance(posterior.guide, SpikeAndSlabGuide)
    draws = posterior.sample(50)
    x, _ = small_fits.regression(6)
    outputs = posterior.predict(x, num_samples=50).outputs
    gates = {name: gate[0] for name, gate in draws.gates.items()}
    assert 0 < float(torch.cat([g.flatten() for g in gates.values()]).mean()) < 1
    loc = posterior.state["guide.latent_posteriors.loc.weights"][0]
    sizes = [w[0, 0].numel() for w in draws.weights.values()]
    slab = dict(zip(draws.weights, loc.split(sizes), strict=True))
    for i in range(50):
        edges = {name: gate[i] for name, gate in gates.items()}
        used = guide_use(posterior, i, draws)
        weights = {
            name: torch.where(used[name] > 0, w[0, i], slab[name].view(w[0, i].shape) + 7.0)
            for name, w in draws.weights.items()
        }
        folded = {**weights, **posterior.edges.fold(weights, edges)}
        found = torch.func.functional_call(model.network, folded, (x,))
        torch.testing.assert_close(found, outputs[0, i])


def guide_use(posterior, index, draws):
    gate = posterior.edges.join({name: g[0, index] for name, g in draws.gates.items()})
    used = posterior.guide.used_entries(gate)["weights"]
    sizes = [w[0, 0].numel() for w in draws.weights.values()]
    return {
        name: part.view(w[0, 0].shape)
        for (name, w), part in zip(draws.weights.items(), used.split(sizes), strict=True)
    }


@pytest.mark.exact
def test_the_mean_is_that_of_the_slab():
    model = make_model()
    guide = moved(SpikeAndSlabGuide(model))
    loc = guide.latent_posteriors.loc["weights"]
    torch.testing.assert_close(guide.latent_means()["weights"], loc.detach())


# The default


@pytest.mark.contract
@pytest.mark.parametrize("weight_prior", LATENT_WEIGHTS, ids=lambda p: type(p).__name__)
def test_is_the_default_for_gates_over_gaussian_weights(weight_prior):
    assert type(default_guide(make_model(weight_prior))) is SpikeAndSlabGuide
    assert type(default_guide(make_model(weight_prior, gate_prior=None))) is MeanFieldGuide
    fitted = small_fits.quick_fit(small_fits.make_model(weight_prior=weight_prior), num_epochs=1)
    assert type(fitted.posterior.guide) is SpikeAndSlabGuide
    assert fitted.posterior.model.relaxation == Hardening()


@pytest.mark.contract
@pytest.mark.parametrize("weight_prior", [priors.PointWeights(), priors.LogUniformWeights()])
def test_other_weights_keep_the_mean_field_guide(weight_prior):
    assert type(default_guide(make_model(weight_prior))) is MeanFieldGuide
    with pytest.raises(ValueError, match=r"^Expected a model with gates and with weights of a Gau"):
        SpikeAndSlabGuide(make_model(weight_prior))


@pytest.mark.contract
def test_a_graph_without_gates_of_its_own_keeps_the_mean_field_guide():
    model = small_graphs.make_model(weight_prior=priors.GaussianWeights())
    assert type(default_guide(model)) is MeanFieldGuide


@pytest.mark.contract
def test_point_weights_keep_concrete_gates_and_a_choice_is_kept():
    assert make_model(priors.PointWeights()).relaxation == Concrete()
    assert make_model(relaxation=Concrete()).relaxation == Concrete()
    assert make_model().relaxation == Hardening()


@pytest.mark.contract
def test_has_the_sites_of_the_model_with_their_shapes():
    model = make_model(priors.HorseshoeWeights(), gate_prior=priors.HierarchicalPrior())
    x, y = torch.randn(5, 3), torch.randn(5)
    guide = poutine.trace(SpikeAndSlabGuide(model)).get_trace(x, y)
    replayed = poutine.trace(poutine.replay(model, guide)).get_trace(x, y)
    assert guide.stochastic_nodes == [n for n in replayed.stochastic_nodes if n != "data"]
    for name in guide.stochastic_nodes:
        ours, theirs = guide.nodes[name]["fn"], replayed.nodes[name]["fn"]
        assert (ours.batch_shape, ours.event_shape) == (theirs.batch_shape, theirs.event_shape)


class _HeavyTails(priors.GaussianWeights):
    """A prior of the user, without a KL in closed form."""

    def sample(self, parameters):
        size = sum(p.numel() for p in parameters.values())
        prior = pyro.distributions.StudentT(4 * torch.ones(size), 0.0, 1.0).to_event(1)
        values = pyro.sample("weights", prior).split([p.numel() for p in parameters.values()])
        return {n: v.view(p.shape) for (n, p), v in zip(parameters.items(), values, strict=True)}


@pytest.mark.contract
def test_a_prior_of_the_user_that_states_its_entries_is_fitted():
    network = nn.Sequential(nn.Linear(4, 1))
    model = small_fits.make_model(network, granularity="input", weight_prior=_HeavyTails())
    posterior = small_fits.quick_fit(model, num_epochs=2).posterior
    assert type(posterior.guide) is SpikeAndSlabGuide
    assert posterior.sample(5).weights["0.weight"].shape == (1, 5, 1, 4)
