"""Gates with one draw per example, applied to what a layer reads by hooks on the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from pyro_relevance.edges.edges import Edges
from pyro_relevance.edges.slots import PreparedSlot
from pyro_relevance.errors import EdgeError

__all__ = ["InputGates"]

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class InputGates:
    """Multiplies the input of every module that reads a gated edge by that edge's gates.

    Equal to folding the gates into the module's weight, but each example may have gates of its own.

    Args:
        network: The network whose modules get a hook; it must be a copy owned by the caller.
        edges: Groups at granularity ``"input"`` or ``"unit"``.
        all_called: Whether each of these modules must be called each time. Pass False where
            operations that were not drawn are skipped.

    Raises:
        EdgeError: If a group's gates act on single weights or on a tensor that is not the weight of
            a layer.
    """

    def __init__(self, network: nn.Module, edges: Edges, *, all_called: bool = True) -> None:
        self._all_called = all_called
        self._gates: dict[str, Tensor] = {}
        slots: dict[str, list[tuple[str, PreparedSlot]]] = {}
        for group in edges:
            for slot in group.consumers:
                module, _, tensor = slot.tensor.rpartition(".")
                transposed = isinstance(network.get_submodule(module), _TRANSPOSED)
                if slot.dim != (0 if transposed else 1) or tensor != "weight":
                    raise EdgeError(
                        "Expected groups of inputs or units for noise='per_example', but group "
                        f"'{group.name}' acts on entries of '{slot.tensor}'. Use noise='shared' "
                        "for single weights."
                    )
                slots.setdefault(module, []).append((group.name, slot.prepared(group.num_edges)))
        self._names, self._called = set(slots), set[str]()
        # Bound methods, unlike closures, follow a deep copy of the network to the copy's gates.
        self._handles = [
            network.get_submodule(name).register_forward_pre_hook(
                partial(self._multiply, name, pairs)
            )
            for name, pairs in slots.items()
        ]

    @contextmanager
    def applied(self, gates: Mapping[str, Tensor]) -> Iterator[None]:
        """Apply gates to every call of the network inside the block.

        Args:
            gates: Group -> ``(num_examples, *group.shape)``.

        Raises:
            EdgeError: On leaving, if a module that reads gated edges was not called.
        """
        self._gates, self._called = dict(gates), set()
        try:
            yield
        finally:
            self._gates = {}
        uncalled = sorted(self._names - self._called)
        if uncalled and self._all_called:
            raise EdgeError(
                f"Expected a network that calls {uncalled[0]!r} as a module, but it uses the "
                "weight alone, and a gate for each example could not act on its input. Use "
                "noise='shared'."
            )

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def _multiply(
        self,
        owner: str,
        slots: list[tuple[str, PreparedSlot]],
        module: nn.Module,
        inputs: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...] | None:
        if not self._gates:
            return None
        x = inputs[0]
        self._called.add(owner)
        for name, slot in slots:
            gate = slot.spread(self._gates[name], 1.0)  # (num_examples, positions)
            # Linear layers read their last dimension, convolutions dimension 1.
            shape = [gate.shape[0], *([1] * (x.ndim - 1))]
            shape[-1 if isinstance(module, nn.Linear) else 1] = gate.shape[-1]
            x = x * gate.view(shape).to(x.dtype)  # the type of autocast, where it is on
        return (x, *inputs[1:])
