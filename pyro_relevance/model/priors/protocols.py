"""What a model asks of a prior over gates, over operations and over weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor

from pyro_relevance.edges.find import Edges
from pyro_relevance.model.latents import Latent

__all__ = ["GatePrior", "OperationPrior", "WeightPrior"]


@runtime_checkable
class GatePrior(Protocol):
    """A prior over the binary gates of all edges."""

    def log_odds(self, edges: Edges) -> Tensor:
        """Return the fixed part of the prior log-odds of the gates, ``(num_edges,)`` in nats."""
        ...

    def latents(self, edges: Edges) -> tuple[Latent, ...]:
        """Return the latent sites that `sample` draws; empty where the prior has no unknowns."""
        ...

    def sample(self, log_odds: Tensor, edges: Edges) -> Tensor:
        """Draw the prior's own sites and return the gates' log-odds, ``(num_edges,)`` in nats."""
        ...


@runtime_checkable
class OperationPrior(Protocol):
    """A prior over the operations of all edges of relaxed graphs."""

    def logits(self, edges: Edges) -> Tensor:
        """Return the fixed part of the log weights, ``(num_groups, num_operations)`` in nats."""
        ...

    def latents(self, edges: Edges) -> tuple[Latent, ...]:
        """Return the latent sites that `sample` draws; empty where the prior has no unknowns."""
        ...

    def sample(self, logits: Tensor, edges: Edges) -> Tensor:
        """Draw the prior's own sites and return the log weights, in the shape given."""
        ...


@runtime_checkable
class WeightPrior(Protocol):
    """A prior over the network's parameters."""

    def latents(self, parameters: Mapping[str, Tensor]) -> tuple[Latent, ...]:
        """Return the latent sites that `sample` draws; empty for point estimates."""
        ...

    def latent_parameters(self, parameters: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Return the names of the parameters made from latent sites; others are point estimates."""
        ...

    def sample(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Draw the prior's sites and return the network's parameters, in the shapes given.

        ``parameters`` are the network's own: point estimates use their values, all others only
        their shapes.
        """
        ...
