"""Gaussian weights: the mean-field Gaussian network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyro
import torch
from torch import Tensor

from pyro_relevance.model.distributions import Normal
from pyro_relevance.model.latents import Latent
from pyro_relevance.model.priors._packing import check_positive, pack, prior_scale, unpack

__all__ = ["GaussianWeights"]


@dataclass(frozen=True)
class GaussianWeights:
    r"""All parameters are latent, :math:`w \sim N(0, s^2)`.

    They are in one site, ``weights``, of shape ``(num_parameters,)``.

    Args:
        scale: Prior standard deviation :math:`s`: a number, or one per qualified parameter name.
        initial_scale: Standard deviation of the posterior at the start.

    Raises:
        ValueError: If ``initial_scale`` is not positive.
    """

    scale: float | Mapping[str, float] = 1.0
    initial_scale: float = 0.05

    def __post_init__(self) -> None:
        """Check what can be checked without the network."""
        check_positive(initial_scale=self.initial_scale)

    def latents(self, parameters: Mapping[str, Tensor]) -> tuple[Latent, ...]:
        """Return the site of the weights, started at the network's own.

        Raises:
            ValueError: If a scale is not positive or a parameter is missing in the mapping of
                scales.
        """
        prior_scale(self.scale, parameters)
        entries = tuple(parameters)
        return (Latent("weights", "real", pack(parameters), self.initial_scale, entries),)

    def latent_parameters(self, parameters: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Return all parameters."""
        return tuple(parameters)

    def sample(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Draw the weights and return them as parameters."""
        first = next(iter(parameters.values()))
        scales = prior_scale(self.scale, parameters)
        scale = torch.cat([first.new_full((parameters[n].numel(),), scales[n]) for n in parameters])
        prior = Normal(torch.zeros_like(scale), scale, validate_args=False).to_event(1)
        return unpack(pyro.sample("weights", prior), parameters)
