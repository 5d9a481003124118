"""Gaussian weights with automatic relevance determination: a learned prior scale per column."""

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

__all__ = ["ArdWeights"]


@dataclass(frozen=True)
class ArdWeights:
    r"""Mean-field Gaussian weights whose prior scale is learned for each input column of a layer.

    .. math::
        s_c^2 \sim InverseGamma(a, b), \qquad w_{oc} \mid s \sim N(0, s_c^2)

    A column is what reads one input or unit, so a scale near zero says that the edge is not needed
    (MacKay, Probable networks and plausible predictions, 1995; Neal, Bayesian Learning for Neural
    Networks, 1996). Sites: ``weight_scale`` :math:`(s_c^2)` of shape ``(num_columns,)`` and
    ``weights`` of shape ``(num_parameters,)``. Parameters without columns (biases) have the prior
    :math:`N(0, s_0^2)`.

    Args:
        concentration: :math:`a > 0`.
        rate: :math:`b > 0`, in squared units of the weights: columns are not shrunk to scales far
            below :math:`\sqrt{b}`.
        bias_scale: :math:`s_0 > 0`.
        initial_scale: Standard deviation of the weights' posterior at the start.

    Raises:
        ValueError: If an argument is not positive.
    """

    concentration: float = 1.0
    rate: float = 0.1
    bias_scale: float = 1.0
    initial_scale: float = 0.05

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_positive(
            concentration=self.concentration,
            rate=self.rate,
            bias_scale=self.bias_scale,
            initial_scale=self.initial_scale,
        )

    def latents(self, parameters: Mapping[str, Tensor]) -> tuple[Latent, ...]:
        """Return the sites of the squared scales and of the weights.

        Both start at the network's own weights, the squared scales at 1 / E[1 / s_c^2] given them:
        a smaller start would shrink weights before the data have been seen.
        """
        starts = []
        for name in columns(parameters):
            rows = parameters[name].detach().transpose(0, 1).flatten(1)
            rate = self.rate + 0.5 * rows.square().sum(1)
            starts.append(rate / (self.concentration + 0.5 * rows.shape[1]))
        return (
            Latent("weight_scale", "positive", torch.cat(starts), 0.3),
            Latent("weights", "real", pack(parameters), self.initial_scale, tuple(parameters)),
        )

    def latent_parameters(self, parameters: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Return all parameters."""
        return tuple(parameters)

    def sample(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Draw scales and weights, and return the weights as parameters."""
        first = next(iter(parameters.values()))
        ones = first.new_ones((sum(columns(parameters).values()),))
        prior = dist.InverseGamma(
            self.concentration * ones, self.rate * ones, validate_args=False
        ).to_event(1)
        variance = pyro.sample("weight_scale", prior)
        scale = expand_columns(variance.sqrt(), parameters, self.bias_scale)
        weights = pyro.sample(
            "weights", Normal(torch.zeros_like(scale), scale, validate_args=False).to_event(1)
        )
        return unpack(weights, parameters)
