from __future__ import annotations

import copy
import itertools
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pyro_relevance import masks
from pyro_relevance.edges.find import EdgeGroup, Edges, Slot, find_edges
from pyro_relevance.errors import EdgeError
from pyro_relevance.masks import Mask, Risk

INF = math.inf


@dataclass
class FakePosterior:
    """A posterior without a model: probabilities of shape (num_chains, *group.shape)."""

    probability: dict[str, Tensor]
    edges: Edges | None = None

    @property
    def num_chains(self) -> int:
        return next(iter(self.probability.values())).shape[0]

    def inclusion_probability(self) -> dict[str, Tensor]:
        return self.probability


def two_group_edges() -> Edges:
    """Linear 3 -> 2 -> 1 with gates on inputs and hidden units."""
    groups = (
        EdgeGroup("inputs", "input", (3,), ("a", "b", "c"), (Slot("0.weight", 1, None),), ()),
        EdgeGroup(
            "0.units",
            "unit",
            (2,),
            ("0", "1"),
            (Slot("2.weight", 1, None),),
            (Slot("0.weight", 0, None), Slot("0.bias", 0, None)),
        ),
    )
    shapes = {"0.weight": (2, 3), "0.bias": (2,), "2.weight": (1, 2), "2.bias": (1,)}
    return Edges(groups, (), shapes)


def one_group(*kept: bool) -> Mask:
    return Mask({"inputs": torch.tensor(kept)})


flags = st.lists(st.booleans(), min_size=6, max_size=6)
sixty_fourths = st.lists(st.integers(0, 64), min_size=1, max_size=9)


def two_groups(bits: list[bool]) -> Mask:
    kept = torch.tensor(bits)
    return Mask({"inputs": kept[:4], "0.weight": kept[4:].reshape(1, 2)})


class TestMask:
    def test_counts(self):
        mask = Mask({"a": torch.tensor([True, False, True]), "b": torch.tensor([[False, False]])})
        assert (mask.num_kept, mask.num_edges) == (2, 5)
        assert mask.density == 0.4
        assert mask.sparsity == 0.6
        assert list(mask) == ["a", "b"]
        assert len(mask) == 2
        assert "a" in mask
        assert "c" not in mask
        assert mask.risk is None
        assert mask.rule == "keep the edges given by hand"

    def test_does_not_change_with_the_tensors_it_was_made_from_or_gave_away(self):
        kept = torch.tensor([True, False])
        probability = torch.tensor([1.0, 0.0])
        mask = Mask({"inputs": kept}, inclusion_probability={"inputs": probability})
        kept[:] = False
        probability[:] = 0.5
        mask["inputs"][:] = True
        assert mask["inputs"].tolist() == [True, False]
        assert (~mask).risk == Risk(1.0, 1.0, 1.0, 1.0)
        with pytest.raises(AttributeError):
            mask.rule = "another"  # type: ignore[misc]
        with pytest.raises(TypeError):
            mask["inputs"] = kept  # type: ignore[index]

    def test_risk_by_hand(self):
        mask = Mask(
            {"a": torch.tensor([True, True, False, False]), "b": torch.tensor([True])},
            inclusion_probability={
                "a": torch.tensor([1.0, 0.5, 0.25, 0.5]),
                "b": torch.tensor([0.25]),
            },
        )
        assert mask.risk == Risk(
            expected_false_discoveries=1.25,
            false_discovery_rate=1.25 / 3,
            expected_false_omissions=0.75,
            false_omission_rate=0.375,
        )

    def test_risk_is_zero_where_nothing_is_kept_or_cut(self):
        p = {"inputs": torch.tensor([0.5, 0.25])}
        assert one_group(False, False).with_risk(p).risk == Risk(0.0, 0.0, 0.75, 0.375)
        assert one_group(True, True).with_risk(p).risk == Risk(1.25, 0.625, 0.0, 0.0)

    @settings(deadline=None)
    @given(flags, flags)
    def test_de_morgan(self, a, b):
        a, b = two_groups(a), two_groups(b)
        assert ~(a & b) == ~a | ~b
        assert ~(a | b) == ~a & ~b

    @settings(deadline=None)
    @given(flags, flags, flags)
    def test_lattice(self, a, b, c):
        a, b, c = two_groups(a), two_groups(b), two_groups(c)
        assert a & a == a == a | a == ~~a
        assert a & b == b & a
        assert a & (a | b) == a == a | (a & b)
        assert a & (b | c) == (a & b) | (a & c)
        assert (a & ~a).num_kept == 0
        assert (a | ~a).num_kept == a.num_edges
        assert (a & b).num_kept + (a | b).num_kept == a.num_kept + b.num_kept
        assert hash(a) == hash(~~a)

    def test_combination_says_how_it_was_made(self):
        a = Mask({"x": torch.tensor([True])}, rule="keep the first")
        b = Mask({"x": torch.tensor([False])}, rule="keep the last")
        assert (a & b).rule == "keep what both rules keep: [keep the first] and [keep the last]"
        assert (a | b).rule == "keep what either rule keeps: [keep the first] or [keep the last]"
        assert (~a).rule == "keep what this rule cuts: [keep the first]"

    def test_risk_follows_the_combination(self):
        p = {"inputs": torch.tensor([1.0, 0.75, 0.25, 0.0])}
        a = masks.threshold(FakePosterior({"inputs": p["inputs"][None]}), 0.5)
        b = one_group(False, True, True, False)
        assert (a & b).risk == Risk(0.25, 0.25, 1.25, 1.25 / 3)
        assert (b & a).risk == (a & b).risk
        assert (a | b).risk == Risk(1.0, 1.0 / 3, 0.0, 0.0)
        assert (~a).risk == Risk(1.75, 0.875, 1.75, 0.875)

    def test_risk_of_a_combination_is_unknown_where_posteriors_differ(self):
        a = one_group(True, False).with_risk({"inputs": torch.tensor([0.9, 0.2])})
        b = one_group(True, True).with_risk({"inputs": torch.tensor([0.8, 0.2])})
        assert (a & b).risk is None
        assert (one_group(True, False) & one_group(True, True)).risk is None
        assert (Mask.from_json(a.to_json()) & one_group(True, True)).risk is None

    def test_risk_of_a_combination_joins_groups_decided_apart(self):
        posterior = FakePosterior({"a": torch.tensor([[0.5]]), "b": torch.tensor([[0.25]])})
        a = masks.threshold(posterior, 0.4, groups=("a",))
        b = masks.threshold(posterior, 0.4, groups=("b",))
        assert a.risk == Risk(0.5, 0.5, 0.0, 0.0)
        assert (a & b).risk == Risk(0.5, 0.5, 0.25, 0.25)

    def test_masks_of_different_edges_do_not_combine(self):
        a = Mask({"x": torch.tensor([True]), "y": torch.tensor([True, True])})
        b = Mask({"y": torch.tensor([[True, True]]), "z": torch.tensor([True])})
        with pytest.raises(ValueError, match="only on the left.*'z' only on the right") as error:
            a & b
        assert "group 'x' only on the left" in str(error.value)
        assert "group 'y' of shapes (2,) and (1, 2)" in str(error.value)
        assert "mask.completed(edges)" in str(error.value)
        with pytest.raises(ValueError, match=r"same groups and shapes for \|"):
            a | b
        with pytest.raises(TypeError):
            a & torch.tensor([True])
        with pytest.raises(TypeError):
            a | {"x": torch.tensor([True])}

    def test_equality(self):
        a = Mask({"x": torch.tensor([True, False])}, rule="one")
        assert a == Mask({"x": torch.tensor([True, False])}, rule="two")
        assert a != Mask({"x": torch.tensor([True, True])})
        assert a != Mask({"y": torch.tensor([True, False])})
        assert a != Mask({"x": torch.tensor([[True, False]])})
        assert a != {"x": torch.tensor([True, False])}
        assert copy.deepcopy(a) == a == pickle.loads(pickle.dumps(a))

    @settings(deadline=None)
    @given(flags)
    def test_json_round_trip(self, bits):
        mask = two_groups(bits)
        back = Mask.from_json(mask.to_json())
        assert back == mask
        assert list(back) == list(mask)
        assert (back.rule, back.risk) == (mask.rule, None)

    def test_json_keeps_risk_and_is_compact(self):
        p = torch.rand(1, 40, 50, generator=torch.Generator().manual_seed(0))
        mask = masks.median_probability(FakePosterior({"0.weight": p}))
        text = mask.to_json()
        assert len(text) < 2000 / 8 * 4 / 3 + 400
        back = Mask.from_json(text)
        assert back == mask
        assert back.risk == mask.risk

    @pytest.mark.parametrize(
        "damage",
        [
            lambda text: text[:-10],
            lambda text: "[1, 2]",
            lambda text: text.replace("Mask/1", "Mask/9"),
            lambda text: text.replace('"shape": [3]', '"shape": [30]'),
            lambda text: text.replace('"rule"', '"role"'),
            lambda text: text.replace('"kept": "', '"kept": "?'),
        ],
    )
    def test_damaged_json(self, damage):
        text = one_group(True, False, True).to_json()
        with pytest.raises(ValueError, match=r"Expected text written by Mask.to_json\(\)"):
            Mask.from_json(damage(text))

    def test_print(self):
        posterior = FakePosterior(
            {"inputs": torch.tensor([[1.0, 0.75, 0.25]]), "0.units": torch.rand(1, 10)}
        )
        assert str(masks.median_probability(posterior, groups=("inputs",))) == (
            "keep edges whose inclusion probability is above 1/2, in inputs (other groups kept "
            "whole)\n"
            "  inputs    2 /  3 kept\n"
            "  0.units  10 / 10 kept (not a candidate)\n"
            "  all      12 / 13 kept (density 0.923)\n"
            "accepted risk: 0.25 of the kept edges are expected to be irrelevant (12.5%), 0.25 of "
            "the cut edges relevant (25.0%)"
        )
        assert str(one_group(True)).endswith(
            "accepted risk: not stated (no inclusion probabilities)"
        )
        assert str(Risk(33_512.4, 0.25, 0.0, 0.0)).startswith("33,512 of the kept edges")
        assert repr(one_group(True, False)) == (
            "Mask(1 / 2 kept in ['inputs'], rule='keep the edges given by hand')"
        )

    def test_all_and_none(self):
        edges = two_group_edges()
        assert Mask.all_kept(edges).density == 1
        assert Mask.none_kept(edges) == ~Mask.all_kept(edges)
        assert list(Mask.none_kept(edges)) == ["inputs", "0.units"]

    def test_completed(self):
        edges = two_group_edges()
        p = {"inputs": torch.tensor([0.5, 1.0, 0.0])}
        mask = masks.median_probability(p).completed(edges)
        assert mask["inputs"].tolist() == [False, True, False]
        assert mask["0.units"].tolist() == [True, True]
        assert mask.risk == masks.median_probability(p).risk
        assert mask.completed(edges) == mask
        with pytest.raises(EdgeError, match=r"'inputs' of shape \(3,\), but the mask has \(2,\)"):
            one_group(True, True).completed(edges)
        with pytest.raises(EdgeError, match="no such group"):
            Mask({"x": torch.tensor([True])}).completed(edges)

    def test_errors(self):
        with pytest.raises(TypeError, match=r"kept\['x'\] as a bool tensor .* but got torch.float"):
            Mask({"x": torch.tensor([0.4])})
        with pytest.raises(TypeError, match="but got list"):
            Mask({"x": [True]})  # type: ignore[dict-item]
        with pytest.raises(TypeError, match="as a mapping of group name to bool tensor"):
            Mask(torch.tensor([True]))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="at least one edge"):
            Mask({})
        with pytest.raises(KeyError, match="one of the groups"):
            one_group(True)["units"]
        with pytest.raises(ValueError, match="but got both"):
            Mask(
                {"x": torch.tensor([True])},
                risk=Risk(0, 0, 0, 0),
                inclusion_probability={"x": torch.tensor([0.5])},
            )
        with pytest.raises(ValueError, match=r"of shape \(1,\), but got \(1, 1\)"):
            one_group(True).with_risk({"inputs": torch.tensor([[0.5]])})
        with pytest.raises(ValueError, match=r"of shape one of the groups \['inputs'\]"):
            one_group(True).with_risk({"x": torch.tensor([0.5])})
        with pytest.raises(ValueError, match=r"in \[0, 1\], but group 'inputs' has values from 2"):
            one_group(True).with_risk({"inputs": torch.tensor([2.0])})
        with pytest.raises(ValueError, match="has NaN"):
            one_group(True).with_risk({"inputs": torch.tensor([math.nan])})


RULES: dict[str, Callable[..., object]] = {
    "median_probability": masks.median_probability,
    "threshold": lambda source, **k: masks.threshold(source, 0.5, **k),
    "top_fraction": lambda source, **k: masks.top_fraction(source, 0.5, **k),
    "false_discovery_rate": lambda source, **k: masks.false_discovery_rate(source, 0.25, **k),
    "within_cost": lambda source, **k: masks.within_cost(source, 3, cost=_count, **k),
    "budget": lambda source, **k: masks.budget(source, num_parameters=3, cost=_count, **k),
    "path": lambda source, **k: masks.path(source, **k)[1],
    "signal_to_noise": lambda source, **k: masks.signal_to_noise(source, 0.5, **k),
}
POSTERIOR_RULES = sorted(RULES.keys() - {"signal_to_noise"})


def _count(mask: Mask) -> int:
    return mask.num_kept


class TestSource:
    @pytest.mark.parametrize("rule", POSTERIOR_RULES)
    def test_posterior_of_one_chain_is_its_probabilities(self, rule):
        p = {"a": torch.tensor([0.9, 0.1]), "b": torch.tensor([[0.8]])}
        posterior = FakePosterior({name: value[None] for name, value in p.items()})
        mask = RULES[rule](posterior)
        assert mask == RULES[rule](p)
        assert mask.risk == mask.with_risk(p).risk
        assert mask["b"].shape == (1, 1)

    @pytest.mark.parametrize("rule", POSTERIOR_RULES)
    def test_several_chains(self, rule):
        posterior = FakePosterior({"inputs": torch.rand(3, 5)})
        with pytest.raises(ValueError, match="not the same units") as error:
            RULES[rule](posterior)
        assert "got 3 chains" in str(error.value)
        assert "posterior.chain(i) (or fit.best_chain)" in str(error.value)
        assert 'relevance.pooled(posterior, groups=("inputs",))' in str(error.value)

    @pytest.mark.parametrize("rule", sorted(RULES))
    def test_other_groups_are_kept_whole(self, rule):
        scores = {"a": torch.zeros(2), "b": torch.tensor([0.6, 0.0]), "c": torch.zeros(1)}
        if rule in ("within_cost", "budget"):
            scores["c"] = torch.zeros(0)
        mask = RULES[rule](scores, groups=("b",))
        assert mask["a"].tolist() == [True, True]
        assert bool(mask["c"].all())
        assert mask["b"].tolist() == [True, False] or rule == "false_discovery_rate"
        assert mask.rule.endswith(", in b (other groups kept whole)") or rule == "path"

    @pytest.mark.parametrize("rule", sorted(RULES))
    def test_bad_sources(self, rule):
        apply = RULES[rule]
        with pytest.raises(ValueError, match="edge of group 'bad', but got NaN at 1 of 2 edges"):
            apply({"good": torch.tensor([0.5]), "bad": torch.tensor([0.5, math.nan])})
        with pytest.raises(ValueError, match=r"groups out of \['a'\], but got \['x'\]"):
            apply({"a": torch.tensor([0.5])}, groups=("a", "x"))
        with pytest.raises(TypeError, match=r"but got the text 'inputs'. Write \('inputs',\)"):
            apply({"inputs": torch.tensor([0.5])}, groups="inputs")
        with pytest.raises(ValueError, match="at least one candidate edge"):
            apply({"a": torch.tensor([0.5])}, groups=())
        with pytest.raises(ValueError, match="at least one candidate edge"):
            apply({})
        with pytest.raises(TypeError, match="real tensor of scores for group 'a', but got list"):
            apply({"a": [0.5]})
        with pytest.raises(TypeError, match="a posterior or a mapping .* but got Tensor"):
            apply(torch.tensor([0.5]))

    @pytest.mark.parametrize("rule", ["median_probability", "false_discovery_rate"])
    def test_scores_that_are_no_probabilities(self, rule):
        with pytest.raises(ValueError, match=r"Expected probabilities in \[0, 1\], but group 'a'"):
            RULES[rule]({"a": torch.tensor([0.5, 1.5])})

    def test_plain_scores_state_no_risk_until_given_probabilities(self):
        mask = masks.threshold({"a": torch.tensor([3.0, 1.0])}, 2.0)
        assert mask.risk is None
        assert mask.with_risk({"a": torch.tensor([0.75, 0.5])}).risk == Risk(0.25, 0.25, 0.5, 0.5)

    def test_source_is_not_changed(self):
        scores = {"a": torch.tensor([0.9, 0.1], requires_grad=True)}
        masks.path(scores)
        masks.median_probability(scores)
        assert scores["a"].tolist() == pytest.approx([0.9, 0.1])


class TestThresholds:
    def test_median_probability_is_strict(self):
        mask = masks.median_probability({"a": torch.tensor([0.5, 0.5001, 1.0, 0.0])})
        assert mask["a"].tolist() == [False, True, True, False]
        assert mask.rule == "keep edges whose inclusion probability is above 1/2"

    def test_threshold_takes_any_score(self):
        scores = {"a": torch.tensor([-3, 2, 7]), "b": torch.tensor([INF, -INF])}
        mask = masks.threshold(scores, 2)
        assert mask["a"].tolist() == [False, False, True]
        assert mask["b"].tolist() == [True, False]
        assert mask.rule == "keep edges whose score is above 2"
        with pytest.raises(ValueError, match="a number as value, but got nan"):
            masks.threshold(scores, math.nan)

    def test_threshold_names_probabilities(self):
        mask = masks.threshold(FakePosterior({"a": torch.tensor([[0.9]])}), 0.25)
        assert mask.rule == "keep edges whose inclusion probability is above 0.25"

    def test_signal_to_noise(self):
        mask = masks.signal_to_noise({"a": torch.tensor([INF, 0.0, 1.0, 1.5])}, 1.0)
        assert mask["a"].tolist() == [True, False, False, True]
        assert mask.risk is None
        with pytest.raises(ValueError, match="ratios >= 0, but group 'a' has -1"):
            masks.signal_to_noise({"a": torch.tensor([-1.0])}, 1.0)
        with pytest.raises(ValueError, match="ratio >= 0 as value, but got -1"):
            masks.signal_to_noise({"a": torch.tensor([1.0])}, -1.0)
        with pytest.raises(TypeError, match=r"relevance.signal_to_noise\(draws, edges\)"):
            masks.signal_to_noise(FakePosterior({"a": torch.tensor([[0.9]])}), 1.0)  # type: ignore


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


class TestFalseDiscoveryRate:
    @settings(max_examples=60, deadline=None)
    @given(sixty_fourths, st.integers(0, 32))
    def test_is_the_largest_admissible_set(self, numerators, rate):
        # Multiples of 1/64 and 1/32 make all sums exact.
        p = torch.tensor(numerators, dtype=torch.float64) / 64
        mask = masks.false_discovery_rate({"a": p}, rate / 32)
        irrelevant = [Fraction(64 - n, 64) for n in numerators]
        largest = max(
            size
            for size in range(len(numerators) + 1)
            for subset in itertools.combinations(irrelevant, size)
            if sum(subset) <= Fraction(rate, 32) * size
        )
        assert mask.num_kept == largest
        assert mask.risk is not None
        assert mask.risk.false_discovery_rate <= rate / 32

    @settings(deadline=None)
    @given(sixty_fourths, st.floats(0, 1), st.floats(0, 1))
    def test_grows_with_the_rate(self, numerators, one, other):
        p = {"a": torch.tensor(numerators) / 64}
        low = masks.false_discovery_rate(p, min(one, other))
        high = masks.false_discovery_rate(p, max(one, other))
        assert low & high == low

    def test_ends(self):
        p = {"a": torch.tensor([1.0, 0.999, 0.0])}
        assert masks.false_discovery_rate(p, 0)["a"].tolist() == [True, False, False]
        assert masks.false_discovery_rate(p, 1).density == 1
        assert masks.false_discovery_rate({"a": torch.tensor([0.5])}, 0.05).num_kept == 0

    def test_over_groups_together(self):
        p = {"a": torch.tensor([1.0, 0.5]), "b": torch.tensor([1.0, 0.9])}
        mask = masks.false_discovery_rate(p, 0.05)
        assert mask["a"].tolist() == [True, False]
        assert mask["b"].tolist() == [True, True]
        assert mask.rule == (
            "keep the most edges whose mean probability of being irrelevant is at most 0.05"
        )

    def test_many_edges_in_double_precision(self):
        # 1 - p = 0.3 for each edge: admissible at 0.3 only if sums over 2**20 edges stay exact.
        p = {"a": torch.full((2**20,), 0.75)}
        assert masks.false_discovery_rate(p, 0.25).density == 1
        assert masks.false_discovery_rate(p, 0.2499999).num_kept == 0

    @pytest.mark.parametrize("rate", [-0.1, 5, math.nan])
    def test_errors(self, rate):
        with pytest.raises(ValueError, match=r"Expected a rate in \[0, 1\], but got"):
            masks.false_discovery_rate({"a": torch.tensor([0.5])}, rate)


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

    def test_only_candidate_groups_are_cut(self):
        scores = {"a": torch.tensor([2.0, 1.0]), "b": torch.zeros(3)}
        mask = masks.within_cost(scores, 4, cost=_count, groups=("a",))
        assert mask["a"].tolist() == [True, False]
        assert mask["b"].all()

    def test_infeasible(self):
        scores = {"a": torch.tensor([2.0, 1.0]), "b": torch.zeros(3)}
        with pytest.raises(ValueError, match="at least 3 of the given cost, but got 2") as error:
            masks.within_cost(scores, 2, cost=_count, groups=("a",))
        assert "Raise the budget" in str(error.value)
        with pytest.raises(ValueError, match="at least 3 parameters, but got 2"):
            masks.budget(scores, num_parameters=2, cost=_count, groups=("a",))
        with pytest.raises(ValueError, match="a number as limit, but got nan"):
            masks.within_cost(scores, math.nan, cost=_count)

    @pytest.mark.parametrize("unit", ["num_parameters", "num_macs", "num_bytes"])
    def test_units(self, unit):
        scores = {"a": torch.tensor([2.0, 1.0, 3.0])}
        mask = masks.budget(scores, **{unit: 2}, cost=_count)
        assert mask["a"].tolist() == [True, False, True]
        assert (
            mask.rule == f"keep the highest-scoring edges that cost at most 2 {unit[4:]} together"
        )

    def test_exactly_one_limit(self):
        scores = {"a": torch.tensor([2.0])}
        with pytest.raises(ValueError, match=r"exactly one of .* but got none"):
            masks.budget(scores, cost=_count)
        with pytest.raises(ValueError, match=r"but got \['num_macs', 'num_bytes'\]"):
            masks.budget(scores, num_macs=1, num_bytes=2, cost=_count)

    def test_edges_are_needed_to_count(self):
        scores = {"a": torch.tensor([2.0])}
        with pytest.raises(TypeError, match="edges of the network as edges=, but got NoneType"):
            masks.budget(scores, num_parameters=1)
        with pytest.raises(TypeError, match="but got int.*use top_fraction"):
            masks.budget(scores, num_parameters=1, edges=3)  # type: ignore[arg-type]

    def test_library_count(self):
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
