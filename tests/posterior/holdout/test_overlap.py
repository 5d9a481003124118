"""The correction for folds against simulated networks that have learned chance alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from pyro_relevance.posterior.holdout.overlap import corrected, null_spread, z_score
from tests.bounds import assert_frequency


@pytest.mark.statistical
@pytest.mark.parametrize("num_folds", [2, 5, 10])
def test_the_bound_is_reached_by_networks_of_pure_chance(num_folds: int) -> None:
    generator = np.random.default_rng(0)
    c = generator.normal(size=(4000, num_folds, 60))  # many directions: nearly normal
    b = c.sum(1, keepdims=True) - c
    z = (b * c).sum((1, 2)) / np.sqrt(np.square(b).sum((1, 2)))
    assert z.std() == pytest.approx(2**0.5, abs=0.06)
    p = corrected(z, 2**0.5, 0.0)
    assert_frequency(torch.as_tensor(p < 0.05), torch.tensor(0.05))


@pytest.mark.exact
def test_the_spread_by_hand() -> None:
    # Without a column below zero it is the bound, and it never leaves its limits.
    assert null_spread([3.0, 9.0]) == pytest.approx(2**0.5)
    assert null_spread([-4.0, -4.0, 5.0]) == pytest.approx(2**0.5)
    assert null_spread([-1.0, -0.5, 7.0]) == pytest.approx(((24 + 1.25) / 14) ** 0.5)
    # Ties of columns that are not read say that nothing was fitted to them.
    assert null_spread([-6.0] * 4) == pytest.approx((24 / 16) ** 0.5)
    assert null_spread([-6.0] * 40) == 1.0


@pytest.mark.exact
def test_z_scores_continue_the_ranks() -> None:
    generator = np.random.default_rng(1)
    losses = generator.normal(size=100_000)
    # Enough hits: the normal score of the p-value; few: moments. Both are the truth here.
    assert z_score(0.025, 50, -1.96, losses) == pytest.approx(1.96, abs=0.001)
    assert z_score(1e-5, 0, -4.5, losses) == pytest.approx(4.5, abs=0.1)
    skewed = generator.gamma(4.0, size=100_000)
    exact = stats.norm.isf(stats.gamma.cdf(0.3, 4.0))
    assert z_score(1e-5, 3, 0.3, skewed) == pytest.approx(exact, abs=0.15)
    assert np.isfinite(z_score(1e-5, 0, -1e6, losses))
    assert z_score(1.0, 100, 0.0, np.zeros(100)) < -5


@pytest.mark.exact
def test_no_p_value_is_smaller_than_redraws_can_show() -> None:
    assert corrected([10.0, 0.0], 1.2, [0.01, 0.01]).tolist() == [0.01, 0.5]
    assert corrected([1.96], 1.0, [0.0]) == pytest.approx(0.025, abs=1e-4)
