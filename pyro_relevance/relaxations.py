"""How a gate that is 0 or 1 is relaxed so that its log-odds can be learned by gradients.

A relaxation names the distribution of the site's value (a real number), the gate that the network
sees while it trains, and the hard gate that the posterior is about. All three give a hard gate
that is exactly Bernoulli(``sigmoid(logits)``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pyro_relevance.distributions.hard_concrete import (
    HardConcrete,
    check_stretch,
    hard_concrete_threshold,
)
from pyro_relevance.distributions.logit_concrete import LogitConcrete

__all__ = ["Concrete", "HardConcreteGate", "Relaxation", "StraightThrough"]


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

    def gate(self, value: Tensor) -> Tensor:
        """Return the gate that multiplies the network while it trains.

        Args:
            value: ``(*shape)`` value of the site.

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
        >>> Concrete().gate(torch.tensor([-20.0, 0.0]))
        tensor([2.0612e-09, 5.0000e-01])
    """

    def distribution(self, temperature: float | Tensor, logits: Tensor) -> LogitConcrete:
        """See :class:`Relaxation`."""
        return LogitConcrete(temperature, logits)

    def gate(self, value: Tensor) -> Tensor:
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

    def gate(self, value: Tensor) -> Tensor:
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

    def gate(self, value: Tensor) -> Tensor:
        """See :class:`Relaxation`; the value of the gate is exactly 0 or 1."""
        soft = torch.sigmoid(value)
        return self.hard(value) + (soft - soft.detach())

    def hard(self, value: Tensor) -> Tensor:
        """See :class:`Relaxation`."""
        return (value > 0).to(value.dtype)

    def inclusion_log_odds(self, logits: Tensor, temperature: float | Tensor) -> Tensor:
        """See :class:`Relaxation`."""
        return logits
