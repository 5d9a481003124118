"""Logistic gate that is read hard, with a gradient that is exact where the loss is quadratic.

It is the binary case of ReinMax (Liu, Dong, Liu, Yu, Gao, Bridging Discrete and Backpropagation:
Straight-Through and Beyond, NeurIPS 2023). Nothing is relaxed, so there is no temperature.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_relevance.model.distributions.logit_concrete import LogitConcrete

__all__ = ["HardLogistic"]


class HardLogistic(LogitConcrete):
    r"""Logistic value whose sign is the gate, with the gradient of the trapezoid rule.

    .. math::
        v = \ell + L, \quad L \sim \mathrm{Logistic}(0, 1), \qquad b = [v > 0], \qquad
        \frac{\partial v}{\partial \ell} := \tfrac{1}{2} (1 - \pi)^{b} \pi^{1 - b}, \quad
        \pi = \sigma(\ell)

    For a gate that reads :math:`b` with slope 1 in v, the mean gradient of a loss f is

    .. math::
        E\Big[f'(b) \frac{\partial v}{\partial \ell}\Big]
        = \pi (1 - \pi) \frac{f'(0) + f'(1)}{2}
        \approx \pi (1 - \pi) \int_0^1 f'(t)\,dt
        = \frac{\partial}{\partial \ell} E[f(b)]

    with equality where f is quadratic in this gate, whatever the others are. Densities, moments and
    KL are those of `LogitConcrete` at temperature 1.

    Args:
        logits: ``(*batch_shape)`` log-odds :math:`\ell` of the hard gate.

    Raises:
        TypeError: If ``logits`` is not a floating-point tensor.

    Example:
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> HardLogistic(logits).rsample().sum().backward()
        >>> logits.grad
        tensor([0.2500, 0.2500, 0.2500])
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__(1.0, logits)

    def expand(
        self, batch_shape: Sequence[int], _instance: LogitConcrete | None = None
    ) -> HardLogistic:
        """Return the same distribution with its logits expanded.

        Args:
            batch_shape: New batch shape.

        Returns:
            Distribution of that batch shape.
        """
        return HardLogistic(self.logits.expand(torch.Size(batch_shape)))

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return draws with the gradient above in the logits.

        Args:
            sample_shape: Shape of independent draws.

        Returns:
            ``(*sample_shape, *batch_shape)`` values on the real line, float32 or float64.
        """
        with torch.no_grad():
            value = super().rsample(sample_shape)
            probability = torch.sigmoid(self.logits)
            slope = 0.5 * torch.where(value > 0, 1.0 - probability, probability)
        return value + slope * (self.logits - self.logits.detach())
