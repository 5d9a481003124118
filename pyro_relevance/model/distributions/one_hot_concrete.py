"""Concrete distribution over one of several operations, in log space, with the categorical KL.

The site of the operations of a relaxed graph has this distribution (Maddison, Mnih, Teh, The
Concrete Distribution, ICLR 2017; Jang, Gu, Poole, Categorical Reparameterization with
Gumbel-Softmax, ICLR 2017). The logarithm of the gates stays finite at every temperature; on the
simplex samples round to zero and their own density is then infinite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints, register_kl

from pyro_relevance.model.distributions._numeric import (
    at_least_float32,
    check_floating,
    check_temperature,
    log_temperature,
)

__all__ = ["OneHotConcrete", "categorical_kl"]


class OneHotConcrete(TorchDistribution):
    r"""Logarithm of a relaxed one-hot vector.

    .. math::
        v = \log\mathrm{softmax}((a + G) / \tau), \qquad G_k \sim \mathrm{Gumbel}(0, 1),

        \log p(v) = \log\Gamma(K) + (K - 1) \log\tau + \sum_k (a_k - \tau v_k)
        - K \log \sum_k e^{a_k - \tau v_k}

    with :math:`a` = ``logits``, defined up to a constant, and :math:`\tau` = ``temperature``. The
    soft gates are ``exp(v)``; the largest of them is exactly Categorical(``softmax(logits)``) at
    every temperature. ``kl_divergence`` of two of them is that of those categorical variables
    (:func:`categorical_kl`).

    Args:
        temperature: Positive number, or tensor of shape ``()`` (its sign is not checked: no host
            synchronisation).
        logits: ``(*batch_shape, num_operations)`` in nats; finite (a category that cannot be has a
            very low number).

    Raises:
        TypeError: If ``logits`` is not a floating-point tensor.
        ValueError: If ``logits`` has no dimension, or ``temperature`` is not positive and finite,
            or not of shape ``()``.

    Example:
        >>> gate = OneHotConcrete(0.5, torch.zeros(6, 5))
        >>> gate.rsample((3,)).shape
        torch.Size([3, 6, 5])
        >>> gate.rsample().exp().sum(-1).allclose(torch.ones(6))
        True

    References:
        Maddison, Mnih, Teh, The Concrete Distribution, ICLR 2017, equation 12.
    """

    arg_constraints = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, temperature: float | Tensor, logits: Tensor) -> None:
        check_temperature(temperature)
        check_floating("logits", logits)
        if logits.ndim == 0:
            raise ValueError(
                "Expected logits of shape (..., num_operations), but got shape (). Pass one number "
                "for each operation."
            )
        self.temperature = temperature
        self.logits = at_least_float32(logits)
        super().__init__(self.logits.shape[:-1], self.logits.shape[-1:], validate_args=False)

    def expand(
        self, batch_shape: Sequence[int], _instance: OneHotConcrete | None = None
    ) -> OneHotConcrete:
        """Return the same distribution with its logits expanded.

        Args:
            batch_shape: New batch shape.

        Returns:
            Distribution of that batch shape.
        """
        shape = torch.Size(batch_shape) + self.event_shape
        return OneHotConcrete(self.temperature, self.logits.expand(shape))

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return draws that are differentiable in the logits and the temperature.

        Args:
            sample_shape: Shape of independent draws.

        Returns:
            ``(*sample_shape, *batch_shape, num_operations)`` logarithms of gates, float32 or
            float64.
        """
        logits = self.logits
        shape = self._extended_shape(torch.Size(sample_shape))
        uniform = torch.rand(shape, dtype=logits.dtype, device=logits.device)
        # The largest Gumbel numbers come from the smallest exponential ones, which are resolved
        # best near 0; at 0 itself the logarithm would be infinite.
        exponential = (-torch.log1p(-uniform)).clamp(min=torch.finfo(logits.dtype).eps / 4)
        return torch.log_softmax((logits - exponential.log()) / self.temperature, dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of a value.

        Args:
            value: ``(*sample_shape, *batch_shape, num_operations)`` logarithms of gates.

        Returns:
            ``(*sample_shape, *batch_shape)`` log densities in nats.
        """
        number = self.event_shape[0]
        score = torch.log_softmax(self.logits - at_least_float32(value) * self.temperature, dim=-1)
        constant = math.lgamma(number) + (number - 1) * log_temperature(
            self.temperature, score.dtype
        )
        return score.sum(-1) + constant


def categorical_kl(q_logits: Tensor, p_logits: Tensor) -> Tensor:
    r"""Return the KL divergence of two categorical variables given their logits.

    .. math::
        \mathrm{KL} = \sum_k q_k (\log q_k - \log p_k)

    Args:
        q_logits: ``(*shape, num_operations)`` logits under q, finite.
        p_logits: ``(*shape, num_operations)`` logits under p, finite.

    Returns:
        ``(*shape)`` divergence in nats.
    """
    q, p = torch.log_softmax(q_logits, dim=-1), torch.log_softmax(p_logits, dim=-1)
    return (q.exp() * (q - p)).sum(-1)


@register_kl(OneHotConcrete, OneHotConcrete)  # type: ignore[untyped-decorator]
def _kl_one_hot_concrete(q: OneHotConcrete, p: OneHotConcrete) -> Tensor:
    return categorical_kl(q.logits, p.logits)
