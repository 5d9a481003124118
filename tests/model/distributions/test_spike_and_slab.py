"""The slab: its KL counts as often as the weight is used, whatever the prior."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from pyro_relevance.model.distributions import LogNormal, Normal, Slab
from tests.bounds import assert_mean

LOC, SCALE = torch.tensor([-1.0, 0.3, 2.0]), torch.tensor([0.1, 1.0, 0.5])
USE = torch.tensor([0.0, 0.4, 1.0])


@pytest.mark.exact
@pytest.mark.parametrize(
    "prior", [Normal(torch.zeros(3), torch.ones(3)), dist.Laplace(torch.zeros(3), torch.ones(3))]
)
def test_the_kl_counts_as_often_as_the_weight_is_used(prior):
    expected = USE * kl_divergence(torch.distributions.Normal(LOC, SCALE), prior)
    torch.testing.assert_close(kl_divergence(Slab(LOC, SCALE, USE), prior), expected)
    events = kl_divergence(Slab(LOC, SCALE, USE).to_event(1), prior.to_event(1))
    torch.testing.assert_close(events, expected.sum())


@pytest.mark.statistical
def test_the_kl_is_the_mean_over_both_states():
    """In each state the KL of the weights is that of the state: of the slab, or zero."""
    prior = Normal(torch.zeros(3), torch.ones(3))
    value = Slab(LOC, SCALE, USE).rsample((20_000,))
    used = torch.rand(20_000, 3) < USE
    slab = torch.distributions.Normal(LOC, SCALE)
    terms = torch.where(used, slab.log_prob(value) - prior.log_prob(value), 0.0)
    assert_mean(terms, kl_divergence(Slab(LOC, SCALE, USE), prior))


@pytest.mark.exact
def test_gradients_reach_location_scale_and_use():
    leaves = [t.clone().requires_grad_(True) for t in (LOC, SCALE, USE)]
    kl = kl_divergence(Slab(*leaves), Normal(torch.zeros(3), torch.ones(3))).sum()
    loc, scale, use = torch.autograd.grad(kl, leaves)
    torch.testing.assert_close(loc, USE * LOC)
    torch.testing.assert_close(scale, USE * (SCALE - 1 / SCALE))
    torch.testing.assert_close(use, (SCALE**2 + LOC**2 - 1) / 2 - SCALE.log())


@pytest.mark.statistical
def test_draws_are_those_of_the_slab():
    slab = Slab(LOC, SCALE, USE)
    draws = slab.rsample((20_000,))
    assert_mean(draws, slab.mean)
    assert_mean((draws - LOC).square(), slab.variance)
    loc = LOC.clone().requires_grad_(True)
    Slab(loc, SCALE, USE).rsample((5,)).sum().backward()
    torch.testing.assert_close(loc.grad, torch.full((3,), 5.0))


@pytest.mark.contract
def test_shapes_and_expansion():
    slab = Slab(torch.zeros(2, 1), torch.ones(()), USE)
    assert slab.batch_shape == (2, 3)
    wide = slab.expand((4, 2, 3))
    assert isinstance(wide, Slab)
    assert wide.batch_shape == wide.use.shape == (4, 2, 3)
    assert wide.rsample((5,)).shape == (5, 4, 2, 3)
    assert wide.has_rsample
    assert kl_divergence(wide, Normal(torch.zeros(3), torch.ones(3))).shape == (4, 2, 3)


@pytest.mark.statistical
def test_a_prior_without_a_kl_is_compared_by_a_draw():
    prior = dist.StudentT(torch.full((3,), 4.0), torch.zeros(3), torch.ones(3))
    slab = Slab(LOC, SCALE, USE)
    draws = torch.stack([kl_divergence(slab, prior) for _ in range(4000)])
    grid = torch.linspace(-40, 40, 400_001).double()[:, None]
    normal = torch.distributions.Normal(LOC.double(), SCALE.double())
    ratio = normal.log_prob(grid) - prior.log_prob(grid.float()).double()
    exact = torch.trapezoid(normal.log_prob(grid).exp() * ratio, grid[:, 0], dim=0)
    assert_mean(draws, USE * exact, rounding=1e-5)
    with pytest.raises(NotImplementedError):
        kl_divergence(slab, LogNormal(LOC, SCALE))


@pytest.mark.exact
def test_the_density_is_that_of_the_slab():
    value = torch.randn(5, 3)
    expected = torch.distributions.Normal(LOC, SCALE).log_prob(value)
    torch.testing.assert_close(Slab(LOC, SCALE, USE).log_prob(value), expected)
