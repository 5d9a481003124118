"""`Mask`: which edges are kept. Rules make masks; pruning and cost counting read them.

A mask never changes: its tensors are copied on the way in and on the way out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_relevance.edges.representation.summary import Summary
from pyro_relevance.errors import EdgeError
from pyro_relevance.masks.checks import (
    check_same_groups,
    packed,
    unpacked,
    validated_kept,
    validated_probability,
)
from pyro_relevance.masks.risk import Risk

if TYPE_CHECKING:
    from pyro_relevance.edges.find import Edges

__all__ = ["Mask", "Risk"]

_FORMAT = "pyro_relevance.Mask/1"


class Mask(Mapping[str, Tensor]):
    """Immutable mapping from group name to a bool tensor of the group's shape; True = kept.

    Masks of the same groups and shapes combine with ``&`` (kept by both), ``|`` (kept by either)
    and ``~`` (kept and removed exchanged). The result's `rule` says how it was made. Its `risk` is
    recomputed from the inclusion probabilities that the two masks carry: group by group from the
    mask that has them; where both have them and they differ, or where none has any, the risk is
    None. Two masks are equal when they keep the same edges, whatever the rules.

    Args:
        kept: Group name -> bool tensor of the group's shape, at least one edge in all.
        rule: Plain sentence that says which edges are kept.
        risk: The risk accepted, where it is known but the probabilities are not at hand.
        inclusion_probability: Group name -> probabilities of the group's shape, from which the risk
            is computed; the risk leaves out groups that it lacks.

    Raises:
        TypeError: Where a group is not a bool tensor.
        ValueError: Where there is no edge, a probability is outside [0, 1] or has the wrong shape,
            or both `risk` and `inclusion_probability` are given.

    Example:
        >>> kept = {"inputs": torch.tensor([True, False, True])}
        >>> mask = Mask(kept, rule="keep what the expert named")
        >>> mask.num_kept, (~mask).num_kept, (mask & ~mask).num_kept
        (2, 1, 0)
        >>> print(mask)
        keep what the expert named
          inputs  2 / 3 kept
          all     2 / 3 kept (density 0.667)
        risk, if the posterior is right: not stated (no inclusion probabilities)
    """

    __slots__ = ("_kept", "_probability", "_risk", "_rule")

    _kept: dict[str, Tensor]
    _rule: str
    _risk: Risk | None
    _probability: Mapping[str, Tensor] | None

    def __init__(
        self,
        kept: Mapping[str, Tensor],
        *,
        rule: str = "keep the edges given by hand",
        risk: Risk | None = None,
        inclusion_probability: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._kept = validated_kept(kept)
        self._rule = rule
        self._risk = risk
        self._probability = None
        if inclusion_probability is not None:
            if risk is not None:
                raise ValueError(
                    "Expected one of risk and inclusion_probability, but got both. The risk "
                    "follows from the inclusion probabilities."
                )
            self._probability = validated_probability(inclusion_probability, self._kept)
            self._risk = Risk.of(self._kept, self._probability)

    @classmethod
    def all_kept(cls, edges: Edges) -> Mask:
        """Mask that keeps every edge of `edges`."""
        kept = {group.name: torch.ones(group.shape, dtype=torch.bool) for group in edges.groups}
        return cls(kept, rule="keep every edge")

    @classmethod
    def from_json(cls, text: str) -> Mask:
        """Mask written by `to_json`: kept edges, rule and risk, without probabilities.

        Raises:
            ValueError: Where the text is damaged or was not written by `to_json`.
        """
        try:
            record = json.loads(text)
            if record["format"] != _FORMAT:
                raise ValueError(f"format {record['format']!r} instead of {_FORMAT!r}")
            kept = {name: unpacked(name, **group) for name, group in record["groups"].items()}
            risk = None if record["risk"] is None else Risk(**record["risk"])
            rule = str(record["rule"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"Expected text written by Mask.to_json(), but got {text[:40]!r} ({error}). Write "
                "the mask again."
            ) from error
        return cls(kept, rule=rule, risk=risk)

    def to_json(self) -> str:
        """Compact text: rule, risk, and one bit per edge (base64); no probabilities."""
        groups = {
            name: {"shape": list(keep.shape), "kept": packed(keep)}
            for name, keep in self._kept.items()
        }
        risk = None if self._risk is None else asdict(self._risk)
        return json.dumps({"format": _FORMAT, "rule": self._rule, "risk": risk, "groups": groups})

    @property
    def rule(self) -> str:
        """Plain sentence that says which edges are kept."""
        return self._rule

    @property
    def risk(self) -> Risk | None:
        """Risk accepted over the candidate groups; None without inclusion probabilities."""
        return self._risk

    @property
    def num_edges(self) -> int:
        """Number of edges in all groups."""
        return sum(keep.numel() for keep in self._kept.values())

    @property
    def num_kept(self) -> int:
        """Number of kept edges in all groups."""
        return sum(int(keep.sum()) for keep in self._kept.values())

    @property
    def density(self) -> float:
        """Kept edges as a fraction of all edges."""
        return self.num_kept / self.num_edges

    def with_risk(self, inclusion_probability: Mapping[str, Tensor]) -> Mask:
        """The same mask with the risk under `inclusion_probability`.

        For masks made from scores that are no probabilities: an effect, a signal-to-noise ratio, a
        magnitude.
        """
        return Mask(self._kept, rule=self._rule, inclusion_probability=inclusion_probability)

    def completed(self, edges: Edges) -> Mask:
        """The same mask over all groups of `edges`: groups that it lacks are kept whole.

        Raises:
            EdgeError: Where the mask has a group that `edges` lacks, or one of another shape.
        """
        shapes = {group.name: tuple(group.shape) for group in edges.groups}
        for name, keep in self._kept.items():
            if shapes.get(name) != tuple(keep.shape):
                raise EdgeError(
                    f"Expected group {name!r} of shape "
                    f"{shapes.get(name, 'nothing (no such group)')}, but the mask has "
                    f"{tuple(keep.shape)}. Make the mask from the same edges; they have "
                    f"{list(shapes)}."
                )
        device = next(iter(self._kept.values())).device
        kept = {
            name: self._kept.get(name, torch.ones(shape, dtype=torch.bool, device=device))
            for name, shape in shapes.items()
        }
        return assemble(kept, self._rule, self._probability, self._risk)

    def __getitem__(self, name: str) -> Tensor:
        try:
            return self._kept[name].clone()
        except KeyError:
            raise KeyError(
                f"Expected one of the groups {list(self._kept)}, but got {name!r}."
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._kept

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __and__(self, other: Mask) -> Mask:
        if not isinstance(other, Mask):
            return NotImplemented
        check_same_groups(self._kept, other._kept, "&")
        kept = {name: a & other._kept[name].to(a.device) for name, a in self._kept.items()}
        rule = f"keep what both rules keep: [{self._rule}] and [{other._rule}]"
        return assemble(kept, rule, _merged(self._probability, other._probability))

    def __or__(self, other: Mask) -> Mask:
        if not isinstance(other, Mask):
            return NotImplemented
        check_same_groups(self._kept, other._kept, "|")
        kept = {name: a | other._kept[name].to(a.device) for name, a in self._kept.items()}
        rule = f"keep what either rule keeps: [{self._rule}] or [{other._rule}]"
        return assemble(kept, rule, _merged(self._probability, other._probability))

    def __invert__(self) -> Mask:
        kept = {name: ~keep for name, keep in self._kept.items()}
        return assemble(kept, f"keep what this rule removes: [{self._rule}]", self._probability)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return self._kept.keys() == other._kept.keys() and all(
            torch.equal(keep.cpu(), other._kept[name].cpu()) for name, keep in self._kept.items()
        )

    def __hash__(self) -> int:
        return hash(
            frozenset((name, tuple(keep.shape), packed(keep)) for name, keep in self._kept.items())
        )

    def __repr__(self) -> str:
        size = f"{self.num_kept} / {self.num_edges} kept"
        return f"Mask({size} in {list(self._kept)}, rule={self._rule!r})"

    def _repr_html_(self) -> str:
        rows = tuple(
            (name, f"{int(keep.sum()):,}", f"{keep.numel():,}", f"{float(keep.float().mean()):.3f}")
            for name, keep in self._kept.items()
        )
        risk = self._risk if self._risk is not None else "not stated (no inclusion probabilities)"
        facts = (f"{self.num_kept:,} of {self.num_edges:,} edges kept",)
        header = ("group", "kept", "edges", "density")
        notes = (f"Rule: {self._rule}.", f"Risk, if the posterior is right: {risk}.")
        return Summary("Mask", facts, header, rows, notes).html()

    def __str__(self) -> str:
        rows = [(name, int(keep.sum()), keep.numel()) for name, keep in self._kept.items()]
        rows.append(("all", self.num_kept, self.num_edges))
        names, kept, totals = (
            max(len(str(value)) for value in column) for column in zip(*rows, strict=True)
        )
        lines = [f"  {n:<{names}}  {k:>{kept}} / {t:>{totals}} kept" for n, k, t in rows]
        if self._probability is not None:
            for i, name in enumerate(self._kept):
                lines[i] += "" if name in self._probability else " (not a candidate)"
        lines[-1] += f" (density {self.density:.3f})"
        risk = self._risk if self._risk is not None else "not stated (no inclusion probabilities)"
        return "\n".join([self._rule, *lines, f"risk, if the posterior is right: {risk}"])


def assemble(
    kept: dict[str, Tensor],
    rule: str,
    probability: Mapping[str, Tensor] | None,
    risk: Risk | None = None,
) -> Mask:
    """Mask of tensors already validated, so that many masks share one set of probabilities."""
    mask = Mask.__new__(Mask)
    mask._kept = kept
    mask._rule = rule
    mask._probability = probability
    mask._risk = risk if probability is None else Risk.of(kept, probability)
    return mask


def _merged(
    left: Mapping[str, Tensor] | None, right: Mapping[str, Tensor] | None
) -> Mapping[str, Tensor] | None:
    if left is None or right is None or left is right:
        return right if left is None else left
    for name in left.keys() & right.keys():
        if not torch.equal(left[name].cpu().double(), right[name].cpu().double()):
            return None
    return {**left, **right}
