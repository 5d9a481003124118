"""Gates re-weighted by exact marginal likelihoods, against enumeration; the Pareto tail."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from analysis.enumeration import exact_linear, make_problem
from pyro_relevance import RelevanceModel, find_edges, fit, likelihoods, networks, priors
from pyro_relevance.posterior.reweighting import pareto_smoothed, reweighted_inclusion
from tests import small_fits
from tests.bounds import standard_errors


def fitted(problem, num_epochs=300):
    network = nn.Linear(problem.x.shape[1], 1, bias=False)
    model = RelevanceModel(
        network,
        find_edges(network, granularity="input"),
        likelihood=likelihoods.Gaussian(1.0, learn_noise=False),
        num_data=len(problem.x),
        gate_prior=priors.IndependentPrior(problem.log_odds),
        weight_prior=priors.GaussianWeights(problem.weight_scale),
    )
    data = problem.x.float(), problem.y.float()
    settings = {"learning_rate": 0.03, "gate_learning_rate": 0.05, "noise": "per_example"}
    return fit(model, data, num_epochs=num_epochs, batch_size=None, **settings).posterior


@pytest.mark.statistical
@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_probabilities_are_those_of_the_exact_posterior(correlation):
    """The bound is that of a mean of as many independent draws as the weights are worth."""
    problem = make_problem(60, 6, correlation, seed=4)
    found = reweighted_inclusion(fitted(problem), problem.x, problem.y, num_samples=8000)
    exact = exact_linear(problem).inclusion_probability
    error = (exact * (1 - exact) / found.effective_sample_size).sqrt()
    distance = (found.inclusion_probability["inputs"] - exact).abs()
    allowed = standard_errors(6) * error + 3 / found.effective_sample_size
    assert bool((distance <= allowed).all())
    assert found.effective_sample_size > 4000


@pytest.mark.statistical
def test_independent_gates_become_dependent_and_a_bad_proposal_is_seen():
    """Correlation 0.9: closer to the exact posterior, and few effective draws or a heavy tail."""
    for seed in (5, 6):
        problem = make_problem(60, 6, 0.9, seed=seed)
        posterior = fitted(problem)
        found = reweighted_inclusion(posterior, problem.x, problem.y)
        exact = exact_linear(problem).inclusion_probability
        before = (posterior.inclusion_probability()["inputs"][0] - exact).abs().mean()
        after = (found.inclusion_probability["inputs"] - exact).abs().mean()
        assert after < before
        if after > 0.05:
            # The shape alone may miss it: it knows nothing of gates that are hardly ever drawn.
            assert found.pareto_k > 0.7 or found.effective_sample_size < 0.05 * 4000


@pytest.mark.exact
def test_scales_of_each_parameter_and_a_learned_noise_are_those_of_the_model():
    """A linear network with a bias, against the density of the targets themselves."""
    x, y = small_fits.regression(20)
    network = nn.Sequential(nn.Linear(4, 1))
    model = small_fits.make_model(
        network,
        granularity="input",
        num_data=20,
        weight_prior=priors.GaussianWeights({"0.weight": 0.5, "0.bias": 2.0}),
        gate_prior=priors.IndependentPrior(-1.0),
    )
    posterior = small_fits.quick_fit(
        model, (x, y), num_epochs=200, gate_learning_rate=0.01
    ).posterior
    found = reweighted_inclusion(posterior, x, y, num_samples=20_000)
    sigma = float(posterior.state["model.likelihood.log_scale"][0].exp())
    log_joint, gates = [], torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 4)
    for gate in gates:
        chosen = (x * gate).double()
        covariance = sigma**2 * torch.eye(20).double() + 0.25 * chosen @ chosen.T + 4.0
        normal = torch.distributions.MultivariateNormal(torch.zeros(20).double(), covariance)
        log_joint.append(normal.log_prob(y.double()) - gate.sum())
    exact = torch.stack(log_joint).softmax(0) @ gates
    error = standard_errors(4) * (exact * (1 - exact) / found.effective_sample_size).sqrt()
    distance = (found.inclusion_probability["inputs"] - exact).abs()
    assert bool((distance <= error + 3 / found.effective_sample_size).all())


@pytest.mark.statistical
@pytest.mark.parametrize("shape", [0.2, 0.6, 1.0])
def test_the_shape_of_a_pareto_tail_is_found(shape):
    """Ratios u ** -shape have the tail index 1 / shape."""
    torch.manual_seed(0)
    log_ratio = -shape * torch.rand(40_000, dtype=torch.float64).log()
    smoothed, found = pareto_smoothed(log_ratio)
    length = math.ceil(3 * 40_000**0.5)
    assert abs(found - shape) < standard_errors() * (1 + shape) / length**0.5
    assert smoothed.max() == 0
    order = log_ratio.argsort()
    assert bool((smoothed[order].diff() >= -1e-12).all())  # the order stays
    few = order[: -length - 1]
    torch.testing.assert_close(smoothed[few], log_ratio[few] - log_ratio.max())


@pytest.mark.contract
def test_equal_ratios_have_no_tail():
    smoothed, shape = pareto_smoothed(torch.full((100,), -3.0).double())
    assert shape == -math.inf
    assert torch.equal(smoothed, torch.zeros(100).double())
    with pytest.raises(ValueError, match=r"^Expected at least 25 draws .* but got 24\.$"):
        pareto_smoothed(torch.zeros(24))


@pytest.mark.contract
def test_what_cannot_be_averaged_out_is_refused():
    x, y = small_fits.regression()
    gaussian = {"weight_prior": priors.GaussianWeights()}
    deep = small_fits.quick_fit(small_fits.make_model(**gaussian), num_epochs=1).posterior
    with pytest.raises(ValueError, match=r"^Expected a network that is linear in its weights"):
        reweighted_inclusion(deep, x, y)
    point = small_fits.quick_fit(num_epochs=1).posterior
    with pytest.raises(ValueError, match=r"^Expected independent gates with fixed prior odds over"):
        reweighted_inclusion(point, x, y)
    network = networks.MLP(4, [], 1)
    model = small_fits.make_model(network, granularity="input", **gaussian)
    flat = small_fits.quick_fit(model, num_epochs=1).posterior
    with pytest.raises(ValueError, match=r"^Expected the 48 examples that were fitted, but got 7"):
        reweighted_inclusion(flat, x[:7], y[:7])
