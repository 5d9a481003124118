"""Each relaxation: its gate, its hard gate, its log-odds."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from pyro_relevance.model.relaxations import Concrete, HardConcreteGate, Hardening, StraightThrough
from tests.bounds import assert_frequency

RELAXATIONS = [Concrete(), HardConcreteGate(), StraightThrough(), Hardening(), Hardening(0.5)]


@pytest.mark.statistical
@pytest.mark.parametrize("relaxation", RELAXATIONS, ids=repr)
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_hard_gate_is_bernoulli(relaxation, temperature):
    logits = torch.tensor([-4.0, 0.0, 1.0])
    value = relaxation.distribution(temperature, logits).rsample((20_000,))
    hard = relaxation.hard(value)
    assert set(hard.unique().tolist()) == {0.0, 1.0}
    assert hard.dtype == value.dtype
    assert not hard.requires_grad
    log_odds = relaxation.inclusion_log_odds(logits, temperature)
    assert torch.equal(log_odds, logits)
    assert_frequency(hard, torch.sigmoid(log_odds))


@pytest.mark.contract
@pytest.mark.parametrize("relaxation", RELAXATIONS, ids=repr)
def test_gate_is_in_the_unit_interval_and_has_a_gradient(relaxation):
    value = torch.linspace(-30, 30, 601, requires_grad=True)
    gate = relaxation.gate(value, 0.5)
    assert gate.min() >= 0
    assert gate.max() <= 1
    assert bool((gate.diff() >= 0).all())
    gate.sum().backward()
    assert value.grad[300] > 0
    assert bool((value.grad >= 0).all())


@pytest.mark.exact
def test_straight_through_is_exactly_hard_forward_and_soft_backward():
    value = torch.randn(10_000, requires_grad=True)
    gate = StraightThrough().gate(value, 0.5)
    assert set(gate.unique().tolist()) == {0.0, 1.0}
    gate.sum().backward()
    soft = value.detach().sigmoid()
    torch.testing.assert_close(value.grad, soft * (1 - soft))


@pytest.mark.exact
def test_hard_concrete_gate_reaches_both_ends():
    gate = HardConcreteGate()
    value = torch.tensor([-3.0, -2.0, 0.0, 2.0, 3.0])
    expected = (value.sigmoid() * 1.2 - 0.1).clamp(0, 1)
    torch.testing.assert_close(gate.gate(value, 0.5), expected)
    assert gate.gate(value, 0.5)[0] == 0
    assert gate.gate(value, 0.5)[-1] == 1
    assert torch.equal(gate.hard(value), torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0]))


@pytest.mark.contract
@pytest.mark.parametrize("relaxation", RELAXATIONS, ids=repr)
def test_is_a_value(relaxation):
    assert copy.deepcopy(relaxation) == relaxation
    assert pickle.loads(pickle.dumps(relaxation)) == relaxation
    assert hash(relaxation) == hash(copy.deepcopy(relaxation))
