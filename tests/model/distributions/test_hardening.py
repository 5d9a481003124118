"""The gate that is hard once it is cold: concrete while warm, an exact gradient afterwards."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_relevance.model.distributions import HardeningConcrete, LogitConcrete
from pyro_relevance.model.distributions.hardening import is_cold
from pyro_relevance.model.relaxations import Concrete, Hardening
from tests.bounds import assert_mean
from tests.oracles import configurations, independent_log_prior

LOGITS = torch.tensor([-2.0, 0.3, 1.0, 4.0])


def _gates(relaxation, temperature, logits, num_samples):
    torch.manual_seed(1)
    value = relaxation.distribution(temperature, logits).rsample((num_samples,))
    return relaxation.gate(value, temperature)


@pytest.mark.exact
@pytest.mark.parametrize("temperature", [0.21, 1.0, torch.tensor(0.5)])
def test_a_warm_gate_is_the_concrete_gate(temperature):
    found = []
    for relaxation in (Hardening(0.2), Concrete()):
        logits = LOGITS.clone().requires_grad_(True)
        gate = _gates(relaxation, temperature, logits, 50)
        (gradient,) = torch.autograd.grad((gate * torch.arange(4)).sum(), logits)
        found.append((gate.detach(), gradient))
    torch.testing.assert_close(*found)


@pytest.mark.exact
@pytest.mark.parametrize("temperature", [0.2, 0.01, torch.tensor(0.1)])
def test_a_cold_gate_is_hard_and_its_slope_is_half_the_probability_of_the_other_state(temperature):
    logits = LOGITS.clone().requires_grad_(True)
    relaxation = Hardening(0.2)
    gate = _gates(relaxation, temperature, logits, 1)[0]
    assert set(gate.tolist()) <= {0.0, 1.0}
    slopes = torch.stack([torch.autograd.grad(g, logits, retain_graph=True)[0] for g in gate])
    p = torch.sigmoid(LOGITS)
    expected = torch.where(gate.detach() > 0, 1 - p, p) / 2
    torch.testing.assert_close(slopes, torch.diag(expected))


@pytest.mark.statistical
def test_the_mean_gradient_of_a_quadratic_loss_is_exact():
    """Against the derivative of the expected loss, enumerated; gates interact."""
    matrix = torch.randn(4, 4)
    slope = torch.randn(4)

    def loss(gates):
        return ((gates @ matrix) * gates).sum(-1) + gates @ slope

    exact = LOGITS.double().requires_grad_(True)
    expected = independent_log_prior(exact).exp() @ loss(configurations(4).float()).double()
    expected.backward()
    draws = LOGITS.expand(40_000, 4).clone().requires_grad_(True)
    relaxation = Hardening(math.inf)
    gates = relaxation.gate(relaxation.distribution(1.0, draws).rsample(), 1.0)
    loss(gates).sum().backward()
    assert_mean(draws.grad, exact.grad)


@pytest.mark.exact
def test_draws_densities_and_kl_are_those_of_the_concrete_distribution():
    ours, plain = HardeningConcrete(0.1, LOGITS, 0.2), LogitConcrete(0.1, LOGITS)
    draws = []
    for gate in (ours, plain):
        torch.manual_seed(0)
        draws.append(gate.rsample((3,)))
    assert torch.equal(*draws)
    assert torch.equal(ours.log_prob(draws[0]), plain.log_prob(draws[0]))
    assert torch.equal(
        torch.distributions.kl_divergence(ours, HardeningConcrete(0.1, -LOGITS, 0.2)),
        torch.distributions.kl_divergence(plain, LogitConcrete(0.1, -LOGITS)),
    )


@pytest.mark.contract
def test_expansion_keeps_the_kind():
    wide = HardeningConcrete(0.1, LOGITS, 0.2).expand((3, 4))
    assert isinstance(wide, HardeningConcrete)
    assert (wide.batch_shape, wide.below, wide.temperature) == ((3, 4), 0.2, 0.1)


@pytest.mark.exact
def test_cold_begins_at_the_threshold():
    assert [is_cold(t, 0.2) for t in (0.1, 0.2, 0.3)] == [1.0, 1.0, 0.0]
    cold = is_cold(torch.tensor(0.1, dtype=torch.float64), 0.2)
    assert cold.dtype == torch.float64
    assert float(cold) == 1.0


@pytest.mark.contract
def test_the_threshold_is_positive():
    with pytest.raises(ValueError, match=r"^Expected below > 0, but got 0\. Use Concrete\(\)"):
        Hardening(0)
