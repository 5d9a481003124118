"""Settings of a training that belong together, as frozen values.

`fit`, `train_plain` and `fine_tune` share them: an `Optimisation` says which steps are taken, an
`Estimation` how the loss of a step is estimated, an `Execution` how a step is computed. One value
serves many runs, is checked where it is made, and can be varied by ``dataclasses.replace``. For a
single run, the same functions accept each field as a keyword as well (`FitKeywords`); a keyword
overrides the field of its name. The names of these keywords are types, so that an editor completes
them and a type checker finds a misspelt one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Real
from typing import Any, TypedDict, TypeVar

import torch
from pyro.infer.elbo import ELBO
from torch.optim import Optimizer

from pyro_relevance.model.model import Noise
from pyro_relevance.model.precision import Precision
from pyro_relevance.training.batches import check_batch_size
from pyro_relevance.training.programs.adam import Adam
from pyro_relevance.training.schedules import Schedules, cosine, within

__all__ = [
    "Estimation",
    "Execution",
    "FitKeywords",
    "FitSettings",
    "MakeOptimizer",
    "Optimisation",
    "PlainKeywords",
    "check_counts",
    "check_keywords",
]

MakeOptimizer = Callable[[list[dict[str, Any]]], Optimizer]
"""What makes an optimiser from parameter groups with ``lr`` set."""

LEAST_STEPS = 5000
"""Steps of a run whose length is left to the library, at least."""

Value = TypeVar("Value", "Optimisation", "Estimation", "Execution")


@dataclass(frozen=True, slots=True)
class Optimisation:
    """Which steps a run takes.

    Args:
        num_epochs: How often the run goes through the data; not necessarily a whole number.
            ``None``: 100 times, or as often as 5,000 steps take.
        batch_size: Examples in a step; ``None`` for all.
        learning_rate: Step size of Adam for weights and for their posterior. ``None``: 0.001 where
            weights are points, and 0.01 where they have a posterior; it then falls along a cosine
            from the middle of the run on, unless the schedules change it.
        gate_learning_rate: Step size of Adam for the gates' log-odds.
        optimizer: Makes an optimiser from parameter groups with ``lr`` set; by default fused Adam.
        schedules: Temperature, KL weight and learning-rate factor by progress.
        max_seconds: Wall time of the steps, at most; the progress of the schedules is then the
            larger one of the shares of steps and of time, so that they are over when the run is.
            Runs with a limit depend on the clock: the same seed does not give the same numbers.

    Raises:
        ValueError: If a number is out of range.
    """

    num_epochs: float | None = None
    batch_size: int | None = 128
    learning_rate: float | None = None
    gate_learning_rate: float = 3e-2
    optimizer: MakeOptimizer | None = None
    schedules: Schedules = Schedules()
    max_seconds: float = math.inf

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_batch_size(self.batch_size)
        for name in ("num_epochs", "learning_rate", "gate_learning_rate", "max_seconds"):
            value = getattr(self, name)
            if value is None and name in ("num_epochs", "learning_rate"):
                continue
            if isinstance(value, bool) or not isinstance(value, Real):
                raise ValueError(f"Expected {name} to be a number, but got {value!r}.")
            if name == "max_seconds":
                continue  # may be infinite
            if not 0.0 < float(value) < math.inf:
                raise ValueError(f"Expected {name} > 0 and finite, but got {value}.")
        if not self.max_seconds > 0:
            raise ValueError(f"Expected max_seconds > 0, but got {self.max_seconds}.")

    def steps_per_epoch(self, num_data: int) -> int:
        """Return the number of steps in one epoch; the last one may have fewer examples.

        Args:
            num_data: Number of examples.
        """
        return math.ceil(num_data / (self.batch_size or num_data))

    def completed(self, steps_per_epoch: int, *, points: bool) -> Optimisation:
        """Return the settings with numbers where they leave the choice to the library.

        Args:
            steps_per_epoch: Steps of an epoch.
            points: Whether the weights are points.
        """
        epochs, rate, schedules = self.num_epochs, self.learning_rate, self.schedules
        steady = (schedules.learning_rate(i / 10) == 1.0 for i in range(11))
        if rate is None and not points and all(steady):
            # At a constant rate probabilities of gates go on to jitter: twice their error.
            falls = within(cosine(1.0, 0.01), start=0.5)
            schedules = replace(schedules, learning_rate=falls)
        return replace(
            self,
            num_epochs=max(100, LEAST_STEPS / steps_per_epoch) if epochs is None else epochs,
            learning_rate=(1e-3 if points else 1e-2) if rate is None else rate,
            schedules=schedules,
        )

    def num_steps(self, steps_per_epoch: int) -> int:
        """Return the number of steps of the run, at least one.

        Args:
            steps_per_epoch: Steps of an epoch.
        """
        assert self.num_epochs is not None, "see completed"
        return max(1, round(self.num_epochs * steps_per_epoch))

    def make_optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        """Return the optimiser of these parameter groups."""
        if self.optimizer is None:
            return Adam(groups)
        return self.optimizer(groups)


@dataclass(frozen=True, slots=True)
class Estimation:
    """How the negative ELBO of a step is estimated.

    Args:
        elbo: Another ELBO of ``pyro.infer`` than the lean one.
        noise: One draw of the gates for a minibatch (``"shared"``) or for each example
            (``"per_example"``).
        num_particles: Draws of the guide in each step.

    Raises:
        TypeError: If ``elbo`` is no ELBO.
        ValueError: If a setting is unknown, or the ELBO has several particles of its own.
    """

    elbo: ELBO | None = None
    noise: Noise = "shared"
    num_particles: int = 1

    def __post_init__(self) -> None:
        """Check the ELBO and the number of draws."""
        check_counts(num_particles=self.num_particles)
        if self.elbo is None:
            return
        if not isinstance(self.elbo, ELBO):
            raise TypeError(
                f"Expected an ELBO such as pyro.infer.TraceMeanField_ELBO(), but got {self.elbo!r}."
            )
        if self.elbo.num_particles != 1:
            raise ValueError(
                f"Expected an ELBO of one particle, but got num_particles="
                f"{self.elbo.num_particles}. Pass fit(..., num_particles=...), which moves "
                "BatchNorm statistics once a step."
            )


@dataclass(frozen=True, slots=True)
class Execution:
    """How and where a step is computed.

    Args:
        replay: Whether the tensor operators of a step may be recorded and replayed. That saves the
            time of Python in a step and changes no number. It needs the lean ELBO and a guide of
            the library. A recording takes as long as some ten steps: by default a kind of step is
            recorded as soon as the steps left are worth more than that. Pass False where a callback
            changes how the model computes (other than the values of its tensors), or to step
            through the model in a debugger.
        precision: Data type and memory format in which the network is computed while training:
            ``Precision(autocast=torch.bfloat16, channels_last=True)`` for convolutional networks.
        device: Where to train; by default where the model is.
        distributed: Whether the processes of torch's default group train one model together, each
            on its share of the examples (``torchrun``). All of them make the same call; a step has
            ``batch_size`` examples in all, and the first process writes files and shows progress.
    """

    replay: bool | None = None
    precision: Precision = Precision()
    device: torch.device | str | None = None
    distributed: bool = False


class PlainKeywords(TypedDict, total=False):
    """Fields of `Optimisation` and `Execution` that a training without gates accepts."""

    num_epochs: float | None
    batch_size: int | None
    learning_rate: float | None
    optimizer: MakeOptimizer | None
    schedules: Schedules
    max_seconds: float
    replay: bool | None
    precision: Precision
    device: torch.device | str | None
    distributed: bool


class FitKeywords(PlainKeywords, total=False):
    """Fields of `Optimisation`, `Estimation` and `Execution`, as keywords of ``fit``."""

    gate_learning_rate: float
    elbo: ELBO | None
    noise: Noise
    num_particles: int


@dataclass(frozen=True, slots=True)
class FitSettings:
    """All settings of a run that do not depend on model and data.

    Args:
        optimisation: Which steps are taken.
        estimation: How the loss of a step is estimated.
        execution: How a step is computed.
    """

    optimisation: Optimisation = field(default_factory=Optimisation)
    estimation: Estimation = field(default_factory=Estimation)
    execution: Execution = field(default_factory=Execution)

    def updated(self, keywords: Mapping[str, object]) -> FitSettings:
        """Return the settings with some fields of the three values replaced.

        Args:
            keywords: Field -> value, see `FitKeywords`.
        """
        return FitSettings(
            _updated(self.optimisation, keywords),
            _updated(self.estimation, keywords),
            _updated(self.execution, keywords),
        )

    def completed(self, steps_per_epoch: int, *, points: bool) -> FitSettings:
        """Return the settings with all numbers, see `Optimisation.completed`.

        Args:
            steps_per_epoch: Steps of an epoch.
            points: Whether the weights are points.
        """
        return replace(
            self, optimisation=self.optimisation.completed(steps_per_epoch, points=points)
        )

    def identity(self) -> dict[str, Any]:
        """Return what decides the numbers of a run, as JSON-able values, for its fingerprint.

        Schedules and optimiser have descriptions of their own, see ``describe_run``.
        """
        described = {
            "num_epochs": self.optimisation.num_epochs,
            "batch_size": self.optimisation.batch_size,
            "learning_rate": self.optimisation.learning_rate,
            "gate_learning_rate": self.optimisation.gate_learning_rate,
            "noise": self.estimation.noise,
            "num_particles": self.estimation.num_particles,
            "elbo": type(self.estimation.elbo).__name__,
        }
        if self.optimisation.max_seconds < math.inf:
            described["max_seconds"] = self.optimisation.max_seconds
        if self.execution.precision != Precision():
            described["precision"] = repr(self.execution.precision)
        return described


def check_keywords(function: str, keywords: Mapping[str, object], known: type) -> None:
    """Check the keywords of a call against those that its settings know.

    Args:
        function: Name of the function, for the message.
        keywords: Keyword -> value.
        known: `FitKeywords` or `PlainKeywords`.

    Raises:
        TypeError: If one is unknown.
    """
    names = sorted(known.__annotations__)
    unknown = sorted(set(keywords) - set(names))
    if unknown:
        raise TypeError(
            f"Expected settings of {function}() from {names}, but got an unexpected keyword "
            f"argument {', '.join(map(repr, unknown))}. See help({function}) for its other "
            "arguments."
        )


def check_counts(**counts: int) -> None:
    """Check that numbers of things are positive integers.

    Args:
        counts: Name -> number.

    Raises:
        ValueError: If one is not.
    """
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"Expected {name} to be a positive integer, but got {value!r}.")


def _updated(value: Value, keywords: Mapping[str, object]) -> Value:
    changes: dict[str, Any] = {
        known.name: keywords[known.name] for known in fields(value) if known.name in keywords
    }
    return replace(value, **changes)
