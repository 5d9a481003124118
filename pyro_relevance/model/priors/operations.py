"""Priors over the operations of relaxed graphs: given weights, costs, shared frequencies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_relevance.edges.find import EdgeGroup, Edges
from pyro_relevance.model.latents import Latent
from pyro_relevance.model.priors._packing import check_positive

__all__ = ["ABSENT", "CategoricalPrior", "DirichletPrior", "OperationCostPrior"]

ABSENT = -1e4
"""Log weight of an operation that an edge does not have: its probability is zero in any format."""


@dataclass(frozen=True)
class CategoricalPrior:
    r"""Each edge is one of its operations, with given weights.

    .. math::
        p(\gamma_e = k) = \mathrm{softmax}_k(a_{ek})

    Without arguments the prior is uniform. ``{"none": 2.0}`` prefers graphs with few edges.

    Args:
        log_weights: :math:`a` in nats, by the name of an operation (a number, for all edges that
            have it) or by the name of a group (a tensor of the group's shape); the two add up. What
            is not named has 0.
    """

    log_weights: Mapping[str, float | Tensor] = field(default_factory=dict)

    def logits(self, edges: Edges) -> Tensor:
        """Return the log weights, ``(num_groups, num_operations)`` in nats.

        Raises:
            ValueError: If a name is neither an operation nor a group, or a value has another shape
                or is not finite.
        """
        groups = {group.name for group in edges.operations}
        labels = {label for group in edges.operations for label in group.labels}
        unknown = [name for name in self.log_weights if name not in groups | labels]
        if unknown:
            raise ValueError(
                f"Expected log_weights of the operations {sorted(labels)} or of the groups "
                f"{sorted(groups)}, but got {unknown}."
            )
        values = {}
        for group in edges.operations:
            value = torch.tensor(
                [float(self.log_weights.get(label, 0.0)) for label in group.labels]
            )
            own = self.log_weights.get(group.name)
            if own is not None:
                own = torch.as_tensor(own, dtype=value.dtype)
                if own.ndim and tuple(own.shape) != group.shape:
                    raise ValueError(
                        f"Expected log_weights[{group.name!r}] of shape {group.shape}, one for "
                        f"each of {list(group.labels)}, but got {tuple(own.shape)}."
                    )
                value = value + own
            if not bool(value.isfinite().all()):
                raise ValueError(
                    f"Expected finite log_weights of {group.name!r}, but got {value.tolist()}."
                )
            values[group.name] = value
        return edges.join_operations(values, ABSENT)

    def latents(self, edges: Edges) -> tuple[Latent, ...]:
        """Return no latent sites: the weights are given."""
        return ()

    def sample(self, logits: Tensor, edges: Edges) -> Tensor:
        """Return the given log weights."""
        return logits


@dataclass(frozen=True)
class OperationCostPrior:
    r"""Operations pay for their parameters: :math:`\log p(\gamma_e = k) = -\lambda c_{ek} + const`.

    :math:`c_{ek}` counts the parameters of the operation in all graphs that share the edge. For
    other costs (multiply-accumulates, milliseconds) give ``-nats * cost`` to
    :class:`CategoricalPrior`; ``graphs.operation_macs`` counts them.

    Args:
        nats: :math:`\lambda`, nats per parameter.

    Raises:
        ValueError: If ``nats`` is negative or not finite.
    """

    nats: float = 1.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        if not (math.isfinite(self.nats) and self.nats >= 0):
            raise ValueError(f"Expected nats >= 0 per parameter, but got {self.nats}.")

    def logits(self, edges: Edges) -> Tensor:
        """Return the log weights, ``(num_groups, num_operations)`` in nats."""
        costs = {g.name: -self.nats * operation_parameters(edges, g) for g in edges.operations}
        return edges.join_operations(costs, ABSENT)

    def latents(self, edges: Edges) -> tuple[Latent, ...]:
        """Return no latent sites: the weights follow from the costs."""
        return ()

    def sample(self, logits: Tensor, edges: Edges) -> Tensor:
        """Return the log weights that follow from the costs."""
        return logits


@dataclass(frozen=True)
class DirichletPrior:
    r"""Operations whose frequencies in the graph are unknown and shared by all edges.

    .. math::
        g_k \sim \mathrm{Gamma}(\alpha, 1), \qquad
        p(\gamma_e = k \mid g) = g_k / \sum_{j \in e} g_j

    so that the frequencies are Dirichlet(:math:`\alpha`) over the operations of an edge. The latent
    site is ``operation_rate``, of shape ``(number of different operations,)``, in alphabetical
    order.

    Args:
        concentration: :math:`\alpha > 0`; small values expect few operations to be in use.

    Raises:
        ValueError: If the concentration is not positive.
    """

    concentration: float = 1.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_positive(concentration=self.concentration)

    def logits(self, edges: Edges) -> Tensor:
        """Return zeros, and a very low weight where an edge has no such operation."""
        zeros = {group.name: torch.zeros(group.shape) for group in edges.operations}
        return edges.join_operations(zeros, ABSENT)

    def latents(self, edges: Edges) -> tuple[Latent, ...]:
        """Return the site of the rates, started at the prior's mean."""
        mean = torch.full((len(_names(edges)),), self.concentration)
        return (Latent("operation_rate", "positive", mean, initial_scale=0.3),)

    def sample(self, logits: Tensor, edges: Edges) -> Tensor:
        """Draw the rates and return the log weights of each edge's operations."""
        names = _names(edges)
        alpha = self.concentration * logits.new_ones(len(names))
        prior = dist.Gamma(alpha, torch.ones_like(alpha), validate_args=False).to_event(1)
        rates = pyro.sample("operation_rate", prior).log()
        index = [
            [names.index(label) for label in group.labels]
            + [0] * (edges.num_operations - group.num_edges)
            for group in edges.operations
        ]
        return logits + rates[torch.tensor(index, device=logits.device)]


def operation_parameters(edges: Edges, group: EdgeGroup) -> Tensor:
    """Return the number of parameters of each candidate of an edge, ``group.shape``."""
    counts = []
    for label in group.labels:
        prefixes = tuple(
            f"{slot.tensor.removesuffix('gate')}operations.{label}." for slot in group.consumers
        )
        counts.append(
            sum(
                math.prod(shape)
                for name, shape in edges.shapes.items()
                if name.startswith(prefixes) and name not in edges.buffers
            )
        )
    return torch.tensor(counts, dtype=torch.get_default_dtype())


def _names(edges: Edges) -> list[str]:
    return sorted({label for group in edges.operations for label in group.labels})
