"""Gates multiplied into weights, one draw or many, against loops over single entries."""

from __future__ import annotations

import pytest
import torch

from pyro_relevance.edges.edges import Edges
from pyro_relevance.edges.gates import (
    distinct_product,
    gate_factor,
    gated_blocks,
    sum_over_consumers,
)
from pyro_relevance.edges.groups import EdgeGroup, Slot
from pyro_relevance.errors import EdgeError

INDEX = (2, -1, 0, 2, 1)
GROUPS = (
    EdgeGroup("rows", "unit", (4,), tuple("abcd"), (Slot("w", 0),)),
    EdgeGroup("columns", "input", (3,), tuple("xyz"), (Slot("w", 1, INDEX),)),
    EdgeGroup("w", "weight", (4, 5), tuple(map(str, range(20))), (Slot("w", None),)),
)
EDGES = Edges(GROUPS, (), {"w": (4, 5)})


def _gated(weight, gates):
    """Multiply entry by entry; leading axes are those of the gates."""
    result = weight.expand(*gates["rows"].shape[:-1], 4, 5).clone()
    for row in range(4):
        for column, gate in enumerate(INDEX):
            result[..., row, column] *= gates["rows"][..., row]
            if gate >= 0:
                result[..., row, column] *= gates["columns"][..., gate]
            result[..., row, column] *= gates["w"][..., row, column]
    return result


def _draws(*leading):
    return {group.name: torch.rand(*leading, *group.shape) for group in GROUPS}


@pytest.mark.exact
def test_factors_of_one_draw():
    weight, gates = torch.randn(4, 5), _draws()
    assert torch.equal(EDGES.fold({"w": weight}, gates)["w"], _gated(weight, gates))
    factor = gate_factor(GROUPS[1], GROUPS[1].consumers[0], EDGES.shapes)
    assert factor.multiply(weight, gates["columns"].double()).dtype == torch.float32


@pytest.mark.exact
def test_blocks_of_draws(monkeypatch):
    monkeypatch.setattr("pyro_relevance.edges.gates._BLOCK", 2 * 3 * 20)  # three draws a block
    gates, weights = _draws(2, 7), {"w": torch.randn(2, 1, 4, 5)}
    blocks = [block["w"] for block in gated_blocks(gates, weights, EDGES)]
    assert [block.shape[1] for block in blocks] == [3, 3, 1]
    assert torch.equal(torch.cat(blocks, 1), _gated(weights["w"], gates))


@pytest.mark.exact
def test_sums_over_consumers():
    values = torch.arange(40).reshape(2, 4, 5)
    expected = torch.zeros(2, 3, dtype=torch.int64)
    for column, gate in enumerate(INDEX):
        if gate >= 0:
            expected[:, gate] += values[:, :, column].sum(1)
    assert torch.equal(sum_over_consumers({"w": values}, GROUPS[1], 1), expected)
    assert torch.equal(sum_over_consumers({"w": values}, GROUPS[0], 1), values.sum(2))
    assert torch.equal(sum_over_consumers({"w": values}, GROUPS[2], 1), values)


@pytest.mark.exact
def test_a_gate_that_meets_an_entry_twice_counts_once():
    probability = torch.rand(2, 3)
    slots = (Slot("w", 0, (0, 1, 2, -1)), Slot("w", 1, (0, 1, -1, 1)))
    product = distinct_product(probability, slots, (4, 4)).expand(2, 4, 4)
    for row, first in enumerate(slots[0].index):
        for column, second in enumerate(slots[1].index):
            expected = torch.ones(2)
            for gate in dict.fromkeys((first, second)):
                expected = expected * (probability[:, gate] if gate >= 0 else 1)
            assert torch.equal(product[:, row, column], expected)


@pytest.mark.contract
def test_groups_that_do_not_fit_the_tensor():
    with pytest.raises(EdgeError, match=r"Expected 4 positions along axis 0 of 'w', but group 'g'"):
        gate_factor(EdgeGroup("g", "unit", (3,), "abc", ()), Slot("w", 0), {"w": (4, 5)})
    with pytest.raises(EdgeError, match=r"Expected 'g' of the shape \(4, 5\) of 'w', but got"):
        gate_factor(EdgeGroup("g", "weight", (3,), "abc", ()), Slot("w", None), {"w": (4, 5)})
    with pytest.raises(ValueError, match=r"Expected draws.gates\['w'\] .* but got nothing"):
        next(
            gated_blocks(
                {"rows": _draws(1, 1)["rows"], "columns": _draws(1, 1)["columns"]}, {}, EDGES
            )
        )
