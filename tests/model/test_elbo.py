"""The lean ELBO is Pyro's: the same number for the same noise, for every prior and guide."""

from __future__ import annotations

import re
from statistics import median

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal
from torch import nn

from pyro_relevance import LeanELBO, RelevanceModel, find_edges, likelihoods, networks, priors
from pyro_relevance.model.distributions.logit_concrete import (
    LogitConcrete,
    bernoulli_kl,
    concrete_kl_monte_carlo,
)
from pyro_relevance.model.elbo import site_terms
from pyro_relevance.model.guides import LowRankGuide, MeanFieldGuide, SpikeAndSlabGuide
from tests.bounds import assert_mean

GATE_PRIORS = {
    "independent": priors.IndependentPrior(-1.0),
    "hierarchical": priors.HierarchicalPrior(2.0, 3.0),
    "description_length": priors.DescriptionLengthPrior(0.1),
    "no_gates": None,
}
WEIGHT_PRIORS = {
    "point": priors.PointWeights(),
    "gaussian": priors.GaussianWeights(),
    "ard": priors.ArdWeights(),
    "horseshoe": priors.HorseshoeWeights(),
    "log_uniform": priors.LogUniformWeights(),
}


@pytest.fixture(autouse=True)
def _local_parameters():
    with pyro.settings.context(module_local_params=True):
        yield


def make_model(granularity="unit", **settings):
    network = networks.MLP(3, [4], 1)
    edges = find_edges(network, granularity=granularity)
    model = RelevanceModel(
        network, edges, likelihood=likelihoods.Gaussian(0.5), num_data=20, **settings
    )
    model.set_mode(temperature=0.7)
    return model


def make_data():
    return torch.randn(5, 3), torch.randn(5)


def perturb(module):
    """Move all parameters, so that no term is zero by symmetry."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))


def loss_and_gradients(elbo, model, guide, *args):
    pyro.set_rng_seed(3)
    loss = elbo.differentiable_loss(model, guide, *args)
    learned = [p for m in (model, guide) for p in m.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, learned, allow_unused=True)
    return loss.detach(), [torch.zeros(()) if g is None else g for g in gradients]


@pytest.mark.exact
@pytest.mark.parametrize("granularity", ["unit", ("input", "unit", "weight")])
@pytest.mark.parametrize("weight_prior", WEIGHT_PRIORS)
@pytest.mark.parametrize(
    ("gate_prior", "make_guide"),
    [(name, MeanFieldGuide) for name in GATE_PRIORS]
    + [(name, LowRankGuide) for name in GATE_PRIORS if name != "no_gates"]
    + [(name, SpikeAndSlabGuide) for name in GATE_PRIORS if name != "no_gates"],
)
def test_equals_the_elbo_of_pyro_for_the_same_noise(
    granularity, gate_prior, weight_prior, make_guide
):
    model = make_model(
        granularity, gate_prior=GATE_PRIORS[gate_prior], weight_prior=WEIGHT_PRIORS[weight_prior]
    )
    if make_guide is SpikeAndSlabGuide and weight_prior in ("point", "log_uniform"):
        make_guide = MeanFieldGuide  # there is nothing that could be at its prior
    guide = make_guide(model)
    perturb(guide)
    data = make_data()
    lean, lean_gradients = loss_and_gradients(LeanELBO(), model, guide, *data)
    pyros, pyros_gradients = loss_and_gradients(TraceMeanField_ELBO(), model, guide, *data)
    torch.testing.assert_close(lean, pyros, rtol=1e-5, atol=1e-4)
    for ours, theirs in zip(lean_gradients, pyros_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.exact
@pytest.mark.parametrize("make_guide", [MeanFieldGuide, LowRankGuide])
def test_equals_the_elbo_of_pyro_with_one_draw_per_example(make_guide):
    model = make_model(("input", "unit"))
    model.set_mode(noise="per_example")
    guide = make_guide(model)
    data = make_data()
    lean, lean_gradients = loss_and_gradients(LeanELBO(), model, guide, *data)
    pyros, pyros_gradients = loss_and_gradients(TraceMeanField_ELBO(), model, guide, *data)
    torch.testing.assert_close(lean, pyros)
    torch.testing.assert_close(lean_gradients, pyros_gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.exact
@pytest.mark.parametrize("weight_prior", ["point", "gaussian", "ard", "horseshoe"])
def test_agrees_in_expectation_with_the_elbo_without_analytic_kl(weight_prior):
    model = make_model(gate_prior=None, weight_prior=WEIGHT_PRIORS[weight_prior])
    guide = MeanFieldGuide(model)
    x, y = make_data()
    with torch.no_grad():
        lean = torch.stack([LeanELBO().differentiable_loss(model, guide, x, y) for _ in range(150)])
        plain = torch.tensor([Trace_ELBO().loss(model, guide, x, y) for _ in range(150)])
    assert_mean(lean - plain, torch.zeros(()), rounding=1e-4)


@pytest.mark.statistical
def test_gates_have_the_kl_of_hard_gates_and_not_that_of_the_relaxed_densities():
    model = make_model(gate_prior=priors.IndependentPrior(-1.0))
    guide = MeanFieldGuide(model)
    x, y = make_data()
    q, p = guide.gate_log_odds.detach(), model.prior_log_odds
    hard = bernoulli_kl(q, p).sum()
    relaxed = concrete_kl_monte_carlo(LogitConcrete(0.7, q), LogitConcrete(0.7, p), 20_000).sum()
    assert (relaxed - hard).abs() > 0.2
    with torch.no_grad():
        lean = torch.stack([LeanELBO().differentiable_loss(model, guide, x, y) for _ in range(200)])
        plain = torch.tensor([Trace_ELBO().loss(model, guide, x, y) for _ in range(200)])
    assert_mean(plain - lean, relaxed - hard, rounding=0.1)


class Structured:
    """A model and a guide with plates, masks, tensor scales, an auxiliary site and no module."""

    mask = torch.tensor([True, False, True, True])
    scale = torch.tensor([1.0, 2.0, 0.5, 3.0])

    def __init__(self, guide_scale=True):
        self.guide_scale = guide_scale
        self.loc = torch.randn(4, requires_grad=True)

    def model(self, y):
        pyro.sample("rate", dist.Gamma(2.0, 1.0))
        with pyro.plate("units", 4), poutine.scale(scale=self.scale), poutine.mask(mask=self.mask):
            z = pyro.sample("z", dist.Normal(0.0, 2.0))
            u = pyro.sample("u", dist.HalfCauchy(1.0))
        with pyro.plate("data", 8, subsample_size=4), poutine.mask(mask=self.mask):
            pyro.sample("y", dist.Normal(z * u, 1.0), obs=y)
        pyro.factor("penalty", -z.square().sum())
        pyro.deterministic("twice", 2 * z)

    def guide(self, y):
        common = pyro.sample("common", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        pyro.sample("rate", dist.LogNormal(0.0, 0.3))
        with pyro.plate("units", 4), poutine.scale(scale=self.scale), poutine.mask(mask=self.mask):
            pyro.sample("z", dist.Normal(self.loc + common, 0.5))
            pyro.sample("u", dist.LogNormal(self.loc, 0.5))
        pyro.factor("bonus", self.loc.sum(), has_rsample=True)


@pytest.mark.exact
def test_equals_the_elbo_of_pyro_with_plates_masks_scales_and_auxiliary_sites():
    program, y = Structured(), torch.randn(4)
    results = []
    for elbo in (LeanELBO(), TraceMeanField_ELBO()):
        pyro.set_rng_seed(0)
        loss = elbo.differentiable_loss(program.model, program.guide, y)
        results.append((loss.detach(), torch.autograd.grad(loss, program.loc)[0]))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.exact
def test_the_density_of_a_delta_counts():
    """A change of variables of an AutoGuide, which Pyro's analytic KL leaves out."""

    def model():
        scale = pyro.sample("scale", dist.HalfCauchy(1.0))
        pyro.sample("y", dist.Normal(0.0, scale), obs=torch.tensor(3.0))

    for make in (AutoNormal, AutoDiagonalNormal):
        guide = make(model)
        guide()
        losses = []
        for elbo in (LeanELBO(), Trace_ELBO(), TraceMeanField_ELBO()):
            pyro.set_rng_seed(0)
            losses.append(elbo.loss(model, guide))
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)
        assert losses[0] != pytest.approx(losses[2], abs=1e-2)


@pytest.mark.exact
@pytest.mark.parametrize("make_guide", [AutoNormal, AutoDiagonalNormal, AutoDelta])
@pytest.mark.parametrize("weight_prior", ["gaussian", "horseshoe"])
def test_automatic_guides_have_the_loss_of_pyro(make_guide, weight_prior):
    model = make_model(weight_prior=WEIGHT_PRIORS[weight_prior])
    x, y = make_data()
    guide = make_guide(model)
    guide(x, y)
    losses = []
    for elbo in (LeanELBO(), Trace_ELBO()):
        pyro.set_rng_seed(0)
        losses.append(elbo.loss(model, guide, x, y))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.exact
@pytest.mark.parametrize("number", [2, 3])
def test_particles_are_averaged(number):
    model = make_model()
    guide = MeanFieldGuide(model)
    x, y = make_data()
    pyro.set_rng_seed(1)
    several = LeanELBO(num_particles=number).loss(model, guide, x, y)
    pyro.set_rng_seed(1)
    single = [LeanELBO().loss(model, guide, x, y) for _ in range(number)]
    assert several == pytest.approx(sum(single) / number)


@pytest.mark.exact
def test_terms_of_the_sites_add_up_to_the_loss():
    model = make_model(gate_prior=priors.HierarchicalPrior(), weight_prior=priors.ArdWeights())
    guide = LowRankGuide(model, rank=2)
    x, y = make_data()
    pyro.set_rng_seed(1)
    terms = site_terms(model, guide, x, y)
    assert set(terms) == {
        *("inclusion_logit", "gate", "weight_scale", "weights", "y"),
        *("gate_factor", "gate_factor_reverse"),
    }
    pyro.set_rng_seed(1)
    total = float(sum(term.detach() for term in terms.values()))
    assert total == pytest.approx(LeanELBO().loss(model, guide, x, y))


@pytest.mark.exact
def test_loss_and_grads_adds_gradients():
    model = make_model()
    guide = MeanFieldGuide(model)
    data = make_data()
    _, expected = loss_and_gradients(LeanELBO(), model, guide, *data)
    for _ in range(2):
        pyro.set_rng_seed(3)
        LeanELBO().loss_and_grads(model, guide, *data)
    learned = [p for m in (model, guide) for p in m.parameters() if p.requires_grad]
    torch.testing.assert_close([p.grad for p in learned], [2 * g for g in expected])
    assert not LeanELBO().differentiable_loss(model, guide, *data).isnan()


@pytest.mark.contract
@pytest.mark.parametrize("elbo", [LeanELBO, Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("make_guide", [MeanFieldGuide, LowRankGuide, AutoNormal])
def test_trains_with_the_svi_of_pyro(elbo, make_guide):
    """Plain modules have no ``pyro.param`` statements: SVI must learn of their parameters."""
    model = make_model(("input", "unit"), weight_prior=priors.PointWeights())
    x = torch.randn(20, 3)
    guide = make_guide(model)
    if make_guide is AutoNormal:
        guide(x, x[:, 0])  # makes its parameters
    learned = [p for m in (model, guide) for p in m.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in learned]
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.03}), elbo())
    for _ in range(3):
        svi.step(x, x[:, 0])
    assert all(not torch.equal(p, start) for p, start in zip(learned, before, strict=True))
    assert not list(pyro.get_param_store())
    assert not any(hasattr(p, "unconstrained") for p in model.parameters())


class Location(nn.Module):
    """A model or guide of a user, who knows nothing of Pyro's parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.location = nn.Parameter(torch.tensor(2.0))

    def forward(self):
        pyro.sample("z", dist.Normal(self.location, 1.0))


@pytest.mark.contract
def test_the_lean_elbo_trains_plain_modules_of_a_user():
    model, guide = Location(), Location()
    model.location.requires_grad_(requires_grad=False)
    guide.location.data += 1.0
    SVI(model, guide, pyro.optim.SGD({"lr": 0.5}), LeanELBO()).step()
    assert guide.location.item() == pytest.approx(2.5)  # KL = (3 - 2)^2 / 2, its gradient 1
    assert model.location.item() == 2.0


@pytest.mark.contract
def test_loss_falls_with_the_svi_of_pyro():
    model = make_model(("input", "unit"))
    x = torch.randn(20, 3)
    svi = SVI(model, MeanFieldGuide(model), pyro.optim.Adam({"lr": 0.03}), LeanELBO())
    losses = [svi.step(x, x[:, 0]) for _ in range(200)]
    # The median: with targets without noise single losses are far out.
    assert median(losses[-20:]) < 0.7 * median(losses[:20])


@pytest.mark.contract
def test_is_a_module_with_the_parameters_of_model_and_guide():
    model = make_model()
    guide = MeanFieldGuide(model)
    module = LeanELBO()(model, guide)
    names = {name.partition(".")[0] for name, _ in module.named_parameters()}
    assert names == {"model", "guide"}
    assert "guide.gate_log_odds" in dict(module.named_parameters())
    module(*make_data()).backward()
    assert guide.gate_log_odds.grad is not None


@pytest.mark.contract
def test_a_site_missing_in_the_guide_is_named():
    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    def guide():
        pyro.sample("other", dist.Normal(0.0, 1.0))

    text = (
        "Expected the guide to sample site 'z' of the model, but it samples only ['other']. Add "
        "the site to the guide, or condition the model on it."
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        LeanELBO().loss(model, guide)


@pytest.mark.contract
def test_a_site_missing_in_the_model_is_named():
    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    def guide():
        pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("other", dist.Normal(0.0, 1.0))

    text = (
        "Expected site 'other' of the guide to be a site of the model, but it has only ['z']. "
        "Rename it, or mark it with infer={'is_auxiliary': True}."
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        LeanELBO().loss(model, guide)


@pytest.mark.contract
def test_a_site_without_reparameterisation_is_named():
    def program():
        pyro.sample("gate", dist.Bernoulli(0.5))

    text = (
        "Expected site 'gate' of the guide to be reparameterised (has_rsample), but got Bernoulli. "
        "Use a relaxed distribution, or train with pyro.infer.TraceGraph_ELBO."
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        LeanELBO().loss(program, program)


@pytest.mark.contract
def test_a_function_as_a_site_is_named():
    """Pyro samples from any function, and none says that it is reparameterised."""

    def draw():
        return torch.randn(())

    def program():
        pyro.sample("z", draw)

    with pytest.raises(ValueError, match=r"Expected site 'z' .* \(has_rsample\), but got function"):
        LeanELBO().loss(program, program)


@pytest.mark.contract
def test_number_of_particles_is_checked():
    with pytest.raises(ValueError, match=r"^Expected num_particles >= 1, but got 0\.$"):
        LeanELBO(num_particles=0)


@pytest.mark.exact
def test_runs_under_vmap_with_the_numbers_of_single_calls():
    """The KL of each of several stacked guides, which has no noise."""
    model = make_model(gate_prior=priors.IndependentPrior(-1.0))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    guides = [MeanFieldGuide(model, initial_log_odds=value) for value in (-1.0, 0.0, 2.0)]
    x, y = make_data()

    class Kl(nn.Module):
        def __init__(self, guide):
            super().__init__()
            self.guide = guide

        def forward(self):
            return site_terms(model, self.guide, x, y)["gate"]

    stacked, _ = torch.func.stack_module_state(guides)
    module = Kl(guides[0])

    def call(state):
        named = {f"guide.{name}": value for name, value in state.items()}
        return torch.func.functional_call(module, named, ())

    together = torch.func.vmap(call, randomness="different")(stacked)
    prior = torch.tensor(-1.0)
    for value, result in zip((-1.0, 0.0, 2.0), together, strict=True):
        expected = bernoulli_kl(torch.tensor(value), prior) * model.edges.num_edges
        assert float(result.detach()) == pytest.approx(float(expected), abs=1e-5)
