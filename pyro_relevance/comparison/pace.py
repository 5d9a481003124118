"""How long an epoch over the data of a task takes on this machine, measured by a few steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
from torch import nn

from pyro_relevance._random import seeded
from pyro_relevance.comparison.baselines.random_search import random_architecture
from pyro_relevance.comparison.baselines.recipe import StepTimer, seeded_network
from pyro_relevance.comparison.baselines.searching import train_plain_architecture
from pyro_relevance.comparison.tasks import Task
from pyro_relevance.edges.find import find_edges
from pyro_relevance.graphs import Architecture, is_connected
from pyro_relevance.graphs.derivation import reinitialised_network
from pyro_relevance.posterior.evaluation import mean_log_likelihood
from pyro_relevance.training.callbacks import Callback

__all__ = [
    "number_of_candidates",
    "epochs_in_steps",
    "epochs_within",
    "epochs_or_share",
    "seconds_of_architectures",
    "seconds_of_network",
    "seconds_of_query",
    "seconds_per_epoch",
    "steps_per_epoch",
]

NUM_CANDIDATES = 100
LONG_RUN = 2000
SHORT = 0.02
"""Seconds of a step below which recorded operators count."""


def seconds_per_epoch(task: Task, train: Callable[[int, list[Callback]], object]) -> float:
    """Return the seconds of an epoch over the training data, from some of its steps.

    Args:
        task: The task.
        train: A training that takes a number of epochs and callbacks.
    """
    steps = steps_per_epoch(task)

    def measured(num_steps: int) -> float:
        timer = StepTimer()
        train(math.ceil(num_steps / steps), [timer])
        return timer.per_step()

    each = measured(StepTimer().most + 1)
    if each < SHORT:
        # A run of this length records the operators of a step. Where steps are long, that takes
        # long and saves little.
        each = min(each, measured(LONG_RUN))
    return each * steps


def steps_per_epoch(task: Task) -> int:
    """Return the number of steps of an epoch over the training data.

    Args:
        task: The task.
    """
    return math.ceil(len(task.data.train[0]) / task.recipe.batch_size)


def seconds_of_network(task: Task, network: nn.Module) -> float:
    """Return the seconds of an epoch of a network.

    Args:
        task: The task.
        network: The network; it is not changed.
    """
    return seconds_per_epoch(
        task,
        lambda num_epochs, callbacks: task.recipe.train(
            network, task.data.train, num_epochs=num_epochs, callbacks=callbacks
        ),
    )


def _architectures(task: Task, number: int, seed: int) -> list[Architecture]:
    """Random architectures with a path from input to output."""
    generator, relaxed = np.random.default_rng(seed), task.make_space(True)
    edges = find_edges(relaxed, granularity="operation")
    found: list[Architecture] = []
    while len(found) < number:
        architecture = random_architecture(edges, generator)
        if is_connected(relaxed, architecture):
            found.append(architecture)
    return found


def seconds_of_architectures(task: Task, seed: int) -> float:
    """Return the seconds of an epoch of derived networks, the mean of two random ones.

    Args:
        task: The task.
        seed: Seed of the architectures.
    """
    relaxed, times = task.make_space(True), []
    for architecture in _architectures(task, 2, seed):
        with seeded(seed):
            network = reinitialised_network(relaxed, architecture, task.data.train[0][:2])
        times.append(seconds_of_network(task, network.train()))
    return sum(times) / len(times)


def seconds_of_query(task: Task, seed: int) -> float:
    """Return the seconds of a query with a few steps: what each costs beside its epochs.

    Args:
        task: The task.
        seed: Seed of the architecture.
    """
    (architecture,) = _architectures(task, 1, seed)
    (x, y), number = task.data.train, task.recipe.batch_size
    started = time.perf_counter()
    train_plain_architecture(
        task.make_space,
        architecture,
        (x[:number], y[:number]),
        recipe=task.recipe,
        num_epochs=6,  # steps; their operators are recorded in the first ones
        name="query",
        seed=seed,
    )
    return time.perf_counter() - started


def number_of_candidates(task: Task, seconds: float, seed: int) -> int:
    """Return how many architectures can be compared on a tenth of the data by shared weights.

    Args:
        task: The task.
        seconds: The time for it.
        seed: Seed of the weights.
    """
    network = seeded_network(lambda: task.make_space(False), seed).eval()
    x, y = task.data.train
    number = min(500, len(x))
    started = time.perf_counter()
    mean_log_likelihood(network, task.recipe.likelihood, (x[:number], y[:number]))
    # The relaxed network computes all operations, a candidate only some of them. The true number
    # is larger.
    each = (time.perf_counter() - started) * 0.1 * len(x) / number
    return max(2, min(NUM_CANDIDATES, int(seconds / each)))


def epochs_within(seconds: float, per_epoch: float) -> int:
    """Return how many epochs fit into a time, at least one.

    Args:
        seconds: The time.
        per_epoch: Seconds of an epoch.
    """
    return max(1, int(seconds / per_epoch))


def epochs_in_steps(task: Task, seconds: float, per_epoch: float) -> float:
    """Return how many epochs fit into a time: a whole number of steps, at least one.

    Args:
        task: The task.
        seconds: The time.
        per_epoch: Seconds of an epoch.
    """
    steps = steps_per_epoch(task)
    return max(1, round(steps * seconds / per_epoch)) / steps


def epochs_or_share(seconds: float, per_epoch: float) -> float:
    """Return how many epochs fit into a time: a whole number, or a share of one (at least 2 %).

    Args:
        seconds: The time.
        per_epoch: Seconds of an epoch.
    """
    number = seconds / per_epoch
    return int(number) if number >= 1 else max(0.02, number)
