"""Draws given the gates, and the latent sites themselves."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pyro_relevance as pr
from pyro_relevance import Posterior
from tests.bounds import assert_mean
from tests.small_fits import make_model, quick_fit, regression


class Nested(nn.Module, pr.guides.RelevanceGuide):
    """Each weight is around 3 where its own gate is on, and around -1 where it is off."""

    gate_parameters = ("log_odds",)

    def __init__(self, model: pr.RelevanceModel) -> None:
        super().__init__()
        self.model = (model,)
        self.log_odds = nn.Parameter(torch.zeros_like(model.prior_log_odds))

    def forward(self, x: Tensor | None = None, y: Tensor | None = None) -> dict[str, Tensor]:
        model = self.model[0]
        value = pyro.sample("gate", model.gate_distribution(self.log_odds))
        on = model.relaxation.hard(value)
        on = torch.cat([on, torch.zeros(len(model.latents()[0].initial) - len(on))])
        weights = dist.Normal(4.0 * on - 1.0, 0.5, validate_args=False).to_event(1)
        return {"gate": value, "weights": pyro.sample("weights", weights)}


def single_layer(guide: Any = Nested) -> Posterior:
    """A posterior of one linear layer of four weights, a gate on each."""
    model = make_model(
        nn.Linear(4, 1), granularity="weight", weight_prior=pr.priors.GaussianWeights()
    )
    return quick_fit(model, regression(), guide=guide, num_epochs=1, num_chains=2).posterior


@pytest.mark.statistical
def test_weights_are_drawn_given_the_gates_and_not_given_those_of_the_guide() -> None:
    posterior = single_layer()
    on = torch.tensor([[True, False, True, False]])
    given = posterior.sample(1000, given={"weight": on})
    assert torch.equal(given.gates["weight"], on.float().expand(2, 1000, 1, 4))
    assert_mean(given.weights["weight"][0], 4.0 * on.float() - 1.0)
    # Removing edges from free draws is something else: it keeps the weights of gates that were off.
    free = posterior.sample(1000).weights["weight"][0]
    assert_mean(free, torch.full((1, 4), 1.0))


@pytest.mark.exact
@pytest.mark.parametrize("relaxation", ["Concrete", "HardConcreteGate", "StraightThrough"])
def test_given_gates_are_those_of_every_draw_under_each_relaxation(relaxation: str) -> None:
    model = make_model(relaxation=getattr(pr.relaxations, relaxation)())
    posterior = quick_fit(model, num_chains=2).posterior
    mask = pr.masks.top_fraction(posterior.chain(0), 0.5)
    drawn = posterior.sample(6, given=mask)
    for name, gates in drawn.gates.items():
        assert torch.equal(gates, mask[name].float().expand_as(gates))


@pytest.mark.contract
def test_given_gates_must_fit_the_edges() -> None:
    with pytest.raises(ValueError, match=r"Expected mask\['weight'\] of shape \(1, 4\)"):
        single_layer().sample(2, given={"weight": torch.ones(4, dtype=torch.bool)})


@pytest.mark.exact
def test_sites_are_those_of_the_draws_with_the_same_seed() -> None:
    posterior = single_layer(pr.guides.MeanFieldGuide)
    sites, draws = posterior.sample_sites(9, seed=3), posterior.sample(9, seed=3)
    assert set(sites) == {"gate", "weights"}
    assert torch.equal((sites["gate"] > 0).float(), draws.gates["weight"].flatten(2))
    packed = torch.cat([draws.weights[name].flatten(2) for name in ("weight", "bias")], -1)
    assert torch.equal(sites["weights"], packed)
    again = posterior.chain(1).sample_sites(9, seed=3)
    assert torch.equal(again["gate"][0], sites["gate"][1])


@pytest.mark.contract
def test_point_estimates_are_no_sites() -> None:
    model = make_model(gate_prior=pr.priors.HierarchicalPrior())
    sites = quick_fit(model).posterior.sample_sites(3)
    assert set(sites) == {"gate", "inclusion_logit"}
    assert quick_fit(make_model(gate_prior=None)).posterior.sample_sites(3) == {}
