"""Gates multiplied into weights, one draw or many, against loops over single entries."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pyro_relevance.edges.edges import Edges
from pyro_relevance.edges.find import find_edges
from pyro_relevance.edges.gates import (
    EntryGates,
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


PRODUCED = (
    EdgeGroup("in", "input", (3,), tuple("xyz"), (Slot("w", 1, (0, 1, -1, 2)),)),
    EdgeGroup("units", "unit", (2,), tuple("ab"), (Slot("v", 1),), (Slot("w", 0), Slot("b", 0))),
    EdgeGroup("w", "weight", (2, 4), tuple(map(str, range(8))), (Slot("w", None),)),
)
NESTED = Edges(PRODUCED, (), {"w": (2, 4), "b": (2,), "v": (1, 2), "c": (1,)})


@pytest.mark.exact
def test_an_entry_passes_the_gates_of_what_it_reads_of_what_it_makes_and_its_own():
    p = torch.rand(13)
    inputs, units, weights = p[:3], p[3:5], p[5:].view(2, 4)
    first = torch.stack([inputs[0], inputs[1], torch.tensor(1.0), inputs[2]])
    expected = [(first * units[:, None] * weights).flatten(), units, units, torch.ones(1)]
    torch.testing.assert_close(EntryGates(NESTED, "wbvc").use(p), torch.cat(expected))
    torch.testing.assert_close(
        EntryGates(NESTED, "cw").use(p), torch.cat(expected[3:] + expected[:1])
    )


@pytest.mark.exact
def test_a_tied_gate_that_meets_an_entry_twice_counts_once_in_its_use():
    rows, columns = (0, 1, 2, -1), (0, 1, -1, 1)
    slots = (Slot("w", 0, rows), Slot("w", 1, columns))
    tied = EdgeGroup("tied", "unit", (3,), tuple("abc"), slots[1:], (slots[0], slots[1]))
    p = torch.rand(3)
    expected = distinct_product(p[None], slots, (4, 4)).expand(1, 4, 4).flatten()
    assert torch.equal(EntryGates(Edges((tied,), (), {"w": (4, 4)}), "w").use(p), expected)


class _Residual(nn.Module):
    """Channels that are tied along a sum, with normalisation."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        return self.head((x + torch.relu(self.body(x))).mean((2, 3)))


def _mlp():
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))


@pytest.mark.exact
@pytest.mark.parametrize(
    ("network", "shape", "granularity"),
    [
        (_mlp, (3,), ("input", "unit", "weight")),
        (_mlp, (3,), ("unit",)),
        (_Residual, (2, 4, 4), ("unit",)),
    ],
)
def test_an_entry_that_is_not_used_has_no_effect(network, shape, granularity):
    network = network().double().eval()
    x = torch.randn(6, *shape).double()
    edges = find_edges(network, granularity=granularity, example_input=x[:1])
    parameters = dict(network.named_parameters())
    gates = (torch.rand(edges.num_edges) < 0.6).double()
    used = EntryGates(edges, tuple(parameters)).use(gates)
    assert set(used.tolist()) == {0.0, 1.0}
    moved = {
        name: torch.where(part.view(value.shape) > 0, value, torch.randn_like(value))
        for (name, value), part in zip(
            parameters.items(), used.split([p.numel() for p in parameters.values()]), strict=True
        )
    }
    split = edges.split(gates)
    outputs = [
        torch.func.functional_call(network, {**each, **edges.fold(each, split)}, (x,))
        for each in (parameters, moved)
    ]
    torch.testing.assert_close(*outputs)
    assert any(not torch.equal(moved[name], parameters[name]) for name in parameters)


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
