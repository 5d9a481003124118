"""What searches over architectures share: held-out examples, short trainings, the final one."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from pyro_relevance._random import seeded, substream
from pyro_relevance.comparison.baselines.recipe import Recipe, Trained, seeded_network
from pyro_relevance.comparison.baselines.result import BaselineResult, Stage
from pyro_relevance.data.splits import split_examples
from pyro_relevance.edges.edges import Edges
from pyro_relevance.edges.find import find_edges
from pyro_relevance.errors import ArchitectureError
from pyro_relevance.graphs.architectures import Architecture, is_connected
from pyro_relevance.graphs.derivation import reinitialised_network
from pyro_relevance.posterior.evaluation import mean_log_likelihood
from pyro_relevance.search.queries import QuerySearch
from pyro_relevance.training.batches import whole_epochs

__all__ = [
    "DEAD",
    "QueryMethod",
    "search_by_training",
    "train_architecture",
    "train_plain_architecture",
]

DEAD = -1e3
"""Value, in nats, of an architecture without a path from input to output."""


class QueryMethod(Protocol):
    """A search that measures architectures one after the other: evolution, random search, ..."""

    def __call__(
        self,
        edges: Edges,
        evaluate: Callable[[Architecture], float],
        *,
        num_queries: int,
        seed: int,
    ) -> QuerySearch:
        """Search."""
        ...


def train_plain_architecture(
    make_network: Callable[[bool], nn.Module],
    architecture: Architecture,
    data: tuple[Tensor, Tensor],
    *,
    recipe: Recipe,
    num_epochs: float,
    until: float = math.inf,
    name: str,
    seed: int,
) -> Trained:
    """Train the plain network of an architecture from initial weights.

    Args:
        make_network: Makes the relaxed network, as of ``search_structure``.
        architecture: The choice of operations.
        data: The training examples.
        recipe: How it is trained.
        num_epochs: Epochs over them; less than one is that share of the examples, once.
        until: As of ``Recipe.train``.
        name: What the progress bar says.
        seed: Seed of everything.

    Raises:
        ArchitectureError: If the architecture leaves no path from input to output.
    """
    with seeded(substream(seed, name)):
        network = reinitialised_network(make_network(True), architecture, data[0][:2])
    data, number = whole_epochs(data, num_epochs)
    return recipe.train(network.train(), data, num_epochs=number, until=until, name=name, seed=seed)


def train_architecture(
    make_network: Callable[[bool], nn.Module],
    architecture: Architecture,
    data: tuple[Tensor, Tensor],
    *,
    recipe: Recipe,
    num_epochs: int,
    history: Sequence[Stage],
    seed: int,
) -> BaselineResult:
    """Return the result of a search whose architecture is trained from initial weights.

    Args:
        make_network: Makes the relaxed network, as of ``search_structure``.
        architecture: What was found.
        data: The training examples.
        recipe: How it is trained.
        num_epochs: Epochs over them.
        history: What was done before.
        seed: Seed of everything.

    Raises:
        ArchitectureError: If the architecture leaves no path from input to output.
    """
    trained = train_plain_architecture(
        make_network,
        architecture,
        data,
        recipe=recipe,
        num_epochs=num_epochs,
        until=recipe.deadline,
        name="final training",
        seed=seed,
    )
    stage = Stage.of(trained, "final training", "retraining")
    return BaselineResult.of(trained, architecture, [*history, stage], data[0][:2])


def search_by_training(
    method: QueryMethod,
    make_network: Callable[[bool], nn.Module],
    data: tuple[Tensor, Tensor],
    *,
    recipe: Recipe,
    num_queries: int,
    num_epochs_query: float,
    num_epochs_after: int,
    held_out: float = 0.2,
    share: float = 0.6,
    seed: int = 0,
) -> BaselineResult:
    """Run a search each of whose measurements is a short training from initial weights.

    Architectures without a path from input to output are not trained, and count as measured.

    Args:
        method: ``evolution``, ``random_search``, ``reinforce``, or ``functools.partial`` of one.
        make_network: Makes the relaxed network, as of ``search_structure``.
        data: ``x`` of shape ``(num_data, ...)`` and ``y`` of shape ``(num_data, ...)``.
        recipe: How networks are trained.
        num_queries: Measurements in all.
        num_epochs_query: Epochs of each over the examples that are not held out; less than one is
            that share of them, once.
        num_epochs_after: Epochs of the recommended architecture over all examples.
        held_out: Share of the examples whose mean log likelihood is the value.
        share: Share of the time for all measurements, where the recipe has a deadline.
        seed: Seed of everything.

    Returns:
        The network of the recommended architecture; the history has each measurement.

    Raises:
        ArchitectureError: If no architecture with a path from input to output was measured.
    """
    network = seeded_network(lambda: make_network(False), substream(seed, "network"))
    edges = find_edges(network, granularity="operation")
    with seeded(substream(seed, "split")):
        train, held = split_examples(data, held_out)
    short = dataclasses.replace(recipe, deadline=recipe.until(share))
    trainings = _Trainings(
        make_network, network, train, held, short, num_queries, num_epochs_query, seed
    )
    found = method(edges, trainings.evaluate, num_queries=num_queries, seed=seed)
    best = found.best()
    if not is_connected(network, best):
        raise ArchitectureError(
            f"Expected a connected architecture among {num_queries} queries, but got none. Ask for "
            "more queries."
        )
    return train_architecture(
        make_network,
        best,
        data,
        recipe=recipe,
        num_epochs=num_epochs_after,
        history=trainings.history,
        seed=seed,
    )


@dataclass(eq=False)
class _Trainings:
    """Short trainings of plain networks, each architecture once."""

    make_network: Callable[[bool], nn.Module]
    network: nn.Module
    train: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]
    recipe: Recipe
    num_queries: int
    num_epochs: float
    seed: int
    history: list[Stage] = field(default_factory=list)
    known: dict[str, float] = field(default_factory=dict)

    def evaluate(self, architecture: Architecture) -> float:
        """Return the mean held-out log likelihood in nats, and note what it cost."""
        started, key = time.perf_counter(), str(architecture)
        if key not in self.known:
            connected = is_connected(self.network, architecture)
            self.known[key] = self._measure(architecture) if connected else DEAD
        seconds = time.perf_counter() - started
        self.history.append(Stage(key, "search", self.num_epochs, seconds, self.known[key]))
        return self.known[key]

    def _measure(self, architecture: Architecture) -> float:
        trained = train_plain_architecture(
            self.make_network,
            architecture,
            self.train,
            recipe=self.recipe,
            num_epochs=self.num_epochs,
            until=self.recipe.until(1 / max(1, self.num_queries - len(self.history))),
            name=f"query {len(self.history) + 1}",
            seed=self.seed,
        )
        value = mean_log_likelihood(trained.network.eval(), trained.likelihood, self.held_out)
        return DEAD if math.isnan(value) else max(DEAD, value)
