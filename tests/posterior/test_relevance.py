from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyro_relevance import masks, relevance
from pyro_relevance.edges import gates as _gates
from pyro_relevance.edges.find import EdgeGroup, Edges, Slot


@dataclass
class FakeDraws:
    gates: dict[str, Tensor]
    weights: dict[str, Tensor] = field(default_factory=dict)
    inclusion_probability: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class FakePosterior:
    probability: dict[str, Tensor]
    edges: Edges

    @property
    def num_chains(self) -> int:
        return next(iter(self.probability.values())).shape[0]

    def inclusion_probability(self) -> dict[str, Tensor]:
        return self.probability


def group(name, granularity, shape, consumers, producers=()):
    labels = tuple(str(i) for i in range(math.prod(shape)))
    return EdgeGroup(name, granularity, shape, labels, tuple(consumers), tuple(producers))


SHAPES = {"0.weight": (2, 4), "0.bias": (2,), "2.weight": (1, 2), "2.bias": (1,)}
# Columns 1 and 2 of the first layer share a gate; column 3 is not judged.
INPUTS = group("inputs", "input", (2,), [Slot("0.weight", 1, (0, 1, 1, -1))])
UNITS = group(
    "0.units",
    "unit",
    (2,),
    [Slot("2.weight", 1, None)],
    [Slot("0.weight", 0, None), Slot("0.bias", 0, None)],
)
WEIGHTS = group("0.weight", "weight", (2, 4), [Slot("0.weight", None, None)])
NESTED = Edges((INPUTS, UNITS, WEIGHTS), (), SHAPES)


def random_draws(num_chains=2, num_draws=5, *, point=(), seed=0) -> FakeDraws:
    generator = torch.Generator().manual_seed(seed)
    lead = (num_chains, num_draws)
    gates = {
        g.name: torch.bernoulli(torch.full((*lead, *g.shape), 0.6), generator=generator)
        for g in NESTED.groups
    }
    weights = {
        name: torch.randn(
            num_chains, 1 if name in point else num_draws, *shape, generator=generator
        )
        for name, shape in SHAPES.items()
    }
    return FakeDraws(gates, weights)


def naive_gated(draws: FakeDraws, edges: Edges) -> dict[str, Tensor]:
    """Gated consumer weights by `Edges.fold`, one draw at a time."""
    num_chains, num_draws = next(iter(draws.gates.values())).shape[:2]
    rows: dict[str, list[Tensor]] = {}
    for c, s in itertools.product(range(num_chains), range(num_draws)):
        own = {name: w[c, s if w.shape[1] > 1 else 0] for name, w in draws.weights.items()}
        folded = edges.fold(own, {name: g[c, s] for name, g in draws.gates.items()})
        for name, weight in folded.items():
            rows.setdefault(name, []).append(weight)
    return {n: torch.stack(r).reshape(num_chains, num_draws, *SHAPES[n]) for n, r in rows.items()}


class TestInclusionProbability:
    def test_mean_over_draws_for_each_chain(self):
        p = torch.tensor([[[0.0, 1.0], [0.5, 0.5]], [[1.0, 1.0], [0.5, 0.0]]])
        result = relevance.inclusion_probability(FakeDraws({}, inclusion_probability={"a": p}))
        assert result["a"].tolist() == [[0.25, 0.75], [0.75, 0.5]]

    def test_pooled(self):
        p = {"inputs": torch.tensor([[0.0, 1.0], [0.5, 0.5]]), "0.units": torch.rand(2, 2)}
        posterior = FakePosterior(p, NESTED)
        assert relevance.pooled(posterior, groups=("inputs",))["inputs"].tolist() == [0.25, 0.75]
        assert relevance.pooled(p).keys() == {"inputs"}
        mask = masks.median_probability(relevance.pooled(posterior))
        assert mask["inputs"].tolist() == [False, True]

    def test_pooled_refuses_hidden_units(self):
        p = {"inputs": torch.rand(2, 2), "0.units": torch.rand(2, 2)}
        with pytest.raises(ValueError, match=r"granularity 'input', but got \['0.units'\]"):
            relevance.pooled(FakePosterior(p, NESTED), groups=("inputs", "0.units"))
        one = FakePosterior({name: value[:1] for name, value in p.items()}, NESTED)
        assert torch.equal(relevance.pooled(one, groups=("0.units",))["0.units"], p["0.units"][0])
        with pytest.raises(ValueError, match=r"but got \['x'\]"):
            relevance.pooled(p, groups=("x",))
        with pytest.raises(TypeError, match=r"Write \('inputs',\)"):
            relevance.pooled(p, groups="inputs")

    def test_of_chain(self):
        scores = {"a": torch.tensor([[1.0], [2.0]])}
        assert relevance.of_chain(scores, 1)["a"].tolist() == [2.0]
        assert relevance.of_chain(scores, 0)["a"].tolist() == [1.0]
        for chain in (2, -1):
            with pytest.raises(IndexError, match=f"from 0 to 1 for group 'a', but got {chain}"):
                relevance.of_chain(scores, chain)


class TestEffect:
    def test_by_hand(self):
        draws = FakeDraws(
            gates={
                "inputs": torch.tensor([[[1.0, 1.0], [0.0, 1.0]]]),
                "0.units": torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]),
                "0.weight": torch.ones(1, 2, 2, 4),
            },
            weights={
                "0.weight": torch.tensor([[[[3.0, 1.0, 2.0, 9.0], [4.0, 2.0, 4.0, 9.0]]]]),
                "2.weight": torch.tensor([[[[-2.0, 7.0]]]]),
            },
        )
        draws.gates["0.weight"][0, 1, 0, 1] = 0
        result = relevance.effect(draws, NESTED)
        # Input 0 reads 3 and 4: 5. Input 1 reads 1, 2, 2, 4: 5; without the 1: sqrt(24).
        assert result["inputs"][0].tolist() == [[5.0, 5.0], [0.0, pytest.approx(24**0.5)]]
        assert result["0.units"][0].tolist() == [[2.0, 0.0], [2.0, 7.0]]
        assert result["0.weight"][0, 0].tolist() == [[3.0, 1.0, 2.0, 9.0], [4.0, 2.0, 4.0, 9.0]]
        assert result["0.weight"][0, 1].tolist() == [[0.0, 0.0, 2.0, 9.0], [0.0, 2.0, 4.0, 9.0]]

    @pytest.mark.parametrize("point", [(), ("0.weight",), ("0.weight", "2.weight")])
    @pytest.mark.parametrize("block", [1, 2**24])
    def test_equals_folding_one_draw_at_a_time(self, monkeypatch, point, block):
        monkeypatch.setattr(_gates, "_BLOCK", block)
        draws = random_draws(point=point)
        gated = naive_gated(draws, NESTED)
        result = relevance.effect(draws, NESTED)
        first = gated["0.weight"].square().sum(2)
        assert torch.allclose(result["inputs"][..., 0], first[..., 0].sqrt())
        assert torch.allclose(result["inputs"][..., 1], (first[..., 1] + first[..., 2]).sqrt())
        assert torch.allclose(result["0.units"], gated["2.weight"].abs()[:, :, 0])
        assert torch.allclose(result["0.weight"], gated["0.weight"].abs())

    def test_convolution_read_by_two_layers(self):
        shapes = {"c.weight": (3, 2, 2, 2), "f.weight": (2, 8)}
        channels = group(
            "b.units",
            "unit",
            (2,),
            [Slot("c.weight", 1, None), Slot("f.weight", 1, (0, 0, 0, 0, 1, 1, 1, 1))],
        )
        edges = Edges((channels,), (), shapes)
        draws = FakeDraws(
            {"b.units": torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])},
            {name: torch.ones(1, 1, *shape) for name, shape in shapes.items()},
        )
        norm = (3 * 4 + 2 * 4) ** 0.5
        assert relevance.effect(draws, edges)["b.units"][0].tolist() == [
            [pytest.approx(norm), 0.0],
            [pytest.approx(norm), pytest.approx(norm)],
        ]

    def test_half_precision_weights(self):
        draws = random_draws()
        draws.weights = {name: w.bfloat16() for name, w in draws.weights.items()}
        assert relevance.effect(draws, NESTED)["inputs"].dtype == torch.float32

    def test_errors(self):
        draws = random_draws()
        del draws.weights["2.weight"]
        with pytest.raises(
            ValueError, match=r"weights\['2.weight'\] of shape \(chain, draw, 1, 2\)"
        ):
            relevance.effect(draws, NESTED)
        draws = random_draws()
        draws.gates["inputs"] = draws.gates["inputs"][:, 0]
        with pytest.raises(ValueError, match=r"gates\['inputs'\] of shape .* got \(2, 2\). Pass"):
            relevance.effect(draws, NESTED)


class TestSignalToNoise:
    @pytest.mark.parametrize("block", [1, 2**24])
    def test_equals_the_formula(self, monkeypatch, block):
        monkeypatch.setattr(_gates, "_BLOCK", block)
        draws = random_draws(num_draws=7, point=("2.weight",))
        gated = {name: w.double() for name, w in naive_gated(draws, NESTED).items()}
        result = relevance.signal_to_noise(draws, NESTED)
        weight = gated["0.weight"]
        assert torch.allclose(
            result["0.weight"].double(), weight.mean(1).abs() / weight.std(1), rtol=1e-5
        )
        both = weight[..., 1:3].permute(0, 1, 3, 2).flatten(2)
        ratio = both.mean(1).norm(dim=1) / both.var(1).sum(1).sqrt()
        assert torch.allclose(result["inputs"][:, 1].double(), ratio, rtol=1e-5)
        assert result["0.units"].shape == (2, 2)

    def test_of_a_gate_on_a_fixed_weight(self):
        gates = {"w": torch.tensor([1.0, 1.0, 1.0, 0.0]).reshape(1, 4, 1)}
        edges = Edges((group("w", "weight", (1,), [Slot("w", None, None)]),), (), {"w": (1,)})
        draws = FakeDraws(gates, {"w": torch.full((1, 1, 1), -3.0)})
        result = relevance.signal_to_noise(draws, edges)["w"]
        assert result.item() == pytest.approx(0.75 / 0.5)

    def test_infinite_or_zero_where_nothing_varies(self):
        edges = Edges((group("w", "weight", (3,), [Slot("w", None, None)]),), (), {"w": (3,)})
        draws = FakeDraws(
            {"w": torch.tensor([1.0, 0.0, 1.0]).expand(1, 100, 3)},
            {"w": torch.tensor([0.3, 0.3, 0.0]).expand(1, 1, 3)},
        )
        result = relevance.signal_to_noise(draws, edges)["w"]
        assert result.tolist() == [[math.inf, 0.0, 0.0]]
        mask = masks.signal_to_noise(relevance.of_chain({"w": result}, 0), 1.0)
        assert mask["w"].tolist() == [True, False, False]

    def test_needs_two_draws(self):
        with pytest.raises(ValueError, match="at least 2 draws, but got 1"):
            relevance.signal_to_noise(random_draws(num_draws=1), NESTED)
        with pytest.raises(ValueError, match="at least 2 draws, but got 0"):
            relevance.signal_to_noise(FakeDraws({}), Edges((), (), {}))
        pair = relevance.signal_to_noise(random_draws(num_draws=2), NESTED)
        assert all(bool((score >= 0).all()) for score in pair.values())

    @given(st.floats(1e-3, 1e3), st.integers(0, 20))
    @settings(max_examples=20, deadline=None)
    def test_does_not_depend_on_the_unit_of_the_weights(self, scale, seed):
        draws = random_draws(seed=seed)
        before = relevance.signal_to_noise(draws, NESTED)
        draws.weights = {name: w * scale for name, w in draws.weights.items()}
        after = relevance.signal_to_noise(draws, NESTED)
        for name, ratio in before.items():
            assert torch.allclose(ratio, after[name], rtol=1e-4)


class TestExpectedSize:
    def test_by_hand(self):
        p = {"inputs": torch.tensor([0.5, 0.25]), "0.units": torch.tensor([1.0, 0.5])}
        size = relevance.expected_size(p, NESTED)
        # First layer: (0.5 + 2 * 0.25 + 1) * (1 + 0.5); biases 1.5 + 1; last layer 1.5.
        assert size.num_parameters.item() == 2 * 1.5 + 1.5 + 1 + 1.5
        assert size.num_edges.item() == 0.75 + 1.5 + 8

    def test_is_the_mean_over_all_gates(self):
        edges = Edges((INPUTS, UNITS), (), SHAPES)
        p = torch.tensor([0.2, 0.7, 0.9, 0.4], dtype=torch.float64)
        mean_edges = mean_parameters = 0.0
        for bits in itertools.product([0.0, 1.0], repeat=4):
            on = torch.tensor(bits, dtype=torch.float64)
            chance = torch.where(on > 0, p, 1 - p).prod()
            columns, rows = on[:2][[0, 1, 1]].sum() + 1, on[2:].sum()
            mean_edges += float(chance * on.sum())
            mean_parameters += float(chance * (columns * rows + rows + rows + 1))
        size = relevance.expected_size(edges.split(p), edges)
        assert size.num_edges.item() == pytest.approx(mean_edges)
        assert size.num_parameters.item() == pytest.approx(mean_parameters)

    def test_tied_gates_count_once(self):
        # A residual layer: the same gates make its rows and are read by its columns.
        tied = group("units", "unit", (2,), [Slot("w", 1, None)], [Slot("w", 0, None)])
        edges = Edges((tied,), (), {"w": (2, 2)})
        p = {"units": torch.tensor([0.5, 0.25])}
        assert relevance.expected_size(p, edges).num_parameters.item() == 0.75 + 2 * 0.125

    def test_buffers_are_no_parameters(self):
        shapes = {"w": (2, 2), "n": (2,), "t": ()}
        edges = Edges((group("u", "unit", (2,), [Slot("w", 1, None)]),), (), shapes, ("n", "t"))
        assert relevance.expected_size({}, edges).num_parameters.item() == 4

    def test_parameters_behind_a_buffer_count(self):
        shapes = {"n": (2,), "w": (2, 2), "b": (3,)}
        edges = Edges((group("u", "unit", (2,), [Slot("w", 1, None)]),), (), shapes, ("n",))
        size = relevance.expected_size({"u": torch.tensor([0.5, 0.25])}, edges)
        assert size.num_parameters.item() == 2 * 0.75 + 3
        assert size.num_edges.item() == 0.75
        with pytest.raises(AttributeError):
            size.num_edges = 1.0

    def test_groups_without_a_probability_are_kept_whole(self):
        size = relevance.expected_size({"inputs": torch.tensor([[0.5, 0.25]])}, NESTED)
        assert size.num_parameters.tolist() == [(0.5 + 2 * 0.25 + 1) * 2 + 2 + 2 + 1]
        assert size.num_edges.tolist() == [0.75 + 2 + 8]

    def test_operations_take_their_parameters_along(self):
        """The mean over all choices of one operation for each edge and of the units, by hand."""
        shapes = {
            "g.a.operations.wide.weight": (3, 2),
            "g.a.operations.wide.bias": (3,),
            "g.a.operations.thin.weight": (1, 2),
            "g.a.gate": (3,),
            "g.b.operations.wide.weight": (5,),
            "g.b.gate": (2,),
            "head.weight": (2, 4),
        }
        first = EdgeGroup(
            "a", "operation", (3,), ("wide", "none", "thin"), (Slot("g.a.gate", 0, None),), ()
        )
        second = EdgeGroup(
            "b", "operation", (2,), ("none", "wide"), (Slot("g.b.gate", 0, None),), ()
        )
        units = group("u", "unit", (4,), [Slot("head.weight", 1, None)])
        edges = Edges((units,), (), shapes, ("g.a.gate", "g.b.gate"), operations=(first, second))
        chances = {
            "a": torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]]),
            "b": torch.tensor([[0.25, 0.75], [1.0, 0.0]]),
        }
        of_units = torch.tensor([[1.0, 0.5, 0.25, 0.0], [0.5, 0.5, 0.5, 0.5]])
        both = relevance.expected_size({"u": of_units}, edges, chances)
        expected = [
            9 * 0.5 + 2 * 0.2 + 5 * 0.75 + 2 * 1.75,
            9 * 0.1 + 2 * 0.1 + 0 + 2 * 2.0,
        ]
        assert both.num_parameters.tolist() == pytest.approx(expected)
        assert both.num_edges.tolist() == [1.75, 2.0]
        # Without gates of units the leading dimensions are those of the operations.
        stacked = {name: value[None] for name, value in chances.items()}
        alone = relevance.expected_size({}, edges, stacked)
        assert alone.num_parameters.shape == (1, 2)
        assert alone.num_parameters[0].tolist() == pytest.approx(
            [9 * 0.5 + 2 * 0.2 + 5 * 0.75 + 8, 9 * 0.1 + 2 * 0.1 + 8]
        )
        one = relevance.expected_size({}, edges, {"a": chances["a"][0]})
        assert one.num_parameters.item() == pytest.approx(9 * 0.5 + 2 * 0.2 + 5 + 8)
        # All operations stay where nothing is said of them.
        whole = relevance.expected_size({"u": of_units}, edges)
        assert whole.num_parameters.tolist() == pytest.approx([9 + 2 + 5 + 3.5, 9 + 2 + 5 + 4])

    def test_leading_dimensions(self):
        p = {name: torch.rand(3, 5, *NESTED[name].shape) for name in NESTED.names}
        size = relevance.expected_size(p, NESTED)
        assert size.num_edges.shape == size.num_parameters.shape == (3, 5)
        one = relevance.expected_size({name: v[1, 2] for name, v in p.items()}, NESTED)
        assert one.num_parameters.shape == ()
        assert torch.allclose(size.num_parameters[1, 2], one.num_parameters)
        assert torch.allclose(size.num_edges[1, 2], one.num_edges)

    def test_errors(self):
        with pytest.raises(ValueError, match="but got 'x'"):
            relevance.expected_size({"x": torch.rand(2)}, NESTED)
        with pytest.raises(ValueError, match=r"of shape \(..., 2\), but got \(3,\)"):
            relevance.expected_size({"inputs": torch.rand(3)}, NESTED)
        with pytest.raises(ValueError, match=r"of shape \(..., 2, 4\), but got \(4,\)"):
            relevance.expected_size({"0.weight": torch.rand(4)}, NESTED)
        with pytest.raises(ValueError, match="same chains and draws in each group"):
            relevance.expected_size({"inputs": torch.rand(1, 2), "0.units": torch.rand(2)}, NESTED)


@pytest.mark.exact
@pytest.mark.parametrize("point", [(), ("0.weight", "0.bias"), ("2.weight", "2.bias")])
def test_without_gates_the_weights_speak_for_themselves(point) -> None:
    """A model without gates (sparse variational dropout) is judged as if all gates were open."""
    draws = random_draws(point=point)
    bare = replace(draws, gates={}, inclusion_probability={})
    ones = {name: torch.ones_like(gate) for name, gate in draws.gates.items()}
    opened = replace(draws, gates=ones)
    for score in (relevance.effect, relevance.signal_to_noise):
        found, expected = score(bare, NESTED), score(opened, NESTED)
        assert found.keys() == expected.keys()
        for name in found:
            assert torch.allclose(found[name], expected[name])


@pytest.mark.exact
def test_without_gates_a_single_parameter_will_do() -> None:
    edges = Edges((group("w", "weight", (2,), [Slot("w", None, None)]),), (), {"w": (2,)})
    values = torch.tensor([[[1.0, -4.0], [3.0, -4.0], [2.0, -1.0]]], dtype=torch.float64)
    draws = FakeDraws({}, {"w": values})
    effect = relevance.effect(draws, edges)["w"]
    assert effect.tolist() == values.abs().tolist()
    ratio = relevance.signal_to_noise(draws, edges)["w"]
    assert ratio.tolist() == [pytest.approx([2.0, 3.0 / 3**0.5])]
    assert ratio.dtype == torch.float64
    assert relevance.effect(FakeDraws({"w": torch.ones(1, 2, 2)}, {"w": values[:, :2]}), edges)[
        "w"
    ].tolist() == [[[1.0, 4.0], [3.0, 4.0]]]
