"""The answers of a guide agree with its draws: one contract for all guides."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from pyro_relevance import priors
from pyro_relevance.model.guides import (
    AutoregressiveGuide,
    LowRankGuide,
    MeanFieldGuide,
    SpikeAndSlabGuide,
)
from pyro_relevance.model.guides.protocol import answers
from pyro_relevance.model.priors.operations import ABSENT
from pyro_relevance.posterior.guide_draws import DrawModule, draw_chain
from tests import small_fits, small_graphs
from tests.bounds import assert_frequency, assert_mean, standard_errors
from tests.model.guides.test_own_guide import Informative

NUM_SAMPLES = {True: 1500, False: 400}
"""Draws of a guide that is vectorised, and of one that is called for each."""
GAUSSIAN = priors.GaussianWeights(initial_scale=0.3)


def flat_model():
    return small_fits.make_model(weight_prior=GAUSSIAN)


def graph_model():
    return small_graphs.make_model(granularity=("operation", "unit"), weight_prior=GAUSSIAN)


CASES = {
    "mean field": (flat_model, MeanFieldGuide),
    "mean field of a graph": (graph_model, MeanFieldGuide),
    "spike and slab": (flat_model, SpikeAndSlabGuide),
    "spike and slab of a graph": (graph_model, SpikeAndSlabGuide),
    "low rank": (flat_model, partial(LowRankGuide, rank=2)),
    "low rank of a graph": (graph_model, partial(LowRankGuide, rank=2)),
    "autoregressive": (graph_model, AutoregressiveGuide),
    "autoregressive without hidden units": (graph_model, partial(AutoregressiveGuide, hidden=0)),
    "of a user": (small_fits.make_model, Informative),
}
FACTORS = 0.025  # worst error of the probit approximation of a gate whose factors are averaged out


class Drawn:
    """A guide with gates and operations far from its start, and draws of it."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        make_model, make_guide = CASES[name]
        self.model = make_model()
        self.guide = make_guide(self.model)
        self.answers = answers(self.guide)
        named = dict(self.guide.named_parameters())
        with torch.no_grad():
            for parameter in self.answers.gate_parameters:
                named[parameter].add_(torch.randn_like(named[parameter]))
            if "gate_log_odds" in named:
                named["gate_log_odds"].sub_(1.5)  # away from gates that are always on
        self.module = DrawModule(self.model, self.guide)
        self.num_samples = NUM_SAMPLES[self.answers.vectorised]
        self.sites, self.parameters = self.draw(self.num_samples)

    def used_entries(self, weights):
        """Which entries are used in each draw, ``(num_samples, num_entries)``."""
        if "gate" not in self.sites:
            return torch.ones_like(weights) > 0
        given = [self.answers.used_entries(gates) for gates in self.sites["gate"]]
        ones = torch.ones(weights.shape[1])
        return torch.stack([each.get("weights", ones) for each in given]) > 0

    def draw(self, num_samples):
        torch.manual_seed(1)
        state = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        return draw_chain(self.module, state, num_samples, False)


_DRAWN: dict[str, Drawn] = {}


def draws_of(name):
    if name not in _DRAWN:
        _DRAWN[name] = Drawn(name)
    return _DRAWN[name]


@pytest.fixture(params=CASES)
def drawn(request):
    return draws_of(request.param)


def covariance(flags):
    """Covariances of ``(num_samples, n)`` zeros and ones in standard errors of independent ones."""
    p = flags.mean(0)
    error = (p * (1 - p)).sqrt() / len(flags) ** 0.25
    return torch.cov(flags.T) / (error[:, None] * error).clamp(min=1e-6)


def largest_between(flags, group):
    """Largest of these covariances between members of different groups, and their number."""
    pairs = (group[:, None] != group).triu()
    scores = covariance(flags.double())[pairs].abs()
    return float(scores.max()), scores.numel()


@pytest.mark.statistical
def test_log_odds_are_those_of_the_gates_drawn(drawn):
    log_odds = drawn.answers.inclusion_log_odds()
    if log_odds is None:
        assert isinstance(drawn.guide, AutoregressiveGuide)
        return
    assert not log_odds.requires_grad
    gates, probability = drawn.sites["gate"], torch.sigmoid(log_odds)
    assert set(gates.unique().tolist()) == {0.0, 1.0}
    if drawn.answers.independent_gates:
        assert_frequency(gates, probability)
    else:
        assert_mean(gates, probability, rounding=FACTORS)


@pytest.mark.statistical
def test_probabilities_of_gates_are_those_of_the_gates_drawn(drawn):
    """Also given what else was drawn: hard gate minus probability has mean zero."""
    gates, probability = drawn.sites["gate"], drawn.sites["gate_probability"]
    assert_mean(gates - probability, torch.zeros(gates.shape[1]))
    fixed = bool((probability == probability[0]).all())
    assert fixed == drawn.answers.independent_gates


@pytest.mark.statistical
def test_gates_are_independent_where_the_guide_says_so(drawn):
    gates = drawn.sites["gate"]
    largest, number = largest_between(gates, torch.arange(gates.shape[1]))
    assert (largest < standard_errors(number)) == drawn.answers.independent_gates


@pytest.mark.statistical
def test_operations_are_drawn_with_their_probabilities(drawn):
    if not drawn.model.has_operations:
        assert drawn.answers.choice_logits() is None
        assert "operation" not in drawn.sites
        return
    hard, probability = drawn.sites["operation"], drawn.sites["operation_probability"]
    assert bool((hard.sum(-1) == 1).all())
    torch.testing.assert_close(probability.sum(-1), torch.ones(hard.shape[:-1]))
    absent = drawn.model.prior_operation_logits <= ABSENT / 2
    assert bool(absent.any())
    assert not bool(hard[:, absent].any())
    assert_mean((hard - probability)[:, ~absent], torch.zeros(int((~absent).sum())))
    logits = drawn.answers.choice_logits()
    assert (logits is not None) == drawn.answers.independent_operations
    if logits is not None:
        stated = torch.softmax(logits, -1).expand_as(probability)
        torch.testing.assert_close(probability, stated)


@pytest.mark.statistical
def test_operations_are_independent_where_the_guide_says_so(drawn):
    if not drawn.model.has_operations:
        return
    present = drawn.model.prior_operation_logits > ABSENT / 2
    edge = torch.arange(len(present))[:, None].expand_as(present)[present]
    largest, number = largest_between(drawn.sites["operation"][:, present], edge)
    assert (largest < standard_errors(number)) == drawn.answers.independent_operations


@pytest.mark.statistical
def test_stated_means_are_those_of_the_weights_drawn(drawn):
    means = drawn.answers.latent_means()
    if means is None:
        return
    assert list(means) == [latent.name for latent in drawn.model.latents()]
    weights = torch.cat([t.flatten(1) for t in drawn.parameters.values()], 1)
    assert weights.shape[0] == drawn.num_samples
    used = drawn.used_entries(weights)
    assert_mean(torch.where(used, weights - means["weights"], 0.0), torch.zeros(used.shape[1]))


@pytest.mark.statistical
def test_entries_are_used_as_often_as_the_gates_say(drawn):
    """Of hard gates it is a fact, of probabilities the mean over draws."""
    log_odds = drawn.answers.inclusion_log_odds()
    if log_odds is None or not drawn.answers.independent_gates:
        return
    probability = drawn.answers.used_entries(torch.sigmoid(log_odds))
    assert bool(probability) == isinstance(drawn.guide, SpikeAndSlabGuide)
    for name, expected in probability.items():
        used = torch.stack([drawn.answers.used_entries(g)[name] for g in drawn.sites["gate"]])
        assert set(used.unique().tolist()) == {0.0, 1.0}
        assert_mean(used, expected.detach(), rounding=1e-6)


@pytest.mark.exact
def test_gates_follow_the_parameters_that_are_named_and_no_others(drawn):
    before = drawn.draw(8).sites
    named = dict(drawn.guide.named_parameters())
    kept = {name: parameter.detach().clone() for name, parameter in named.items()}
    assert set(drawn.answers.gate_parameters) <= set(named)
    try:
        with torch.no_grad():
            for name in set(named) - set(drawn.answers.gate_parameters):
                named[name].add_(0.5)
        after = drawn.draw(8).sites
        assert all(torch.equal(before[name], after[name]) for name in before)
        for name in drawn.answers.gate_parameters:
            if not named[name].numel():
                continue  # no hidden units
            with torch.no_grad():
                named[name].add_(torch.randn_like(named[name]))
            moved = drawn.draw(8).sites
            read = "operation" if "gate" not in name and "log_odds" not in name else "gate"
            key = f"{read}_probability"
            assert not torch.equal(moved[key], after[key])
            after = moved
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                named[name].copy_(value)


@pytest.mark.statistical
@pytest.mark.parametrize("hidden", [0, 16])
def test_dependent_operations_are_drawn_with_their_joint_probability(hidden):
    name = "autoregressive" if hidden else "autoregressive without hidden units"
    drawn = draws_of(name)
    table = small_graphs.choices(drawn.model)
    with torch.no_grad():
        probability = drawn.guide.log_probability(table).exp()
    torch.testing.assert_close(probability.sum(), torch.tensor(1.0))
    hits = (drawn.sites["operation"][:, None] == table).flatten(2).all(-1)
    assert bool((hits.sum(-1) == 1).all())
    assert_frequency(hits, probability)
