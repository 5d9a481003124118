"""Settings of a search for a structure, as one frozen value."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import Tensor

from pyro_relevance.model.precision import Precision
from pyro_relevance.model.priors import (
    CategoricalPrior,
    GatePrior,
    IndependentPrior,
    OperationPrior,
    PointWeights,
)
from pyro_relevance.model.relaxations import Mixture, OperationRelaxation, SampledPath
from pyro_relevance.training.plain import FALLING
from pyro_relevance.training.schedules import Schedules, after, constant, cosine, exponential
from pyro_relevance.training.settings import Execution, Optimisation

__all__ = ["Evaluation", "Finalists", "SearchSettings"]

Evaluation = Literal["path", "mixture"]
Finalists = Literal["best", "draws", "probable"]


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search.

    Args:
        shared: Whether the weights of the candidates serve the search alone (and the winner is
            trained from initial weights), see `search_structure`.
        granularity: What is gated beside the operations, in the same model: ``("unit",)``,
            ``("weight",)``, both, or nothing (where ``shared`` is False).
        num_epochs: Epochs over the training examples in the search.
        num_epochs_after: Epochs of the derived network: of further training of the inherited
            weights, or of the final training from initial weights; 0 for none of the former.
        batch_size: Examples in a step.
        learning_rate: Step size of Adam for the weights.
        gate_learning_rate: Step size of Adam for the gates.
        warm_up: Share of the search, at its start, in which the structure is not trained.
        held_out: Share of the examples that the search holds out: the structure learns from them
            where ``shared`` is True, and candidates are compared on them.
        num_effective: Where ``shared`` is True, the evidence about the structure counts as that of
            so many examples. Briefly trained shared weights are weak evidence: at full count the
            posterior collapses onto an early winner.
        evaluation: What a step of the search computes where ``shared`` is True. ``"path"``: one
            operation on each edge, the structure learned by the score function, at the cost of a
            derived network. ``"mixture"``: all of them, weighed by relaxed gates at temperature 1,
            the structure learned by their gradient; several times the cost, and each operation is
            valued as an addition to the others.
        num_candidates: Draws of the posterior that are compared on held-out examples, the most
            probable architectures included.
        num_finalists: How many architectures are trained for a while from initial weights where
            ``shared`` is True.
        finalists: Which ones: ``"best"``, the candidates that are best by the shared weights, or
            ``"draws"``, draws of the posterior, or ``"probable"``, its most probable
            architectures (with one finalist, the posterior mode). The posterior has learned from
            the same weights, so the best candidates are also those whose value is overestimated
            most.
        num_epochs_trial: Epochs of the first of these trainings; each further one has twice as
            many, for half of them. Less than one is that share of the examples, once.
        gate_prior: Prior over units.
        operation_prior: Prior over operations.
        weight_scale: Prior standard deviation of the weights.
        initial_log_odds: Log odds of the gates of units at the start, in nats.
        precision: How networks are computed in training.
        augment: Changes the inputs of each minibatch at random.
        seed: Seed of everything.
        max_seconds: Wall time of everything, at most, as of ``Optimisation``: numbers of epochs are
            then limits, too. Trials of finalists are not shortened.
        search_share: Share of that time for the search; the final training has what is left.

    Raises:
        ValueError: If a setting is out of range.
    """

    shared: bool = False
    granularity: tuple[str, ...] = ("unit",)
    num_epochs: int = 100
    num_epochs_after: int = 0
    batch_size: int = 128
    learning_rate: float = 3e-3
    gate_learning_rate: float = 3e-2
    warm_up: float = 0.1
    held_out: float = 0.1
    num_effective: int = 300
    evaluation: Evaluation = "path"
    num_candidates: int = 30
    num_finalists: int = 4
    finalists: Finalists = "best"
    num_epochs_trial: float = 1
    gate_prior: GatePrior = IndependentPrior(-1.0)
    operation_prior: OperationPrior = field(default_factory=CategoricalPrior)
    weight_scale: float = 1.0
    initial_log_odds: float = 2.0
    precision: Precision = Precision()
    augment: Callable[[Tensor], Tensor] | None = None
    seed: int = 0
    max_seconds: float = math.inf
    search_share: float = 0.6

    def __post_init__(self) -> None:
        """Check what the parts do not check themselves."""
        if not 0.0 <= self.warm_up < 1.0:
            raise ValueError(f"Expected warm_up in [0, 1), but got {self.warm_up}.")
        for name in ("held_out", "search_share"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"Expected {name} in (0, 1), but got {getattr(self, name)}.")
        if not self.max_seconds > 0:
            raise ValueError(f"Expected max_seconds > 0, but got {self.max_seconds}.")
        counts = {
            "num_epochs": self.num_epochs,
            "num_effective": self.num_effective,
            "num_candidates": self.num_candidates,
            "num_finalists": self.num_finalists,
        }
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"Expected {name} >= 1, but got {value}.")
        for name, known in (("evaluation", Evaluation), ("finalists", Finalists)):
            value = getattr(self, name)
            if value not in get_args(known):
                raise ValueError(f"Expected {name} from {list(get_args(known))}, got {value!r}.")
        if not self.num_epochs_trial > 0:
            raise ValueError(f"Expected num_epochs_trial > 0, but got {self.num_epochs_trial}.")
        if self.num_epochs_after < (1 if self.shared else 0):
            raise ValueError(
                "Expected num_epochs_after >= 1 where shared=True, since the derived network "
                f"starts from re-initialised weights, but got {self.num_epochs_after}."
            )

    @property
    def along_paths(self) -> bool:
        """Whether a step of the search computes one operation on each edge."""
        return self.shared and self.evaluation == "path"

    @property
    def operation_relaxation(self) -> OperationRelaxation:
        """How the operations of the search are relaxed."""
        return SampledPath() if self.along_paths else Mixture()

    @property
    def weight_prior(self) -> PointWeights:
        """Prior of the weights of derived networks."""
        return PointWeights(self.weight_scale)

    @property
    def execution(self) -> Execution:
        """How steps are computed, in the search and after it."""
        return Execution(precision=self.precision)

    def strength(self, num_data: int) -> float:
        """Return the KL weight of the search.

        Args:
            num_data: Number of examples from which the weights learn.
        """
        return max(1.0, num_data / self.num_effective) if self.shared else 1.0

    def search_optimisation(self, num_data: int) -> Optimisation:
        """Return the steps of the search.

        Args:
            num_data: Number of examples from which the weights learn.
        """
        mixed = self.shared and not self.along_paths
        return Optimisation(
            num_epochs=self.num_epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            gate_learning_rate=self.gate_learning_rate,
            schedules=Schedules(
                # Under shared weights, gates near 0 and 1 would make paths of the mixture.
                temperature=constant(1.0) if mixed else exponential(1.0, 0.1),
                kl_weight=constant(self.strength(num_data)),
                learning_rate=cosine(1.0, 0.05),
                gate_learning_rate=after(self.warm_up),
            ),
            max_seconds=self.search_share * self.max_seconds,
        )

    def training_optimisation(self, num_epochs: int) -> Optimisation:
        """Return the steps of the training of a derived network.

        Args:
            num_epochs: How often it goes through its data.
        """
        return Optimisation(
            num_epochs=num_epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            schedules=FALLING,
        )
