"""Normal and log-normal distributions that can be drawn from under ``torch.func.vmap``.

Those of torch fill an empty tensor in place, which ``vmap`` refuses. The draws are the same. The
density of the normal one takes half of torch's operators, which are what a step of a small network
costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

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

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of a value.

        Args:
            value: ``(*sample_shape, *batch_shape)`` values.

        Returns:
            ``(*sample_shape, *batch_shape)`` log densities in nats.
        """
        same = value.shape == self.loc.shape
        if not same or not value.dtype == self.loc.dtype == self.scale.dtype:
            density: Tensor = super().log_prob(value)
            return density
        if self._validate_args:
            self._validate_sample(value)
        fused: Tensor = _LogDensity.apply(value, self.loc, self.scale)
        return fused


class _LogDensity(torch.autograd.Function):
    r"""``_LogDensity.apply(value, loc, scale)`` for tensors of one shape and type.

    .. math::
        -\tfrac12 z^2 - \log\sigma - \tfrac12 \log 2\pi, \qquad z = (x - \mu) / \sigma, \qquad
        \partial_\mu = z / \sigma, \quad \partial_\sigma = (z^2 - 1) / \sigma

    The gradient computes z again: a recorded step has it only once.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        z = (value - loc) / scale
        return torch.addcmul(-0.5 * math.log(2 * math.pi) - scale.log(), z, z, value=-0.5)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        value, loc, scale = ctx.saved_tensors
        z = (value - loc) / scale
        share = grad / scale
        of_loc = share * z
        of_value = -of_loc if ctx.needs_input_grad[0] else None
        of_scale = of_loc * z - share if ctx.needs_input_grad[2] else None
        return of_value, of_loc if ctx.needs_input_grad[1] else None, of_scale


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
