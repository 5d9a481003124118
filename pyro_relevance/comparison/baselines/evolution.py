"""Evolution of architectures by tournaments and mutations.

References:
    Real, Moore, Selle, Saxena, Suematsu, Tan, Le, Kurakin, Large-scale evolution of image
    classifiers, ICML 2017. Real, Aggarwal, Huang, Le, Regularized evolution for image classifier
    architecture search, AAAI 2019, algorithm 1 (ageing).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pyro_relevance.comparison.baselines.random_search import random_architecture
from pyro_relevance.edges.edges import Edges
from pyro_relevance.graphs.architectures import Architecture
from pyro_relevance.search.queries import QuerySearch, measured

__all__ = ["evolution"]


def evolution(
    edges: Edges,
    evaluate: Callable[[Architecture], float],
    *,
    num_queries: int,
    population_size: int = 10,
    tournament_size: int = 5,
    ageing: bool = True,
    seed: int = 0,
) -> QuerySearch:
    """Measure children of tournament winners, each with one other operation.

    Args:
        edges: The gated edges of the relaxed graphs.
        evaluate: Measures one architecture; larger is better.
        num_queries: Measurements in all, those of the first population included.
        population_size: Architectures that live at a time.
        tournament_size: Members drawn for each tournament; the best of them has a child.
        ageing: Whether the oldest member dies, or else the worst one.
        seed: Seed of the draws.

    Returns:
        The search; the architecture with the largest value is recommended.

    Raises:
        ValueError: If the sizes do not fit each other, or a value is not finite.
    """
    if not 1 <= tournament_size <= population_size <= num_queries:
        raise ValueError(
            "Expected 1 <= tournament_size <= population_size <= num_queries, but got "
            f"{tournament_size}, {population_size} and {num_queries}."
        )
    generator = np.random.default_rng(seed)
    found: list[Architecture] = []
    values: list[float] = []
    living: list[int] = []
    while len(found) < num_queries:
        if len(found) < population_size:
            child = random_architecture(edges, generator)
        else:
            places = generator.choice(len(living), size=tournament_size, replace=False)
            parent = max((living[place] for place in places), key=lambda index: values[index])
            child = _mutated(found[parent], edges, generator)
        living.append(len(found))
        found.append(child)
        values.append(measured(evaluate, child))
        if len(living) > population_size:
            living.remove(living[0] if ageing else min(living, key=lambda index: values[index]))
    return QuerySearch(tuple(found), tuple(values))


def _mutated(parent: Architecture, edges: Edges, generator: np.random.Generator) -> Architecture:
    """One edge with another of its operations."""
    group = edges.operations[int(generator.integers(len(edges.operations)))]
    others = [label for label in group.labels if label != parent.operations[group.name]]
    changed = others[int(generator.integers(len(others)))]
    return Architecture({**parent.operations, group.name: changed})
