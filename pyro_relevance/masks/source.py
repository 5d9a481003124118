"""The input of rules: a posterior of one chain, or one score per edge.

A score is any number per edge with larger = more relevant. Only probabilities carry a risk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from pyro_relevance.masks.checks import validated_probability
from pyro_relevance.masks.mask import Mask, assemble

if TYPE_CHECKING:
    from pyro_relevance.edges.find import Edges

__all__ = ["Groups", "PosteriorLike", "Ranking", "Source"]


@runtime_checkable
class PosteriorLike(Protocol):
    """The part of a posterior that rules and scores use."""

    @property
    def num_chains(self) -> int:
        """Number of independent fits."""

    @property
    def edges(self) -> Edges:
        """The candidate edges."""

    def inclusion_probability(self) -> Mapping[str, Tensor]:
        """Group name -> ``(num_chains, *group.shape)`` probabilities that the gate is on."""


Source: TypeAlias = PosteriorLike | Mapping[str, Tensor]
Groups: TypeAlias = Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Ranking:
    """Scores of the candidate edges in one order.

    Groups in the order of the source, each flattened row by row.

    Args:
        scores: ``(num_edges,)`` float64 on the CPU, larger = more relevant.
        order: ``(num_edges,)`` positions from the highest score to the lowest; ties in the order
            of the source.
        candidates: Names of the candidate groups.
        kept_whole: Names of the groups that are kept as they are.
        shapes: Group name -> shape, for all groups in the order of the source.
        device: Where masks are made.
        probability: Group name -> inclusion probabilities of the candidate groups; None for other
            scores.
    """

    scores: Tensor
    order: Tensor
    candidates: tuple[str, ...]
    kept_whole: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    device: torch.device
    probability: Mapping[str, Tensor] | None

    @classmethod
    def read(cls, source: Source, groups: Groups, *, as_probability: bool = False) -> Ranking:
        """Validated scores of `groups` (None: of all groups) of `source`.

        Args:
            source: Posterior of one chain, or group name -> tensor of the group's shape.
            groups: Names of the candidate groups (None: all groups).
            as_probability: Whether plain scores are required to be probabilities.

        Raises:
            TypeError: Where `source` is neither, or a score is not a real tensor.
            ValueError: Where a posterior has several chains, there is no score, a score is NaN, a
                group is unknown, or a number is not a probability where one is needed.
        """
        if isinstance(source, Mapping):
            scores: Mapping[str, Tensor] = source
        else:
            scores, as_probability = _one_chain(source), True
        for name, score in scores.items():
            if not isinstance(score, Tensor) or score.is_complex():
                got = score.dtype if isinstance(score, Tensor) else type(score).__name__
                raise TypeError(
                    f"Expected a real tensor of scores for group {name!r}, but got {got}."
                )
            if bool(torch.isnan(score).any()):
                raise ValueError(
                    f"Expected a number for each edge of group {name!r}, but got NaN at "
                    f"{int(torch.isnan(score).sum())} of {score.numel()} edges. Look for a "
                    "diverged fit."
                )
        candidates = _candidates(scores, groups)
        if not any(scores[name].numel() for name in candidates):
            raise ValueError(
                f"Expected at least one candidate edge, but the groups {list(candidates)} "
                "have none."
            )
        picked = {name: scores[name] for name in candidates}
        flat = torch.cat([s.detach().cpu().double().reshape(-1) for s in picked.values()])
        return cls(
            scores=flat,
            order=torch.sort(flat, descending=True, stable=True).indices,
            candidates=candidates,
            kept_whole=tuple(name for name in scores if name not in candidates),
            shapes={name: tuple(score.shape) for name, score in scores.items()},
            device=next(iter(scores.values())).device,
            probability=validated_probability(picked, scores) if as_probability else None,
        )

    @property
    def num_edges(self) -> int:
        """Number of candidate edges."""
        return self.scores.numel()

    @property
    def scope(self) -> str:
        """Ending of a rule's sentence that names the candidate groups where not all are."""
        if not self.kept_whole:
            return ""
        return f", in {', '.join(self.candidates)} (other groups kept whole)"

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """``(num_edges,)`` values as tensors of the shapes of the candidate groups."""
        sizes = [math.prod(self.shapes[name]) for name in self.candidates]
        parts = torch.split(values, sizes)
        return {
            name: part.reshape(self.shapes[name])
            for name, part in zip(self.candidates, parts, strict=True)
        }

    def mask(self, keep: Tensor, rule: str) -> Mask:
        """Mask that keeps what `keep` ``(num_edges,)`` marks, and the other groups whole."""
        marked = self.split(keep)
        kept = {
            name: marked[name].to(self.device, copy=True)
            if name in marked
            else torch.ones(shape, dtype=torch.bool, device=self.device)
            for name, shape in self.shapes.items()
        }
        return assemble(kept, rule + self.scope, self.probability)

    def top(self, num_kept: int, rule: str) -> Mask:
        """Mask that keeps the `num_kept` edges with the highest scores."""
        keep = torch.zeros(self.num_edges, dtype=torch.bool)
        keep[self.order[:num_kept]] = True
        return self.mask(keep, rule)


def _one_chain(source: object) -> dict[str, Tensor]:
    if not isinstance(source, PosteriorLike):
        raise TypeError(
            "Expected a posterior or a mapping of group name to scores, but got "
            f"{type(source).__name__}. For draws, compute a score first, e.g. "
            "relevance.inclusion_probability(draws)."
        )
    if source.num_chains != 1:
        raise ValueError(
            f"Expected a posterior of one chain, but got {source.num_chains} chains. Hidden units "
            "of different chains are not the same units: pass posterior.chain(i) (or "
            "fit.best_chain), or, for the inputs, "
            f'relevance.pooled(posterior, groups=("inputs",)).'
        )
    return {name: p[0] for name, p in source.inclusion_probability().items()}


def _candidates(scores: Mapping[str, Tensor], groups: Groups) -> tuple[str, ...]:
    if groups is None:
        return tuple(scores)
    if isinstance(groups, str):
        raise TypeError(
            f"Expected groups as a sequence of names, but got the text {groups!r}. Write "
            f"({groups!r},)."
        )
    unknown = [name for name in groups if name not in scores]
    if unknown:
        raise ValueError(f"Expected groups out of {list(scores)}, but got {unknown}.")
    return tuple(name for name in scores if name in groups)
