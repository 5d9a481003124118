"""Gates whose inclusion rate is itself learned, one rate per group of edges."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyro
import torch
from torch import Tensor

from pyro_relevance.edges.find import Edges
from pyro_relevance.model.distributions import LogitBeta
from pyro_relevance.model.latents import Latent
from pyro_relevance.model.priors._packing import check_positive

__all__ = ["HierarchicalPrior"]


@dataclass(frozen=True)
class HierarchicalPrior:
    r"""Beta over the inclusion rate of each group.

    .. math::
        \pi_g \sim Beta(a, b), \qquad \gamma_e \mid \pi \sim Bernoulli(\pi_{g(e)})

    The rate adapts to the data, which corrects for the number of gated edges (Scott and Berger,
    Bayes and empirical-Bayes multiplicity adjustment in the variable-selection problem, Annals of
    Statistics 2010). The latent site is ``inclusion_logit``, the log-odds of
    :math:`\pi_g`, of shape ``(num_groups,)``.

    Args:
        concentration1: :math:`a > 0`, prior count of relevant edges.
        concentration0: :math:`b > 0`, prior count of irrelevant edges.

    Raises:
        ValueError: If a concentration is not positive.
    """

    concentration1: float = 1.0
    concentration0: float = 1.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_positive(concentration1=self.concentration1, concentration0=self.concentration0)

    def log_odds(self, edges: Edges) -> Tensor:
        """Return zeros: the odds are those of the rate."""
        return torch.zeros(edges.num_edges)

    def latents(self, edges: Edges) -> tuple[Latent, ...]:
        """Return the site of the rates, started at the prior's mean."""
        mean = math.log(self.concentration1 / self.concentration0)
        return (
            Latent("inclusion_logit", "real", torch.full((len(edges),), mean), initial_scale=0.3),
        )

    def sample(self, log_odds: Tensor, edges: Edges) -> Tensor:
        """Draw the rates and return the log-odds of each edge."""
        ones = torch.ones(len(edges), dtype=log_odds.dtype, device=log_odds.device)
        prior = LogitBeta(self.concentration1 * ones, self.concentration0 * ones).to_event(1)
        rates = pyro.sample("inclusion_logit", prior)
        return log_odds + torch.cat(
            [rates[i].expand(group.num_edges) for i, group in enumerate(edges)]
        )
