"""The result of a baseline: a plain trained network, what was chosen, and its stages of work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from pyro_relevance.comparison.baselines.recipe import Trained
from pyro_relevance.edges.size import Cost, count_cost
from pyro_relevance.graphs.architectures import Architecture
from pyro_relevance.masks import Mask
from pyro_relevance.model.likelihoods import Likelihood

__all__ = ["BaselineResult", "Stage"]


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a method's work.

    Args:
        name: What was done.
        kind: ``"search"`` (of a structure), ``"training"`` (of a network that is not final yet),
            ``"retraining"`` (of the pruned or derived network) or ``"given"`` (what a control is
            given, the time of which does not count).
        num_epochs: Number of epochs.
        seconds: Wall time.
        value: Loss at the end in nats, or the value of an architecture that was measured.
    """

    name: str
    kind: str
    num_epochs: float
    seconds: float
    value: float = float("nan")

    @classmethod
    def of(cls, trained: Trained, name: str, kind: str) -> Stage:
        """Return the stage of a training.

        Args:
            trained: What came out.
            name: See above.
            kind: See above.
        """
        return cls(name, kind, trained.num_epochs, trained.seconds, trained.loss)


@dataclass(frozen=True, slots=True, eq=False)
class BaselineResult:
    """What a baseline found.

    Args:
        network: The plain network, trained, in evaluation mode.
        likelihood: The likelihood with what it learned.
        choice: A mask of the kept edges or an architecture; ``None`` where all edges are kept.
        history: The stages in order.
        cost: Size of the network.
    """

    network: nn.Module
    likelihood: Likelihood
    choice: Mask | Architecture | None
    history: tuple[Stage, ...]
    cost: Cost
    seconds: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        kinds = ("search", "training", "retraining")
        total = {k: sum(s.seconds for s in self.history if s.kind == k) for k in kinds}
        object.__setattr__(self, "seconds", total)

    @classmethod
    def of(
        cls,
        trained: Trained,
        choice: Mask | Architecture | None,
        history: Sequence[Stage],
        example_input: Tensor,
    ) -> BaselineResult:
        """Count a network that is finished.

        Args:
            trained: The network.
            choice: See above.
            history: See above.
            example_input: ``(num_data, *input_shape)`` input.
        """
        network = trained.network.eval()
        cost = count_cost(network, example_input)
        return cls(network, trained.likelihood, choice, tuple(history), cost)
