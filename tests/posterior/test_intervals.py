"""Intervals over draws and chains, of effects, losses and errors."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import pyro_relevance as pr
from pyro_relevance import intervals
from tests.small_fits import make_model, quick_fit, regression


@pytest.mark.exact
def test_ends_hold_the_stated_share_of_the_draws() -> None:
    draws = torch.linspace(0, 1, 1001)[torch.randperm(1001)]
    found = intervals.interval(torch.stack([draws, 3 + 2 * draws], 1), probability=0.8)
    assert torch.allclose(found.lower, torch.tensor([0.1, 3.2]).double())
    assert torch.allclose(found.upper, torch.tensor([0.9, 4.8]).double())
    assert torch.allclose(found.mean, torch.tensor([0.5, 4.0]).double())


@pytest.mark.exact
def test_effects_are_pooled_over_draws_and_chains() -> None:
    network = torch.nn.Linear(2, 1)
    edges = pr.find_edges(network, granularity="input")
    gates = torch.tensor([[[1.0, 1], [1, 0]], [[1, 0], [1, 0]]])
    weight = torch.tensor([[[[3.0, 2.0]]], [[[-5.0, 7.0]]]])
    draws = SimpleNamespace(
        gates={"inputs": gates},
        inclusion_probability={"inputs": gates},
        weights={"weight": weight, "bias": torch.zeros(2, 1, 1)},
    )
    found = intervals.effect_interval(draws, edges, probability=0.5)["inputs"]
    # First input: 3, 3, 5, 5. Second: 2 in one draw of four, else off.
    assert found.mean.tolist() == [4.0, 0.5]
    assert found.lower.tolist() == [3.0, 0.0]
    assert found.upper.tolist() == [5.0, 0.5]


@pytest.mark.contract
def test_units_of_different_chains_are_not_pooled() -> None:
    posterior = quick_fit(num_chains=2).posterior
    draws = posterior.sample(3)
    with pytest.raises(ValueError, match=r"granularity 'input', but got \['0.units'\]"):
        intervals.effect_interval(draws, posterior.edges, groups=("0.units",))
    with pytest.raises(ValueError, match=r"Expected groups out of \['inputs', '0.units'\]"):
        intervals.effect_interval(draws, posterior.edges, groups=("units",))
    one = intervals.effect_interval(
        posterior.chain(1).sample(3), posterior.edges, groups=("0.units",)
    )
    assert one["0.units"].mean.shape == (5,)


@pytest.mark.exact
def test_losses_and_errors_are_those_of_every_draw_of_every_chain() -> None:
    posterior = quick_fit(num_chains=2).posterior
    x, y = regression(30, seed=4)
    found = intervals.loss_interval(posterior, (x, y), num_samples=20, seed=3, probability=0.6)
    losses = -posterior.log_likelihood(x, y, num_samples=20, seed=3).mean(-1).flatten().double()
    assert torch.allclose(found.loss.mean, losses.mean(), rtol=1e-5)
    assert torch.allclose(found.loss.lower, losses.quantile(0.2), rtol=1e-5)
    mean = posterior.predict(x, num_samples=20, seed=3).mean.flatten(0, 1).double()
    rmse = (mean - y).square().mean(-1).sqrt()
    assert torch.allclose(found.error.upper, rmse.quantile(0.8), rtol=1e-5)
    noisier = intervals.loss_interval(
        posterior, (x, y), likelihood=pr.likelihoods.Gaussian(50.0), num_samples=20
    )
    assert 4.5 < float(noisier.loss.mean) < 5.5  # log(50 sqrt(2 pi)) = 4.83


@pytest.mark.exact
@pytest.mark.parametrize(
    ("likelihood", "outputs", "y", "expected"),
    [
        (pr.likelihoods.Categorical(), [[2.0, 1.0], [0.0, 3.0]], [0, 0], [0.0, 1.0]),
        (pr.likelihoods.Bernoulli(), [[2.0], [2.0]], [1.0, 0.0], [0.0, 1.0]),
        (pr.likelihoods.Gaussian(), [[2.0], [5.0]], [1.0, 5.0], [1.0, 0.0]),
        (
            pr.likelihoods.Gaussian(num_targets=2),
            [[2.0, 0.0], [1.0, 1.0]],
            [[1.0, 0.0], [4.0, 1.0]],
            [0.5, 4.5],
        ),
    ],
)
def test_errors_of_rows(likelihood, outputs, y, expected) -> None:
    outputs, y = torch.tensor([outputs]), torch.tensor(y)
    losses, errors = intervals.losses_and_errors(likelihood, outputs, y)
    assert torch.allclose(errors, torch.tensor([expected]).double())
    assert torch.allclose(losses[0], -likelihood(outputs[0]).log_prob(y).double())


@pytest.mark.contract
def test_wrong_arguments_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"Expected probability in \(0, 1\), but got 1.0"):
        intervals.interval(torch.zeros(3), probability=1.0)
    with pytest.raises(ValueError, match=r"Expected at least one draw, but got shape \(0, 2\)"):
        intervals.interval(torch.zeros(0, 2))


@pytest.mark.exact
def test_range_over_chains_has_its_own_name() -> None:
    posterior = quick_fit(make_model(), num_chains=3).posterior
    with torch.no_grad():
        posterior.state["guide.gate_log_odds"].normal_()
    p = posterior.inclusion_probability()["inputs"]
    found = pr.relevance.over_chains(posterior)["inputs"]
    assert torch.equal(found.mean, p.mean(0))
    assert torch.equal(found.lowest, p.min(0).values)
    assert torch.equal(found.highest, p.max(0).values)
    with pytest.raises(ValueError, match="granularity 'input'"):
        pr.relevance.over_chains(posterior, ("0.units",))
