"""Gates multiplied into weights, and weights summed back to edges.

A training step folds one draw at a time (`Edges.fold`): each `GateFactor` is prepared once. Whole
blocks of draws pass through `gated_blocks` where a posterior is looked at. `EntryGates` says with
which probability each single weight is used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_relevance.edges.groups import EdgeGroup
from pyro_relevance.edges.slots import PreparedSlot, Slot
from pyro_relevance.errors import EdgeError

if TYPE_CHECKING:
    from pyro_relevance.edges.edges import Edges

__all__ = [
    "EntryGates",
    "GateFactor",
    "counts_per_edge",
    "distinct_product",
    "gate_factor",
    "gated_blocks",
    "sum_over_consumers",
]

_BLOCK = 2**24


@dataclass(frozen=True, slots=True)
class GateFactor:
    """One gate in the product that multiplies a tensor.

    Args:
        group: Name of the group.
        slot: Where its gates lie.
        view: Shape in which the gates multiply the tensor; ``None`` if they need no reshape.
    """

    group: str
    slot: PreparedSlot
    view: tuple[int, ...] | None

    def multiply(self, value: Tensor, gate: Tensor) -> Tensor:
        """Multiply a tensor by the gates of this group.

        Args:
            value: The tensor of the slot.
            gate: ``group.shape`` gates.

        Returns:
            The product, in the shape and data type of ``value``.
        """
        if gate.dtype != value.dtype:
            gate = gate.to(value.dtype)
        if self.view is not None:
            gate = self.slot.spread(gate.reshape(-1), 1.0).reshape(self.view)
        return value * gate


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
    prepared = slot.prepared(group.num_edges)
    if slot.dim is None:
        if shape != group.shape:
            raise EdgeError(
                f"Expected {group.name!r} of the shape {shape} of {slot.tensor!r}, but got "
                f"{group.shape}."
            )
        return GateFactor(group.name, prepared, None)
    length = group.num_edges if slot.index is None else len(slot.index)
    if shape[slot.dim] != length:
        raise EdgeError(
            f"Expected {shape[slot.dim]} positions along axis {slot.dim} of {slot.tensor!r}, but "
            f"group {group.name!r} describes {length}."
        )
    as_they_are = slot.index is None and slot.dim in (-1, len(shape) - 1)
    return GateFactor(group.name, prepared, None if as_they_are else slot.view(shape))


@dataclass(frozen=True, slots=True)
class _UseFactor:
    """One gate in the product of those that an entry passes."""

    group: str
    slot: PreparedSlot
    view: tuple[int, ...]
    repeated: Tensor | None

    def multiply(self, value: Tensor | None, probability: Tensor) -> Tensor:
        factor = self.slot.spread(probability.reshape(-1), 1.0).reshape(self.view)
        if self.repeated is not None:
            factor = torch.where(self.repeated.to(factor.device), 1.0, factor)
        return factor if value is None else value * factor


class EntryGates:
    r"""Which gates each entry of a network's parameters passes.

    An entry is used where it reaches the output: where the gates of what it reads and of what it
    makes are on, and its own. The weight from input i to unit j has the gate of the input, of the
    unit and of the weight itself, as far as there are such groups; the bias of unit j that of the
    unit. Pruning removes exactly the entries that are not used. With independent gates

    .. math::
        P(\text{entry used}) = \prod_{e \in \text{gates of the entry}} P(\gamma_e = 1)

    in which a gate that meets an entry twice (row i and column i of a residual layer) counts once.

    Args:
        edges: The gated edges. Gates of operations are not among them: an entry of an operation
            counts as used, whether the operation is chosen or not.
        names: The parameters, in the order in which their entries are wanted.

    Raises:
        KeyError: If a parameter is not one of the network that the edges belong to.
    """

    def __init__(self, edges: Edges, names: Sequence[str]) -> None:
        self._edges = edges
        self._shapes = {name: edges.shapes[name] for name in names}
        self._factors: dict[str, list[_UseFactor]] = {name: [] for name in names}
        for group in edges.groups:
            slots: dict[str, list[Slot]] = {}
            for slot in (*group.consumers, *group.producers):
                if slot.tensor in self._factors:
                    slots.setdefault(slot.tensor, []).append(slot)
            for tensor, found in slots.items():
                self._factors[tensor] += _use_factors(group, found, self._shapes[tensor])

    def use(self, probability: Tensor) -> Tensor:
        """Return the probability that each entry is used.

        Args:
            probability: ``(num_edges,)`` probabilities of the gates, or hard gates.

        Returns:
            ``(num_entries,)`` for the entries of all parameters, row by row.
        """
        values = self._edges.split(probability)
        parts = []
        for name, factors in self._factors.items():
            product: Tensor | None = None
            for factor in factors:
                product = factor.multiply(product, values[factor.group])
            shape = self._shapes[name]
            if product is None:
                product = probability.new_ones(shape)
            parts.append(product.expand(shape).reshape(-1))
        return torch.cat(parts)


def gated_blocks(
    gates: Mapping[str, Tensor], weights: Mapping[str, Tensor], edges: Edges
) -> Iterator[dict[str, Tensor]]:
    """Consumer weights with all their gates multiplied in, a block of draws at a time.

    Args:
        gates: Group name -> ``(chain, draw, *group.shape)`` gates.
        weights: Parameter name -> ``(chain, draw or 1, *shape)`` weights before gating.
        edges: The gated edges.

    Yields:
        Parameter name -> ``(chain, block of draws, *shape)``, about 2**24 numbers for the largest
        parameter.

    Raises:
        ValueError: Where a group or consumer is missing or has another shape.
    """
    touching = _touching(edges)
    _check(gates, weights, edges)
    num_chains, num_draws = next(iter(gates.values())).shape[:2]
    largest = num_chains * max(math.prod(edges.shapes[tensor]) for tensor in touching)
    step = max(1, _BLOCK // max(1, largest))
    for start in range(0, num_draws, step):
        block = slice(start, start + step)
        gated: dict[str, Tensor] = {}
        for tensor, pairs in touching.items():
            weight = weights[tensor]
            weight = weight if weight.shape[1] == 1 else weight[:, block]
            weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
            for group, slot in pairs:
                gate = gates[group.name][:, block].flatten(2)
                gate = slot.spread(gate, 1.0).to(weight.dtype)
                weight = weight * gate.reshape(*gate.shape[:2], *slot.view(edges.shapes[tensor]))
            gated[tensor] = weight
        yield gated


def sum_over_consumers(values: Mapping[str, Tensor], group: EdgeGroup, leading: int) -> Tensor:
    """Sum of the entries that read each edge.

    Args:
        values: Parameter name -> ``(*leading, *shape)``.
        group: The edges.
        leading: Number of leading dimensions.

    Returns:
        ``(*leading, *group.shape)``.
    """
    return torch.stack(
        [_per_edge(values[slot.tensor], slot, group, leading) for slot in group.consumers]
    ).sum(0)


def counts_per_edge(edges: Edges, entry: Mapping[str, int]) -> dict[str, Tensor]:
    """What disappears with each single edge: rows that make it, columns that read it.

    Args:
        edges: The edges.
        entry: Tensor -> what each of its entries counts.

    Returns:
        Group -> ``group.shape`` counts (float).
    """
    counts = {}
    for group in edges.groups:
        count = torch.zeros(group.num_edges, dtype=torch.int64)
        for slot in (*group.producers, *group.consumers):
            shape, each = edges.shapes[slot.tensor], entry[slot.tensor]
            size = math.prod(shape)
            length = size if slot.dim is None else shape[slot.dim]
            count += slot.total(torch.full((length,), each * size // length), group.num_edges)
        counts[group.name] = count.to(torch.float32).reshape(group.shape)
    return counts


def distinct_product(probability: Tensor, slots: Sequence[Slot], shape: Sequence[int]) -> Tensor:
    """Probability that all gates of one group on each entry of a tensor are on.

    Each distinct gate counts once: tied gates can meet one entry twice (row i and column i of a
    residual convolution), and gate * gate is gate.

    Args:
        probability: ``(leading, *group.shape)`` probabilities of independent gates.
        slots: Where the group touches the tensor.
        shape: Shape of the tensor.

    Returns:
        ``(leading, *shape)``, or broadcastable to it.
    """
    flat = probability.flatten(1)
    num_gates = flat.shape[1]
    gates = torch.arange(num_gates, device=flat.device)
    product = torch.ones((1,) * (len(shape) + 1), dtype=flat.dtype, device=flat.device)
    seen: list[Tensor] = []
    for slot in slots:
        view = slot.view(shape)
        gate = slot.spread(gates, num_gates).reshape(view)
        factor = slot.spread(flat, 1.0).reshape(len(flat), *view)
        for earlier in seen:
            factor = torch.where(gate == earlier, 1.0, factor)
        product = product * factor
        seen.append(gate)
    return product


def _use_factors(group: EdgeGroup, slots: Sequence[Slot], shape: Sequence[int]) -> list[_UseFactor]:
    """Return a factor for each distinct slot of a group on one tensor."""
    gates = torch.arange(group.num_edges)
    factors, seen = list[_UseFactor](), list[Tensor]()
    for slot in dict.fromkeys(slots):
        view = slot.view(shape)
        positions = slot.spread(gates, group.num_edges).reshape(view)
        repeated: Tensor | None = None
        for earlier in seen:
            same = positions == earlier
            repeated = same if repeated is None else repeated | same
        if repeated is not None and not bool(repeated.any()):
            repeated = None
        factors.append(_UseFactor(group.name, slot.prepared(group.num_edges), view, repeated))
        seen.append(positions)
    return factors


def _touching(edges: Edges) -> dict[str, list[tuple[EdgeGroup, Slot]]]:
    touching: dict[str, list[tuple[EdgeGroup, Slot]]] = {}
    for group in edges.groups:
        for slot in group.consumers:
            touching.setdefault(slot.tensor, []).append((group, slot))
    return touching


def _check(gates: Mapping[str, Tensor], weights: Mapping[str, Tensor], edges: Edges) -> None:
    wanted = [("gates", group.name, tuple(group.shape), gates) for group in edges.groups]
    wanted += [("weights", t, tuple(edges.shapes[t]), weights) for t in _touching(edges)]
    for kind, name, shape, given in wanted:
        value = given.get(name)
        if value is None or tuple(value.shape[2:]) != shape:
            got = "nothing" if value is None else str(tuple(value.shape))
            raise ValueError(
                f"Expected draws.{kind}[{name!r}] of shape "
                f"({', '.join(('chain', 'draw', *map(str, shape)))}), but got {got}. Pass "
                "Posterior.sample(...) of the same edges."
            )


def _per_edge(values: Tensor, slot: Slot, group: EdgeGroup, leading: int) -> Tensor:
    if slot.dim is None:
        return values
    kept = leading + slot.dim
    others = [dim for dim in range(leading, values.dim()) if dim != kept]
    sums = values.sum(dim=others) if others else values
    sums = slot.total(sums, group.num_edges)
    return sums.reshape(*sums.shape[:-1], *group.shape)
