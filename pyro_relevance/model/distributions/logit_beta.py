"""Logit of a Beta variable: a learned inclusion rate on the real line.

The prior over the inclusion rate of a hierarchical gate prior; on the logit scale a Gaussian guide
fits it and a rate near 0 keeps its digits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_relevance.model.distributions._numeric import at_least_float32, check_floating

__all__ = ["LogitBeta"]


class LogitBeta(TorchDistribution):
    r"""Distribution of the log-odds of a Beta variable.

    .. math::
        v = \mathrm{logit}(\pi), \quad \pi \sim \mathrm{Beta}(a, b), \qquad
        \log p(v) = -a\,\mathrm{softplus}(-v) - b\,\mathrm{softplus}(v) - \log \mathrm{B}(a, b)

    with a = ``concentration1`` and b = ``concentration0``. Draws are the difference of two
    log-Gamma variables, finite also where the Beta variable itself rounds to 0 or 1.

    Args:
        concentration1: ``(*shape)`` prior count of edges that are on, > 0.
        concentration0: ``(*shape)`` prior count of edges that are off, > 0; broadcast against
            ``concentration1``.

    Raises:
        TypeError: If an argument is not a floating-point tensor.
    """

    arg_constraints = {}
    support = constraints.real
    has_rsample = True

    def __init__(self, concentration1: Tensor, concentration0: Tensor) -> None:
        check_floating("concentration1", concentration1)
        check_floating("concentration0", concentration0)
        self.concentration1: Tensor
        self.concentration0: Tensor
        self.concentration1, self.concentration0 = torch.broadcast_tensors(
            at_least_float32(concentration1), at_least_float32(concentration0)
        )
        super().__init__(self.concentration1.shape, validate_args=False)

    def expand(self, batch_shape: Sequence[int], _instance: LogitBeta | None = None) -> LogitBeta:
        """Return the same distribution with its parameters expanded.

        Args:
            batch_shape: New batch shape.

        Returns:
            Distribution of that batch shape.
        """
        shape = torch.Size(batch_shape)
        return LogitBeta(self.concentration1.expand(shape), self.concentration0.expand(shape))

    @property
    def mean(self) -> Tensor:
        """``(*batch_shape)`` mean of the log-odds, ``digamma(a) - digamma(b)``."""
        return torch.digamma(self.concentration1) - torch.digamma(self.concentration0)

    @property
    def variance(self) -> Tensor:
        """``(*batch_shape)`` variance of the log-odds, ``trigamma(a) + trigamma(b)``."""
        return torch.polygamma(1, self.concentration1) + torch.polygamma(1, self.concentration0)

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return draws that are differentiable in both concentrations.

        Args:
            sample_shape: Shape of independent draws.

        Returns:
            ``(*sample_shape, *batch_shape)`` log-odds, float32 or float64.
        """
        shape = self._extended_shape(torch.Size(sample_shape))
        return _log_gamma(self.concentration1.expand(shape)) - _log_gamma(
            self.concentration0.expand(shape)
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of the log-odds.

        Args:
            value: ``(*sample_shape, *batch_shape)`` log-odds.

        Returns:
            ``(*sample_shape, *batch_shape)`` log densities in nats.
        """
        a, b = self.concentration1, self.concentration0
        value = at_least_float32(value)
        log_beta = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
        return -a * F.softplus(-value) - b * F.softplus(value) - log_beta


def _log_gamma(concentration: Tensor) -> Tensor:
    """Return log Gamma(c, 1) draws, as log Gamma(c + 1, 1) + log(U) / c with uniform U."""
    uniform = torch.rand_like(concentration)
    # A draw of Gamma(c, 1) rounds to 0 for small c; log(1 - U) is finite as U < 1.
    return torch._standard_gamma(concentration + 1).log() + torch.log1p(-uniform) / concentration
