"""The hard concrete gate: its stretch and the meaning of its log-odds."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import kl_divergence

from pyro_relevance.model.distributions import HardConcrete, LogitConcrete
from pyro_relevance.model.relaxations import HardConcreteGate
from tests.bounds import assert_frequency, assert_mean

TEMPERATURES = [0.05, 0.1, 0.2, 0.5, 1.0]


@pytest.mark.statistical
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_logits_are_the_log_odds_of_a_gate_that_is_not_zero(temperature):
    logits = torch.tensor([-6.0, -2.0, 0.0, 2.0, 6.0])
    value = HardConcrete(temperature, logits).sample((40_000,))
    assert_frequency(HardConcreteGate().gate(value, 0.5) != 0, torch.sigmoid(logits))


@pytest.mark.statistical
def test_gate_is_one_with_the_probability_of_the_paper():
    temperature, gamma, zeta = 2 / 3, -0.1, 1.1
    log_alpha = torch.tensor([-1.0, 0.0, 1.5])
    logits = log_alpha - temperature * math.log(-gamma / zeta)
    value = HardConcrete(temperature, logits).sample((40_000,))
    # Q(s = 1) = sigmoid(log alpha - temperature * logit((1 - gamma) / (zeta - gamma)))
    end = torch.logit(torch.tensor((1 - gamma) / (zeta - gamma)))
    probability = torch.sigmoid(log_alpha - temperature * end)
    assert_frequency(HardConcreteGate().gate(value, 0.5) == 1, probability)


@pytest.mark.exact
def test_density_is_that_of_the_shifted_location():
    temperature = 0.3
    logits = torch.linspace(-30, 30, 13, dtype=torch.float64)
    location = logits + temperature * math.log(0.1 / 1.1)
    value = torch.linspace(-40, 40, 41, dtype=torch.float64)[:, None]
    torch.testing.assert_close(
        HardConcrete(temperature, logits).log_prob(value),
        LogitConcrete(temperature, location).log_prob(value),
        rtol=1e-12,
        atol=1e-12,
    )


@pytest.mark.contract
@pytest.mark.parametrize(
    ("gamma", "zeta", "text"),
    [
        (0.0, 1.1, "Expected gamma < 0 and finite, but got 0.0"),
        (-math.inf, 1.1, "but got -inf"),
        (-0.1, 1.0, "Expected zeta > 1 and finite, but got 1.0"),
        (-0.1, math.inf, "Expected zeta > 1 and finite, but got inf"),
        (-0.1, math.nan, "but got nan"),
    ],
)
def test_interval_must_contain_zero_and_one(gamma, zeta, text):
    with pytest.raises(ValueError, match=text):
        HardConcrete(1.0, torch.zeros(2), gamma, zeta)
    with pytest.raises(ValueError, match=text):
        HardConcreteGate(gamma, zeta)


@pytest.mark.exact
def test_interval_of_the_paper_is_the_default():
    gate = HardConcrete(0.5, torch.zeros(2))
    assert (gate.gamma, gate.zeta) == (-0.1, 1.1)
    assert gate.threshold == pytest.approx(math.log(0.1 / 1.1))
    # The interval may be as tight as one likes.
    assert HardConcrete(0.5, torch.zeros(2), -1e-6, 1 + 1e-6).threshold == pytest.approx(-13.8155)


@pytest.mark.statistical
def test_moments():
    gate = HardConcrete(0.5, torch.tensor([1.0, -2.0]), -0.3, 1.4)
    value = gate.sample((20_000,))
    assert_mean(value, gate.mean)
    assert_mean((value - gate.mean).square(), gate.variance)
    expected = torch.tensor([2.0, -4.0]) + math.log(0.3 / 1.4)
    torch.testing.assert_close(gate.mean, expected)


@pytest.mark.contract
def test_kl_refuses_two_intervals():
    q, p = HardConcrete(1.0, torch.zeros(2)), HardConcrete(1.0, torch.zeros(2), gamma=-0.2)
    with pytest.raises(ValueError, match="Expected one stretched interval for both"):
        kl_divergence(q, p)
