"""Binary concrete distribution on the logit scale, with the KL of the Bernoulli it relaxes.

The site of every gate in a relevance model has this distribution by default (Maddison, Mnih, Teh,
The Concrete Distribution, ICLR 2017). On the logit scale neither samples nor densities saturate,
which they do, silently, for the same distribution on (0, 1) at low temperature.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints, register_kl

from pyro_relevance.model.distributions._fused_kl import LARGE, FusedKl, minus_sign
from pyro_relevance.model.distributions._numeric import (
    at_least_float32,
    check_floating,
    check_temperature,
    log_temperature,
)

__all__ = ["LogitConcrete", "bernoulli_kl", "concrete_kl_monte_carlo"]


class LogitConcrete(TorchDistribution):
    r"""Binary concrete gate on the logit scale.

    .. math::
        v = (\ell + L) / \tau, \qquad L \sim \mathrm{Logistic}(0, 1), \qquad
        \log p(v) = \log\tau + d - 2\,\mathrm{softplus}(d), \quad d = \ell - \tau v

    with :math:`\ell` = ``logits`` and :math:`\tau` = ``temperature``. The soft gate is
    ``sigmoid(v)``; the hard gate ``v > 0`` is exactly Bernoulli(``sigmoid(logits)``) at every
    temperature. Every gate has its own noise, drawn in float32 also where the logits are in a
    16-bit format. ``kl_divergence`` of two of them is the KL of those Bernoulli variables (see
    :func:`bernoulli_kl`); :func:`concrete_kl_monte_carlo` is the KL of the densities.

    Args:
        temperature: Positive number, or tensor of shape ``()`` (its sign is not checked: no host
            synchronisation).
        logits: ``(*batch_shape)`` log-odds of the hard gate.

    Raises:
        TypeError: If ``logits`` is not a floating-point tensor.
        ValueError: If ``temperature`` is not positive and finite, or not of shape ``()``.

    Example:
        >>> gate = LogitConcrete(0.5, torch.tensor([4.0, -4.0]))
        >>> gate.rsample((3,)).shape
        torch.Size([3, 2])

    References:
        Maddison, Mnih, Teh, The Concrete Distribution, ICLR 2017, appendix B and C.3.
    """

    arg_constraints = {}
    support = constraints.real
    has_rsample = True

    def __init__(self, temperature: float | Tensor, logits: Tensor) -> None:
        check_temperature(temperature)
        check_floating("logits", logits)
        self.temperature = temperature
        self.logits = at_least_float32(logits)
        super().__init__(self.logits.shape, validate_args=False)

    def expand(
        self, batch_shape: Sequence[int], _instance: LogitConcrete | None = None
    ) -> LogitConcrete:
        """Return the same distribution with its logits expanded.

        Args:
            batch_shape: New batch shape.

        Returns:
            Distribution of that batch shape.
        """
        return LogitConcrete(self.temperature, self.logits.expand(torch.Size(batch_shape)))

    @property
    def mean(self) -> Tensor:
        """``(*batch_shape)`` mean of the value, ``logits / temperature``."""
        return self.logits / self.temperature

    @property
    def variance(self) -> Tensor:
        """``(*batch_shape)`` variance of the value, ``pi**2 / (3 temperature**2)``."""
        scale = torch.pi / (3**0.5 * self.temperature)
        return torch.ones_like(self.logits) * scale**2

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return draws that are differentiable in the logits and the temperature.

        Args:
            sample_shape: Shape of independent draws.

        Returns:
            ``(*sample_shape, *batch_shape)`` values on the real line, float32 or float64.
        """
        logits = self.logits
        shape = self._extended_shape(torch.Size(sample_shape))
        uniform = torch.rand(shape, dtype=logits.dtype, device=logits.device)
        tail = torch.finfo(logits.dtype).eps / 2  # both tail and 1 - tail are exact numbers
        # In place: a new tensor for many gates costs more than what is computed in it.
        value = logits + uniform.logit_(tail)
        if isinstance(self.temperature, Tensor):
            return value / self.temperature
        return value.div_(self.temperature)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of a value.

        Args:
            value: ``(*sample_shape, *batch_shape)`` values on the real line.

        Returns:
            ``(*sample_shape, *batch_shape)`` log densities in nats.
        """
        d = self.logits - at_least_float32(value) * self.temperature
        return log_temperature(self.temperature, d.dtype) + d - 2 * F.softplus(d)


def bernoulli_kl(q_logits: Tensor, p_logits: Tensor) -> Tensor:
    r"""Return the KL divergence of two Bernoulli variables given their log-odds.

    .. math::
        \mathrm{KL} = \sigma(q)\,(q - p) + \mathrm{softplus}(p) - \mathrm{softplus}(q)

    Both variables are relabelled (on <-> off) where ``q > 0``. With ``q <= 0`` no term is the
    difference of two large numbers and ``sigmoid(q) (1 - sigmoid(q))``, the size of the gradient,
    does not round to zero: value and gradient keep their relative accuracy where the plain formula
    has lost even the sign (from about ``q = 10`` in float32).

    Args:
        q_logits: ``(*shape)`` log-odds under q.
        p_logits: ``(*shape)`` log-odds under p.

    Returns:
        ``(*shape)`` divergence in nats.
    """
    if q_logits.shape == p_logits.shape and q_logits.numel() >= LARGE:
        fused: Tensor = FusedKl.apply(q_logits, p_logits)
        return fused
    flip = minus_sign(q_logits.detach())
    q, p = q_logits * flip, p_logits * flip
    return torch.sigmoid(q) * (q - p) + F.softplus(p) - F.softplus(q)


def concrete_kl_monte_carlo(q: LogitConcrete, p: LogitConcrete, num_samples: int) -> Tensor:
    r"""Return an unbiased estimate of the KL of the relaxed densities.

    .. math::
        \mathrm{KL}(q \| p) \approx \frac{1}{S} \sum_{s=1}^{S} \log q(v_s) - \log p(v_s),
        \qquad v_s \sim q

    This is what makes the relaxed objective a bound for the relaxed model. The KL that
    ``kl_divergence`` returns, of the Bernoulli variables behind both, has no noise and is closer
    to the exact posterior of hard gates.

    Args:
        q: Distribution that is sampled, batch shape ``(*batch_shape)``.
        p: Distribution on the same values, same batch shape; its temperature may differ.
        num_samples: Number of draws S.

    Returns:
        ``(*batch_shape)`` divergence in nats, differentiable in the parameters of both.

    Raises:
        ValueError: If ``num_samples`` is not positive.
    """
    if num_samples < 1:
        raise ValueError(f"Expected num_samples >= 1, but got {num_samples}. Pass 1 or more.")
    value = q.rsample(torch.Size((num_samples,)))
    return (q.log_prob(value) - p.log_prob(value)).mean(0)


@register_kl(LogitConcrete, LogitConcrete)  # type: ignore[untyped-decorator]
def _kl_logit_concrete(q: LogitConcrete, p: LogitConcrete) -> Tensor:
    return bernoulli_kl(q.logits, p.logits)
