"""Masks: counts, risk, combinations, files."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_relevance import masks
from pyro_relevance.errors import EdgeError
from pyro_relevance.masks import Mask, Risk
from tests.small_masks import FakePosterior, one_group, two_group_edges

flags = st.lists(st.booleans(), min_size=6, max_size=6)


def two_groups(bits: list[bool]) -> Mask:
    kept = torch.tensor(bits)
    return Mask({"inputs": kept[:4], "0.weight": kept[4:].reshape(1, 2)})


class TestMask:
    def testcounts(self):
        mask = Mask({"a": torch.tensor([True, False, True]), "b": torch.tensor([[False, False]])})
        assert (mask.num_kept, mask.num_edges) == (2, 5)
        assert mask.density == 0.4
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

    def test_risk_is_zero_where_nothing_is_kept_or_removed(self):
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
        assert (~a).rule == "keep what this rule removes: [keep the first]"

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
            "risk, if the posterior is right: 0.25 of the kept edges are expected to be "
            "irrelevant (12.5%), 0.25 of the pruned edges relevant (25.0%)"
        )
        assert str(one_group(True)).endswith(
            "risk, if the posterior is right: not stated (no inclusion probabilities)"
        )
        assert str(Risk(33_512.4, 0.25, 0.0, 0.0)).startswith("33,512 of the kept edges")
        assert repr(one_group(True, False)) == (
            "Mask(1 / 2 kept in ['inputs'], rule='keep the edges given by hand')"
        )

    def test_all_and_none(self):
        edges = two_group_edges()
        assert Mask.all_kept(edges).density == 1
        assert (~Mask.all_kept(edges)).num_kept == 0
        assert list(Mask.all_kept(edges)) == ["inputs", "0.units"]

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
