"""How large a pruned network may be, and when its structure is decided on the way there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from pyro_relevance import masks
from pyro_relevance.edges.edges import Edges
from pyro_relevance.edges.gates import counts_per_edge
from pyro_relevance.masks import Mask

__all__ = ["Budget", "Score"]

Score = Literal["saliency", "magnitude", "inclusion_probability"]
"""What ranks edges, see `Budget`."""

LIMITS = ("num_parameters", "num_macs", "num_bytes", "limit")


@dataclass(frozen=True, slots=True)
class Budget:
    r"""A limit on the size of the pruned network, for ``fit_to_budget``.

    Exactly one limit is given. The training has three parts, in shares of its steps (or of its
    time, where it has a limit): the weights alone until `start`; weights and gates until `end`,
    while the lowest-ranked edges are closed along the cubic schedule of Zhu and Gupta 2017; then
    the weights of the small network.

    With ``score="saliency"`` edge e has the rank of

    .. math:: \frac{1}{c_e} \sum_{w \text{ reads } e} (p_w\, w)^2\, v_w^{1/4}

    where :math:`p_w` is the product of the inclusion probabilities of the gates of w,
    :math:`v_w` the mean square of the gradient of w over recent minibatches, and :math:`c_e` the
    number of parameters (or multiply-accumulates) that go with the edge. With the power 1 instead
    of 1/4 this is the saliency of optimal brain damage (LeCun, Denker, Solla 1990) with the Fisher
    information as curvature; with 0 it is the magnitude.

    Args:
        num_parameters: Largest number of parameters that are not zero; or
        num_macs: largest number of multiply-accumulates for one example; or
        num_bytes: largest number of bytes; or
        limit: largest `cost`.
        cost: Cost of the network under a mask in any unit, milliseconds say; it should grow with
            the edges that are kept.
        start: Share of the training after which gates open.
        end: Share of the training after which the structure is final.
        restart: Whether the learning rate goes through its schedule again for the small network.
            By default it does where no single weights are removed: a narrow network has to find
            weights of its own.
        single_weights: Whether single weights are what is removed, whatever the gates of the model
            are on; else the edges of the model.
        score: ``"saliency"``; ``"magnitude"`` for the norm of the weights times inclusion
            probability; ``"inclusion_probability"`` alone.

    Raises:
        ValueError: If not exactly one limit is given, it is not positive, `cost` is missing or
            superfluous, not 0 <= start < end < 1, or the score is unknown.
    """

    num_parameters: int | None = None
    num_macs: int | None = None
    num_bytes: int | None = None
    limit: float | None = None
    cost: Callable[[Mask], float] | None = None
    start: float = 0.1
    end: float = 0.6
    restart: bool | None = None
    single_weights: bool = False
    score: Score = "saliency"

    def __post_init__(self) -> None:
        """Check the arguments."""
        given = {name: getattr(self, name) for name in LIMITS if getattr(self, name) is not None}
        if len(given) != 1:
            raise ValueError(f"Expected exactly one of {list(LIMITS)}, but got {given or 'none'}.")
        ((name, limit),) = given.items()
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0:
            raise ValueError(f"Expected {name} as a positive number, but got {limit!r}.")
        if (self.cost is None) != (self.limit is None):
            raise ValueError(
                "Expected limit= together with cost=, a function of a mask in the same unit; the "
                "library counts num_parameters, num_macs and num_bytes by itself."
            )
        if self.single_weights and self.score == "inclusion_probability":
            raise ValueError(
                "Expected score='saliency' or 'magnitude' with single_weights=True, but got "
                "'inclusion_probability'. Gate single weights to rank them by it."
            )
        if not 0 <= self.start < self.end < 1:
            raise ValueError(
                f"Expected 0 <= start < end < 1, but got {self.start} and {self.end}. They are "
                "shares of the training."
            )
        if self.score not in get_args(Score):
            raise ValueError(f"Expected score from {list(get_args(Score))}, got {self.score!r}.")

    def check(self, edges: Edges) -> None:
        """Check that the smallest network is within the limit, before any work.

        Args:
            edges: The edges of the network.

        Raises:
            ValueError: If it is not, or nothing can be removed.
        """
        if not len(edges) or edges.operations:
            raise ValueError(
                "Expected edges that can be removed one by one, but got "
                f"{'operations of a graph' if edges.operations else 'none'}. Operations are chosen "
                "by search_structure."
            )
        self.choose({group.name: torch.zeros(group.shape) for group in edges}, edges)

    def restarts(self, edges: Edges) -> bool:
        """Return whether the learning rate starts again for the small network, see `restart`.

        Args:
            edges: What can be removed.
        """
        if self.restart is not None:
            return self.restart
        return all(group.granularity != "weight" for group in edges)

    def choose(self, scores: Mapping[str, Tensor], edges: Edges) -> Mask:
        """Return the mask of the highest-scoring edges within the limit.

        Args:
            scores: Group -> ``group.shape`` scores; minus infinity for edges that are closed.
            edges: The edges.
        """
        if self.limit is not None:
            assert self.cost is not None
            found = masks.within_cost(scores, self.limit, cost=self.cost)
        else:
            limits = {name: getattr(self, name) for name in LIMITS[:3]}
            # Single weights cost the same, but those of convolutions in multiply-accumulates.
            fill = any(group.granularity != "weight" for group in edges)
            found = masks.budget(scores, edges=edges, fill=fill, **limits)
        if not any(bool(torch.isneginf(score).any()) for score in scores.values()):
            return found
        # Closed edges rank last, and none of them comes back.
        opened = {name: torch.isfinite(score) for name, score in scores.items()}
        return Mask({name: found[name] & opened[name] for name in found}, rule=found.rule)

    def costs(self, edges: Edges) -> dict[str, Tensor]:
        """Return what goes with each edge, in parameters or in multiply-accumulates.

        Args:
            edges: The edges.

        Returns:
            Group -> ``group.shape``, at least 1.
        """
        if self.num_macs is None:
            counts = edges.num_parameters_per_edge()
        else:
            # Vectors, such as biases, multiply nothing.
            times = {n: edges.positions.get(n, 1) for n, s in edges.shapes.items() if len(s) > 1}
            weights = times.keys() - set(edges.buffers)
            counts = counts_per_edge(
                edges, {name: times[name] if name in weights else 0 for name in edges.shapes}
            )
        return {name: count.clamp(min=1) for name, count in counts.items()}
