"""Scores of edges from draws of a posterior (larger = more relevant), each with its formula.

Scores go into the rules of `pyro_relevance.masks`. Every result keeps the chain dimension, because
hidden units of different chains are not the same units; `of_chain` picks one, `pooled` averages
where edges mean the same in each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from pyro_relevance.edges.gates import distinct_product, gated_blocks, sum_over_consumers
from pyro_relevance.masks.source import PosteriorLike

if TYPE_CHECKING:
    from pyro_relevance.edges.find import Edges

__all__ = [
    "ChainRange",
    "DrawsLike",
    "ExpectedSize",
    "effect",
    "expected_size",
    "inclusion_probability",
    "of_chain",
    "over_chains",
    "pooled",
    "signal_to_noise",
]


class DrawsLike(Protocol):
    """What scores need of the draws of a posterior."""

    @property
    def gates(self) -> Mapping[str, Tensor]:
        """Group name -> ``(chain, draw, *group.shape)`` gates, 0 or 1."""

    @property
    def inclusion_probability(self) -> Mapping[str, Tensor]:
        """Group name -> ``(chain, draw, *group.shape)`` probability of each gate."""

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """Parameter name -> ``(chain, draw or 1, *shape)`` weights before gating."""


@dataclass(frozen=True, slots=True, eq=False)
class ChainRange:
    """A score over independent fits: how far they agree, which is no posterior uncertainty.

    Args:
        mean: ``(*group.shape)`` mean over chains.
        lowest: ``(*group.shape)`` smallest of the chains.
        highest: ``(*group.shape)`` largest of the chains.
    """

    mean: Tensor
    lowest: Tensor
    highest: Tensor


@dataclass(frozen=True, slots=True)
class ExpectedSize:
    """Expected size of the network when gates are drawn.

    Args:
        num_edges: ``(...)`` expected number of edges that are on.
        num_parameters: ``(...)`` expected number of kept parameters.
    """

    num_edges: Tensor
    num_parameters: Tensor


def inclusion_probability(draws: DrawsLike) -> dict[str, Tensor]:
    """Rao-Blackwellised probability that each gate is on, a number in [0, 1].

        p_e = (1/S) sum_s P(gate_e = 1 | rest of draw s)

    Averaging the conditional probabilities instead of the 0/1 gates never has larger variance.

    Args:
        draws: S draws of the posterior.

    Returns:
        Group name -> ``(chain, *group.shape)``.

    References:
        Gelfand and Smith, Sampling-based approaches to calculating marginal densities, JASA 1990.
    """
    return {name: p.mean(dim=1) for name, p in draws.inclusion_probability.items()}


def pooled(
    source: PosteriorLike | Mapping[str, Tensor], groups: Sequence[str] = ("inputs",)
) -> dict[str, Tensor]:
    """Mean over chains, for groups whose edges mean the same in each chain: the inputs.

        p_e = (1/C) sum_c p_{c,e}

    Args:
        source: A posterior, or group name -> ``(chain, *group.shape)`` scores.
        groups: Names of the groups to pool.

    Returns:
        Group name -> tensor of the group's shape, for `groups` only.

    Raises:
        TypeError: Where `groups` is one text instead of a sequence of names.
        ValueError: Where a group is unknown, or is not made of inputs and there are several chains.
    """
    return {name: score.mean(dim=0) for name, score in _comparable(source, groups).items()}


def over_chains(
    source: PosteriorLike | Mapping[str, Tensor], groups: Sequence[str] = ("inputs",)
) -> dict[str, ChainRange]:
    """Mean and range over chains, for groups whose edges mean the same in each chain: the inputs.

        p_e = (1/C) sum_c p_{c,e},   min over c of p_{c,e},   max over c of p_{c,e}

    A gate is 0 or 1, and its probability is one number: it has no interval over draws. What differs
    between chains is where the fits ended. Intervals over draws, of quantities that vary over
    draws, are in :mod:`pyro_relevance.intervals`.

    Args:
        source: A posterior, or group name -> ``(chain, *group.shape)`` scores.
        groups: Names of the groups.

    Returns:
        Group name -> mean and range, for `groups` only.

    Raises:
        TypeError: Where `groups` is one text instead of a sequence of names.
        ValueError: Where a group is unknown, or is not made of inputs and there are several chains.
    """
    return {
        name: ChainRange(score.mean(dim=0), score.amin(dim=0), score.amax(dim=0))
        for name, score in _comparable(source, groups).items()
    }


def of_chain(scores: Mapping[str, Tensor], chain: int) -> dict[str, Tensor]:
    """Scores of one chain, as rules take them.

    Args:
        scores: Group name -> ``(chain, *group.shape)``.
        chain: Index of the chain, counted from 0.

    Returns:
        Group name -> tensor of the group's shape.

    Raises:
        IndexError: Where there is no such chain.
    """
    for name, score in scores.items():
        if not 0 <= chain < score.shape[0]:
            raise IndexError(
                f"Expected a chain from 0 to {score.shape[0] - 1} for group {name!r}, but got "
                f"{chain}."
            )
    return {name: score[chain] for name, score in scores.items()}


def effect(draws: DrawsLike, edges: Edges) -> dict[str, Tensor]:
    """Euclidean norm of the gated weights that read each edge, in the unit of the weights.

        effect_e = sqrt( sum over consumer weights w of e of (w * product of all its gates)^2 )

    The gates of all groups are multiplied in: a weight whose input or unit is off counts zero.

    Args:
        draws: Gates and weights of the posterior.
        edges: The gated edges.

    Returns:
        Group name -> ``(chain, draw, *group.shape)``.

    Raises:
        ValueError: Where `draws` lacks a group or consumer of `edges`, or one has another shape.
    """
    parts: dict[str, list[Tensor]] = {group.name: [] for group in edges.groups}
    for gated in gated_blocks(_gates(draws, edges), draws.weights, edges):
        squares = {name: weight.square() for name, weight in gated.items()}
        for group in edges.groups:
            parts[group.name].append(sum_over_consumers(squares, group, 2).sqrt())
    return {name: torch.cat(blocks, dim=1) for name, blocks in parts.items()}


def signal_to_noise(draws: DrawsLike, edges: Edges) -> dict[str, Tensor]:
    """Size of the mean effect of each edge over its spread, a number >= 0.

    With w_e the vector of gated weights that read edge e (all gates multiplied in, see `effect`),

        snr_e = || mean(w_e) || / sqrt( sum_j var(w_ej) )

    over draws, with S - 1 in the variance. For a single weight this is abs(mean) / sd of the signed
    weight: weights that merely scatter around zero score zero in the limit. It is infinite where
    nothing varies and the mean is not zero, and 0 where both are zero.

    Args:
        draws: At least two draws of gates and weights.
        edges: The gated edges.

    Returns:
        Group name -> ``(chain, *group.shape)``.

    Raises:
        ValueError: Where there are fewer than two draws, or `draws` does not fit `edges`.

    References:
        Graves, Practical variational inference for neural networks, NeurIPS 2011.
        Blundell, Cornebise, Kavukcuoglu and Wierstra, Weight uncertainty in neural networks,
        ICML 2015.
    """
    origin: dict[str, Tensor] = {}
    first: dict[str, Tensor] = {}
    second: dict[str, Tensor] = {}
    gates = _gates(draws, edges)
    num_draws = next((gate.shape[1] for gate in gates.values()), 0)
    if num_draws < 2:
        raise ValueError(f"Expected at least 2 draws, but got {num_draws}. Sample more draws.")
    for gated in gated_blocks(gates, draws.weights, edges):
        for name, weight in gated.items():
            # Differences from the first draw are exact zeros where nothing varies.
            start = origin.setdefault(name, weight[:, 0].double())
            difference = weight.double() - start[:, None]
            first[name] = first.get(name, torch.zeros_like(start)) + difference.sum(dim=1)
            squares = difference.square().sum(dim=1)
            second[name] = second.get(name, torch.zeros_like(start)) + squares
    mean_squared = {n: (start + first[n] / num_draws).square() for n, start in origin.items()}
    variance = {
        name: ((second[name] - first[name].square() / num_draws) / (num_draws - 1)).clamp(min=0)
        for name in origin
    }
    scores = {}
    for group in edges.groups:
        signal = sum_over_consumers(mean_squared, group, 1)
        ratio = (signal / sum_over_consumers(variance, group, 1)).sqrt()
        scores[group.name] = torch.where(signal == 0, 0.0, ratio).to(gates[group.name].dtype)
    return scores


def expected_size(
    inclusion_probability: Mapping[str, Tensor],
    edges: Edges,
    operation_probability: Mapping[str, Tensor] | None = None,
) -> ExpectedSize:
    """Expected numbers of kept edges and parameters, for independent gates.

        E[edges] = sum_e p_e
        E[parameters] = sum_w product of p_e over the distinct gates e that w depends on

    A weight depends on the gates of the edge it reads and of the unit it makes. Parameters without
    a gate are always kept; buffers are not counted. Units that lose all their inputs are counted
    with their bias.

    Args:
        inclusion_probability: Group name -> ``(..., *group.shape)`` probabilities with the same
            leading dimensions in each group; groups that it lacks are kept whole.
        edges: The gated edges.
        operation_probability: Group of ``edges.operations`` -> ``(..., num_operations)``
            probabilities of its operations; by default all operations are kept.

    Returns:
        `ExpectedSize` of shape ``(...)``.

    Raises:
        ValueError: Where a group is unknown or has another shape, or the leading dimensions differ.
    """
    p, leading = _checked(inclusion_probability, edges)
    chances = _of_operations(operation_probability or {}, edges)
    if not p and operation_probability:
        leading = next(iter(operation_probability.values())).shape[:-1]
    num_rows = math.prod(leading)
    kept_edges = torch.zeros(num_rows, dtype=torch.float64)
    kept_parameters = torch.zeros(num_rows, dtype=torch.float64)
    for group in edges.groups:
        kept_edges += p[group.name].flatten(1).sum(dim=1) if group.name in p else group.num_edges
    for tensor, shape in edges.shapes.items():
        if tensor in edges.buffers:
            continue
        stays = torch.ones((num_rows, *shape), dtype=torch.float64)
        for group in edges.groups:
            slots = [s for s in (*group.consumers, *group.producers) if s.tensor == tensor]
            if group.name in p and slots:
                stays = stays * distinct_product(p[group.name], slots, shape)
        number = stays.reshape(num_rows, -1).sum(dim=1)
        for prefix, chance in chances.items():
            if tensor.startswith(prefix):
                number = number * chance
        kept_parameters += number
    return ExpectedSize(kept_edges.reshape(leading), kept_parameters.reshape(leading))


def _comparable(
    source: PosteriorLike | Mapping[str, Tensor], groups: Sequence[str]
) -> dict[str, Tensor]:
    """The scores of groups whose edges mean the same in each chain."""
    if isinstance(groups, str):
        raise TypeError(
            f"Expected groups as a sequence of names, but got the text {groups!r}. Write "
            f"({groups!r},)."
        )
    scores = source if isinstance(source, Mapping) else source.inclusion_probability()
    unknown = [name for name in groups if name not in scores]
    if unknown:
        raise ValueError(f"Expected groups out of {list(scores)}, but got {unknown}.")
    if not isinstance(source, Mapping) and source.num_chains > 1:
        hidden = [name for name in groups if source.edges[name].granularity != "input"]
        if hidden:
            raise ValueError(
                f"Expected groups of granularity 'input', but got {hidden}. Units and weights of "
                "different chains are not the same units and weights: look at one chain, "
                "posterior.chain(i)."
            )
    return {name: scores[name] for name in groups}


def _of_operations(probability: Mapping[str, Tensor], edges: Edges) -> dict[str, Tensor]:
    """Prefix of the parameters of each operation -> ``(rows,)`` probability of the operation."""
    chances = {}
    for group in edges.operations:
        if group.name not in probability:
            continue
        rows = probability[group.name].detach().cpu().double().reshape(-1, group.num_edges)
        for slot in group.consumers:
            prefix = slot.tensor.removesuffix("gate")
            for index, label in enumerate(group.labels):
                chances[f"{prefix}operations.{label}."] = rows[:, index]
    return chances


def _gates(draws: DrawsLike, edges: Edges) -> Mapping[str, Tensor]:
    """The gates of the draws; ones where the model has no gates."""
    if draws.gates or not draws.weights:
        return draws.gates
    weights = list(draws.weights.values())
    leading = (weights[0].shape[0], max(weight.shape[1] for weight in weights))
    one = torch.ones((), dtype=weights[0].dtype, device=weights[0].device)
    return {group.name: one.expand(*leading, *group.shape) for group in edges.groups}


def _checked(
    probability: Mapping[str, Tensor], edges: Edges
) -> tuple[dict[str, Tensor], tuple[int, ...]]:
    """Probabilities as ``(rows, *group.shape)`` float64, and the leading shape of the rows."""
    shapes = {group.name: tuple(group.shape) for group in edges.groups}
    rows: dict[str, Tensor] = {}
    leadings: dict[str, tuple[int, ...]] = {}
    for name, value in probability.items():
        if name not in shapes:
            raise ValueError(f"Expected groups out of {list(shapes)}, but got {name!r}.")
        at = max(0, value.dim() - len(shapes[name]))
        if tuple(value.shape[at:]) != shapes[name]:
            raise ValueError(
                f"Expected inclusion_probability[{name!r}] of shape "
                f"({', '.join(('...', *map(str, shapes[name])))}), but got {tuple(value.shape)}. "
                "Pass one probability per edge."
            )
        leadings[name] = tuple(value.shape[:at])
        rows[name] = value.detach().cpu().double().reshape(-1, *shapes[name])
    if len(set(leadings.values())) > 1:
        raise ValueError(
            f"Expected the same chains and draws in each group, but got leading shapes {leadings}."
        )
    return rows, next(iter(leadings.values()), ())
