"""Gates with one draw per example: applied to what a layer reads, by hooks on the model's own copy of the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pyro_relevance.edges import Edges, Slot
from pyro_relevance.errors import EdgeError

__all__ = ["InputGates"]


class InputGates:
    """Multiplies the input of every module that reads a judged edge by that edge's gates.

    Equal to folding the gates into the module's weight, but each example may have gates of its own.

    Args:
        network: The network whose modules get a hook; it must be a copy owned by the caller.
        edges: Groups at granularity ``"input"`` or ``"unit"``.

    Raises:
        EdgeError: If a group's gates act on single weights or on a tensor that is not the weight of a layer.
    """

    def __init__(self, network: nn.Module, edges: Edges) -> None:
        self._gates: dict[str, Tensor] = {}
        self._slots: dict[str, list[tuple[str, Slot]]] = {}
        for group in edges:
            for slot in group.consumers:
                module, _, tensor = slot.tensor.rpartition(".")
                if slot.dim != 1 or tensor != "weight":
                    raise EdgeError(
                        f"Expected groups of inputs or units for noise='per_example', but group '{group.name}' acts "
                        f"on entries of '{slot.tensor}'. Use noise='shared' for single weights."
                    )
                self._slots.setdefault(module, []).append((group.name, slot))
        self._handles = [
            network.get_submodule(name).register_forward_pre_hook(self._make_hook(slots))
            for name, slots in self._slots.items()
        ]

    @contextmanager
    def applied(self, gates: Mapping[str, Tensor]) -> Iterator[None]:
        """Apply ``gates`` (group -> ``(num_examples, *shape)``) to every call of the network inside the block."""
        self._gates = dict(gates)
        try:
            yield
        finally:
            self._gates = {}

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _make_hook(self, slots: list[tuple[str, Slot]]) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            if not self._gates:
                return None
            x = inputs[0]
            for name, slot in slots:
                gate = _positions(self._gates[name], slot)
                # Linear layers read their last dimension, convolutions dimension 1.
                shape = [gate.shape[0], *([1] * (x.ndim - 1))]
                shape[-1 if isinstance(module, nn.Linear) else 1] = gate.shape[-1]
                x = x * gate.view(shape)
            return (x, *inputs[1:])

        return hook


def _positions(gate: Tensor, slot: Slot) -> Tensor:
    """Return ``(num_examples, positions)`` gates along the slot's dimension; positions not judged are one."""
    if slot.index is None:
        return gate
    index = torch.tensor(slot.index, device=gate.device)
    spread = gate.index_select(-1, index.clamp(min=0))
    return torch.where(index >= 0, spread, torch.ones_like(spread))
