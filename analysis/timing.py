"""Times of two computations in turn, in one process on one thread: both meet the same machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyro_relevance.commands.table.job import one_thread

__all__ = ["Rounds", "alternate", "milliseconds", "one_thread"]


@dataclass(frozen=True)
class Rounds:
    """Times of two computations that took turns.

    Args:
        times: Milliseconds of the first and of the second in each round.
    """

    times: tuple[tuple[float, float], ...]

    @property
    def first_ms(self) -> float:
        """Median milliseconds of the first."""
        return statistics.median(first for first, _ in self.times)

    @property
    def second_ms(self) -> float:
        """Median milliseconds of the second."""
        return statistics.median(second for _, second in self.times)

    @property
    def slowdown(self) -> float:
        """Median over the rounds of the time of the second in times of the first."""
        return statistics.median(second / first for first, second in self.times)

    @property
    def speedup(self) -> float:
        """Median over the rounds of the time of the first in times of the second."""
        return statistics.median(first / second for first, second in self.times)


def milliseconds(step: Callable[[], Any], num_steps: int) -> float:
    """Return the mean wall time of some steps.

    Args:
        step: The computation.
        num_steps: How often it is done.
    """
    started = time.perf_counter()
    for _ in range(num_steps):
        step()
    return (time.perf_counter() - started) / num_steps * 1e3


def alternate(
    first: Callable[[], Any], second: Callable[[], Any], *, num_rounds: int, num_steps: int = 1
) -> Rounds:
    """Time two computations in turn.

    Args:
        first: One of them.
        second: The other.
        num_rounds: Turns of each.
        num_steps: How often each is done in a turn.
    """
    return Rounds(
        tuple(
            (milliseconds(first, num_steps), milliseconds(second, num_steps))
            for _ in range(num_rounds)
        )
    )
