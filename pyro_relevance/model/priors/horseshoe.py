"""Group horseshoe over the input columns of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_relevance.model.distributions import Normal
from pyro_relevance.model.latents import Latent
from pyro_relevance.model.priors._packing import (
    check_positive,
    columns,
    expand_columns,
    pack,
    unpack,
)

__all__ = ["HorseshoeWeights"]


@dataclass(frozen=True)
class HorseshoeWeights:
    r"""Half-Cauchy scales, one per layer and one per input column of it, non-centred.

    .. math::
        \tau_l \sim C^+(0, \tau_0),\quad \lambda_c \sim C^+(0, 1),\quad z \sim N(0, 1),\quad
        w_{oc} = \tau_l \lambda_c z_{oc}

    Carvalho, Polson and Scott, The horseshoe estimator for sparse signals, Biometrika 2010; as a
    prior over the units of a network: Louizos, Ullrich and Welling, Bayesian compression for deep
    learning, NeurIPS 2017; Ghosh, Yao and Doshi-Velez, Model selection in Bayesian neural networks
    via horseshoe priors, JMLR 2019. Sites: ``layer_scale`` ``(num_layers,)``, ``weight_scale``
    ``(num_columns,)``, ``weights`` (the standardised :math:`z`) ``(num_parameters,)``. Parameters
    without columns (biases) are :math:`s_0 z`.

    Args:
        layer_scale: :math:`\tau_0 > 0`; small values expect few relevant columns.
        bias_scale: :math:`s_0 > 0`.
        initial_scale: Standard deviation of the posterior of :math:`z` at the start.

    Raises:
        ValueError: If an argument is not positive.
    """

    layer_scale: float = 0.1
    bias_scale: float = 1.0
    initial_scale: float = 0.05

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_positive(
            layer_scale=self.layer_scale,
            bias_scale=self.bias_scale,
            initial_scale=self.initial_scale,
        )

    def latents(self, parameters: Mapping[str, Tensor]) -> tuple[Latent, ...]:
        """Return the three sites, started where the products are the network's own weights."""
        sizes = columns(parameters)
        weights = pack(parameters)
        # The scales start at the size of the network's own weights, so that z starts near N(0, 1).
        layer = torch.stack(
            [parameters[name].detach().square().mean().sqrt().clamp(min=1e-3) for name in sizes]
        )
        column = weights.new_ones((sum(sizes.values()),))
        scale = expand_columns(
            self._column_scales(layer, column, sizes), parameters, self.bias_scale
        )
        return (
            Latent("layer_scale", "positive", layer, 0.3),
            Latent("weight_scale", "positive", column, 0.3),
            Latent("weights", "real", weights / scale, self.initial_scale, tuple(parameters)),
        )

    def latent_parameters(self, parameters: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Return all parameters."""
        return tuple(parameters)

    def sample(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Draw scales and standardised weights, and return their products as parameters."""
        sizes = columns(parameters)
        first = next(iter(parameters.values()))
        layer_prior = dist.HalfCauchy(
            first.new_full((len(sizes),), self.layer_scale), validate_args=False
        )
        layer = pyro.sample("layer_scale", layer_prior.to_event(1))
        column_prior = dist.HalfCauchy(first.new_ones((sum(sizes.values()),)), validate_args=False)
        column = pyro.sample("weight_scale", column_prior.to_event(1))
        scale = expand_columns(
            self._column_scales(layer, column, sizes), parameters, self.bias_scale
        )
        standard = Normal(torch.zeros_like(scale), torch.ones_like(scale), validate_args=False)
        return unpack(scale * pyro.sample("weights", standard.to_event(1)), parameters)

    @staticmethod
    def _column_scales(layer: Tensor, column: Tensor, sizes: Mapping[str, int]) -> Tensor:
        return column * torch.cat([layer[i].expand(size) for i, size in enumerate(sizes.values())])
