"""What following the units through a network finds: who makes them and who reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pyro_relevance.edges.groups import Slot
from pyro_relevance.edges.reasons import Reason

__all__ = ["Flow", "UnitFlow", "WeightFlow"]


@dataclass(slots=True)
class UnitFlow:
    """Units of one producer, or the input columns; with a ``reason`` where none can be gated.

    ``rewritten``: those whose pruning changes a number in ``forward()``. ``products``: for each
    unit, multiply-accumulates of products of activations that go with it (a head of attention).
    ``label`` stands for the module in names, where a module makes several kinds of units.
    """

    module: str
    num_units: int
    producers: list[Slot] = field(default_factory=list)
    consumers: list[Slot] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    reason: Reason | None = None
    rewritten: tuple[int, ...] = ()
    products: tuple[int, ...] = ()
    label: str = ""

    def block(self, reason: Reason) -> None:
        """Mark the units as not gated; the first reason is kept."""
        self.reason = self.reason or reason


@dataclass(frozen=True, slots=True)
class WeightFlow:
    """The weight of one layer, with a ``reason`` where its entries cannot be gated."""

    tensor: str
    module: str
    shape: tuple[int, ...]
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class Flow:
    """Everything that tracing found.

    Args:
        inputs: The input columns.
        units: The units of each layer, in the order of the calls.
        weights: The weight of each layer.
        num_outputs: Units of the layer that makes the outputs; 0 where the outputs are made in
            another way.
        positions: How often one example multiplies each weight, where the shapes are known.
        num_fixed_macs: Multiply-accumulates of products of activations that go with no unit.
    """

    inputs: UnitFlow
    units: tuple[UnitFlow, ...]
    weights: tuple[WeightFlow, ...]
    num_outputs: int
    positions: Mapping[str, int]
    num_fixed_macs: int = 0
