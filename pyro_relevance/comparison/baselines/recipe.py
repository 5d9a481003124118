"""How networks are trained in a comparison: the same recipe for all methods."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from torch import Tensor, nn

from pyro_relevance._random import seeded
from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.model.precision import Precision
from pyro_relevance.model.priors import PointWeights
from pyro_relevance.training.callbacks import Callback, ProgressBar, TrainingState
from pyro_relevance.training.plain import FALLING, train_plain
from pyro_relevance.training.schedules import Schedules
from pyro_relevance.training.svi import Fit

__all__ = ["Recipe", "StepTimer", "Trained", "length", "seeded_network"]

HEADROOM = 4.0
"""How often its planned epochs a training does, at most, that goes on until a time."""
SHORTEST = 1e-9
"""Seconds of a training whose time is over: one step."""


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A network after a training.

    Args:
        network: The network, in evaluation mode.
        likelihood: The likelihood with what it learned (a noise scale, say).
        loss: Negative log posterior at the end, in nats.
        seconds: Wall time.
        num_epochs: Epochs that were done.
    """

    network: nn.Module
    likelihood: Likelihood
    loss: float
    seconds: float
    num_epochs: float


@dataclass(frozen=True)
class Recipe:
    """The training that all methods of a comparison share: Adam, and a Gaussian prior.

    Args:
        likelihood: Distribution of the target given a network's outputs.
        batch_size: Examples in a step.
        learning_rate: Step size of Adam at the start.
        weight_scale: Prior standard deviation of the weights.
        retraining_rate: Step size of Adam at the start of the training of a network that was
            pruned, as a share of `learning_rate`.
        schedules: Learning-rate factor by progress; by default a cosine to 1 %.
        augment: Changes the inputs of each minibatch at random.
        precision: How networks are computed while they are trained.
        progress: Whether progress bars are shown.
        deadline: When a method has to be done, in seconds of ``time.perf_counter``. Its trainings
            share the time that is left, and learning rates fall in time. Infinite where they end
            with their epochs.
    """

    likelihood: Likelihood
    batch_size: int = 128
    learning_rate: float = 3e-3
    weight_scale: float = 1.0
    retraining_rate: float = 1.0
    schedules: Schedules = FALLING
    augment: Callable[[Tensor], Tensor] | None = None
    precision: Precision = Precision()
    progress: bool = False
    deadline: float = math.inf

    def train(
        self,
        network: nn.Module,
        data: tuple[Tensor, Tensor],
        *,
        num_epochs: float,
        retraining: bool = False,
        until: float = math.inf,
        zeros: Mapping[str, Tensor] | None = None,
        name: str = "training",
        callbacks: Sequence[Callback] = (),
        seed: int = 0,
    ) -> Trained:
        """Train a network.

        Args:
            network: The network; it is not changed.
            data: ``x`` of shape ``(num_data, ...)`` and ``y`` of shape ``(num_data, ...)``.
            num_epochs: Number of epochs; with 0 the network stays as it is.
            retraining: Whether the network was pruned, see `retraining_rate`.
            until: When the training is to end, see `until` and `length`.
            zeros: See ``train_plain``.
            name: What the progress bar says.
            callbacks: Called after each step.
            seed: Seed of the minibatches.
        """
        if num_epochs == 0:
            return Trained(network, self.likelihood, float("nan"), 0.0, 0)
        fitted = train_plain(
            network,
            data,
            likelihood=self.likelihood,
            num_data=len(data[0]),
            **length(num_epochs, until),
            batch_size=self.batch_size,
            learning_rate=self.learning_rate * (self.retraining_rate if retraining else 1.0),
            zeros=zeros,
            weight_prior=PointWeights(self.weight_scale),
            schedules=self.schedules,
            augment=self.augment,
            precision=self.precision,
            callbacks=[*self.bars(name), *callbacks],
            seed=seed,
        )
        loss = float(fitted.history.final_loss()[0])
        posterior = fitted.posterior
        return Trained(
            posterior.network(),
            posterior.likelihood,
            loss,
            fitted.seconds,
            self.epochs(fitted, data),
        )

    def epochs(self, fitted: Fit, data: tuple[Tensor, Tensor]) -> float:
        """Return how many epochs a fit has done.

        Args:
            fitted: The fit.
            data: As of `train`.
        """
        return fitted.num_steps / math.ceil(len(data[0]) / self.batch_size)

    def until(self, share: float) -> float:
        """Return when a share of the time that is left until the deadline will be over.

        Args:
            share: The share, in [0, 1].
        """
        if self.deadline == math.inf:
            return math.inf
        now = time.perf_counter()
        return now + share * (self.deadline - now)

    def bars(self, name: str) -> list[Callback]:
        """Return the progress bar, where there is to be one."""
        return [ProgressBar(name)] if self.progress else []


class Length(TypedDict):
    """Keywords of ``fit``: how long it trains."""

    num_epochs: float
    max_seconds: float


def length(num_epochs: float, until: float) -> Length:
    """Return how long a training goes on: some epochs, or until a time where it has one.

    In that time up to `HEADROOM` times the epochs are done, since they were planned by the pace of
    a few steps. One step is taken where the time is over.

    Args:
        num_epochs: Number of epochs that were planned.
        until: When it is to end, in seconds of ``time.perf_counter``; infinite for no such time.
    """
    if until == math.inf:
        return {"num_epochs": num_epochs, "max_seconds": math.inf}
    left = max(SHORTEST, until - time.perf_counter())
    return {"num_epochs": HEADROOM * num_epochs, "max_seconds": left}


class StepTimer:
    """A callback that times steps, and then stops the run.

    At least `num_steps` are timed, and up to 200 in two seconds. The median counts, since the first
    steps also allocate memory and record the operators of a step.

    Args:
        num_steps: Steps that are timed, at least.
    """

    def __init__(self, num_steps: int = 12) -> None:
        self.num_steps = num_steps
        self.most = max(num_steps, 200)
        self.times: list[float] = []

    def __call__(self, state: TrainingState) -> bool:
        """Look at the clock."""
        self.times.append(time.perf_counter())
        number = len(self.times) - 1
        enough = number >= self.num_steps and self.times[-1] - self.times[0] > 2
        return enough or number >= self.most

    def per_step(self) -> float:
        """Return the median seconds of a step.

        Raises:
            ValueError: If there was no step to time.
        """
        if len(self.times) < 2:
            raise ValueError("Expected at least two steps to time one, but there were fewer.")
        return statistics.median(b - a for a, b in itertools.pairwise(self.times))


def seeded_network(make_network: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Return a network with the initial weights of a seed.

    Args:
        make_network: Makes the network, where the data are.
        seed: The seed.
    """
    with seeded(seed):
        return make_network()
