"""Binary concrete gate that is hard once it is cold, with a gradient that knows both its states.

The loss of a relaxed gate is not that of the hard gate which the posterior is about; the difference
shrinks with the temperature, while the noise of its gradient grows. So the temperature falls to a
point, and from there on gates are hard, with the gradient of the binary case of ReinMax (Liu, Dong,
Liu, Yu, Gao, Bridging Discrete and Backpropagation: Straight-Through and Beyond, NeurIPS 2023).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_relevance.model.distributions.logit_concrete import LogitConcrete

__all__ = ["HardeningConcrete", "is_cold"]


class HardeningConcrete(LogitConcrete):
    r"""Binary concrete gate on the logit scale with another gradient once it is cold.

    Draws, densities and KL are those of `LogitConcrete`, :math:`v = (\ell + L) / \tau`. Where
    :math:`\tau` is at most ``below``, a draw with the hard gate :math:`b = [v > 0]` has the
    gradient

    .. math::
        \frac{\partial v}{\partial \ell} := \tfrac{1}{2} (1 - \pi)^{b} \pi^{1 - b}, \qquad
        \pi = \sigma(\ell)

    Read as b with slope 1 in v, the mean gradient of a loss f is that of the trapezoid rule,

    .. math::
        E\Big[f'(b) \frac{\partial v}{\partial \ell}\Big]
        = \pi (1 - \pi) \frac{f'(0) + f'(1)}{2}
        \approx \pi (1 - \pi) \int_0^1 f'(t)\,dt
        = \frac{\partial}{\partial \ell} E[f(b)]

    with equality where f is quadratic in this gate, whatever the others are.

    Args:
        temperature: Positive number, or tensor of shape ``()``; draws have no gradient in it.
        logits: ``(*batch_shape)`` log-odds :math:`\ell` of the hard gate.
        below: Temperature from which on a gate is cold.

    Raises:
        TypeError: If ``logits`` is not a floating-point tensor.
        ValueError: If ``temperature`` is not positive and finite, or not of shape ``()``.

    Example:
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> HardeningConcrete(0.1, logits, below=0.2).rsample().sum().backward()
        >>> logits.grad
        tensor([0.2500, 0.2500, 0.2500])
    """

    def __init__(self, temperature: float | Tensor, logits: Tensor, below: float) -> None:
        super().__init__(temperature, logits)
        self.below = below

    def expand(
        self, batch_shape: Sequence[int], _instance: LogitConcrete | None = None
    ) -> HardeningConcrete:
        """Return the same distribution with its logits expanded.

        Args:
            batch_shape: New batch shape.

        Returns:
            Distribution of that batch shape.
        """
        logits = self.logits.expand(torch.Size(batch_shape))
        return HardeningConcrete(self.temperature, logits, self.below)

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return draws that are differentiable in the logits.

        Args:
            sample_shape: Shape of independent draws.

        Returns:
            ``(*sample_shape, *batch_shape)`` values on the real line, float32 or float64.
        """
        logits = self.logits
        with torch.no_grad():
            value = super().rsample(sample_shape)
            probability = torch.sigmoid(logits)
            slope = 0.5 * torch.where(value > 0, 1.0 - probability, probability)
            cold = is_cold(self.temperature, self.below)
            # Of value * temperature. The division below rounds alike for numbers and tensors, as a
            # step that is recorded needs it.
            slope = slope * (cold * self.temperature) + (1.0 - cold)
        return value + slope * (logits - logits.detach()) / self.temperature


def is_cold(temperature: float | Tensor, below: float) -> float | Tensor:
    """Return 1 where a temperature is at most ``below``, else 0, without a look at its value.

    Args:
        temperature: Number, or tensor of shape ``()``.
        below: The threshold.

    Returns:
        A number, or a tensor of shape ``()`` of the temperature's type.
    """
    if isinstance(temperature, Tensor):
        return (temperature <= below).to(temperature.dtype)
    return float(temperature <= below)
