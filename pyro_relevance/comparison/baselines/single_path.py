"""A supernet trained along random single paths, and the best random architecture by its weights.

References:
    Li, Talwalkar, Random search and reproducibility for neural architecture search, UAI 2019
    (random search with weight sharing). Guo et al., Single path one-shot neural architecture search
    with uniform sampling, ECCV 2020.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor, nn

from pyro_relevance._random import seeded, substream
from pyro_relevance.comparison.baselines.random_search import random_architecture
from pyro_relevance.comparison.baselines.recipe import Recipe, seeded_network
from pyro_relevance.comparison.baselines.result import BaselineResult, Stage
from pyro_relevance.comparison.baselines.searching import train_architecture
from pyro_relevance.data.splits import split_examples
from pyro_relevance.edges.find import find_edges
from pyro_relevance.errors import ArchitectureError
from pyro_relevance.graphs.architectures import Architecture, is_connected
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.model.priors import PointWeights
from pyro_relevance.model.relaxations import SampledPath
from pyro_relevance.search.shared_weights import SharedWeights
from pyro_relevance.training.callbacks import Callback
from pyro_relevance.training.schedules import Schedules, constant, cosine
from pyro_relevance.training.svi import Fit, fit

__all__ = ["single_path", "train_shared"]


def single_path(
    make_network: Callable[[bool], nn.Module],
    data: tuple[Tensor, Tensor],
    *,
    recipe: Recipe,
    num_epochs: int,
    num_candidates: int,
    num_epochs_after: int,
    held_out: float = 0.1,
    seed: int = 0,
) -> BaselineResult:
    """Train shared weights along uniform paths, compare random architectures, train the best.

    Args:
        make_network: Makes the relaxed network, as of ``search_structure``.
        data: ``x`` of shape ``(num_data, ...)`` and ``y`` of shape ``(num_data, ...)``.
        recipe: How networks are trained.
        num_epochs: Epochs of the supernet over the examples that are not held out.
        num_candidates: Random architectures that are compared on the held-out examples.
        num_epochs_after: Epochs of the best one, from initial weights, over all examples.
        held_out: Share of the examples that are held out.
        seed: Seed of everything.

    Returns:
        The derived network and its architecture; the history has the value of each candidate.

    Raises:
        ArchitectureError: If no candidate has a path from input to output.
        ValueError: If a number is not positive.
    """
    if num_candidates < 1:
        raise ValueError(f"Expected num_candidates >= 1, but got {num_candidates}.")
    network = seeded_network(lambda: make_network(False), substream(seed, "network"))
    edges = find_edges(network, granularity="operation")
    with seeded(substream(seed, "split")):
        train, held = split_examples(data, held_out)
    fitted = train_shared(network, train, recipe=recipe, num_epochs=num_epochs, seed=seed)
    loss = float(fitted.history.final_loss()[0])
    history = [Stage("single paths", "search", num_epochs, fitted.seconds, loss)]
    shared = SharedWeights(
        fitted.posterior.network(),
        fitted.posterior.likelihood,
        held,
        precision=recipe.precision,
    )
    generator = np.random.default_rng(substream(seed, "candidates"))
    candidates = [random_architecture(edges, generator) for _ in range(num_candidates)]
    best, compared = _best(network, candidates, shared)
    return train_architecture(
        make_network,
        best,
        data,
        recipe=recipe,
        num_epochs=num_epochs_after,
        history=[*history, *compared],
        seed=seed,
    )


def _best(
    network: nn.Module, candidates: Sequence[Architecture], value: SharedWeights
) -> tuple[Architecture, list[Stage]]:
    """The first of the best connected candidates, and what it took to compare them."""
    best: tuple[float, Architecture] | None = None
    history = []
    for architecture in candidates:
        started = time.perf_counter()
        if not is_connected(network, architecture):
            continue
        own = value(architecture)
        if best is None or own > best[0]:
            best = (own, architecture)
        seconds = time.perf_counter() - started
        history.append(Stage(str(architecture), "search", 0, seconds, own))
    if best is None:
        raise ArchitectureError(
            f"Expected a connected architecture among {len(candidates)} candidates, but got none. "
            "Ask for more candidates."
        )
    return best[1], history


def train_shared(
    network: nn.Module,
    data: tuple[Tensor, Tensor],
    *,
    recipe: Recipe,
    num_epochs: int,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
) -> Fit:
    """Train the weights of a relaxed network along uniform single paths.

    Args:
        network: The relaxed network; it is not changed.
        data: ``x`` of shape ``(num_data, ...)`` and ``y`` of shape ``(num_data, ...)``.
        recipe: How it is trained.
        num_epochs: Number of epochs.
        callbacks: Called after each step.
        seed: Seed of everything.
    """
    model = RelevanceModel(
        network,
        find_edges(network, granularity="operation"),
        likelihood=recipe.likelihood,
        num_data=len(data[0]),
        weight_prior=PointWeights(recipe.weight_scale),
        operation_relaxation=SampledPath(),
    )
    return fit(
        model,
        data,
        num_epochs=num_epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        # The posterior over operations stays at its start, the uniform one.
        schedules=Schedules(learning_rate=cosine(1.0, 0.05), gate_learning_rate=constant(0.0)),
        augment=recipe.augment,
        precision=recipe.precision,
        callbacks=[*recipe.bars("single paths"), *callbacks],
        progress=False,
        seed=seed,
    )
