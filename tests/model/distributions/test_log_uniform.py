"""Multiplicative noise under the log-uniform prior against quadrature."""

from __future__ import annotations

import math

import pytest
import torch
from pyro.distributions import Normal
from torch.distributions import kl_divergence
from torch.func import vmap

from pyro_relevance.model.distributions import LogUniform, MultiplicativeNormal
from tests.bounds import assert_mean

CONSTANT = 0.5 * (1 + math.log(4 * math.pi) + 0.5772156649015329)  # of the docstring


def _true_kl(log_alpha: float) -> float:
    """E[log q - log p] + CONSTANT at loc 1 by quadrature: 0 at log alpha = inf."""
    scale = math.exp(0.5 * log_alpha)
    # w = +-exp(t): the integrable singularity of log|w| at 0 becomes a decaying tail.
    t = torch.linspace(-40, math.log(1 + 12 * scale) + 0.5, 2_000_001, dtype=torch.float64)
    size = t.exp()
    normal = torch.distributions.Normal(torch.tensor(1.0).double(), scale)
    density = normal.log_prob(size).exp() + normal.log_prob(-size).exp()
    log_size = torch.trapezoid(density * size * t, t)
    entropy = 0.5 * math.log(2 * math.pi * math.e) + 0.5 * log_alpha
    return float(log_size) - entropy + CONSTANT


@pytest.mark.exact
@pytest.mark.parametrize("log_alpha", [-8.0, -6.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 8.0])
def test_kl_is_close_to_quadrature(log_alpha):
    q = MultiplicativeNormal(torch.tensor(0.7), torch.tensor(log_alpha))
    kl = kl_divergence(q, LogUniform())
    assert kl.item() == pytest.approx(_true_kl(log_alpha), abs=0.02)


@pytest.mark.exact
def test_kl_vanishes_with_the_information():
    log_alpha = torch.linspace(-8, 20, 100, requires_grad=True)
    q = MultiplicativeNormal(torch.ones(()), log_alpha)
    kl = kl_divergence(q, LogUniform((100,)))
    (gradient,) = torch.autograd.grad(kl.sum(), log_alpha)
    assert bool((gradient < 0).all())
    assert kl[-1].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.statistical
@pytest.mark.parametrize("log_alpha", [-3.0, 0.0, 3.0])
def test_constant_of_the_docstring(log_alpha):
    q = MultiplicativeNormal(torch.tensor(-0.3).double(), torch.tensor(log_alpha).double())
    value = q.sample((100_000,))
    ratio = q.log_prob(value) - LogUniform().log_prob(value)
    assert_mean(ratio, torch.tensor(_true_kl(log_alpha) - CONSTANT))


@pytest.mark.exact
def test_density_is_normal():
    loc, log_alpha = torch.tensor([0.5, -2.0, 1e-3]), torch.tensor([-4.0, 0.0, 3.0])
    q = MultiplicativeNormal(loc, log_alpha)
    value = q.rsample((50,))
    expected = Normal(loc.double(), (0.5 * log_alpha.double()).exp() * loc.double().abs())
    torch.testing.assert_close(
        q.log_prob(value).double(), expected.log_prob(value.double()), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(q.variance, expected.variance.float())
    assert torch.equal(q.mean, loc)


@pytest.mark.statistical
def test_moments_and_gradient_of_draws():
    loc = torch.tensor([0.5, -2.0], requires_grad=True)
    log_alpha = torch.tensor([-2.0, 0.5], requires_grad=True)
    q = MultiplicativeNormal(loc, log_alpha)
    value = q.rsample((40_000,))
    assert_mean(value.detach(), q.mean.detach())
    assert_mean((value - q.mean).square().detach(), q.variance.detach())
    value.sum().backward()
    assert loc.grad is not None
    assert log_alpha.grad is not None


@pytest.mark.contract
def test_shapes_dtypes_and_vmap():
    q = MultiplicativeNormal(torch.ones(2, 1, dtype=torch.bfloat16), torch.zeros(3).bfloat16())
    assert q.batch_shape == (2, 3)
    assert q.rsample((4,)).shape == (4, 2, 3)
    assert q.rsample().dtype == torch.float32
    assert q.expand((5, 2, 3)).batch_shape == (5, 2, 3)
    assert LogUniform().expand((2, 3)).log_prob(torch.ones(2, 3)).shape == (2, 3)
    assert LogUniform((2, 3)).log_prob(torch.ones(3)).shape == (2, 3)
    assert LogUniform().batch_shape == ()
    assert kl_divergence(q, LogUniform((4, 2, 3))).shape == (4, 2, 3)
    assert q.has_rsample
    assert kl_divergence(q.to_event(2), LogUniform((2, 3)).to_event(2)).shape == ()
    draws = vmap(
        lambda loc: MultiplicativeNormal(loc, torch.zeros(3)).rsample(), randomness="different"
    )(torch.ones(2, 3))
    assert draws.unique().numel() == 6


@pytest.mark.exact
def test_log_uniform_density():
    value = torch.tensor([-2.0, 0.5])
    torch.testing.assert_close(LogUniform((2,)).log_prob(value), -value.abs().log())


@pytest.mark.contract
@pytest.mark.parametrize("method", ["sample", "rsample", "__call__"])
def test_log_uniform_cannot_be_sampled(method):
    with pytest.raises(NotImplementedError, match="Sample the posterior, or choose a proper prior"):
        getattr(LogUniform((2,)), method)()


@pytest.mark.contract
def test_errors():
    with pytest.raises(TypeError, match="Expected loc to be a floating-point tensor"):
        MultiplicativeNormal(1.0, torch.zeros(2))
    with pytest.raises(TypeError, match="Expected log_alpha to be a floating-point tensor"):
        MultiplicativeNormal(torch.ones(2), torch.zeros(2).long())
