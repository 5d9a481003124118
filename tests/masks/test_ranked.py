"""Rules that follow a ranking: fractions, budgets, paths."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pyro_relevance import masks
from pyro_relevance.edges.find import find_edges
from pyro_relevance.masks import Mask
from tests.small_masks import FakePosterior, count


class TestTopFraction:
    @settings(deadline=None)
    @given(st.lists(st.integers(0, 5), min_size=2, max_size=30), st.integers(0, 100))
    def test_keeps_the_rounded_up_fraction_of_the_highest(self, values, percent):
        density = percent / 100
        scores = torch.tensor(values, dtype=torch.float32)
        mask = masks.top_fraction({"a": scores[:1], "b": scores[1:]}, density)
        expected = math.ceil(Fraction(percent, 100) * len(values))
        assert mask.num_kept == expected
        keep = torch.cat([mask["a"], mask["b"]])
        if 0 < expected < len(values):
            assert scores[keep].min() >= scores[~keep].max()
        # Ties stay in the order of the source.
        order = sorted(range(len(values)), key=lambda i: (-values[i], i))[:expected]
        assert keep.nonzero().flatten().tolist() == sorted(order)

    @settings(deadline=None)
    @given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 100))
    def test_per_group(self, size_a, size_b, percent):
        generator = torch.Generator().manual_seed(size_a * 13 + size_b)
        scores = {
            "a": torch.rand(size_a, generator=generator),
            "b": 10 + torch.rand(size_b, generator=generator),
        }
        mask = masks.top_fraction(scores, percent / 100, per="group")
        for name, score in scores.items():
            alone = masks.top_fraction({name: score}, percent / 100)
            assert torch.equal(mask[name], alone[name])

    def test_errors(self):
        scores = {"a": torch.tensor([1.0])}
        with pytest.raises(ValueError, match=r"density in \[0, 1\], but got 10"):
            masks.top_fraction(scores, 10)
        with pytest.raises(ValueError, match="'network' or 'group', but got 'layer'"):
            masks.top_fraction(scores, 0.5, per="layer")  # type: ignore[arg-type]

    def test_rule_text(self):
        scores = {"a": torch.tensor([1.0, 2.0])}
        assert masks.top_fraction(scores, 0.5).rule == (
            "keep the fraction 0.5 of all candidate edges together with the highest scores"
        )
        assert masks.top_fraction(scores, 0.5, per="group").rule == (
            "keep the fraction 0.5 of each group with the highest scores"
        )


def additive(mask: Mask) -> int:
    return sum(int((k * torch.arange(1, k.numel() + 1)).sum()) for k in mask.values())


def product(mask: Mask) -> int:
    """Weights between neighbouring layers: not a sum over edges."""
    sizes = [int(keep.sum()) for keep in mask.values()]
    return sum(a * b for a, b in itertools.pairwise(sizes)) + sum(sizes)


class TestBudget:
    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.integers(0, 9), min_size=3, max_size=12),
        st.integers(0, 100),
        st.sampled_from([additive, product]),
    )
    def test_never_exceeds_and_is_maximal_along_the_ranking(self, values, limit, cost):
        score = torch.tensor(values, dtype=torch.float64)
        scores = {"a": score[:1], "b": score[1:]}
        mask = masks.within_cost(scores, limit, cost=cost)
        assert cost(mask) <= limit
        ladder = masks.path(scores, num_points=len(values) + 1)
        assert mask in ladder
        affordable = [m.num_kept for m in ladder if cost(m) <= limit]
        assert mask.num_kept == max(affordable)

    def test_cost_that_goes_up_and_down(self):
        scores = {"a": torch.arange(16.0)}
        calls = []

        def cost(mask: Mask) -> int:
            calls.append(mask.num_kept)
            return {0: 0, 16: 99}.get(mask.num_kept, 10 * (mask.num_kept % 4))

        mask = masks.within_cost(scores, 15, cost=cost)
        assert cost(mask) <= 15
        assert cost(masks.top_fraction(scores, (mask.num_kept + 1) / 16)) > 15
        assert len(calls) <= 8

    def test_few_calls(self):
        calls = 0

        def cost(mask: Mask) -> int:
            nonlocal calls
            calls += 1
            return mask.num_kept

        assert masks.within_cost({"a": torch.rand(10_000)}, 1234, cost=cost).num_kept == 1234
        assert calls <= 16

    def test_only_candidate_groups_are_removed(self):
        scores = {"a": torch.tensor([2.0, 1.0]), "b": torch.zeros(3)}
        mask = masks.within_cost(scores, 4, cost=count, groups=("a",))
        assert mask["a"].tolist() == [True, False]
        assert mask["b"].all()

    def test_infeasible(self):
        scores = {"a": torch.tensor([2.0, 1.0]), "b": torch.zeros(3)}
        with pytest.raises(ValueError, match="at least 3 of the given cost, but got 2") as error:
            masks.within_cost(scores, 2, cost=count, groups=("a",))
        assert "Raise the budget" in str(error.value)
        with pytest.raises(ValueError, match="at least 3 parameters, but got 2"):
            masks.budget(scores, num_parameters=2, cost=count, groups=("a",))
        with pytest.raises(ValueError, match="a number as limit, but got nan"):
            masks.within_cost(scores, math.nan, cost=count)

    @pytest.mark.parametrize("unit", ["num_parameters", "num_macs", "num_bytes"])
    def test_units(self, unit):
        scores = {"a": torch.tensor([2.0, 1.0, 3.0])}
        mask = masks.budget(scores, **{unit: 2}, cost=count)
        assert mask["a"].tolist() == [True, False, True]
        assert (
            mask.rule == f"keep the highest-scoring edges that cost at most 2 {unit[4:]} together"
        )

    @pytest.mark.exact
    def test_a_filled_budget_has_smaller_edges_of_lower_rank(self):
        prices = torch.tensor([5.0, 3.0, 1.0, 2.0, 1.0])
        scores = {"a": torch.tensor([9.0, 8.0, 7.0, 6.0, -math.inf])}

        def cost(mask):
            return float((prices * mask["a"]).sum())

        def kept(limit, fill):
            mask = masks.budget(scores, num_macs=limit, cost=cost, fill=fill)
            return mask["a"].tolist()

        assert kept(6, False) == [True, False, False, False, False]
        assert kept(6, True) == [True, False, True, False, False]
        assert kept(7, True) == [True, False, True, False, False]  # the rest is closed, or too dear
        assert kept(8, True) == [True, True, False, False, False]

    def test_exactly_one_limit(self):
        scores = {"a": torch.tensor([2.0])}
        with pytest.raises(ValueError, match=r"exactly one of .* but got none"):
            masks.budget(scores, cost=count)
        with pytest.raises(ValueError, match=r"but got \['num_macs', 'num_bytes'\]"):
            masks.budget(scores, num_macs=1, num_bytes=2, cost=count)

    def test_edges_are_needed_tocount(self):
        scores = {"a": torch.tensor([2.0])}
        with pytest.raises(TypeError, match="edges of the network as edges=, but got NoneType"):
            masks.budget(scores, num_parameters=1)
        with pytest.raises(TypeError, match="but got int.*use top_fraction"):
            masks.budget(scores, num_parameters=1, edges=3)  # type: ignore[arg-type]

    def test_librarycount(self):
        network = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
        edges = find_edges(network, granularity=("input", "unit"))
        p = {"inputs": torch.tensor([[0.9, 0.2, 0.8]]), "0.units": torch.tensor([[0.7, 0.1]])}
        # All: 2 * 3 + 2 + 2 + 1 = 11. Without unit 1: 3 + 1 + 1 + 1 = 6. Without input b: 5.
        posterior = FakePosterior(p, edges)
        assert masks.budget(posterior, num_parameters=11).density == 1
        assert masks.budget(posterior, num_parameters=10)["0.units"].tolist() == [True, False]
        mask = masks.budget(posterior, num_parameters=5)
        assert mask["inputs"].tolist() == [True, False, True]
        plain = {"inputs": p["inputs"][0]}
        partial = masks.budget(plain, num_parameters=9, edges=edges)
        assert partial["inputs"].tolist() == [True, False, True]


class TestPath:
    def test_nested_from_dense_to_empty(self):
        scores = {"a": torch.rand(30), "b": torch.rand(11)}
        ladder = masks.path(scores, num_points=7)
        assert len(ladder) == 7
        assert ladder[0].density == 1
        assert ladder[-1].num_kept == 0
        for larger, smaller in itertools.pairwise(ladder):
            assert smaller & larger == smaller
            assert smaller.num_kept < larger.num_kept
        assert ladder[1].rule == "keep the 34 of 41 candidate edges with the highest scores"

    def test_fewer_edges_than_points(self):
        assert [m.num_kept for m in masks.path({"a": torch.rand(3)})] == [3, 2, 1, 0]

    def test_risk_at_each_point(self):
        ladder = masks.path(FakePosterior({"a": torch.tensor([[0.25, 0.75]])}))
        rates = [m.risk.false_discovery_rate for m in ladder if m.risk is not None]
        assert rates == [0.5, 0.25, 0.0]

    def test_errors(self):
        with pytest.raises(ValueError, match="num_points >= 2"):
            masks.path({"a": torch.rand(3)}, num_points=1)
