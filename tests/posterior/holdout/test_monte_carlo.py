"""p-values against their definition, the rule against one by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pyro_relevance.posterior.holdout.monte_carlo import (
    MonteCarlo,
    benjamini_hochberg,
    monte_carlo,
    num_redraws_for,
)
from tests.bounds import assert_frequency


@pytest.mark.exact
def test_all_redraws_are_counted_where_few_are_as_good() -> None:
    losses = iter(np.arange(1.0, 101.0))
    p, number = monte_carlo(
        lambda n: [next(losses) for _ in range(n)], 3.5, num_redraws=100, stop_after=10
    )
    # 1, 2 and 3 are as good as 3.5.
    assert (p, number) == (4 / 101, 100)


@pytest.mark.exact
def test_it_stops_at_the_redraw_that_makes_it_enough() -> None:
    test = MonteCarlo(0.0, 1000, stop_after=3)
    test.add([-1, 1, 1, 0, 1])  # a tie counts
    assert not test.finished
    test.add([1, 1, -1, -1, -1, 1])
    assert test.finished
    assert test.p_value == 3 / 8


@pytest.mark.exact
def test_rounding_makes_no_difference() -> None:
    test = MonteCarlo(1.0, 5, stop_after=9)
    test.add([1.0 + 1e-7, 1.0 - 1e-7, 1.0 + 1e-4])
    assert test.p_value == 3 / 4


@pytest.mark.exact
def test_blocks_grow_up_to_the_limit() -> None:
    asked: list[int] = []

    def redraw(number: int) -> np.ndarray:
        asked.append(number)
        return np.ones(number)

    monte_carlo(redraw, 0.0, num_redraws=250)
    assert asked == [40, 40, 80, 90]


@pytest.mark.statistical
def test_the_p_value_is_valid_under_the_null() -> None:
    generator = np.random.default_rng(0)
    p = torch.tensor(
        [
            monte_carlo(generator.random, generator.random(), num_redraws=99, stop_after=10)[0]
            for _ in range(4000)
        ]
    )
    # Exact at the values that it can take: 10 / 99 and below only without stopping.
    for level in (0.05, 0.1, 10 / 40, 10 / 20):
        assert_frequency(p <= level + 1e-9, torch.tensor(level))


@pytest.mark.exact
def test_benjamini_hochberg_by_hand() -> None:
    p = [0.01, 0.04, 0.03, 0.2, 0.9]
    # Steps at rate 0.1: 0.02, 0.04, 0.06, 0.08, 0.1; sorted p: 0.01, 0.03, 0.04, 0.2, 0.9.
    assert benjamini_hochberg(p, 0.1).tolist() == [True, True, True, False, False]
    # A p-value equal to its step is rejected.
    assert benjamini_hochberg([0.1, 0.3], 0.2).tolist() == [True, False]
    assert not benjamini_hochberg([], 0.1).size
    assert not benjamini_hochberg([0.06, 1.0], 0.1).any()


@pytest.mark.exact
@pytest.mark.parametrize(("num_tests", "rate"), [(13, 0.1), (100, 0.05), (7, 0.2)])
def test_one_p_value_alone_can_pass(num_tests: int, rate: float) -> None:
    number = num_redraws_for(num_tests, rate)
    smallest = 1 / (1 + number)
    assert benjamini_hochberg([smallest] + [1.0] * (num_tests - 1), rate)[0]
    assert number >= 100
