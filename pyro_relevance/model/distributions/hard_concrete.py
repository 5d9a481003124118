"""Hard concrete distribution on the logit scale: its gate is exactly 0 or 1 with some probability.

An alternative relaxation of the gates (Louizos, Welling, Kingma, Learning Sparse Neural Networks
through L0 Regularization, ICLR 2018), with the log-odds of a gate that is not zero as its
parameter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import register_kl

from pyro_relevance.model.distributions._numeric import at_least_float32
from pyro_relevance.model.distributions.logit_concrete import LogitConcrete, bernoulli_kl

__all__ = ["HardConcrete", "check_stretch", "hard_concrete_threshold"]


class HardConcrete(LogitConcrete):
    r"""Stretched binary concrete gate on the logit scale.

    .. math::
        v = (\ell + L) / \tau + c, \quad L \sim \mathrm{Logistic}(0, 1), \quad
        c = \log(-\gamma / \zeta),

    .. math::
        \text{gate} = \min(1, \max(0, \sigma(v) (\zeta - \gamma) + \gamma))

    with :math:`\ell` = ``logits`` and :math:`\tau` = ``temperature``. In the paper's words the
    location is :math:`\log\alpha = \ell + \tau c`; then P(gate != 0) = P(v > c) =
    ``sigmoid(logits)`` at every temperature, so that ``logits`` mean the same as in
    :class:`LogitConcrete`. ``log_prob`` is the density of v, before the stretch.

    Args:
        temperature: Positive number, or tensor of shape ``()``.
        logits: ``(*batch_shape)`` log-odds of gate != 0.
        gamma: Lower end of the stretched interval, < 0.
        zeta: Upper end of the stretched interval, > 1.

    Raises:
        TypeError: If ``logits`` is not a floating-point tensor.
        ValueError: If ``temperature`` is not positive and finite or not of shape ``()``, or the
            interval does not contain [0, 1] in its interior.

    References:
        Louizos, Welling, Kingma, Learning Sparse Neural Networks through L0 Regularization, ICLR
        2018, eq. (10-12).
    """

    def __init__(
        self,
        temperature: float | Tensor,
        logits: Tensor,
        gamma: float = -0.1,
        zeta: float = 1.1,
    ) -> None:
        check_stretch(gamma, zeta)
        self.gamma = gamma
        self.zeta = zeta
        super().__init__(temperature, logits)

    def expand(
        self, batch_shape: Sequence[int], _instance: LogitConcrete | None = None
    ) -> HardConcrete:
        """Return the same distribution with its logits expanded; see :class:`LogitConcrete`."""
        logits = self.logits.expand(torch.Size(batch_shape))
        return HardConcrete(self.temperature, logits, self.gamma, self.zeta)

    @property
    def threshold(self) -> float:
        """Value c above which the gate is not zero."""
        return hard_concrete_threshold(self.gamma, self.zeta)

    @property
    def mean(self) -> Tensor:
        """``(*batch_shape)`` mean of the value."""
        return super().mean + self.threshold

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return draws of the value before the stretch; see :class:`LogitConcrete`."""
        return super().rsample(sample_shape) + self.threshold

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of the value before the stretch; see :class:`LogitConcrete`."""
        return super().log_prob(at_least_float32(value) - self.threshold)


def hard_concrete_threshold(gamma: float, zeta: float) -> float:
    """Return the value above which a hard concrete gate is not zero, ``log(-gamma / zeta)``.

    Args:
        gamma: Lower end of the stretched interval, < 0.
        zeta: Upper end of the stretched interval, > 1.

    Returns:
        The threshold on the logit scale.
    """
    return math.log(-gamma / zeta)


def check_stretch(gamma: float, zeta: float) -> None:
    """Check the interval onto which a hard concrete gate is stretched.

    Args:
        gamma: Lower end of the stretched interval.
        zeta: Upper end of the stretched interval.

    Raises:
        ValueError: Unless ``gamma < 0`` and ``zeta > 1``, both finite.
    """
    if not (-math.inf < gamma < 0):
        raise ValueError(
            f"Expected gamma < 0 and finite, but got {gamma}. "
            "The stretched interval must reach below 0; the paper uses -0.1."
        )
    if not (1 < zeta < math.inf):
        raise ValueError(
            f"Expected zeta > 1 and finite, but got {zeta}. "
            "The stretched interval must reach above 1; the paper uses 1.1."
        )


@register_kl(HardConcrete, HardConcrete)  # type: ignore[untyped-decorator]
def _kl_hard_concrete(q: HardConcrete, p: HardConcrete) -> Tensor:
    if (q.gamma, q.zeta) != (p.gamma, p.zeta):
        raise ValueError(
            f"Expected one stretched interval for both distributions, but got {(q.gamma, q.zeta)} "
            f"and {(p.gamma, p.zeta)}. Use the same relaxation in the model and in the guide."
        )
    return bernoulli_kl(q.logits, p.logits)
