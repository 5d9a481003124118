"""Gates along an axis and back, against loops over single positions."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_relevance.edges.slots import Slot

NUMBERS = st.integers(-1000, 1000)


@st.composite
def slots(draw):
    """A slot, its number of gates, and the gate of each position (-1 = none)."""
    num_gates = draw(st.integers(1, 6))
    index = draw(
        st.none() | st.lists(st.integers(-1, num_gates - 1), min_size=1, max_size=9).map(tuple)
    )
    gates = tuple(range(num_gates)) if index is None else index
    return Slot("weight", 1, index), num_gates, gates


@pytest.mark.property
@given(slots(), st.data())
def test_spread_gives_each_position_the_value_of_its_gate(case, data):
    slot, num_gates, gates = case
    rows = st.lists(NUMBERS, min_size=num_gates, max_size=num_gates)
    values = data.draw(st.lists(rows, min_size=1, max_size=3))
    expected = [[7 if gate < 0 else row[gate] for gate in gates] for row in values]
    assert slot.spread(torch.tensor(values), 7).tolist() == expected
    flags = torch.tensor(values[0]) > 0
    kept = [True if gate < 0 else values[0][gate] > 0 for gate in gates]
    assert slot.spread(flags, True).tolist() == kept


@pytest.mark.property
@given(slots(), st.data())
def test_total_adds_up_the_positions_of_each_gate(case, data):
    slot, num_gates, gates = case
    rows = st.lists(NUMBERS, min_size=len(gates), max_size=len(gates))
    values = data.draw(st.lists(rows, min_size=1, max_size=3))
    expected = [[0] * num_gates for _ in values]
    for sums, row in zip(expected, values, strict=True):
        for gate, value in zip(gates, row, strict=True):
            if gate >= 0:
                sums[gate] += value
    assert slot.total(torch.tensor(values), num_gates).tolist() == expected


@pytest.mark.property
@given(slots())
def test_total_is_the_transpose_of_spread(case):
    slot, num_gates, gates = case
    values = torch.randn(num_gates, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(len(gates), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(slot.spread(values, 1.0) @ weights, values)
    torch.testing.assert_close(gradient, slot.total(weights, num_gates))


@pytest.mark.exact
def test_spread_in_transformations_and_copies():
    prepared = Slot("weight", 0, (1, -1, 0)).prepared(2)
    gates = torch.rand(4, 2)
    expected = torch.stack([gates[:, 1], torch.ones(4), gates[:, 0]], 1)
    assert torch.equal(prepared.spread(gates, 1.0), expected)
    assert torch.equal(torch.vmap(lambda gate: prepared.spread(gate, 1.0))(gates), expected)
    assert torch.equal(copy.deepcopy(prepared).spread(gates, 1.0), expected)
    assert prepared.spread(gates.half(), 1.0).dtype == torch.float16


@pytest.mark.contract
@pytest.mark.parametrize(
    ("dim", "view"), [(None, (3, 4, 5)), (0, (3, 1, 1)), (1, (1, 4, 1)), (-1, (1, 1, 5))]
)
def test_view_broadcasts_to_the_tensor(dim, view):
    assert Slot("weight", dim).view((3, 4, 5)) == view
