"""Guides of a user: one that says nothing about itself, one that says what it knows."""

from __future__ import annotations

import pyro
import pytest
import torch
from torch import nn

from pyro_relevance import RelevanceModel, find_edges, fit, likelihoods, networks
from pyro_relevance.model.elbo import announce_parameters
from pyro_relevance.model.guides.protocol import RelevanceGuide, answers


class Plain(nn.Module):
    """The least that a guide is: it samples the site of the gates."""

    def __init__(self, model):
        super().__init__()
        self.model = (model,)
        self.log_odds = nn.Parameter(torch.full((model.edges.num_edges,), 2.0))

    def forward(self, x=None, y=None):
        announce_parameters(self)
        size = 1 if x is None else x.shape[0]
        pyro.sample("gate", self.model[0].gate_distribution(self.log_odds, size))


class Informative(Plain, RelevanceGuide):
    """The same guide, which says what it knows."""

    vectorised = True
    independent_gates = True
    gate_parameters = ("log_odds",)

    def inclusion_log_odds(self):
        return self.log_odds.detach()


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = networks.MLP(3, [4], 1)
    edges = find_edges(network, granularity=("input", "unit"))
    return RelevanceModel(network, edges, likelihood=likelihoods.Gaussian(), num_data=24)


@pytest.fixture
def data():
    x = torch.randn(24, 3, generator=torch.Generator().manual_seed(1))
    return x, x[:, 0]


def test_a_guide_that_says_nothing_has_the_defaults(model):
    given = answers(Plain(model))
    assert not given.vectorised
    assert not given.independent_gates
    assert given.gate_parameters == ()
    assert given.inclusion_log_odds() is None
    assert given.choice_logits() is None
    assert given.latent_means() is None


def test_a_guide_that_answers_is_asked_itself(model):
    guide = Informative(model)
    assert answers(guide) is guide


@pytest.mark.parametrize("num_chains", [1, 2])
def test_both_guides_are_trained_and_looked_at(model, data, num_chains):
    settings = dict(num_epochs=3, seed=0, num_chains=num_chains)
    for guide in (Plain, Informative):
        posterior = fit(model, data, guide=guide, **settings).posterior
        for probability in posterior.inclusion_probability().values():
            assert ((probability > 0) & (probability < 1)).all()


def test_answers_make_inclusion_probabilities_exact(model, data):
    posterior = fit(model, data, guide=Informative, num_epochs=3, seed=0).posterior
    exact = torch.sigmoid(posterior.state["guide.log_odds"])
    found = posterior.inclusion_probability()
    for name, probability in posterior.edges.split(exact).items():
        torch.testing.assert_close(found[name], probability)


def test_named_gates_take_their_learning_rate(model, data):
    settings = dict(num_epochs=2, seed=0, gate_learning_rate=0.5, learning_rate=1e-4)
    moved = {
        guide: (
            fit(model, data, guide=guide, **settings).posterior.state["guide.log_odds"] - 2.0
        ).abs()
        for guide in (Plain, Informative)
    }
    assert moved[Plain].max() < 0.01 < 0.1 < moved[Informative].max()
