from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_relevance import diagnostics
from pyro_relevance.masks import Mask
from tests.bounds import standard_errors


def rows(*bits: str) -> list[Mask]:
    """Masks of one group, written as text of 0 and 1."""
    return [Mask({"inputs": torch.tensor([bit == "1" for bit in row])}) for row in bits]


class TestCalibration:
    def test_by_hand(self):
        p = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0, 0.625])
        truth = torch.tensor([False, True, False, True, True, True])
        table = diagnostics.calibration(p, truth, num_bins=2)
        assert table.lower.tolist() == [0, 0.5]
        assert table.upper.tolist() == [0.5, 1]
        assert table.count.tolist() == [2, 4]
        assert table.predicted.tolist() == [0.125, 2.875 / 4]
        assert table.observed.tolist() == [0.5, 0.75]
        variance = 0.5 * 0.5 + 0.75 * 0.25 + 0.625 * 0.375
        assert table.standard_error.tolist() == pytest.approx(
            [(0.25 * 0.75) ** 0.5 / 2, variance**0.5 / 4]
        )
        assert table.expected_calibration_error == pytest.approx(
            (2 * 0.375 + 4 * (0.75 - 2.875 / 4)) / 6
        )

    def test_empty_bins(self):
        table = diagnostics.calibration(torch.tensor([0.95]), torch.tensor([True]), num_bins=10)
        assert table.count.tolist() == [0] * 9 + [1]
        assert table.predicted[:9].isnan().all()
        assert table.observed[:9].isnan().all()
        assert table.expected_calibration_error == pytest.approx(0.05)

    def test_groups_are_pooled(self):
        p = {"a": torch.tensor([0.1, 0.9]), "b": torch.tensor([[0.9]])}
        truth = {"b": torch.tensor([[True]]), "a": torch.tensor([True, False])}
        table = diagnostics.calibration(p, truth, num_bins=2)
        assert table.count.tolist() == [1, 2]
        assert table.observed.tolist() == [1, 0.5]

    @pytest.mark.statistical
    def test_true_probabilities_are_calibrated(self):
        generator = torch.Generator().manual_seed(0)
        p = torch.rand(20_000, generator=generator)
        table = diagnostics.calibration(p, torch.bernoulli(p, generator=generator).bool())
        z = (table.observed - table.predicted).abs() / table.standard_error
        assert float(z.max()) < standard_errors(10)

    def test_errors(self):
        p, truth = torch.tensor([0.5]), torch.tensor([True])
        with pytest.raises(ValueError, match="num_bins >= 1, but got 0"):
            diagnostics.calibration(p, truth, num_bins=0)
        with pytest.raises(ValueError, match="truth of the shapes"):
            diagnostics.calibration(p, torch.tensor([True, False]))
        with pytest.raises(TypeError, match="truth as a bool tensor .* but got torch.int64"):
            diagnostics.calibration(p, torch.tensor([1]))
        with pytest.raises(TypeError, match=r"truth\['a'\] as a bool tensor"):
            diagnostics.calibration({"a": p}, {"a": torch.tensor([1])})
        with pytest.raises(TypeError, match="two tensors or two mappings, but got Tensor and dict"):
            diagnostics.calibration(p, {"a": truth})
        with pytest.raises(ValueError, match=r"in \[0, 1\], but got values from -1 to -1"):
            diagnostics.calibration(torch.tensor([-1.0]), truth)
        with pytest.raises(ValueError, match="got NaN"):
            diagnostics.calibration(torch.tensor([math.nan]), truth)
        with pytest.raises(ValueError, match="at least one inclusion probability"):
            diagnostics.calibration({}, {})


class TestKnownTruth:
    def test_by_hand(self):
        mask = Mask(
            {"inputs": torch.tensor([True, True, True, False]), "0.units": torch.tensor([False])}
        )
        truth = {"inputs": torch.tensor([True, False, False, True])}
        assert diagnostics.false_discovery_proportion(mask, truth) == 2 / 3
        assert diagnostics.power(mask, truth) == 0.5
        both = {**truth, "0.units": torch.tensor([True])}
        assert diagnostics.false_discovery_proportion(mask, both) == 2 / 3
        assert diagnostics.power(mask, both) == 1 / 3

    def test_ends(self):
        truth = {"inputs": torch.tensor([True, False])}
        none, everything = rows("00", "11")
        assert diagnostics.false_discovery_proportion(none, truth) == 0
        assert diagnostics.power(none, truth) == 0
        assert diagnostics.power(everything, truth) == 1

    def test_errors(self):
        (mask,) = rows("10")
        for measure in (diagnostics.false_discovery_proportion, diagnostics.power):
            with pytest.raises(ValueError, match=r"of shape \(2,\), but got \(3,\)"):
                measure(mask, {"inputs": torch.ones(3, dtype=torch.bool)})
            with pytest.raises(ValueError, match=r"of shape one of the groups \['inputs'\]"):
                measure(mask, {"x": torch.ones(2, dtype=torch.bool)})
            with pytest.raises(TypeError, match="bool tensor"):
                measure(mask, {"inputs": torch.ones(2)})
            with pytest.raises(ValueError, match="at least one of the groups"):
                measure(mask, {})
        with pytest.raises(ValueError, match="Power is undefined"):
            diagnostics.power(mask, {"inputs": torch.tensor([False, False])})


class TestStability:
    def test_by_hand(self):
        # p = (1, 1/2, 1/2, 0): s^2 = 2 * (0, 1/4, 1/4, 0), mean 1/4; density 1/2, chance 1/4.
        assert diagnostics.stability(rows("1100", "1010")).index == 0
        # p = (1, 1, 1/3, 0): s^2 mean = 3/2 * 2/9 / 4 = 1/12; density 7/12, chance 35/144.
        result = diagnostics.stability(rows("1100", "1100", "1110"))
        assert result.index == pytest.approx(1 - 12 / 35)
        # phi by the formula with k = (2, 2, 3): z.p = (2, 2, 7/3).
        density, index, chance = 7 / 12, 1 - 12 / 35, 35 / 144
        phi = [
            (zp / 4 - k / 4 * density + index / 2 * (2 * k / 4 * density - k / 4 - density + 1))
            / chance
            for zp, k in ((2, 2), (2, 2), (7 / 3, 3))
        ]
        mean = sum(phi) / 3
        variance = 4 / 9 * sum((value - mean) ** 2 for value in phi)
        assert result.variance == pytest.approx(variance)
        assert result.upper - result.index == pytest.approx(1.959964 * variance**0.5)
        assert result.index - result.lower == pytest.approx(1.959964 * variance**0.5)
        assert result.confidence == 0.95

    def test_worst_case_of_two(self):
        assert diagnostics.stability(rows("1100", "0011")).index == -1

    @settings(deadline=None)
    @given(st.lists(st.booleans(), min_size=1, max_size=8), st.integers(2, 5))
    def test_identical_masks(self, bits, num_masks):
        masks = [Mask({"a": torch.tensor(bits)})] * num_masks
        result = diagnostics.stability(masks)
        assert result.index == pytest.approx(1)
        assert result.variance == pytest.approx(0, abs=1e-12)
        assert result.lower == pytest.approx(1)

    @settings(deadline=None)
    @given(st.integers(2, 5), st.integers(1, 8), st.integers(0, 2**40 - 1))
    def test_range(self, num_masks, num_edges, bits):
        masks = rows(*(f"{bits:040b}"[i * 8 :][:num_edges] for i in range(num_masks)))
        result = diagnostics.stability(masks)
        assert -1 / (num_masks - 1) - 1e-9 <= result.index <= 1 + 1e-9
        assert result.variance >= 0
        reordered = diagnostics.stability(masks[::-1])
        assert reordered.index == pytest.approx(result.index)

    @settings(deadline=None)
    @given(st.integers(0, 2**24 - 1))
    def test_kept_and_pruned_are_symmetric(self, bits):
        masks = rows(*(f"{bits:024b}"[i * 8 :][:8] for i in range(3)))
        index = diagnostics.stability(masks).index
        if 0 < sum(mask.num_kept for mask in masks) < 24:
            assert diagnostics.stability([~mask for mask in masks]).index == pytest.approx(index)

    @pytest.mark.statistical
    def test_random_masks_have_none(self):
        generator = torch.Generator().manual_seed(0)
        indices = []
        for _ in range(200):
            z = torch.rand(10, 50, generator=generator) < 0.3
            indices.append(diagnostics.stability([Mask({"a": row}) for row in z]).index)
        values = torch.tensor(indices)
        error = float(values.std()) / 200**0.5
        # A ratio of means is biased by order 1 / (num_masks * num_edges).
        assert abs(float(values.mean())) < standard_errors() * error + 1 / 500

    @pytest.mark.statistical
    def test_variance_is_that_of_repeated_experiments(self):
        generator = torch.Generator().manual_seed(1)
        p = torch.rand(40, generator=generator)
        repeats = 300
        results = []
        for _ in range(repeats):
            z = torch.rand(50, 40, generator=generator) < p
            results.append(diagnostics.stability([Mask({"a": row}) for row in z]))
        spread = float(torch.tensor([r.index for r in results]).var())
        stated = float(torch.tensor([r.variance for r in results]).mean())
        # A sample variance of normal values has relative standard error sqrt(2 / (n - 1)); the
        # estimate is asymptotic, with a bias of order 1 / num_masks.
        allowed = standard_errors() * (2 / (repeats - 1)) ** 0.5 + 1 / 50
        assert abs(spread / stated - 1) < allowed

    def test_several_groups_count_together(self):
        parts = [
            Mask({"a": torch.tensor([True, False]), "b": torch.tensor([[b, True]])})
            for b in (True, False, False)
        ]
        flat = diagnostics.stability(rows("1011", "1001", "1001"))
        assert diagnostics.stability(parts) == flat

    def test_errors(self):
        with pytest.raises(ValueError, match="at least 2 masks, but got 1"):
            diagnostics.stability(rows("10"))
        with pytest.raises(ValueError, match=r"masks\[1\] has .*\(3,\)"):
            diagnostics.stability(rows("10", "100"))
        with pytest.raises(ValueError, match=r"confidence in \(0, 1\), but got 95"):
            diagnostics.stability(rows("10", "10"), confidence=95)


class TestChains:
    def test_largest_difference(self):
        p = {"inputs": torch.tensor([[0.0, 0.5], [0.25, 0.5], [1.0, 0.25]]), "u": torch.rand(3, 1)}
        result = diagnostics.between_chain_agreement(p)
        assert result.keys() == {"inputs"}
        assert result["inputs"].tolist() == [1.0, 0.25]

    def test_errors(self):
        with pytest.raises(ValueError, match="at least 2 chains in group 'inputs'"):
            diagnostics.between_chain_agreement({"inputs": torch.rand(1, 4)})
        with pytest.raises(ValueError, match="but got 'inputs'"):
            diagnostics.between_chain_agreement({"u": torch.rand(2, 4)})


class TestUndecided:
    @settings(deadline=None, max_examples=20)
    @given(st.lists(st.floats(0, 1, width=32), min_size=1))
    def test_counts(self, values):
        expected = sum(0.25 < p < 0.75 for p in values) / len(values)
        p = torch.tensor(values)
        assert diagnostics.undecided_fraction(p, 0.25, 0.75) == expected
        assert diagnostics.undecided_fraction({"a": p, "b": p}, 0.25, 0.75) == expected

    def test_errors(self):
        with pytest.raises(ValueError, match="0 <= low < high <= 1, but got low=0.9 and high=0.1"):
            diagnostics.undecided_fraction(torch.tensor([0.5]), 0.9, 0.1)
