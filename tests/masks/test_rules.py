"""Rules by a threshold, and the false discovery rate."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_relevance import masks
from tests.small_masks import FakePosterior, sixty_fourths

INF = math.inf


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
        assert masks.signal_to_noise({"a": torch.tensor([0.0, 0.1])}, 0.0)["a"].tolist() == [
            False,
            True,
        ]
        with pytest.raises(ValueError, match="ratios >= 0, but group 'a' has -1"):
            masks.signal_to_noise({"a": torch.tensor([-1.0])}, 1.0)
        with pytest.raises(ValueError, match="ratio >= 0 as value, but got -1"):
            masks.signal_to_noise({"a": torch.tensor([1.0])}, -1.0)
        with pytest.raises(TypeError, match=r"relevance.signal_to_noise\(draws, edges\)"):
            masks.signal_to_noise(FakePosterior({"a": torch.tensor([[0.9]])}), 1.0)  # type: ignore


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
