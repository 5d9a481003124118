"""How gates are relaxed so that their log-odds can be learned by gradients.

A relaxation names the distribution of the site's value, the gate that the network sees while it
trains, and the hard gate that the posterior is about. Those of a gate that is 0 or 1 (`Concrete`,
`HardConcreteGate`, `StraightThrough`, `Hardening`) all give a hard gate that is exactly
Bernoulli(``sigmoid(logits)``); those of the operations of an edge (`Mixture`, `SampledPath`,
`TopPaths`) one that is exactly Categorical(``softmax(logits)``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pyro_relevance.model.distributions.hard_concrete import (
    HardConcrete,
    check_stretch,
    hard_concrete_threshold,
)
from pyro_relevance.model.distributions.hardening import HardeningConcrete, is_cold
from pyro_relevance.model.distributions.logit_concrete import LogitConcrete
from pyro_relevance.model.distributions.one_hot_concrete import OneHotConcrete

__all__ = [
    "Concrete",
    "HardConcreteGate",
    "Hardening",
    "Mixture",
    "OperationRelaxation",
    "Relaxation",
    "SampledPath",
    "StraightThrough",
    "TopPaths",
]


class Relaxation(Protocol):
    """What a relaxation of a binary gate offers."""

    def distribution(self, temperature: float | Tensor, logits: Tensor) -> LogitConcrete:
        """Return the distribution of the site's value.

        Args:
            temperature: Positive number, or tensor of shape ``()``; lower is closer to a hard gate.
            logits: ``(*shape)`` log-odds of the hard gate.

        Returns:
            Distribution over the real line with batch shape ``(*shape)``.
        """

    def gate(self, value: Tensor, temperature: float | Tensor) -> Tensor:
        """Return the gate that multiplies the network while it trains.

        Args:
            value: ``(*shape)`` value of the site.
            temperature: Temperature at which it was drawn.

        Returns:
            ``(*shape)`` gate in [0, 1], differentiable in the value.
        """

    def hard(self, value: Tensor) -> Tensor:
        """Return the hard gate.

        Args:
            value: ``(*shape)`` value of the site.

        Returns:
            ``(*shape)`` gate, 0.0 or 1.0 in the dtype of the value, without a gradient.
        """

    def inclusion_log_odds(self, logits: Tensor, temperature: float | Tensor) -> Tensor:
        """Return the log-odds that the hard gate is 1.

        Args:
            logits: ``(*shape)`` parameter of the distribution.
            temperature: Temperature of the distribution.

        Returns:
            ``(*shape)`` log-odds; larger = more relevant.
        """


@dataclass(frozen=True, slots=True)
class Concrete:
    """Binary concrete gate, ``sigmoid(value)``; see :class:`Relaxation` and ``LogitConcrete``.

    Example:
        >>> Concrete().gate(torch.tensor([-20.0, 0.0]), 1.0)
        tensor([2.0612e-09, 5.0000e-01])
    """

    def distribution(self, temperature: float | Tensor, logits: Tensor) -> LogitConcrete:
        """See :class:`Relaxation`."""
        return LogitConcrete(temperature, logits)

    def gate(self, value: Tensor, temperature: float | Tensor) -> Tensor:
        """See :class:`Relaxation`."""
        return torch.sigmoid(value)

    def hard(self, value: Tensor) -> Tensor:
        """See :class:`Relaxation`."""
        return (value > 0).to(value.dtype)

    def inclusion_log_odds(self, logits: Tensor, temperature: float | Tensor) -> Tensor:
        """See :class:`Relaxation`."""
        return logits


@dataclass(frozen=True, slots=True)
class HardConcreteGate:
    """Hard concrete gate, stretched and clamped; see :class:`Relaxation` and ``HardConcrete``.

    The hard gate is 1 where the gate is not 0.

    Args:
        gamma: Lower end of the stretched interval, < 0.
        zeta: Upper end of the stretched interval, > 1.

    Raises:
        ValueError: If the interval does not contain [0, 1] in its interior.
    """

    gamma: float = -0.1
    zeta: float = 1.1

    def __post_init__(self) -> None:
        check_stretch(self.gamma, self.zeta)

    def distribution(self, temperature: float | Tensor, logits: Tensor) -> HardConcrete:
        """See :class:`Relaxation`."""
        return HardConcrete(temperature, logits, self.gamma, self.zeta)

    def gate(self, value: Tensor, temperature: float | Tensor) -> Tensor:
        """See :class:`Relaxation`."""
        return (torch.sigmoid(value) * (self.zeta - self.gamma) + self.gamma).clamp(0, 1)

    def hard(self, value: Tensor) -> Tensor:
        """See :class:`Relaxation`."""
        return (value > hard_concrete_threshold(self.gamma, self.zeta)).to(value.dtype)

    def inclusion_log_odds(self, logits: Tensor, temperature: float | Tensor) -> Tensor:
        """See :class:`Relaxation`."""
        return logits


@dataclass(frozen=True, slots=True)
class StraightThrough:
    """Hard gate with the gradient of the concrete gate; see :class:`Relaxation`, ``LogitConcrete``.

    References:
        Bengio, Leonard, Courville, Estimating or Propagating Gradients Through Stochastic Neurons,
        2013, section 4. Jang, Gu, Poole, Categorical Reparameterization with Gumbel-Softmax, ICLR
        2017, section 2.2.
    """

    def distribution(self, temperature: float | Tensor, logits: Tensor) -> LogitConcrete:
        """See :class:`Relaxation`."""
        return LogitConcrete(temperature, logits)

    def gate(self, value: Tensor, temperature: float | Tensor) -> Tensor:
        """See :class:`Relaxation`; the value of the gate is exactly 0 or 1."""
        soft = torch.sigmoid(value)
        return self.hard(value) + (soft - soft.detach())

    def hard(self, value: Tensor) -> Tensor:
        """See :class:`Relaxation`."""
        return (value > 0).to(value.dtype)

    def inclusion_log_odds(self, logits: Tensor, temperature: float | Tensor) -> Tensor:
        """See :class:`Relaxation`."""
        return logits


@dataclass(frozen=True, slots=True)
class Hardening:
    """Concrete gate while it is warm, hard gate once it is cold; see :class:`Relaxation`.

    While warm, gates find their way as those of `Concrete` do. Once cold, training sees the gates
    that the posterior is about, with the gradient of ``HardeningConcrete``: inclusion probabilities
    lose the bias of the relaxed loss, in a linear model under Gaussian noise all of it.

    Args:
        below: Temperature from which on gates are hard; ``math.inf`` for hard gates throughout.
            With the default schedule the last 30 % of the steps have a temperature below 0.2.

    Raises:
        ValueError: If ``below`` is not positive.

    References:
        Liu, Dong, Liu, Yu, Gao, Bridging Discrete and Backpropagation: Straight-Through and Beyond,
        NeurIPS 2023 (ReinMax).
    """

    below: float = 0.2

    def __post_init__(self) -> None:
        if not self.below > 0:
            raise ValueError(
                f"Expected below > 0, but got {self.below}. Use Concrete() for gates that are "
                "never hard."
            )

    def distribution(self, temperature: float | Tensor, logits: Tensor) -> HardeningConcrete:
        """See :class:`Relaxation`."""
        return HardeningConcrete(temperature, logits, self.below)

    def gate(self, value: Tensor, temperature: float | Tensor) -> Tensor:
        """See :class:`Relaxation`; 0 or 1 once cold."""
        with torch.no_grad():
            soft, cold = torch.sigmoid(value), is_cold(temperature, self.below)
            gate = self.hard(value) * cold + soft * (1.0 - cold)
            slope = soft * (1.0 - soft) * (1.0 - cold) + cold
        return gate + slope * (value - value.detach())

    def hard(self, value: Tensor) -> Tensor:
        """See :class:`Relaxation`."""
        return (value > 0).to(value.dtype)

    def inclusion_log_odds(self, logits: Tensor, temperature: float | Tensor) -> Tensor:
        """See :class:`Relaxation`."""
        return logits


class OperationRelaxation(Protocol):
    """What a relaxation of the choice between the operations of an edge offers."""

    @property
    def skips_zeros(self) -> bool:
        """Whether a training step skips operations whose gate is zero."""

    def distribution(self, temperature: float | Tensor, logits: Tensor) -> OneHotConcrete:
        """Return the distribution of the site's value, logarithms of gates.

        Args:
            temperature: Positive number, or tensor of shape ``()``.
            logits: ``(num_groups, num_operations)`` in nats.
        """

    def gate(self, value: Tensor) -> Tensor:
        """Return the gates that multiply the operations while the network trains.

        Args:
            value: ``(..., num_operations)`` value of the site.

        Returns:
            ``(..., num_operations)`` gates in [0, 1] that sum to 1.
        """


def one_hot(value: Tensor) -> Tensor:
    """Return the hard gates of operations: 1 at the largest value, 0 elsewhere, no gradient.

    Args:
        value: ``(..., num_operations)`` value of the site, of any relaxation.
    """
    value = value.detach()
    hot = torch.zeros_like(value)
    return hot.scatter(-1, value.argmax(-1, keepdim=True), 1.0)


class _OverLogits:
    """What all relaxations here share: gates are relaxed by the concrete distribution."""

    __slots__ = ()

    def distribution(self, temperature: float | Tensor, logits: Tensor) -> OneHotConcrete:
        """See :class:`OperationRelaxation`."""
        return OneHotConcrete(temperature, logits)


@dataclass(frozen=True, slots=True)
class Mixture(_OverLogits):
    """All operations, weighed by the relaxed gates; see :class:`OperationRelaxation`.

    References:
        Liu, Simonyan, Yang, DARTS, ICLR 2019, equation 2, with the concrete gates of Xie, Zheng,
        Liu, Lin, SNAS, ICLR 2019, equation 5, instead of softmax weights.
    """

    @property
    def skips_zeros(self) -> bool:
        """False: no gate is zero."""
        return False

    def gate(self, value: Tensor) -> Tensor:
        """See :class:`OperationRelaxation`."""
        return torch.softmax(value, dim=-1)


@dataclass(frozen=True, slots=True)
class SampledPath(_OverLogits):
    """One sampled operation on each edge, with the gradient of its relaxed gate.

    A step takes the time and memory of one derived network. The gradient reaches the logits
    through the operation that was drawn alone, and not at all where it is ``none``: with ``none``
    among the operations use ``ScoreFunctionELBO``.

    References:
        Dong, Yang, Searching for a robust neural architecture in four GPU hours (GDAS), CVPR 2019,
        equations 4 and 5.
    """

    @property
    def skips_zeros(self) -> bool:
        """True: one gate in each row is not zero."""
        return True

    def gate(self, value: Tensor) -> Tensor:
        """See :class:`OperationRelaxation`; the values are exactly 0 and 1."""
        soft = torch.softmax(value, dim=-1)
        return one_hot(value) + (soft - soft.detach())


@dataclass(frozen=True, slots=True)
class TopPaths(_OverLogits):
    """The operations with the largest gates on each edge, weighed by their relaxed gates.

    Args:
        num_paths: Operations that are computed on each edge.

    Raises:
        ValueError: If ``num_paths`` is not positive.
    """

    num_paths: int = 2

    def __post_init__(self) -> None:
        if self.num_paths < 1:
            raise ValueError(f"Expected num_paths >= 1, but got {self.num_paths}.")

    @property
    def skips_zeros(self) -> bool:
        """True: all but ``num_paths`` gates are zero."""
        return True

    def gate(self, value: Tensor) -> Tensor:
        """See :class:`OperationRelaxation`."""
        number = min(self.num_paths, value.shape[-1])
        kept = torch.zeros_like(value).scatter(-1, value.topk(number, dim=-1).indices, 1.0)
        gates = torch.softmax(value, dim=-1) * kept
        return gates / gates.sum(-1, keepdim=True)
