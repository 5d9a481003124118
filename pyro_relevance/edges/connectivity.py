"""What is still alive after pruning: units that are made and read, and inputs that are read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pyro_relevance.edges.groups import EdgeGroup, Slot

__all__ = ["is_constant", "kept_positions", "live_edges", "made", "read"]


def live_edges(
    structure: Iterable[EdgeGroup],
    connected: dict[str, Tensor],
    unfoldable: Collection[str] = (),
    *,
    keep_one: bool = False,
) -> dict[str, Tensor]:
    """Find the units and inputs that still take part in the function of the network.

    A unit lives if a weight that makes it and a weight that reads it are kept; an input lives if it
    is read. What dies takes its weights along, until nothing changes. Units that nothing makes are
    constant: their value must have been moved into the biases of their readers before.

    Args:
        structure: :attr:`Edges.structure`.
        connected: For each parameter, booleans of its shape, True = not zero. Weights of dead units
            are set to False in place.
        unfoldable: Groups whose constants cannot be moved into biases: their units live while they
            are read.
        keep_one: Whether the first unit of a layer stays where all are dead.

    Returns:
        For each input and unit group, ``(num_edges,)`` booleans.
    """
    groups = [group for group in structure if group.granularity in ("input", "unit")]
    live: dict[str, Tensor] = {}
    changed = True
    while changed:
        changed = False
        for group in groups:
            now = read(group, connected)
            if group.granularity == "unit" and group.name not in unfoldable:
                now &= made(group, connected)
            if group.name not in live or not torch.equal(now, live[group.name]):
                changed = True
                live[group.name] = now
                for slot in (*group.producers, *group.consumers):
                    if slot.tensor in connected:
                        _clear(connected[slot.tensor], slot, now)
    for group in groups if keep_one else ():
        if group.granularity == "unit" and not bool(live[group.name].any()):
            live[group.name][0] = True
    return live


def read(group: EdgeGroup, connected: Mapping[str, Tensor]) -> Tensor:
    """Which edges of a group a weight reads, ``(num_edges,)`` booleans."""
    result = torch.zeros(group.num_edges, dtype=torch.bool)
    for slot in group.consumers:
        result |= _used(group, slot, connected[slot.tensor])
    return result


def made(group: EdgeGroup, connected: Mapping[str, Tensor]) -> Tensor:
    """Which units of a group a weight makes, ``(num_edges,)`` booleans; biases do not count."""
    result = torch.zeros(group.num_edges, dtype=torch.bool)
    for slot in group.producers:
        if slot.tensor in connected and connected[slot.tensor].ndim > 1:
            result |= _used(group, slot, connected[slot.tensor])
    return result


def kept_positions(
    structure: Iterable[EdgeGroup], live: Mapping[str, Tensor], connected: Mapping[str, Tensor]
) -> dict[tuple[str, int], Tensor]:
    """Return the positions that are kept along each axis of each tensor.

    Args:
        structure: :attr:`Edges.structure`.
        live: Result of :func:`live_edges`.
        connected: The same booleans after :func:`live_edges`.

    Returns:
        For (tensor, axis), booleans along the axis; what is not listed stays whole. A layer keeps
        the units that any of its readers needs, but only those input columns that it reads itself.
    """
    kept: dict[tuple[str, int], Tensor] = {}
    for group in structure:
        for slot in (*group.producers, *group.consumers):
            if slot.dim is None or group.name not in live:
                continue
            if group.granularity == "input":
                flags = _any_along(connected[slot.tensor], slot.dim)
            else:
                flags = slot.spread(live[group.name], True)
            kept[slot.tensor, slot.dim] = kept.get((slot.tensor, slot.dim), flags) & flags
    return kept


def is_constant(
    structure: Iterable[EdgeGroup], live: Mapping[str, Tensor], positions: Mapping[str, int]
) -> bool:
    """Whether the network is a constant vector: no input is read, one layer makes the outputs."""
    outputs = any(group.granularity == "output" for group in structure)
    unread = "inputs" in live and not bool(live["inputs"].any())
    return outputs and unread and max(positions.values(), default=1) == 1


def _any_along(flags: Tensor, dim: int) -> Tensor:
    return flags.movedim(dim, 0).flatten(1).any(1)


def _used(group: EdgeGroup, slot: Slot, flags: Tensor) -> Tensor:
    if slot.dim is None:
        return flags.reshape(-1)
    return slot.total(_any_along(flags, slot.dim).to(torch.int64), group.num_edges) > 0


def _clear(flags: Tensor, slot: Slot, live: Tensor) -> None:
    if slot.dim is not None:
        flags.movedim(slot.dim, 0)[~slot.spread(live, True)] = False
