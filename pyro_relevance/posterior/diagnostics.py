"""Is the posterior calibrated, is the selection right, and does it stay the same over seeds?

Pure functions of probabilities, masks and known truths; nothing is sampled or trained here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_relevance.masks import Mask
from pyro_relevance.masks.checks import span
from pyro_relevance.posterior.stability import Stability, stability

__all__ = [
    "Reliability",
    "Stability",
    "between_chain_agreement",
    "calibration",
    "false_discovery_proportion",
    "power",
    "stability",
    "undecided_fraction",
]


@dataclass(frozen=True, slots=True)
class Reliability:
    """Reliability table of probabilities, one row per bin.

    Args:
        lower: ``(num_bins,)`` left ends of the bins.
        upper: ``(num_bins,)`` right ends; a probability on a border belongs to the bin on its
            right, 1 to the last.
        count: ``(num_bins,)`` number of edges in the bin.
        predicted: ``(num_bins,)`` mean inclusion probability; NaN where the bin is empty.
        observed: ``(num_bins,)`` fraction of truly relevant edges; NaN where the bin is empty.
        standard_error: ``(num_bins,)`` of `observed` if the probabilities are right,
            sqrt(sum p (1 - p)) / count.
    """

    lower: Tensor
    upper: Tensor
    count: Tensor
    predicted: Tensor
    observed: Tensor
    standard_error: Tensor

    @property
    def expected_calibration_error(self) -> float:
        """Mean of abs(observed - predicted) over edges (fraction); smaller = better calibrated."""
        gap = torch.where(self.count > 0, (self.observed - self.predicted).abs() * self.count, 0.0)
        return float(gap.sum() / self.count.sum())


def calibration(
    inclusion_probability: Tensor | Mapping[str, Tensor],
    truth: Tensor | Mapping[str, Tensor],
    num_bins: int = 10,
) -> Reliability:
    """Reliability table: the fraction of relevant edges among those of each probability.

    Args:
        inclusion_probability: Probabilities of any shape, or group name -> probabilities; edges of
            many data sets may be stacked.
        truth: Bool of the same shape or shapes, True = relevant.
        num_bins: Number of bins of equal width over [0, 1].

    Raises:
        TypeError: Where one argument is a mapping and the other is not, or `truth` is not bool.
        ValueError: Where shapes differ, nothing is given, a probability is outside [0, 1], or
            `num_bins` is below 1.

    References:
        DeGroot and Fienberg, The comparison and evaluation of forecasters, The Statistician 1983.
    """
    if num_bins < 1:
        raise ValueError(f"Expected num_bins >= 1, but got {num_bins}.")
    p, relevant = _flat(inclusion_probability, truth)
    bins = (p * num_bins).long().clamp(max=num_bins - 1)

    def total(values: Tensor) -> Tensor:
        return torch.zeros(num_bins, dtype=torch.float64).index_add(0, bins, values.double())

    count = total(torch.ones_like(p))
    ends = torch.linspace(0, 1, num_bins + 1, dtype=torch.float64)
    return Reliability(
        lower=ends[:-1],
        upper=ends[1:],
        count=count.long(),
        predicted=total(p) / count,
        observed=total(relevant) / count,
        standard_error=total(p * (1 - p)).sqrt() / count,
    )


def false_discovery_proportion(mask: Mask, truth: Mapping[str, Tensor]) -> float:
    """Fraction of the kept edges that are irrelevant, 0 where nothing is kept.

        FDP = #(kept and not relevant) / max(1, #kept)

    Args:
        mask: Kept edges.
        truth: Group name -> bool tensor, True = relevant; only the groups named here count.

    Raises:
        TypeError: Where a truth is not bool.
        ValueError: Where a group is unknown or has another shape.
    """
    keep, relevant = _kept_and_relevant(mask, truth)
    return int((keep & ~relevant).sum()) / max(1, int(keep.sum()))


def power(mask: Mask, truth: Mapping[str, Tensor]) -> float:
    """Fraction of the relevant edges that are kept.

        power = #(kept and relevant) / #relevant

    Args:
        mask: Kept edges.
        truth: Group name -> bool tensor, True = relevant; only the groups named here count.

    Raises:
        TypeError: Where a truth is not bool.
        ValueError: Where no edge is relevant, or a group is unknown or has another shape.
    """
    keep, relevant = _kept_and_relevant(mask, truth)
    if not bool(relevant.any()):
        raise ValueError(
            "Expected at least one relevant edge, but the truth has none. Power is undefined here."
        )
    return int((keep & relevant).sum()) / int(relevant.sum())


def between_chain_agreement(
    inclusion_probability: Mapping[str, Tensor], groups: Sequence[str] = ("inputs",)
) -> dict[str, Tensor]:
    """Largest difference between two chains in each edge's inclusion probability; 0 = none.

        max over chains c, c' of abs(p_{c,e} - p_{c',e})

    Use it for groups whose edges mean the same in each chain. Hidden units of different chains are
    different units.

    Args:
        inclusion_probability: Group name -> ``(chain, *group.shape)``, as
            ``posterior.inclusion_probability()`` gives.
        groups: Names of the groups to compare.

    Returns:
        Group name -> tensor of the group's shape, for `groups` only.

    Raises:
        ValueError: Where a group is unknown or there are fewer than two chains.
    """
    result = {}
    for name in groups:
        if name not in inclusion_probability:
            raise ValueError(
                f"Expected groups out of {list(inclusion_probability)}, but got {name!r}. Pass a "
                "sequence of names."
            )
        p = inclusion_probability[name]
        if p.dim() == 0 or p.shape[0] < 2:
            raise ValueError(
                f"Expected at least 2 chains in group {name!r}, but got shape {tuple(p.shape)}. "
                "Fit several seeds."
            )
        result[name] = p.amax(dim=0) - p.amin(dim=0)
    return result


def undecided_fraction(
    inclusion_probability: Tensor | Mapping[str, Tensor], low: float = 0.1, high: float = 0.9
) -> float:
    """Fraction of the edges whose inclusion probability is strictly between `low` and `high`.

    Args:
        inclusion_probability: Probabilities of any shape, or group name -> probabilities.
        low: Below or at this, an edge counts as removed.
        high: Above or at this, an edge counts as kept.

    Raises:
        ValueError: Where not 0 <= low < high <= 1, nothing is given, or a probability is outside
            [0, 1].
    """
    if not 0 <= low < high <= 1:
        raise ValueError(f"Expected 0 <= low < high <= 1, but got low={low} and high={high}.")
    p = _probabilities(inclusion_probability)
    return int(((p > low) & (p < high)).sum()) / p.numel()


def _probabilities(values: Tensor | Mapping[str, Tensor]) -> Tensor:
    parts = [values] if isinstance(values, Tensor) else list(values.values())
    p = torch.cat([part.detach().cpu().double().reshape(-1) for part in parts] or [torch.empty(0)])
    if p.numel() == 0:
        raise ValueError("Expected at least one inclusion probability, but got none.")
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise ValueError(
            f"Expected inclusion probabilities in [0, 1], but got {span(p)}. Pass probabilities, "
            "not scores."
        )
    return p


def _flat(
    probability: Tensor | Mapping[str, Tensor], truth: Tensor | Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    if isinstance(probability, Tensor) != isinstance(truth, Tensor):
        raise TypeError(
            f"Expected two tensors or two mappings, but got {type(probability).__name__} and "
            f"{type(truth).__name__}."
        )
    named_p = {"": probability} if isinstance(probability, Tensor) else probability
    named_truth = {"": truth} if isinstance(truth, Tensor) else truth
    shapes = {name: tuple(p.shape) for name, p in named_p.items()}
    if shapes != (got := {name: tuple(value.shape) for name, value in named_truth.items()}):
        raise ValueError(f"Expected truth of the shapes {shapes}, but got {got}.")
    _check_bool(named_truth)
    relevant = [named_truth[name].cpu().reshape(-1) for name in named_p]
    return _probabilities(probability), torch.cat(relevant)


def _kept_and_relevant(mask: Mask, truth: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    for name, relevant in truth.items():
        expected = tuple(mask[name].shape) if name in mask else f"one of the groups {list(mask)}"
        if expected != tuple(relevant.shape):
            raise ValueError(
                f"Expected truth[{name!r}] of shape {expected}, but got {tuple(relevant.shape)}."
            )
    if not truth:
        raise ValueError(
            f"Expected the truth of at least one of the groups {list(mask)}, but got none."
        )
    _check_bool(truth)
    keep = torch.cat([mask[name].cpu().reshape(-1) for name in truth])
    return keep, torch.cat([relevant.cpu().reshape(-1) for relevant in truth.values()])


def _check_bool(truth: Mapping[str, Tensor]) -> None:
    for name, relevant in truth.items():
        if relevant.dtype is not torch.bool:
            raise TypeError(
                f"Expected truth{f'[{name!r}]' if name else ''} as a bool tensor (True = "
                f"relevant), but got {relevant.dtype}."
            )
