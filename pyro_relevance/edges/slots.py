"""How the gates of a group lie along a tensor: from gates to positions and back.

A `Slot` names an axis of a tensor and the gate of each position along it. `Slot.spread` carries one
value per gate to the positions, `Slot.total` adds values at the positions up by gate. A training
step uses both many times with the same slot: `PreparedSlot` holds its index as a tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["PreparedSlot", "Slot"]


@dataclass(frozen=True, slots=True)
class Slot:
    """Where the gates of a group touch one tensor.

    Args:
        tensor: Qualified name of a parameter or buffer, such as ``"0.weight"``.
        dim: Axis of the tensor along which the gates lie; ``None`` where the gates have the
            tensor's own shape, and the positions are its entries in row-major order.
        index: Gate of each position along ``dim`` (-1 = not gated); ``None`` where position i
            belongs to gate i.

    Example:
        >>> columns = Slot("0.weight", 1, (0, 0, -1, 1))
        >>> columns.spread(torch.tensor([0.2, 0.5]), 1.0).tolist()
        [0.20000000298023224, 0.20000000298023224, 1.0, 0.5]
        >>> columns.total(torch.tensor([1, 2, 3, 4]), 2).tolist()
        [3, 4]
    """

    tensor: str
    dim: int | None
    index: tuple[int, ...] | None = None

    def prepared(self, num_gates: int) -> PreparedSlot:
        """Return the slot with its index as a tensor, for a group of ``num_gates`` gates."""
        if self.index is None:
            return PreparedSlot(num_gates, None, has_gaps=False)
        index = torch.tensor([num_gates if gate < 0 else gate for gate in self.index])
        return PreparedSlot(num_gates, index, has_gaps=-1 in self.index)

    def spread(self, values: Tensor, default: float) -> Tensor:
        """Carry one value per gate to the positions along the axis.

        Args:
            values: ``(..., num_gates)`` values.
            default: Value of the positions that are not gated.

        Returns:
            ``(..., num_positions)`` values.
        """
        return self.prepared(values.shape[-1]).spread(values, default)

    def total(self, values: Tensor, num_gates: int) -> Tensor:
        """Add up, for each gate, the values at its positions; the transpose of :meth:`spread`.

        Args:
            values: ``(..., num_positions)`` values; those at positions that are not gated are left
                out.
            num_gates: Number of gates of the group.

        Returns:
            ``(..., num_gates)`` sums.
        """
        return self.prepared(num_gates).total(values)

    def view(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape in which values at the positions broadcast to a tensor of ``shape``."""
        if self.dim is None:
            return tuple(shape)
        axis = self.dim % len(shape)
        return tuple(size if d == axis else 1 for d, size in enumerate(shape))


@dataclass(frozen=True, slots=True)
class PreparedSlot:
    """A slot whose index is a tensor, sent to each device once.

    Args:
        num_gates: Number of gates of the group.
        index: ``(num_positions,)`` gate of each position, ``num_gates`` where there is none;
            ``None`` where position i belongs to gate i.
        has_gaps: Whether there are positions without a gate.
    """

    num_gates: int
    index: Tensor | None
    has_gaps: bool
    _moved: dict[torch.device, Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def spread(self, values: Tensor, default: float) -> Tensor:
        """Do the same as :meth:`Slot.spread`."""
        if self.index is None:
            return values
        if self.has_gaps:
            absent = values.new_full((*values.shape[:-1], 1), default)
            values = torch.cat([values, absent], -1)
        return values.index_select(-1, self._on(values.device))

    def total(self, values: Tensor) -> Tensor:
        """Do the same as :meth:`Slot.total`."""
        if self.index is None:
            return values
        sums = values.new_zeros((*values.shape[:-1], self.num_gates + 1))
        return sums.index_add(-1, self._on(values.device), values)[..., :-1]

    def _on(self, device: torch.device) -> Tensor:
        assert self.index is not None
        if device == self.index.device:
            return self.index
        moved = self._moved.get(device)
        if moved is None:
            moved = self.index.to(device)
            # A tensor that is made inside a transformation (vmap, say) does not outlive it.
            if not torch._C._functorch.is_functorch_wrapped_tensor(moved):
                self._moved[device] = moved
        return moved
