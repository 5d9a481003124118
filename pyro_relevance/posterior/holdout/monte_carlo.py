"""Monte Carlo p-values that stop early, and the Benjamini-Hochberg rule over them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

__all__ = ["MonteCarlo", "benjamini_hochberg", "monte_carlo", "num_redraws_for"]

STOP_AFTER = 20
"""Redraws as good as the data after which more of them no longer matter."""

FIRST = 40
"""Redraws computed at once at first; later blocks are as large as all before together."""


class MonteCarlo:
    """A p-value, made block by block.

    Args:
        observed: Loss of the data.
        num_redraws: Most redraws.
        stop_after: Redraws no worse than the data after which the test ends.
    """

    def __init__(self, observed: float, num_redraws: int, stop_after: int = STOP_AFTER) -> None:
        self.observed = observed
        self.num_redraws = num_redraws
        self.stop_after = stop_after
        self.num_drawn = 0
        self.num_hits = 0
        self._stopped_at: int | None = None

    @property
    def finished(self) -> bool:
        """Whether no more redraws are needed."""
        return self._stopped_at is not None or self.num_drawn >= self.num_redraws

    @property
    def next_block(self) -> int:
        """Number of redraws to compute next."""
        return min(max(FIRST, self.num_drawn), self.num_redraws - self.num_drawn)

    def add(self, losses: ArrayLike) -> None:
        """Count the losses of a block of redraws, ``(num_redraws,)``."""
        # Rounding differs between batches of different size: what is equal to it is a tie.
        slack = 1e-6 * abs(self.observed)
        hits = np.flatnonzero(np.asarray(losses) <= self.observed + slack)
        if self._stopped_at is None and self.num_hits + len(hits) >= self.stop_after:
            last = hits[self.stop_after - self.num_hits - 1]
            self._stopped_at = self.num_drawn + int(last) + 1
        self.num_hits += len(hits)
        self.num_drawn += len(np.asarray(losses))

    @property
    def p_value(self) -> float:
        """The p-value: ``h / l`` where the h-th hit was redraw l, else ``(1 + hits) / (1 + B)``."""
        if self._stopped_at is not None:
            return self.stop_after / self._stopped_at
        return (1 + self.num_hits) / (1 + self.num_drawn)


def monte_carlo(
    redraw: Callable[[int], ArrayLike],
    observed: float,
    *,
    num_redraws: int,
    stop_after: int = STOP_AFTER,
) -> tuple[float, int]:
    """Return the p-value of a loss among those of redraws, and how many redraws it took.

    Redraws are made until `stop_after` of them are no worse than the data (then
    ``p = stop_after / number made``), or until there are `num_redraws` (then
    ``p = (1 + hits) / (1 + num_redraws)``). Both are valid: ``P(p <= u) <= u`` where the data are
    one more redraw. Columns that do not matter stop after a few dozen.

    Args:
        redraw: From a number of redraws to their losses, ``(number,)``.
        observed: Loss of the data; smaller is better.
        num_redraws: Most redraws; the smallest possible p-value is ``1 / (1 + num_redraws)``.
        stop_after: Hits after which the test ends.

    References:
        Besag and Clifford, Sequential Monte Carlo p-values, Biometrika 1991.
    """
    test = MonteCarlo(observed, num_redraws, stop_after)
    while not test.finished:
        test.add(redraw(test.next_block))
    return test.p_value, test.num_drawn


def num_redraws_for(num_tests: int, rate: float) -> int:
    """Return how many redraws let one p-value alone pass Benjamini-Hochberg's first step.

    The first step compares with ``rate / num_tests``; twice the redraws that reach it leave room
    for one hit by chance.

    Args:
        num_tests: Number of p-values.
        rate: False discovery rate.
    """
    return max(100, math.ceil(2 * num_tests / rate))


def benjamini_hochberg(p_values: ArrayLike, rate: float) -> NDArray[np.bool_]:
    """Return which hypotheses are rejected at a false discovery rate.

    The rate holds for independent p-values and for those with positive regression dependence.

    Args:
        p_values: ``(num_tests,)``.
        rate: False discovery rate.

    References:
        Benjamini and Hochberg, Controlling the false discovery rate, JRSS B 1995.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if not values.size:
        return np.zeros(0, dtype=bool)
    # A p-value of exactly rate * k / m is rejected, also where rounding lifts the adjusted one.
    adjusted = stats.false_discovery_control(values, method="bh")
    return np.asarray(adjusted <= rate * (1 + 1e-12))
