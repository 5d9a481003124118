"""Predictive intervals of the loss behind a mask, and the rise of the loss when more is removed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import pyro_relevance as pr
from pyro_relevance import Mask, Posterior, before_pruning, likelihoods
from pyro_relevance.posterior.before_pruning import Fold
from tests.bounds import FAILURE_RATE, assert_mean
from tests.small_fits import make_model, quick_fit, regression


def fitted(**settings: Any) -> Posterior:
    return quick_fit(make_model(**settings), num_epochs=60).posterior


def everything(posterior: Posterior) -> Mask:
    return Mask({g.name: torch.ones(g.shape, dtype=torch.bool) for g in posterior.edges})


def row_losses(posterior: Posterior, mask: Mask, data: tuple[Tensor, Tensor]) -> Tensor:
    """The losses of the network that `apply_mask` makes: another way to compute them."""
    network = pr.apply_mask(posterior.network(), posterior.edges, mask)
    with torch.no_grad():
        return -posterior.likelihood(network(data[0])).log_prob(data[1]).double()


@pytest.mark.exact
def test_the_expected_loss_of_point_weights_is_that_of_the_masked_network() -> None:
    """Over a Bayesian bootstrap the mean is the plain mean, the variance that over n + 1."""
    posterior, data = fitted(), regression(40, seed=7)
    mask = pr.masks.top_fraction(posterior, 0.6)
    losses = row_losses(posterior, mask, data)
    found = before_pruning.pruned_loss_interval(
        posterior, mask, data, num_draws=40_000, probability=0.6827
    )
    spread = float((losses.var(unbiased=False) / 41).sqrt())
    assert float(found.loss.mean) == pytest.approx(float(losses.mean()), abs=5 * spread / 200)
    half = float(found.loss.upper - found.loss.lower) / 2
    assert half == pytest.approx(spread, rel=0.15)  # one standard deviation of a near-normal


@pytest.mark.exact
def test_the_interval_of_a_network_is_that_of_point_weights() -> None:
    posterior, data = fitted(), regression(40, seed=7)
    mask = pr.masks.top_fraction(posterior, 0.6)
    network = pr.apply_mask(posterior.network(), posterior.edges, mask).train()
    one = before_pruning.network_loss_interval(network, posterior.likelihood, data, num_rows=9)
    other = before_pruning.pruned_loss_interval(posterior, mask, data, num_rows=9)
    for found, expected in ((one.loss, other.loss), (one.error, other.error)):
        assert float(found.lower) == pytest.approx(float(expected.lower), rel=1e-5)
        assert float(found.upper) == pytest.approx(float(expected.upper), rel=1e-5)
    assert network.training


@pytest.mark.statistical
def test_the_sampling_error_of_a_test_set_is_added() -> None:
    """Variance of the mean of m rows of a bootstrapped law: v / (n + 1) + v n / ((n + 1) m)."""
    posterior, data = fitted(), regression(30, seed=7)
    mask = everything(posterior)
    losses = row_losses(posterior, mask, data)
    # Draws are reached through the intervals of many small runs: their means are draws themselves.
    ends = torch.stack(
        [
            before_pruning.pruned_loss_interval(
                posterior, mask, data, num_rows=10, num_draws=1, seed=seed
            ).loss.mean
            for seed in range(400)
        ]
    )
    assert_mean(ends[:, None], losses.mean().reshape(1))
    variance = float(losses.var(unbiased=False)) * (1 / 31 + 30 / (31 * 10))
    # Chi-square bounds at the failure rate would need normal draws: kurtosis widens them.
    centred = (ends - ends.mean()).square()
    assert_mean(centred[:, None], torch.tensor([variance], dtype=torch.float64))


@pytest.mark.statistical
def test_intervals_cover_the_loss_of_test_sets_at_their_rate() -> None:
    """90 % intervals from 200 held-out rows, for test sets of 50 rows of the same law."""
    posterior = fitted()
    mask = everything(posterior)
    hits = []
    for seed in range(120):
        held_out, new = regression(200, seed=100 + seed), regression(50, seed=1000 + seed)
        found = before_pruning.pruned_loss_interval(
            posterior, mask, held_out, num_rows=50, num_draws=500
        ).loss
        truth = row_losses(posterior, mask, new).mean()
        hits.append(float(found.lower <= truth <= found.upper))
    covered = sum(hits)
    law = torch.distributions.Binomial(120, torch.tensor(0.9))
    below = law.log_prob(torch.arange(int(covered) + 1.0)).exp().sum()
    assert float(below) > FAILURE_RATE


@pytest.mark.statistical
def test_drawn_weights_widen_the_interval() -> None:
    """With Gaussian weights each draw is another network, with its gates as the mask says."""
    posterior = fitted(weight_prior=pr.priors.GaussianWeights(1.0))
    data = regression(40, seed=7)
    mask = pr.masks.top_fraction(posterior, 0.6)
    found = before_pruning.pruned_loss_interval(
        posterior, mask, data, num_samples=300, num_draws=20_000
    )
    draws = posterior.sample(300, given=mask)
    parameters = {n: w[0] for n, w in draws.weights.items()}
    gates = {name: kept.float() for name, kept in mask.items()}
    network = posterior.network()
    losses = []
    for index in range(300):
        own = {name: value[index] for name, value in parameters.items()}
        folded = {**own, **posterior.edges.fold(own, gates)}
        with torch.no_grad():
            outputs = torch.func.functional_call(network, folded, (data[0],))
            losses.append(-posterior.likelihood(outputs).log_prob(data[1]).double().mean())
    expected = torch.stack(losses)
    error = float(expected.std()) / 20_000**0.5 * 10
    assert float(found.loss.mean) == pytest.approx(float(expected.mean()), abs=error + 0.02)
    assert float(found.loss.upper) > float(expected.quantile(0.8))


@pytest.mark.exact
def test_networks_of_folds_are_scored_on_their_own_held_out_rows() -> None:
    """Outputs are right by 1 on held-out rows, exact elsewhere: RMSE 1, and Burman's correction."""
    y = torch.zeros(40)
    folds = []
    for rows in torch.arange(40).chunk(4):
        outputs = torch.zeros(1, 40, 1)
        outputs[0, rows, 0] = 1.0
        folds.append(Fold(outputs, rows))
    whole = torch.zeros(1, 40, 1)
    law = likelihoods.Gaussian(1.0)
    found = before_pruning.cross_validated_loss_interval(folds, whole, y, law, num_draws=50)
    # Each fold's network has mean squared error 1/4 over all rows, the whole one 0: 1 - 1/4.
    assert float(found.error.mean) == pytest.approx(0.75**0.5)
    constant = 0.5 * float(torch.log(torch.tensor(2 * torch.pi)))
    assert float(found.loss.mean) == pytest.approx(constant + 0.5 * 0.75, rel=1e-5)
    assert float(found.loss.upper - found.loss.lower) < 1e-6  # all rows are alike


@pytest.mark.exact
def test_a_network_worse_than_others_shows_in_the_interval() -> None:
    y = torch.zeros(40)
    folds = []
    for number, rows in enumerate(torch.arange(40).chunk(4)):
        outputs = torch.zeros(1, 40, 1)
        outputs[0, rows, 0] = 5.0 if number == 0 else 1.0
        folds.append(Fold(outputs, rows))
    fitted_well = torch.stack([fold.outputs for fold in folds]).mean(0) * 0.0
    found = before_pruning.cross_validated_loss_interval(
        folds, fitted_well, y, likelihoods.Gaussian(1.0), num_draws=400
    )
    # A quarter of the draws are of the first network: the upper end is its loss.
    assert float(found.loss.upper - found.loss.lower) == pytest.approx(12.0, rel=1e-5)


@pytest.mark.exact
def test_the_rise_is_the_difference_of_the_masked_networks() -> None:
    posterior, data = fitted(), regression(60, seed=9)
    mask = everything(posterior)
    removals = before_pruning.without(mask, ("inputs",))
    assert list(removals) == ["inputs[0]", "inputs[1]", "inputs[2]", "inputs[3]", "inputs"]
    rises = before_pruning.expected_rise(posterior, mask, data, removals, num_draws=20_000)
    before = row_losses(posterior, mask, data)
    for name, kept in removals.items():
        each = row_losses(posterior, kept, data) - before
        error = float(each.std()) / 60**0.5 / 20_000**0.5
        expected = float(each.mean())
        assert float(rises[name].mean) == pytest.approx(expected, rel=1e-4, abs=6 * error)
    # The target is 2 x0 - x1: the other two inputs matter less than those.
    relevant = min(float(rises[f"inputs[{i}]"].mean) for i in (0, 1))
    assert relevant > max(float(rises[f"inputs[{i}]"].mean) for i in (2, 3))


@pytest.mark.contract
def test_only_kept_edges_are_taken_away() -> None:
    mask = Mask({"inputs": torch.tensor([True, False, True]), "w": torch.ones(2, 2).bool()})
    found = before_pruning.without(mask)
    assert list(found) == ["inputs[0]", "inputs[2]", "inputs"]
    assert found["inputs[2]"]["inputs"].tolist() == [True, False, False]
    assert bool(found["inputs"]["w"].all())
    with pytest.raises(ValueError, match=r"Expected groups out of \['inputs', 'w'\], but got"):
        before_pruning.without(mask, ("units",))


@pytest.mark.contract
def test_wrong_arguments_say_what_was_expected() -> None:
    posterior, data = quick_fit(num_chains=2).posterior, regression(10)
    mask = everything(posterior)
    with pytest.raises(ValueError, match="Expected the posterior of one chain, but got 2"):
        before_pruning.pruned_loss_interval(posterior, mask, data)
    with pytest.raises(ValueError, match="Expected num_rows >= 1, but got 0"):
        before_pruning.pruned_loss_interval(posterior.chain(0), mask, data, num_rows=0)
    with pytest.raises(ValueError, match="Expected num_draws >= 1, but got 0"):
        before_pruning.pruned_loss_interval(posterior.chain(0), mask, data, num_draws=0)
    fold = Fold(torch.zeros(1, 4, 1), torch.arange(2))
    with pytest.raises(ValueError, match="Expected at least two folds, but got 1"):
        before_pruning.cross_validated_loss_interval(
            [fold], torch.zeros(1, 4, 1), torch.zeros(4), likelihoods.Gaussian()
        )
