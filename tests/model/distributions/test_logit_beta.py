"""The logit of a Beta variable against the Beta variable."""

from __future__ import annotations

import pytest
import torch
from pyro.distributions import Beta
from torch.func import vmap

from pyro_relevance.model.distributions import LogitBeta
from tests.bounds import assert_mean

PAIRS = [(1.0, 1.0), (0.5, 3.0), (2.0, 40.0), (0.05, 0.05)]


@pytest.mark.exact
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_density(a, b):
    prior = LogitBeta(torch.tensor(a).double(), torch.tensor(b).double())
    grid = torch.linspace(-700, 700, 400_001, dtype=torch.float64)
    torch.testing.assert_close(
        torch.trapezoid(prior.log_prob(grid).exp(), grid),
        torch.ones((), dtype=torch.float64),
        rtol=0,
        atol=1e-5,
    )
    value = torch.linspace(-6, 6, 25, dtype=torch.float64)
    rate = value.sigmoid()
    beta = Beta(torch.tensor(a).double(), torch.tensor(b).double())
    expected = beta.log_prob(rate) + rate.log() + (1 - rate).log()
    torch.testing.assert_close(prior.log_prob(value), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.exact
def test_density_is_finite_far_out_in_float32():
    prior = LogitBeta(torch.tensor(1.0), torch.tensor(9.0))
    value = torch.tensor([-200.0, -30.0, 30.0, 200.0], requires_grad=True)
    log_prob = prior.log_prob(value)
    reference = LogitBeta(torch.tensor(1.0).double(), torch.tensor(9.0).double())
    torch.testing.assert_close(
        log_prob.double(), reference.log_prob(value.double()), rtol=1e-6, atol=1e-5
    )
    (gradient,) = torch.autograd.grad(log_prob.sum(), value)
    torch.testing.assert_close(gradient, torch.tensor([1.0, 1.0, -9.0, -9.0]))


@pytest.mark.statistical
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_draws(a, b):
    prior = LogitBeta(torch.tensor(a), torch.tensor(b))
    value = prior.sample((40_000,))
    assert_mean(value, prior.mean)
    assert_mean((value - prior.mean).square(), prior.variance)
    assert_mean(value.sigmoid(), torch.tensor(a / (a + b)))


@pytest.mark.statistical
def test_draws_are_finite_and_differentiable_at_small_concentrations():
    a = torch.full((2000,), 0.01, requires_grad=True)
    value = LogitBeta(a, torch.full((2000,), 0.02)).rsample()
    assert bool(value.isfinite().all())
    value.sum().backward()
    assert bool(a.grad.isfinite().all())
    # d E[log Gamma(a)] / da = trigamma(a)
    assert_mean(a.grad, torch.polygamma(1, torch.tensor(0.01)))


@pytest.mark.contract
def test_shapes_dtypes_and_vmap():
    prior = LogitBeta(torch.ones(2, 1), torch.ones(3))
    assert prior.batch_shape == (2, 3)
    assert prior.expand((4, 2, 3)).rsample((5,)).shape == (5, 4, 2, 3)
    assert LogitBeta(torch.ones(2).bfloat16(), torch.ones(2)).rsample().dtype == torch.float32
    draws = vmap(lambda a: LogitBeta(a, torch.ones(3)).rsample(), randomness="different")(
        torch.ones(2, 3)
    )
    assert draws.unique().numel() == 6


@pytest.mark.contract
def test_errors():
    with pytest.raises(TypeError, match="Expected concentration1 .* but got float"):
        LogitBeta(1.0, torch.ones(2))
    with pytest.raises(TypeError, match="Expected concentration0 .* but got dtype torch.int64"):
        LogitBeta(torch.ones(2), torch.ones(2).long())
