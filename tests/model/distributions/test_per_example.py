"""Draws for every example, one KL."""

from __future__ import annotations

import pyro
import pytest
import torch
from pyro.distributions import Bernoulli, Normal
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch.distributions import kl_divergence
from torch.func import vmap

from pyro_relevance.model.distributions import LogitConcrete, PerExample
from tests.bounds import assert_mean


@pytest.mark.exact
def test_shapes_and_log_prob_is_the_mean_over_examples():
    base = LogitConcrete(0.5, torch.randn(2, 3))
    gate = PerExample(base, 5)
    assert gate.batch_shape == ()
    assert gate.event_shape == (5, 2, 3)
    value = gate.rsample((4,))
    assert value.shape == (4, 5, 2, 3)
    expected = torch.stack([base.log_prob(value[:, n]).sum((-1, -2)) for n in range(5)]).mean(0)
    torch.testing.assert_close(gate.log_prob(value), expected)
    assert value[0].flatten().unique().numel() == 30
    assert bool(gate.support.check(value).all())
    assert gate.support.event_dim == 3
    assert gate.support.check(value).shape == (4,)


@pytest.mark.exact
def test_kl_is_paid_once():
    q = LogitConcrete(0.5, torch.randn(7))
    p = LogitConcrete(0.5, torch.full((7,), -1.0))
    once = kl_divergence(q, p).sum()
    for num_examples in (1, 64):
        kl = kl_divergence(PerExample(q, num_examples), PerExample(p, num_examples))
        torch.testing.assert_close(kl, once)


@pytest.mark.exact
def test_scalar_base_expand_and_vmap():
    gate = PerExample(Normal(torch.tensor(1.0), 2.0), 6)
    assert gate.event_shape == (6,)
    assert gate.log_prob(gate.rsample()).shape == ()
    wide = gate.expand((3,))
    assert wide.batch_shape == (3,)
    assert wide.rsample((2,)).shape == (2, 3, 6)
    assert wide.log_prob(wide.rsample((2,))).shape == (2, 3)
    assert kl_divergence(wide, wide).shape == (3,)

    def chain(logits):
        q = PerExample(LogitConcrete(0.5, logits), 4)
        value = q.rsample()
        return value, q.log_prob(value), kl_divergence(q, q)

    value, log_prob, kl = vmap(chain, randomness="different")(torch.zeros(2, 3))
    assert value.shape == (2, 4, 3)
    assert value.unique().numel() == 24
    assert log_prob.shape == kl.shape == (2,)


@pytest.mark.contract
def test_follows_the_base():
    discrete = PerExample(Bernoulli(0.5 * torch.ones(3)), 4)
    assert not discrete.has_rsample
    assert discrete.sample((2,)).shape == (2, 4, 3)
    assert PerExample(LogitConcrete(0.5, torch.zeros(3)), 4).has_rsample
    assert (
        not PerExample(LogitConcrete(0.5, torch.zeros(3, requires_grad=True)), 4)
        .sample()
        .requires_grad
    )


@pytest.mark.statistical
def test_stock_elbos():
    logits = torch.full((3,), 2.0)
    prior = torch.full((3,), -1.0)

    def model():
        pyro.sample("gate", PerExample(LogitConcrete(0.5, prior), 32))

    def guide():
        pyro.sample("gate", PerExample(LogitConcrete(0.5, logits), 32))

    kl = kl_divergence(LogitConcrete(0.5, logits), LogitConcrete(0.5, prior)).sum()
    assert TraceMeanField_ELBO().loss(model, guide) == pytest.approx(kl.item(), rel=1e-5)
    losses = torch.tensor([Trace_ELBO().loss(model, guide) for _ in range(200)])
    density_kl = 3 * (3 / torch.tanh(torch.tensor(1.5)) - 2)
    assert_mean(losses, density_kl)


@pytest.mark.contract
def test_needs_an_example():
    with pytest.raises(ValueError, match="Expected num_examples >= 1, but got 0"):
        PerExample(LogitConcrete(0.5, torch.zeros(3)), 0)
