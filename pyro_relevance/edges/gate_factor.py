"""How the gates of one group lie along one tensor: prepared once, used in each training step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_relevance.edges.groups import EdgeGroup, Slot
from pyro_relevance.errors import EdgeError

__all__ = ["GateFactor", "gate_factor"]


@dataclass(frozen=True, slots=True)
class GateFactor:
    """One gate in the product that multiplies a tensor.

    Args:
        group: Name of the group.
        index: Gate of each position along the axis; ``None`` where position i belongs to gate i.
        padded: Whether ``index`` also points one past the last gate, where positions are not
            judged.
        view: Shape in which the gates multiply the tensor; ``None`` where theirs will do.
    """

    group: str
    index: Tensor | None
    padded: bool
    view: tuple[int, ...] | None


def gate_factor(group: EdgeGroup, slot: Slot, shapes: Mapping[str, tuple[int, ...]]) -> GateFactor:
    """Prepare the gates of ``group`` for the tensor of ``slot``.

    Args:
        group: The group.
        slot: One of its consumers.
        shapes: Shape of every parameter.

    Returns:
        The factor.

    Raises:
        EdgeError: The slot does not fit the tensor.
    """
    shape = shapes[slot.tensor]
    if slot.dim is None:
        if shape != group.shape:
            raise EdgeError(
                f"Expected {group.name!r} of the shape {shape} of {slot.tensor!r}, but got "
                f"{group.shape}."
            )
        return GateFactor(group.name, None, False, None)
    length = group.num_edges if slot.index is None else len(slot.index)
    if shape[slot.dim] != length:
        raise EdgeError(
            f"Expected {shape[slot.dim]} positions along axis {slot.dim} of {slot.tensor!r}, but "
            "group "
            f"{group.name!r} describes {length}."
        )
    view = tuple(length if axis == slot.dim else 1 for axis in range(len(shape)))
    if slot.index is None and slot.dim in (-1, len(shape) - 1):
        return GateFactor(group.name, None, False, None)
    if slot.index is None:
        return GateFactor(group.name, None, False, view)
    padded = -1 in slot.index
    last = group.num_edges
    index = torch.tensor([last if gate < 0 else gate for gate in slot.index])
    return GateFactor(group.name, index, padded, view)
