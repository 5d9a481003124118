"""Fits with Gaussian weights against exact posteriors over all gates, weights averaged out.

Data come from the model that is fitted. The best spike-and-slab posterior is known too, by exact
coordinate ascent: what is left of an error is that of the training.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from analysis.enumeration import (
    ascend,
    exact_linear,
    exact_logistic,
    make_problem,
    spike_and_slab_elbo,
    spike_and_slab_optimum,
)
from pyro_relevance import RelevanceModel, find_edges, fit, likelihoods, priors, schedules
from pyro_relevance.model.guides import MeanFieldGuide, SpikeAndSlabGuide

NUM_SETS, NUM_INPUTS = 10, 10
LINEAR = likelihoods.Gaussian(1.0, learn_noise=False)


def fit_all(problems, likelihood=LINEAR, **settings):
    """Fit all data sets in one program, with the settings that the guide's docstring names."""
    num_data, num_inputs = problems[0].x.shape
    network = nn.Linear(num_inputs, 1, bias=False)
    model = RelevanceModel(
        network,
        find_edges(network, granularity="input"),
        likelihood=likelihood,
        num_data=num_data,
        gate_prior=priors.IndependentPrior(problems[0].log_odds),
        weight_prior=priors.GaussianWeights(problems[0].weight_scale),
    )
    decay = schedules.within(schedules.cosine(1.0, 0.001), start=0.3)
    return fit(
        model,
        [(p.x.float(), p.y.float()) for p in problems],
        num_chains=len(problems),
        **{
            "num_epochs": 1500,
            "batch_size": None,
            "learning_rate": 0.02,
            "gate_learning_rate": 0.05,
            "noise": "per_example",
            "schedules": schedules.Schedules(learning_rate=decay),
            **settings,
        },
    ).posterior


def errors(posterior, exact):
    found = posterior.inclusion_probability()["inputs"].double()
    return (found - torch.stack([e.inclusion_probability for e in exact])).abs()


def fitted_parameters(posterior, index):
    """Inclusion probabilities, means and variances of one data set."""
    state = {name: t[index].double() for name, t in posterior.state.items()}
    return (
        torch.sigmoid(state["guide.gate_log_odds"]),
        state["guide.latent_posteriors.loc.weights"],
        (2 * state["guide.latent_posteriors.log_scale.weights"]).exp(),
    )


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("correlation", "mean", "largest", "gap"), [(0.0, 0.01, 0.08, 0.3), (0.5, 0.025, 0.3, 0.3)]
)
def test_inclusion_probabilities_are_those_of_the_exact_posterior(correlation, mean, largest, gap):
    """Gap: mean distance of the ELBO, in nats, from the best of the family."""
    problems = [make_problem(200, NUM_INPUTS, correlation, seed=i) for i in range(NUM_SETS)]
    posterior = fit_all(problems)
    assert isinstance(posterior.guide, SpikeAndSlabGuide)
    error = errors(posterior, [exact_linear(problem) for problem in problems])
    assert error.mean() <= mean
    assert error.max() <= largest
    best = [spike_and_slab_optimum(problem) for problem in problems]
    lost = [
        b.elbo - spike_and_slab_elbo(problems[i], *fitted_parameters(posterior, i))
        for i, b in enumerate(best)
    ]
    assert min(lost) > -1e-4
    assert sum(lost) / NUM_SETS <= gap


@pytest.mark.statistical
def test_dependent_weights_are_better_than_independent_ones():
    problems = [make_problem(50, NUM_INPUTS, 0.0, seed=i) for i in range(NUM_SETS)]
    exact = [exact_linear(problem) for problem in problems]
    dependent = errors(fit_all(problems), exact).mean()
    independent = errors(fit_all(problems, guide=MeanFieldGuide), exact).mean()
    assert dependent < 0.3 * independent


@pytest.mark.statistical
def test_nearly_copied_inputs_end_at_an_optimum_of_the_family():
    """Correlation 0.9: the family is wrong and has several optima, of which a fit finds one."""
    problems = [make_problem(200, NUM_INPUTS, 0.9, seed=i) for i in range(NUM_SETS)]
    posterior = fit_all(problems, num_epochs=3000)
    lost, moved = [], []
    for index, problem in enumerate(problems):
        p, mean, variance = fitted_parameters(posterior, index)
        nearest = ascend(problem, p, mean)
        lost.append(nearest.elbo - spike_and_slab_elbo(problem, p, mean, variance))
        moved.append((nearest.inclusion_probability - p).abs().mean())
    assert 0 < min(lost) <= max(lost) <= 0.2
    assert max(moved) <= 0.03
    assert errors(posterior, [exact_linear(p) for p in problems]).mean() <= 0.15


@pytest.mark.statistical
def test_a_logistic_model_is_close_to_quadrature():
    problems = [make_problem(200, 4, 0.3, seed=i, logistic=True) for i in range(NUM_SETS)]
    posterior = fit_all(problems, likelihoods.Bernoulli())
    error = errors(posterior, [exact_logistic(problem) for problem in problems])
    assert error.mean() <= 0.025
    assert error.max() <= 0.15
