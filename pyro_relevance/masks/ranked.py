"""Rules that keep the edges with the highest scores: a fraction, a budget, or every size.

`source` and `groups` are those of all rules, see `pyro_relevance.masks.rules`. Edges of equal score
are ranked in the order of the groups of the source, and inside a group row by row, so that the same
scores give the same mask.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch

from pyro_relevance.masks.mask import Mask
from pyro_relevance.masks.source import Groups, PosteriorLike, Ranking, Source

if TYPE_CHECKING:
    from pyro_relevance.edges.find import Edges

__all__ = ["budget", "path", "top_fraction", "within_cost"]

_MOST_TRIES = 64
"""Edges that are tried to fill a budget."""


def top_fraction(
    source: Source,
    density: float,
    *,
    per: Literal["network", "group"] = "network",
    groups: Groups = None,
) -> Mask:
    """Mask of the ceil(density * num_edges) candidate edges with the highest scores.

    Args:
        source: Posterior of one chain, or group name -> scores.
        density: Fraction of the candidate edges that is kept, in [0, 1].
        per: ``"network"`` ranks all candidate edges together, ``"group"`` each group by itself.
        groups: Names of the candidate groups; the others are kept whole.

    Raises:
        ValueError: Where `density` is outside [0, 1], `per` is unknown, or a posterior has several
            chains.

    Example:
        >>> top_fraction({"inputs": torch.tensor([0.1, 3.0, 2.0])}, density=0.5)["inputs"].tolist()
        [False, True, True]
    """
    if not 0 <= density <= 1:
        raise ValueError(f"Expected a density in [0, 1], but got {density}. Write 0.1 for a tenth.")
    if per not in ("network", "group"):
        raise ValueError(f"Expected per to be 'network' or 'group', but got {per!r}.")
    ranking = Ranking.read(source, groups)
    where = "of all candidate edges together" if per == "network" else "of each group"
    rule = f"keep the fraction {density:g} {where} with the highest scores"
    if per == "network":
        return ranking.top(_share(density, ranking.num_edges), rule)
    keep = torch.zeros(ranking.num_edges, dtype=torch.bool)
    start = 0
    for scores in ranking.split(ranking.scores).values():
        order = torch.sort(scores.reshape(-1), descending=True, stable=True).indices
        keep[start + order[: _share(density, order.numel())]] = True
        start += order.numel()
    return ranking.mask(keep, rule)


def budget(
    source: Source,
    *,
    num_parameters: int | None = None,
    num_macs: int | None = None,
    num_bytes: int | None = None,
    edges: Edges | None = None,
    cost: Callable[[Mask], float] | None = None,
    fill: bool = False,
    groups: Groups = None,
) -> Mask:
    """Mask of the highest-scoring edges within a number of parameters, MACs or bytes.

    Exactly one of `num_parameters`, `num_macs` and `num_bytes` is the limit. For a limit in any
    other unit, such as milliseconds, see `within_cost`; for a number of edges, see `top_fraction`.

    Args:
        source: Posterior of one chain, or group name -> scores.
        num_parameters: Largest number of parameters (kept entries) of the pruned network.
        num_macs: Largest number of multiply-accumulates of the pruned network for one example.
        num_bytes: Largest number of bytes of the pruned network.
        edges: The edges of the network, for sources that do not bring them. Groups that `source`
            lacks are kept whole.
        cost: Counts the limit's unit for a mask; by default the library counts.
        fill: Whether edges of lower rank that still fit are kept too: up to 64 are tried, so that
            less of the limit is left unused where one edge costs more than another.
        groups: Names of the candidate groups; the others are kept whole.

    Raises:
        TypeError: Where `edges` is missing or is no result of ``find_edges``.
        ValueError: Where not exactly one limit is given, or the limit is below the smallest
            reachable cost.
    """
    limits = {"num_parameters": num_parameters, "num_macs": num_macs, "num_bytes": num_bytes}
    given = {unit: limit for unit, limit in limits.items() if limit is not None}
    if len(given) != 1:
        raise ValueError(
            f"Expected exactly one of {list(limits)}, but got {list(given) or 'none'}."
        )
    ((unit, limit),) = given.items()
    if cost is None:
        cost = _counted(source, edges, unit)
    unit = unit.removeprefix("num_")
    return _within(source, limit, cost, unit=unit, groups=groups, fill=fill)


def within_cost(
    source: Source, limit: float, *, cost: Callable[[Mask], float], groups: Groups = None
) -> Mask:
    """Mask of the highest-scoring edges whose `cost` is at most `limit`.

    The number of kept edges k is found by bisection along the ranking, with about log2(num_edges)
    calls of `cost`. The result never exceeds `limit`, and keeping one edge more would; it is the
    largest such k where the cost grows with k, as sizes do.

    Args:
        source: Posterior of one chain, or group name -> scores.
        limit: Largest accepted cost, in the unit of `cost`.
        cost: Cost of the network under a mask; need not be a sum over edges.
        groups: Names of the candidate groups; the others are kept whole.

    Raises:
        ValueError: Where `limit` is NaN or below the smallest reachable cost, or a posterior has
            several chains.

    Example:
        >>> scores = {"inputs": torch.tensor([0.1, 3.0, 2.0])}
        >>> within_cost(scores, 25, cost=lambda mask: 10 * mask.num_kept)["inputs"].tolist()
        [False, True, True]
    """
    return _within(source, limit, cost, unit="of the given cost", groups=groups)


def path(source: Source, *, num_points: int = 20, groups: Groups = None) -> list[Mask]:
    """Masks along the ranking, from all candidate edges kept to none, nested in each other.

    Args:
        source: Posterior of one chain, or group name -> scores.
        num_points: Number of masks, at least 2, in even steps of the number of edges; fewer where
            there are fewer edges.
        groups: Names of the candidate groups; the others are kept whole.

    Raises:
        ValueError: Where `num_points` is below 2, or a posterior has several chains.
    """
    if num_points < 2:
        raise ValueError(f"Expected num_points >= 2 (dense and empty), but got {num_points}.")
    ranking = Ranking.read(source, groups)
    last = num_points - 1
    sizes = {round(ranking.num_edges * (last - i) / last) for i in range(num_points)}
    return [ranking.top(size, _first(size, ranking)) for size in sorted(sizes, reverse=True)]


def _within(
    source: Source,
    limit: float,
    cost: Callable[[Mask], float],
    *,
    unit: str,
    groups: Groups,
    fill: bool = False,
) -> Mask:
    if math.isnan(limit):
        raise ValueError(f"Expected a number as limit, but got {limit}.")
    ranking = Ranking.read(source, groups)

    def mask_of(size: int) -> Mask:
        return ranking.top(
            size, f"keep the highest-scoring edges that cost at most {limit:g} {unit} together"
        )

    affordable, dear = 0, ranking.num_edges
    if (smallest := float(cost(mask_of(0)))) > limit:
        raise ValueError(
            f"Expected a budget of at least {smallest:g} {unit}, but got {limit:g}: that is the "
            "cost with every candidate edge removed. Raise the budget or name more groups."
        )
    if cost(mask_of(dear)) <= limit:
        return mask_of(dear)
    while dear - affordable > 1:
        middle = (affordable + dear) // 2
        if cost(mask_of(middle)) <= limit:
            affordable = middle
        else:
            dear = middle
    found = mask_of(affordable)
    return _filled(ranking, affordable, limit, cost, found.rule) if fill else found


def _filled(
    ranking: Ranking, affordable: int, limit: float, cost: Callable[[Mask], float], rule: str
) -> Mask:
    """Keep the first edges of a ranking, and those of the next ones that fit beside them."""
    keep = torch.zeros(ranking.num_edges, dtype=torch.bool)
    keep[ranking.order[:affordable]] = True
    for edge in ranking.order[affordable + 1 : affordable + 1 + _MOST_TRIES].tolist():
        if ranking.scores[edge] == -math.inf:  # what is closed stays closed
            break
        keep[edge] = True
        if cost(ranking.mask(keep, rule)) > limit:
            keep[edge] = False
    return ranking.mask(keep, rule)


def _counted(source: Source, edges: Edges | None, unit: str) -> Callable[[Mask], float]:
    if edges is None and isinstance(source, PosteriorLike):
        edges = source.edges
    if edges is None or not hasattr(edges, "groups"):
        raise TypeError(
            f"Expected the edges of the network as edges=, but got {type(edges).__name__}. Pass "
            "the result of find_edges(...); for a limit on the number of edges use top_fraction."
        )
    # Imported here, since only a budget counts sizes.
    from pyro_relevance.edges.size import masked_cost

    found: Edges = edges
    # Kept parameters: a removed weight is stored as a zero and does not count.
    counted = "num_nonzero" if unit == "num_parameters" else unit
    return lambda mask: float(getattr(masked_cost(found, mask.completed(found)), counted))


def _share(density: float, num_edges: int) -> int:
    # 0.07 * 100 is 7.000000000000001 in floating point; its ceiling would keep an eighth edge.
    return math.ceil(density * num_edges * (1 - 4 * sys.float_info.epsilon))


def _first(size: int, ranking: Ranking) -> str:
    return f"keep the {size} of {ranking.num_edges} candidate edges with the highest scores"
