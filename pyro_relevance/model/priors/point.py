"""Point estimates of the weights under a Gaussian prior (maximum a posteriori, weight decay)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pyro
from pyro.poutine import runtime
from torch import Tensor

from pyro_relevance.model.latents import Latent
from pyro_relevance.model.priors._packing import prior_scale
from pyro_relevance.model.priors._squares import sum_of_squares

__all__ = ["PointWeights"]


@dataclass(frozen=True)
class PointWeights:
    r"""The weights are parameters with the prior :math:`N(0, s^2)`, the factor ``weight_prior``.

    Args:
        scale: Prior standard deviation :math:`s`: a number for all parameters or one per qualified
            parameter name; ``None`` for no prior (maximum likelihood).
    """

    scale: float | Mapping[str, float] | None = 1.0

    def latents(self, parameters: Mapping[str, Tensor]) -> tuple[Latent, ...]:
        """Return no latent sites.

        Raises:
            ValueError: If a scale is not positive or a parameter is missing in the mapping of
                scales.
        """
        if self.scale is not None:
            prior_scale(self.scale, parameters)
        return ()

    def latent_parameters(self, parameters: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Return no parameter: all are point estimates."""
        return ()

    def sample(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Add the log prior density and return the parameters as they are."""
        if self.scale is None or not runtime.am_i_wrapped():
            return dict(parameters)  # a factor means nothing, and Pyro warns, outside of inference
        groups: dict[float, list[Tensor]] = {}
        for name, scale in self._scales(parameters).items():
            groups.setdefault(scale, []).append(parameters[name])
        terms, constant = [], 0.0
        for scale, values in groups.items():
            terms.append(sum_of_squares(values) * (-0.5 / scale**2))
            size = sum(value.numel() for value in values)
            constant -= size * (math.log(scale) + 0.5 * math.log(2.0 * math.pi))
        pyro.factor("weight_prior", sum(terms[1:], terms[0]) + constant)
        return dict(parameters)

    def _scales(self, parameters: Mapping[str, Tensor]) -> Mapping[str, float]:
        if isinstance(self.scale, Mapping):
            return self.scale
        return dict.fromkeys(parameters, float(self.scale or 1.0))
