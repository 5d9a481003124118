"""Sensitivity to the prior odds: exact where edges do not depend on each other."""

from __future__ import annotations

import math

import pytest
import torch

import pyro_relevance as pr
from pyro_relevance import Posterior, before_pruning
from tests.oracles import (
    configurations,
    independent_log_prior,
    log_likelihood_of_gaussian_weights,
    orthogonal_design,
)
from tests.small_fits import make_model, quick_fit

ODDS = (0.01, 0.1, 1.0, 10.0, 100.0)


def with_log_odds(values: torch.Tensor, prior: float = -1.5) -> Posterior:
    model = make_model(gate_prior=pr.priors.IndependentPrior(prior))
    posterior = quick_fit(model, num_epochs=1).posterior
    with torch.no_grad():
        posterior.state["guide.gate_log_odds"].copy_(values)
    return posterior


@pytest.mark.exact
def test_posterior_odds_move_with_the_prior_odds() -> None:
    values = torch.linspace(-60, 60, 9)
    posterior = with_log_odds(values)
    found = before_pruning.prior_sensitivity(posterior, prior_odds=ODDS)
    for index, odds in enumerate(ODDS):
        expected = values.double() + math.log(odds) + 1.5
        got = torch.cat([found.log_odds[name][index].flatten() for name in ("inputs", "0.units")])
        assert torch.allclose(got, expected, atol=1e-5)
        assert float(found.expected_size[index]) == pytest.approx(float(expected.sigmoid().sum()))
        assert int(found.size[index]) == int((expected > 0).sum())
    at_its_own = before_pruning.prior_sensitivity(posterior, prior_odds=[math.exp(-1.5)])
    own = posterior.inclusion_probability()["inputs"]
    assert torch.allclose(at_its_own.inclusion_probability["inputs"].float(), own, atol=1e-6)
    assert at_its_own.masks[0] == pr.masks.median_probability(posterior)


@pytest.mark.exact
def test_critical_odds_are_those_at_which_an_edge_changes_sides() -> None:
    posterior = with_log_odds(torch.linspace(-4, 4, 9))
    found = before_pruning.prior_sensitivity(posterior, prior_odds=ODDS)
    critical = found.critical_prior_odds()["inputs"]
    for edge, odds in enumerate(critical.tolist()):
        sides = before_pruning.prior_sensitivity(posterior, prior_odds=(0.99 * odds, 1.01 * odds))
        kept = [bool(mask["inputs"][edge]) for mask in sides.masks]
        assert kept == [False, True]


@pytest.mark.property
def test_more_prior_odds_never_keep_less() -> None:
    found = before_pruning.prior_sensitivity(with_log_odds(torch.randn(9) * 3), prior_odds=ODDS)
    for fewer, more in zip(found.masks, found.masks[1:], strict=False):
        assert (fewer & more) == fewer
    assert bool((found.expected_size.diff() > 0).all())


def enumerated(x: torch.Tensor, y: torch.Tensor, prior_odds: float) -> torch.Tensor:
    """Exact posterior log-odds of each input of a linear model, over all sets of inputs."""
    prior = independent_log_prior(torch.full((x.shape[1],), math.log(prior_odds)))
    evidence = log_likelihood_of_gaussian_weights(x, y, 1.0, 0.5) + prior
    on = configurations(x.shape[1]).bool().T
    return torch.stack([evidence[gate].logsumexp(0) - evidence[~gate].logsumexp(0) for gate in on])


def largest_error(x: torch.Tensor, y: torch.Tensor) -> float:
    """Largest error of an inclusion probability told from prior odds of one, over all `ODDS`."""
    exact = {odds: enumerated(x, y, odds) for odds in ODDS}
    values = torch.cat([exact[1.0], torch.zeros(5).double()])
    found = before_pruning.prior_sensitivity(with_log_odds(values.float(), 0.0), prior_odds=ODDS)
    told = found.inclusion_probability["inputs"]
    again = torch.stack([exact[odds].sigmoid() for odds in ODDS])
    return float((told - again).abs().max())


@pytest.mark.exact
def test_an_exact_refit_agrees_where_each_edge_speaks_for_itself() -> None:
    """Orthogonal inputs of a linear model: no edge's evidence depends on the others."""
    effects = torch.tensor([1.0, 0.3, 0.15, 0.0]).double()
    x = orthogonal_design(24, 4)
    y = x @ effects + 0.5 * torch.randn(24).double()
    assert largest_error(x, y) < 1e-5
    # Two inputs that carry each other: the second explains what the first does no longer.
    x[:, 1] = x[:, 0] + 0.1 * x[:, 1]
    assert largest_error(x, y) > 0.05


@pytest.mark.contract
def test_what_has_no_given_odds_or_no_independent_gates_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected positive prior odds such as 0.01, but got"):
        before_pruning.prior_sensitivity(quick_fit().posterior, prior_odds=(0.0, 1.0))
    with pytest.raises(ValueError, match="Expected the posterior of one chain, but got 2"):
        before_pruning.prior_sensitivity(quick_fit(num_chains=2).posterior)
    learned = quick_fit(make_model(gate_prior=pr.priors.HierarchicalPrior())).posterior
    with pytest.raises(ValueError, match="but got HierarchicalPrior"):
        before_pruning.prior_sensitivity(learned)
    correlated = quick_fit(guide=pr.guides.LowRankGuide).posterior
    with pytest.raises(ValueError, match="independent gates, but got LowRankGuide"):
        before_pruning.prior_sensitivity(correlated)
    with pytest.raises(ValueError, match="but got NoneType"):
        before_pruning.prior_sensitivity(quick_fit(make_model(gate_prior=None)).posterior)
