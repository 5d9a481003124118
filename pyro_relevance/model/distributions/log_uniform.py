"""Sparse variational dropout: multiplicative Gaussian noise on a weight under a log-uniform prior.

It needs no gates: a weight whose noise is larger than the weight itself is not relevant (Molchanov,
Ashukha, Vetrov, Variational Dropout Sparsifies Deep Neural Networks, ICML 2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn

import torch
import torch.nn.functional as F
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints, register_kl

from pyro_relevance.model.distributions._numeric import at_least_float32, check_floating

__all__ = ["LogUniform", "MultiplicativeNormal"]

_K1, _K2, _K3 = 0.63576, 1.87320, 1.48695  # Molchanov et al. 2017, eq. (14)


class LogUniform(TorchDistribution):
    r"""Improper prior that is uniform in the logarithm of a weight's size.

    .. math:: \log p(w) = -\log |w| + \text{const}, \qquad w \in \mathbb{R}

    with the constant set to 0. It has no normalisation, so it cannot be sampled, and constants in
    its log density (see the KL of :class:`MultiplicativeNormal`) have no meaning.

    Args:
        shape: Batch shape.

    References:
        Kingma, Salimans, Welling, Variational Dropout and the Local Reparameterization Trick,
        NeurIPS 2015, section 3.3.
    """

    arg_constraints = {}
    support = constraints.real
    has_rsample = True

    def __init__(self, shape: Sequence[int] = ()) -> None:
        super().__init__(torch.Size(shape), validate_args=False)

    def expand(self, batch_shape: Sequence[int], _instance: LogUniform | None = None) -> LogUniform:
        """Return the same distribution with another batch shape.

        Args:
            batch_shape: New batch shape.

        Returns:
            Distribution of that batch shape.
        """
        return LogUniform(batch_shape)

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> NoReturn:
        """Refuse to sample.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "Expected a proper prior to sample from, but got LogUniform, which is improper. "
            "Sample the posterior, or choose a proper prior over the weights for prior draws."
        )

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> NoReturn:
        """Refuse to sample; see :meth:`sample`."""
        self.sample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density up to a constant.

        Args:
            value: ``(*sample_shape, *batch_shape)`` weights.

        Returns:
            ``(*sample_shape, *batch_shape)`` values of ``-log|w|`` in nats; ``inf`` at 0.
        """
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        return -at_least_float32(value).abs().log().expand(shape)


class MultiplicativeNormal(TorchDistribution):
    r"""Weight with Gaussian noise in proportion to its size.

    .. math:: w = \theta (1 + \sqrt{\alpha}\,\epsilon), \quad \epsilon \sim \mathcal{N}(0, 1)

    with :math:`\theta` = ``loc`` and :math:`\log\alpha` = ``log_alpha``. Its KL from
    :class:`LogUniform` depends on :math:`\alpha` alone and is known up to a constant only;
    ``kl_divergence`` returns the approximation

    .. math::
        \mathrm{KL} \approx k_1\,\sigma(-(k_2 + k_3 \log\alpha))
        + \tfrac{1}{2} \log(1 + \alpha^{-1})

    with the constant chosen so that KL -> 0 as log alpha -> inf (a weight that is only noise costs
    nothing). The exact expectation of ``q.log_prob(w) - p.log_prob(w)`` is smaller by
    (1 + log(4 pi) + Euler's constant) / 2 = 2.05412 nats per weight, at every alpha.

    Args:
        loc: ``(*shape)`` mean of the weight.
        log_alpha: ``(*shape)`` log of the noise variance over the squared mean; broadcast against
            ``loc``.

    Raises:
        TypeError: If an argument is not a floating-point tensor.

    References:
        Molchanov, Ashukha, Vetrov, Variational Dropout Sparsifies Deep Neural Networks, ICML 2017,
        eq. (14).
    """

    arg_constraints = {}
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Tensor, log_alpha: Tensor) -> None:
        check_floating("loc", loc)
        check_floating("log_alpha", log_alpha)
        self.loc: Tensor
        self.log_alpha: Tensor
        self.loc, self.log_alpha = torch.broadcast_tensors(
            at_least_float32(loc), at_least_float32(log_alpha)
        )
        super().__init__(self.loc.shape, validate_args=False)

    def expand(
        self, batch_shape: Sequence[int], _instance: MultiplicativeNormal | None = None
    ) -> MultiplicativeNormal:
        """Return the same distribution with its parameters expanded.

        Args:
            batch_shape: New batch shape.

        Returns:
            Distribution of that batch shape.
        """
        shape = torch.Size(batch_shape)
        return MultiplicativeNormal(self.loc.expand(shape), self.log_alpha.expand(shape))

    @property
    def mean(self) -> Tensor:
        """``(*batch_shape)`` mean of the weight."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """``(*batch_shape)`` variance of the weight."""
        return self.log_alpha.exp() * self.loc.square()

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return draws that are differentiable in both parameters.

        Args:
            sample_shape: Shape of independent draws.

        Returns:
            ``(*sample_shape, *batch_shape)`` weights, float32 or float64.
        """
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc * (1 + (0.5 * self.log_alpha).exp() * noise)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of a weight.

        Args:
            value: ``(*sample_shape, *batch_shape)`` weights.

        Returns:
            ``(*sample_shape, *batch_shape)`` log densities in nats; not finite where ``loc`` is 0.
        """
        log_scale = self.loc.abs().log() + 0.5 * self.log_alpha
        standard = (at_least_float32(value) - self.loc) * (-log_scale).exp()
        return -0.5 * standard.square() - log_scale - 0.5 * math.log(2 * math.pi)


@register_kl(MultiplicativeNormal, LogUniform)  # type: ignore[untyped-decorator]
def _kl_multiplicative_normal(q: MultiplicativeNormal, p: LogUniform) -> Tensor:
    shape = torch.broadcast_shapes(q.batch_shape, p.batch_shape)
    log_alpha = q.log_alpha
    kl = _K1 * torch.sigmoid(-(_K2 + _K3 * log_alpha)) + 0.5 * F.softplus(-log_alpha)
    return kl.expand(shape)
