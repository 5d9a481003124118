"""Searches by queries: the posterior of values against dense algebra, rules against enumeration."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pyro_relevance import find_edges
from pyro_relevance.comparison.baselines import evolution, random_search
from pyro_relevance.comparison.baselines.random_search import random_architecture
from pyro_relevance.graphs import Architecture, canonical, is_connected, spaces
from pyro_relevance.search.queries import (
    Candidates,
    ValuePosterior,
    log_improvement,
    search_by_queries,
)
from pyro_relevance.search.value_posterior import prior_covariance

CELL = spaces.nasbench201_cell(1)
EDGES = find_edges(CELL, granularity="operation")
WORTH = {
    "none": 0.0,
    "skip_connect": 0.5,
    "avg_pool_3x3": 0.2,
    "nor_conv_1x1": 1.0,
    "nor_conv_3x3": 1.3,
}


def make_candidates(number=300):
    generator = np.random.default_rng(0)
    return Candidates(CELL, [random_architecture(EDGES, generator) for _ in range(number)])


def worth(architecture: Architecture) -> float:
    """Return a value to which every edge adds something, some more than others."""
    return sum(
        (1 + 0.3 * place) * WORTH[operation]
        for place, operation in enumerate(architecture.operations.values())
    )


@pytest.mark.exact
def test_candidates_are_different_connected_functions():
    candidates = make_candidates()
    texts = [canonical(CELL, a) for a in candidates.architectures]
    assert len(set(texts)) == len(texts) == len(candidates)
    assert all(is_connected(CELL, a) for a in candidates.architectures)
    assert candidates.num_members.sum() > len(candidates)
    with pytest.raises(ValueError, match="at least two different connected architectures"):
        Candidates(CELL, list(candidates.architectures[:1]))


@pytest.mark.exact
def test_posterior_of_values_is_that_of_the_gaussian_process():
    candidates = make_candidates()
    posterior, seen = ValuePosterior(candidates, num_steps=5), list(range(12))
    posterior.update(seen, [worth(candidates.architectures[i]) for i in seen])
    seen += [40, 50, 60]  # rows that are added to a factor which is there
    values = [worth(candidates.architectures[i]) for i in seen]
    posterior.update(seen, values, refit=False)
    mean, deviation = posterior.moments()

    scale, width, noise = (
        posterior.guide.loc[n].detach().exp() for n in ("scale", "width", "noise")
    )
    linear, distances = candidates.linear.double(), candidates.distances.double()
    prior = prior_covariance(scale, width, linear, distances)
    known = prior[seen][:, seen] + (noise**2 + 1e-4) * torch.eye(len(seen))
    cross = prior[:, seen]
    raw = torch.tensor(values, dtype=torch.float64)
    middle = raw.median()
    raw = raw.clamp(min=float(middle - 3 * 1.4826 * (raw - middle).abs().median()))
    standard = (raw - raw.mean()) / raw.std()
    expected = cross @ torch.linalg.solve(known, standard)
    variance = prior.diagonal() - (cross * torch.linalg.solve(known, cross.T).T).sum(1)
    torch.testing.assert_close(mean, expected * raw.std() + raw.mean(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(deviation, variance.sqrt() * raw.std(), rtol=1e-3, atol=1e-3)


@pytest.mark.exact
def test_other_measurements_take_the_place_of_those_before():
    candidates = make_candidates(60)

    def moments(first):
        posterior = ValuePosterior(candidates, num_steps=1)
        with torch.no_grad():
            posterior.guide.loc["scale"].fill_(0.0)
        for seen in first:
            values = [worth(candidates.architectures[i]) for i in seen]
            posterior.update(seen, values, refit=False)
        return posterior.moments()

    for found, expected in zip(
        moments([[0, 1, 2], [5, 6, 7, 8]]), moments([[5, 6, 7, 8]]), strict=True
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.statistical
def test_joint_draws_have_the_moments_of_the_posterior():
    candidates = make_candidates(60)
    posterior, seen = ValuePosterior(candidates, num_steps=5), list(range(8))
    posterior.update(seen, [worth(candidates.architectures[i]) for i in seen])
    mean, deviation = posterior.moments()
    pool = torch.arange(10, 20)
    torch.manual_seed(0)
    draws = torch.stack([posterior.sample(pool) for _ in range(3000)])
    error = deviation[pool] / math.sqrt(3000)
    assert bool(((draws.mean(0) - mean[pool]).abs() < 5 * error).all())
    assert bool(((draws.std(0) / deviation[pool] - 1).abs() < 0.1).all())


@pytest.mark.exact
def test_expected_improvement_is_its_integral_and_its_tail_goes_on():
    mean, spread = (
        torch.tensor([0.0, 1.0, -2.0], dtype=torch.float64),
        torch.tensor([1.0, 0.5, 0.7]),
    )
    best, grid = 0.3, torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    for m, s in zip(mean, spread.double(), strict=True):
        density = torch.exp(-0.5 * ((grid - m) / s) ** 2) / (s * math.sqrt(2 * math.pi))
        expected = torch.trapezoid((grid - best).clamp(min=0) * density, grid)
        found = log_improvement(m[None], s[None], best)[0].exp()
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    far = torch.linspace(0, -30, 61, dtype=torch.float64)
    values = log_improvement(far, torch.ones_like(far), 0.0)
    assert bool((values.diff() < 0).all())
    assert bool(values.isfinite().all())


@pytest.mark.exact
@pytest.mark.parametrize("proposal", ["expected_improvement", "thompson"])
def test_the_search_finds_the_best_candidate_sooner_than_chance(proposal):
    candidates = make_candidates()
    values = sorted((worth(a) for a in candidates.architectures), reverse=True)
    calls: list[Architecture] = []

    def evaluate(architecture):
        calls.append(architecture)
        return worth(architecture)

    result = search_by_queries(
        candidates, evaluate, num_queries=40, proposal=proposal, pool_size=100, seed=1
    )
    assert len(calls) == len(set(calls)) == 40
    assert result.architectures == tuple(calls)
    assert max(result.values) >= values[1]  # chance: 40 of about 280 candidates
    assert worth(result.best()) >= values[2]
    assert result.best(10) in calls[:10]
    again = search_by_queries(
        candidates, worth, num_queries=40, proposal=proposal, pool_size=100, seed=1
    )
    assert again.values == result.values


@pytest.mark.exact
@pytest.mark.parametrize("ageing", [True, False])
def test_evolution_changes_one_operation_of_a_living_parent(ageing):
    result = evolution(EDGES, worth, num_queries=60, ageing=ageing, seed=0)
    found = result.architectures
    for index in range(10, 60):
        parents = found[index - 10 : index] if ageing else found[:index]
        differences = [
            sum(
                a != b
                for a, b in zip(
                    found[index].operations.values(), p.operations.values(), strict=True
                )
            )
            for p in parents
        ]
        assert 1 in differences
    assert worth(result.best()) == max(result.values)
    assert result.best(20) in found[:20]
    chance = random_search(EDGES, worth, num_queries=60, seed=0)
    assert max(result.values) > max(chance.values)


@pytest.mark.contract
def test_wrong_arguments_are_told():
    candidates = make_candidates(20)
    with pytest.raises(ValueError, match="Expected proposal from"):
        search_by_queries(candidates, worth, num_queries=12, proposal="greedy")
    with pytest.raises(ValueError, match="Expected 2 <= num_initial <= num_queries"):
        search_by_queries(candidates, worth, num_queries=1000)
    with pytest.raises(ValueError, match="Expected a finite value"):
        search_by_queries(candidates, lambda a: math.nan, num_queries=12)
    with pytest.raises(ValueError, match="Expected num_queries >= 1"):
        random_search(EDGES, worth, num_queries=0)
    with pytest.raises(ValueError, match="Expected 1 <= tournament_size"):
        evolution(EDGES, worth, num_queries=5)
