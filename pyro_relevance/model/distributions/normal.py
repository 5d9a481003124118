"""Normal and log-normal distributions that can be drawn from under ``torch.func.vmap``.

Those of torch fill an empty tensor in place, which ``vmap`` refuses. The draws are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor

__all__ = ["LogNormal", "Normal"]


class Normal(dist.Normal):
    """Normal distribution; arguments as for ``pyro.distributions.Normal``."""

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return draws that are differentiable in location and scale.

        Args:
            sample_shape: Shape of independent draws.

        Returns:
            ``(*sample_shape, *batch_shape)`` values.
        """
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + noise * self.scale


class LogNormal(dist.LogNormal):
    """Log-normal distribution; arguments as for ``pyro.distributions.LogNormal``."""

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return draws that are differentiable in location and scale.

        Args:
            sample_shape: Shape of independent draws.

        Returns:
            ``(*sample_shape, *batch_shape)`` values, > 0.
        """
        return Normal(self.loc, self.scale, validate_args=False).rsample(sample_shape).exp()
