"""Architectures drawn at random: the control of every search."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from pyro_relevance._random import substream
from pyro_relevance.comparison.baselines.recipe import Recipe, seeded_network
from pyro_relevance.comparison.baselines.result import BaselineResult
from pyro_relevance.comparison.baselines.searching import train_architecture
from pyro_relevance.edges.edges import Edges
from pyro_relevance.edges.find import find_edges
from pyro_relevance.errors import ArchitectureError
from pyro_relevance.graphs.architectures import Architecture, is_connected
from pyro_relevance.search.queries import QuerySearch, measured

__all__ = ["random_architecture", "random_search", "train_random_architecture"]

NUM_DRAWS = 1000
"""Draws after which no connected architecture is expected any more."""


def random_architecture(edges: Edges, generator: np.random.Generator) -> Architecture:
    """Return an architecture in which each edge has each of its operations equally often.

    Args:
        edges: The gated edges.
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
        edges: The gated edges of the relaxed graphs.
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


def train_random_architecture(
    make_network: Callable[[bool], nn.Module],
    data: tuple[Tensor, Tensor],
    *,
    recipe: Recipe,
    num_epochs: int,
    rule: Callable[[Edges, Mapping[str, Tensor]], Architecture] | None = None,
    seed: int = 0,
) -> BaselineResult:
    """Train one random architecture for the whole time: the control without a search.

    Args:
        make_network: Makes the relaxed network, as of ``search_structure``.
        data: ``x`` of shape ``(num_data, ...)`` and ``y`` of shape ``(num_data, ...)``.
        recipe: How it is trained.
        num_epochs: Number of epochs.
        rule: From random probabilities of the operations (uniform on the simplex) to an
            architecture, ``graphs.spaces.top_edges`` for cells of two edges into each node; by
            default each edge has each of its operations equally often.
        seed: Seed of everything.

    Returns:
        The derived network and its architecture, the first draw with a path from input to output.

    Raises:
        ArchitectureError: If there is none in a thousand draws.
    """
    network = seeded_network(lambda: make_network(False), substream(seed, "network"))
    edges = find_edges(network, granularity="operation")
    generator = np.random.default_rng(substream(seed, "architecture"))

    def draw() -> Architecture:
        if rule is None:
            return random_architecture(edges, generator)
        chances = {g.name: generator.dirichlet(np.ones(g.num_edges)) for g in edges.operations}
        return rule(edges, {name: torch.from_numpy(p) for name, p in chances.items()})

    draws = itertools.islice(iter(draw, None), NUM_DRAWS)
    for architecture in draws:
        if is_connected(network, architecture):
            return train_architecture(
                make_network,
                architecture,
                data,
                recipe=recipe,
                num_epochs=num_epochs,
                history=(),
                seed=seed,
            )
    raise ArchitectureError(
        f"Expected a connected architecture among {NUM_DRAWS} random ones, but got none. Leave "
        "'none' out of the operations."
    )
