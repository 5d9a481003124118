"""The part that all explicit guides share: posteriors of the latent sites other than the gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_relevance.model.distributions import LogNormal, MultiplicativeNormal, Normal, Slab
from pyro_relevance.model.latents import Latent

__all__ = ["LatentPosteriors"]


class LatentPosteriors(nn.Module):
    """Independent posteriors of the sites that a model's priors state.

    Args:
        latents: Statements of the priors.
    """

    def __init__(self, latents: Sequence[Latent]) -> None:
        super().__init__()
        self.kinds = {latent.name: latent.kind for latent in latents}
        self.loc = nn.ParameterDict()
        self.log_scale = nn.ParameterDict()
        for latent in latents:
            initial = latent.initial.detach().clone()
            location = initial.log() if latent.kind == "positive" else initial
            self.loc[latent.name] = nn.Parameter(location)
            self.log_scale[latent.name] = nn.Parameter(
                torch.full_like(initial, latent.initial_scale).log()
            )

    def posterior(self, name: str) -> dist.TorchDistribution:
        """Return the posterior of one site, before it is declared an event."""
        loc, scale = self.loc[name], self.log_scale[name].exp()
        kind = self.kinds[name]
        if kind == "positive":
            return LogNormal(loc, scale, validate_args=False)
        if kind == "multiplicative":
            # Kept as a mean and a standard deviation rather than a ratio: the gradient of a weight
            # with much noise does not depend on its mean then (Molchanov et al. 2017, section 4.3).
            log_alpha = 2.0 * self.log_scale[name] - loc.square().clamp(min=1e-16).log()
            return MultiplicativeNormal(loc, log_alpha)
        return Normal(loc, scale, validate_args=False)

    def forward(self, use: Mapping[str, Tensor] = MappingProxyType({})) -> dict[str, Tensor]:
        """Sample all sites.

        Args:
            use: Site -> probability that each of its entries is used; those of other sites are.
        """
        values = {}
        for name in self.kinds:
            posterior = self.posterior(name)
            if name in use:
                posterior = Slab(posterior.loc, posterior.scale, use[name])
            values[name] = pyro.sample(name, posterior.to_event(1))
        return values

    def mean(self) -> dict[str, Tensor]:
        """Return the posterior mean of each site."""
        means = {}
        for name, kind in self.kinds.items():
            loc = self.loc[name].detach()
            if kind == "positive":
                loc = (loc + 0.5 * (2.0 * self.log_scale[name].detach()).exp()).exp()
            means[name] = loc
        return means
