"""Sparse variational dropout: a log-uniform prior over weights, a relevance family of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyro
from torch import Tensor

from pyro_relevance.model.distributions import LogUniform
from pyro_relevance.model.latents import Latent
from pyro_relevance.model.priors._packing import check_positive, pack, unpack
from pyro_relevance.model.priors.point import PointWeights

__all__ = ["LogUniformWeights"]


@dataclass(frozen=True)
class LogUniformWeights:
    r"""Scale-free prior over the weights, whose posterior is multiplicative noise.

    .. math::
        p(|w|) \propto 1/|w|, \qquad q(w) = N(\theta, \alpha\theta^2)

    The noise itself says which weights matter: :math:`1/\sqrt{\alpha}` is a weight's
    signal-to-noise ratio, and weights with :math:`\log\alpha > 3` may be pruned (Molchanov, Ashukha
    and Vetrov, Variational dropout sparsifies deep neural networks, ICML 2017). Use it with
    ``gate_prior=None`` (no gates) and the rule ``masks.signal_to_noise``. Matrices and kernels are
    in the site ``weights``; vectors (biases) are point estimates under ``PointWeights``.

    Args:
        bias_scale: Prior standard deviation of the parameters that are point estimates.
        initial_scale: Standard deviation of the weights' posterior at the start.

    Raises:
        ValueError: If an argument is not positive.
    """

    bias_scale: float = 1.0
    initial_scale: float = 0.01

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_positive(bias_scale=self.bias_scale, initial_scale=self.initial_scale)

    def latents(self, parameters: Mapping[str, Tensor]) -> tuple[Latent, ...]:
        """Return the site of all parameters with at least two dimensions."""
        return (
            Latent("weights", "multiplicative", pack(self._noisy(parameters)), self.initial_scale),
        )

    def latent_parameters(self, parameters: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Return all parameters with at least two dimensions."""
        return tuple(self._noisy(parameters))

    def sample(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Draw the weights, add the prior of the others, and return all parameters."""
        noisy = self._noisy(parameters)
        rest = {name: value for name, value in parameters.items() if name not in noisy}
        size = sum(value.numel() for value in noisy.values())
        weights = pyro.sample("weights", LogUniform((size,)).to_event(1))
        merged = unpack(weights, noisy) | (
            PointWeights(self.bias_scale).sample(rest) if rest else {}
        )
        return {name: merged[name] for name in parameters}

    @staticmethod
    def _noisy(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in parameters.items() if value.ndim >= 2}
