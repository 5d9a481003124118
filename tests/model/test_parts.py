"""A part that a user brings is checked before the fit: errors name it and the expected shape."""

from __future__ import annotations

import re
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_relevance as pr
from tests.small_fits import make_model, quick_fit, regression

pytestmark = pytest.mark.contract

# make_model: 4 inputs, 5 units, 31 weights and biases; a batch of quick_fit has 16 examples.


class Odds:
    """A right prior over gates, whose rate is latent."""

    def log_odds(self, edges):
        return torch.zeros(edges.num_edges)

    def latents(self, edges):
        return (pr.priors.Latent("rate", "real", torch.zeros(2)),)

    def sample(self, log_odds, edges):
        rate = pyro.sample("rate", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        return log_odds + rate.mean()


class Points:
    """A right prior over weights: point estimates."""

    def latents(self, parameters):
        return ()

    def latent_parameters(self, parameters):
        return ()

    def sample(self, parameters):
        return dict(parameters)


class Noise(nn.Module):
    """A right likelihood."""

    task = "regression"

    def forward(self, outputs):
        return dist.Normal(outputs.squeeze(-1), 1.0)

    def mean(self, outputs):
        return outputs.squeeze(-1)

    def num_outputs(self):
        return 1

    def settings(self):
        return {}


class Gates(nn.Module, pr.guides.RelevanceGuide):
    """A right guide of gates over point weights."""

    gate_parameters = ("log_odds",)

    def __init__(self, model):
        super().__init__()
        self.model = (model,)
        self.log_odds = nn.Parameter(torch.zeros_like(model.prior_log_odds))

    def odds(self):
        return self.log_odds

    def forward(self, x=None, y=None):
        num = 1 if x is None else x.shape[0]
        pyro.sample("gate", self.model[0].gate_distribution(self.odds(), num))


def changed(part: type, **methods: Any) -> type:
    """Return a class of the same name with other methods."""
    return type(part.__name__, (part,), methods)


def drawn(site: str, size: int) -> Any:
    def sample(self, log_odds, edges):
        pyro.sample(site, dist.Normal(torch.zeros(size), 1.0).to_event(1))
        return log_odds

    return sample


def test_parts_of_ones_own_work_together():
    model = make_model(gate_prior=Odds(), weight_prior=Points(), likelihood=Noise())
    fit = quick_fit(model)
    x, _ = regression()
    assert fit.posterior.predict(x).posterior_mean().shape == (len(x),)
    fit = quick_fit(make_model(weight_prior=Points(), likelihood=Noise()), guide=Gates)
    assert fit.posterior.inclusion_probability()["inputs"].shape == (1, 4)


def test_a_check_leaves_the_generators_as_they_were():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    make_model(gate_prior=Odds(), weight_prior=pr.priors.GaussianWeights())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("methods", "kind", "words"),
    [
        (
            {"log_odds": lambda self, edges: torch.zeros(5)},
            ValueError,
            "gate_prior Odds.log_odds(edges) to return a tensor of shape (9,) (one log-odds for "
            "each edge, in nats), but got (5,)",
        ),
        (
            {"log_odds": lambda self, edges: [0.0] * 9},
            TypeError,
            "Odds.log_odds(edges) to return a tensor of shape (9,)",
        ),
        (
            {"sample": lambda self, log_odds, edges: log_odds},
            ValueError,
            "gate_prior Odds.sample to draw the sites that its latents lists, ['rate'], but it "
            "draws []",
        ),
        ({"sample": drawn("rat", 2)}, ValueError, "lists, ['rate'], but it draws ['rat']"),
        (
            {"sample": drawn("rate", 3)},
            ValueError,
            "Odds.sample to draw site 'rate' of shape (2,), the shape of its initial value in "
            "latents, but got (3,)",
        ),
        (
            {"latents": lambda self, edges: [("rate", 2)]},
            TypeError,
            "Odds.latents(edges) to return a tuple of priors.Latent, but got tuple",
        ),
        ({"sample": None}, TypeError, "['log_odds', 'latents', 'sample'], but Odds has no sample"),
    ],
)
def test_gate_prior(methods, kind, words):
    with pytest.raises(kind, match=re.escape(words)):
        make_model(gate_prior=changed(Odds, **methods)())


def test_a_column_of_log_odds_is_not_broadcast():
    column = changed(
        Odds, latents=lambda self, edges: (), sample=lambda self, odds, e: odds[:, None]
    )
    with pytest.raises(ValueError, match=re.escape("of shape (9,) (one log-odds for each edge")):
        make_model(gate_prior=column())


def test_a_class_in_the_place_of_a_prior():
    with pytest.raises(TypeError, match=r"gate_prior as an object, but got the class Odds\. Call"):
        make_model(gate_prior=Odds)


@pytest.mark.parametrize(
    ("methods", "kind", "words"),
    [
        (
            {"sample": lambda self, given: {n: v[:1] for n, v in given.items()}},
            ValueError,
            "weight_prior Points.sample(parameters)['0.weight'] to return a tensor of shape (5, 4) "
            "(as it is given), but got (1, 4)",
        ),
        (
            {"sample": lambda self, given: {"0.weight": given["0.weight"]}},
            ValueError,
            "to return a mapping of all parameters ['0.bias', '0.weight', '2.bias', '2.weight'], "
            "but got ['0.weight']",
        ),
        (
            {"sample": lambda self, given: list(given.values())},
            TypeError,
            "Points.sample(parameters) to return a mapping",
        ),
        (
            {"latent_parameters": lambda self, given: ("nope",)},
            ValueError,
            "to return names out of ['0.weight', '0.bias', '2.weight', '2.bias'], but got ['nope']",
        ),
    ],
)
def test_weight_prior(methods, kind, words):
    with pytest.raises(kind, match=re.escape(words)):
        make_model(weight_prior=changed(Points, **methods)())


@pytest.mark.parametrize(
    ("methods", "kind", "words"),
    [
        (
            {"forward": lambda self, outputs: outputs},
            TypeError,
            "the likelihood Noise to return a distribution of the targets for the outputs of the "
            "network, but got Tensor",
        ),
        (
            {"forward": lambda self, outputs: dist.Normal(outputs.mean(), 1.0)},
            ValueError,
            "Noise to return a distribution of batch shape (16,), one for each example, but got ()",
        ),
        (
            {"forward": lambda self, outputs: dist.Normal(outputs, 1.0)},
            ValueError,
            "Noise.mean(outputs) of shape (16, 1), as its distribution of the targets has it, but "
            "got (16,)",
        ),
        (
            {"mean": lambda self, outputs: outputs},
            ValueError,
            "Noise.mean(outputs) of shape (16,), as its distribution of the targets has it, but "
            "got (16, 1)",
        ),
        (
            {"num_outputs": lambda self: "one"},
            ValueError,
            "the likelihood Noise.num_outputs() to return a positive integer, or None for any "
            "number, but got 'one'",
        ),
        ({"num_outputs": lambda self: 2}, ValueError, "(num_data, 2) for Noise, but got (16, 1)"),
    ],
)
def test_likelihood(methods, kind, words):
    with pytest.raises(kind, match=re.escape(words)):
        quick_fit(make_model(likelihood=changed(Noise, **methods)()))


@pytest.mark.parametrize(
    ("methods", "kind", "words"),
    [
        (
            {"odds": lambda self: self.log_odds[:-1]},
            ValueError,
            "site 'gate' of the guide Gates of shape (9,), as the model has it, but got (8,)",
        ),
        (
            {"odds": lambda self: self.log_odds.expand(3, -1)},
            ValueError,
            "site 'gate' of the guide Gates of shape (9,), as the model has it, but got (3, 9)",
        ),
        (
            {"gate_parameters": ("odds",)},
            ValueError,
            "Gates.gate_parameters to name parameters of the guide, ['log_odds'], but got ['odds']",
        ),
        (
            {"inclusion_log_odds": lambda self: self.log_odds[:2]},
            ValueError,
            "Gates.inclusion_log_odds() to return a tensor of shape (9,)",
        ),
        (
            {"latent_means": lambda self: {"weights": torch.zeros(3)}},
            ValueError,
            "Gates.latent_means() to name latent sites of the model, [], but got 'weights'",
        ),
    ],
)
def test_guide(methods, kind, words):
    with pytest.raises(kind, match=re.escape(words)):
        quick_fit(guide=changed(Gates, **methods))


def test_what_a_guide_says_of_latent_sites():
    short = changed(Gates, used_entries=lambda self, gates: {"weights": torch.ones(3)})
    words = "Gates.used_entries(gates)['weights'] to return a tensor of shape (31,) (as the site)"
    with pytest.raises(ValueError, match=re.escape(words)):
        quick_fit(make_model(weight_prior=pr.priors.GaussianWeights()), guide=short)
