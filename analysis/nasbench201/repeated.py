"""Searches by queries, repeated with many seeds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pyro_relevance.search.queries import QuerySearch

__all__ = ["TimedSearch", "repeat"]


@dataclass(frozen=True)
class TimedSearch:
    """A search and its wall time.

    Args:
        result: What it found, query by query.
        seconds: Its wall time.
    """

    result: QuerySearch
    seconds: float


def repeat(
    searches: Mapping[str, Callable[[int], QuerySearch]], num_seeds: int
) -> dict[str, list[TimedSearch]]:
    """Return each search with the seeds 0, 1, and so on.

    Args:
        searches: Name of a search -> the search, called with a seed.
        num_seeds: Repetitions of each.
    """
    found: dict[str, list[TimedSearch]] = {name: [] for name in searches}
    for seed in range(num_seeds):
        for name, search in searches.items():
            started = time.perf_counter()
            result = search(seed)
            found[name].append(TimedSearch(result, time.perf_counter() - started))
        if seed % 20 == 0:
            print(f"seed {seed}", flush=True)
    return found
