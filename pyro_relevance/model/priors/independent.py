"""Independent gates with given prior odds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_relevance.edges.find import Edges
from pyro_relevance.model.latents import Latent

__all__ = ["IndependentPrior"]


@dataclass(frozen=True)
class IndependentPrior:
    r"""Each gate is on with its own given odds: :math:`\gamma_e \sim Bernoulli(\sigma(a_e))`.

    Args:
        prior_log_odds: :math:`a_e` in nats: one number for all edges, or a mapping from the name of
            a group to a number or to a tensor of the group's shape. 0 is the flat prior; -2 means
            that an edge is expected to be relevant with probability 0.12.
    """

    prior_log_odds: float | Mapping[str, float | Tensor] = 0.0

    @classmethod
    def from_probability(cls, probability: float) -> IndependentPrior:
        """Return the prior under which each edge is relevant with ``probability``, inside (0, 1).

        Raises:
            ValueError: If ``probability`` is not strictly between 0 and 1.
        """
        if not 0.0 < probability < 1.0:
            raise ValueError(
                f"Expected a prior inclusion probability in (0, 1), but got {probability}."
            )
        return cls(math.log(probability) - math.log1p(-probability))

    def log_odds(self, edges: Edges) -> Tensor:
        """Return the prior log-odds of all edges, ``(num_edges,)``.

        Raises:
            ValueError: If a group is missing or unknown, or a tensor has the wrong shape.
        """
        given = self.prior_log_odds
        if not isinstance(given, Mapping):
            return torch.full((edges.num_edges,), _finite(float(given), "prior_log_odds"))
        if set(given) != set(edges.names):
            raise ValueError(
                f"Expected prior_log_odds for exactly the groups {list(edges.names)}, but got "
                f"{sorted(given)}."
            )
        parts = []
        for group in edges:
            value = torch.as_tensor(given[group.name], dtype=torch.get_default_dtype())
            if value.ndim and tuple(value.shape) != group.shape:
                raise ValueError(
                    f"Expected prior_log_odds['{group.name}'] of shape {group.shape} or a number, "
                    f"but got {tuple(value.shape)}."
                )
            if not bool(torch.isfinite(value).all()):
                raise ValueError(
                    f"Expected finite prior_log_odds['{group.name}'], but got a NaN or infinite "
                    "entry."
                )
            parts.append(value.expand(group.shape).reshape(-1))
        return torch.cat(parts)

    def latents(self, edges: Edges) -> tuple[Latent, ...]:
        """Return no latent sites: the odds are given."""
        return ()

    def sample(self, log_odds: Tensor, edges: Edges) -> Tensor:
        """Return the given log-odds."""
        return log_odds


def _finite(value: float, name: str) -> float:
    if not math.isfinite(value):
        raise ValueError(f"Expected a finite {name}, but got {value}.")
    return value
