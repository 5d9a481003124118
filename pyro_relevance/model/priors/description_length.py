"""Minimum description length: an edge must be worth the nats that its parameters cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pyro_relevance.edges.find import Edges
from pyro_relevance.model.latents import Latent

__all__ = ["DescriptionLengthPrior"]


@dataclass(frozen=True)
class DescriptionLengthPrior:
    r"""Odds that fall with the cost of the edge.

    .. math::
        \log\frac{p(\gamma_e=1)}{p(\gamma_e=0)} = -\lambda\, c_e

    :math:`c_e` is what disappears from the network when this single edge is pruned: for a unit its
    incoming weights, bias and outgoing weights; for a weight one parameter. The KL then counts nats
    of description length, as in Hinton and van Camp, Keeping the neural networks simple by
    minimizing the description length of the weights, COLT 1993.

    Args:
        nats: :math:`\lambda`, nats per parameter or per byte. Half the logarithm of the number of
            examples per parameter is the asymptotic cost of a real parameter (Rissanen 1986; the
            BIC penalty).
        per: ``"parameter"`` or ``"byte"``.
        num_bytes: Bytes in which a parameter is stored (used where ``per="byte"``).

    Raises:
        ValueError: If ``nats`` is negative or not finite, ``per`` is unknown, or ``num_bytes`` is
            not positive.
    """

    nats: float = 1.0
    per: Literal["parameter", "byte"] = "parameter"
    num_bytes: float = 4.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        if not (math.isfinite(self.nats) and self.nats >= 0):
            raise ValueError(f"Expected nats >= 0 per {self.per}, but got {self.nats}.")
        if self.per not in ("parameter", "byte"):
            raise ValueError(f"Expected per to be 'parameter' or 'byte', but got {self.per!r}.")
        if not self.num_bytes > 0:
            raise ValueError(f"Expected num_bytes > 0, but got {self.num_bytes}.")

    def log_odds(self, edges: Edges) -> Tensor:
        """Return the prior log-odds of all edges, ``(num_edges,)``, all of them at most 0."""
        rate = self.nats * (self.num_bytes if self.per == "byte" else 1.0)
        costs = edges.num_parameters_per_edge()
        vector = torch.cat([costs[group.name].reshape(-1) for group in edges])
        return -rate * vector.to(torch.get_default_dtype())

    def latents(self, edges: Edges) -> tuple[Latent, ...]:
        """Return no latent sites: the odds follow from the costs."""
        return ()

    def sample(self, log_odds: Tensor, edges: Edges) -> Tensor:
        """Return the log-odds that follow from the costs."""
        return log_odds
