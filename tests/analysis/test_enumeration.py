"""The exact posteriors of the experiment against those of the oracles and of plain quadrature."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import pyro_relevance as pr
from analysis.enumeration import (
    configurations,
    exact_linear,
    exact_logistic,
    make_problem,
    spike_and_slab_elbo,
    spike_and_slab_optimum,
)
from tests import oracles


@pytest.mark.exact
def test_a_linear_model_is_enumerated_as_by_the_oracle():
    problem = make_problem(12, 5, 0.5, seed=1, weight_scale=0.7)
    exact = exact_linear(problem)
    likelihood = oracles.log_likelihood_of_gaussian_weights(problem.x, problem.y, 0.7, 1.0)
    prior = oracles.independent_log_prior(torch.full((5,), problem.log_odds))
    oracle = oracles.GatePosterior(likelihood + prior)
    torch.testing.assert_close(exact.inclusion_probability, oracle.inclusion_probability)
    assert exact.log_evidence == pytest.approx(oracle.log_evidence)
    assert torch.equal(configurations(5), oracles.configurations(5))


@pytest.mark.exact
def test_a_logistic_model_is_integrated_as_on_a_grid():
    problem = make_problem(40, 2, 0.3, seed=3, logistic=True)
    exact = exact_logistic(problem, num_nodes=11)
    grid = torch.linspace(-7, 7, 501).double()
    pairs = torch.cartesian_prod(grid, grid)
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(grid).exp()
    values = []
    for gates in oracles.configurations(2):
        outputs = (pairs * gates) @ problem.x.T
        fit = (problem.y * outputs - torch.nn.functional.softplus(outputs)).sum(-1).exp()
        density = fit.view(501, 501) * prior[:, None] * prior
        values.append(torch.trapezoid(torch.trapezoid(density, grid), grid).log())
    log_prior = oracles.independent_log_prior(torch.full((2,), problem.log_odds))
    oracle = oracles.GatePosterior(torch.stack(values) + log_prior)
    torch.testing.assert_close(
        exact.inclusion_probability, oracle.inclusion_probability, atol=1e-4, rtol=1e-4
    )
    assert exact.log_evidence == pytest.approx(oracle.log_evidence, abs=1e-3)


@pytest.mark.exact
def test_the_optimum_of_the_family_is_stationary_and_a_bound():
    problem = make_problem(60, 6, 0.7, seed=2)
    best = spike_and_slab_optimum(problem)
    assert best.elbo < exact_linear(problem).log_evidence
    found = (best.inclusion_probability, best.mean, best.variance)
    assert best.elbo == pytest.approx(spike_and_slab_elbo(problem, *found))
    generator = torch.Generator().manual_seed(0)
    for step in (1e-3, 1e-2):
        for _ in range(20):
            noise = torch.randn(3, 6, generator=generator).double()
            moved = (
                torch.sigmoid(found[0].logit() + step * noise[0]),
                found[1] + step * noise[1],
                found[2] * (step * noise[2]).exp(),
            )
            assert spike_and_slab_elbo(problem, *moved) <= best.elbo


@pytest.mark.exact
def test_one_input_has_no_family_to_choose():
    """With one gate the spike-and-slab posterior is the exact one, and the bound is tight."""
    problem = make_problem(30, 1, 0.0, seed=5)
    best, exact = spike_and_slab_optimum(problem), exact_linear(problem)
    torch.testing.assert_close(best.inclusion_probability, exact.inclusion_probability)
    assert best.elbo == pytest.approx(exact.log_evidence)
    assert math.isfinite(best.elbo)


@pytest.mark.statistical
@pytest.mark.parametrize(("correlation", "most"), [(0.0, 0.02), (0.5, 0.05)])
def test_the_defaults_of_fit_are_near_the_exact_posterior(correlation: float, most: float) -> None:
    """They were off by 0.3 where 200 rows were 200 steps; see the docstring of the guide."""
    problems = [make_problem(200, 10, correlation, seed=seed) for seed in range(8)]
    torch.manual_seed(0)
    network = nn.Linear(10, 1, bias=False)
    model = pr.RelevanceModel(
        network,
        pr.find_edges(network, granularity="input"),
        likelihood=pr.likelihoods.Gaussian(1.0, learn_noise=False),
        num_data=200,
        gate_prior=pr.priors.IndependentPrior(problems[0].log_odds),
        weight_prior=pr.priors.GaussianWeights(1.0),
    )
    data = [(problem.x.float(), problem.y.float()) for problem in problems]
    posterior = pr.fit(model, data, num_chains=len(data), progress=False).posterior
    found = posterior.inclusion_probability()["inputs"].double()
    exact = torch.stack([exact_linear(problem).inclusion_probability for problem in problems])
    assert float((found - exact).abs().mean()) < most
