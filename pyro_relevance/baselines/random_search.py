"""Architectures drawn at random: what every search has to beat."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pyro_relevance.edge_set import Edges
from pyro_relevance.graphs.architectures import Architecture
from pyro_relevance.query_search import QuerySearch, measured

__all__ = ["random_architecture", "random_search"]


def random_architecture(edges: Edges, generator: np.random.Generator) -> Architecture:
    """Return an architecture in which each edge has each of its operations equally often.

    Args:
        edges: The judged edges.
        generator: Source of the draws.
    """
    return Architecture(
        {g.name: g.labels[int(generator.integers(g.num_edges))] for g in edges.operations}
    )


def random_search(
    edges: Edges,
    evaluate: Callable[[Architecture], float],
    *,
    num_queries: int,
    seed: int = 0,
) -> QuerySearch:
    """Measure architectures drawn at random; the one with the largest value is recommended.

    Args:
        edges: The judged edges of the relaxed graphs.
        evaluate: Measures one architecture; larger is better.
        num_queries: Measurements in all.
        seed: Seed of the draws.

    Raises:
        ValueError: If ``num_queries`` is not positive, or a value is not finite.
    """
    if num_queries < 1:
        raise ValueError(f"Expected num_queries >= 1, but got {num_queries}.")
    generator = np.random.default_rng(seed)
    drawn = [random_architecture(edges, generator) for _ in range(num_queries)]
    return QuerySearch(tuple(drawn), tuple(measured(evaluate, item) for item in drawn))
