"""The edges of a network as one set: vectors over all edges, and gates folded into weights.

An edge is pruned by folding its gate into the tensors that *read* it. A zero gate and a removed
unit are then the same function, whatever lies between (bias, activation, BatchNorm).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyro_relevance._files import parse_json
from pyro_relevance.edges.gates import GateFactor, counts_per_edge, gate_factor
from pyro_relevance.edges.groups import EdgeGroup, Skipped, group_from_dict, group_to_dict, sizes
from pyro_relevance.edges.representation.edges import summary_of
from pyro_relevance.errors import EdgeError

__all__ = ["Edges"]


@dataclass(frozen=True, slots=True)
class Edges:
    """Candidate edges of one network, in groups.

    Args:
        groups: Groups whose edges are gated; gates of several groups on one tensor multiply.
        skipped: Groups that could not be offered.
        shapes: Shape of every parameter and buffer of the network.
        buffers: Names in ``shapes`` that are buffers, not parameters.
        structure: All input, unit and output groups of the network, gated or not: along these,
            parts that are dead after pruning can be removed.
        positions: How often one example multiplies each weight (a convolution: at each pixel);
            known only where the edges were found with an example, and 1 for a linear layer
            otherwise.
        rewritten: Edges of groups of ``structure`` (heads, say) whose removal changes numbers in
            ``forward()``: the pruned network is then a list of operations.
        products: Multiply-accumulates for one example of products of two activations (attention),
            for each edge of a group of ``structure``; under ``""`` those that no edge takes along.
        operations: Edges of relaxed graphs, one group for the candidates of each, not among
            ``groups``: their gates are one-hot.
        bare: Names in ``shapes`` of matrices that are no weight of a linear layer.
        storage: For names in ``shapes``, bytes of an entry and in a file, and number of names.
    """

    groups: tuple[EdgeGroup, ...]
    skipped: tuple[Skipped, ...]
    shapes: Mapping[str, tuple[int, ...]]
    buffers: tuple[str, ...] = ()
    structure: tuple[EdgeGroup, ...] = ()
    positions: Mapping[str, int] = field(default_factory=dict)
    rewritten: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    products: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    operations: tuple[EdgeGroup, ...] = ()
    bare: tuple[str, ...] = ()
    storage: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    _plan: dict[str, tuple[GateFactor, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = [group.name for group in (*self.groups, *self.operations)]
        if len(set(names)) != len(names):
            raise EdgeError(f"Expected each group once, but got {names}. Remove the duplicate.")
        plan: dict[str, list[GateFactor]] = {}
        for group in self.groups:
            for slot in group.consumers:
                plan.setdefault(slot.tensor, []).append(gate_factor(group, slot, self.shapes))
        object.__setattr__(self, "_plan", {name: tuple(factors) for name, factors in plan.items()})

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[EdgeGroup]:
        return iter(self.groups)

    def __getitem__(self, name: str) -> EdgeGroup:
        for group in (*self.groups, *self.operations):
            if group.name == name:
                return group
        known = [*self.names, *(group.name for group in self.operations)]
        raise KeyError(f"Expected one of the groups {known}, but got {name!r}.")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the groups, in order."""
        return tuple(group.name for group in self.groups)

    @property
    def num_edges(self) -> int:
        """Number of edges of all groups."""
        return sum(group.num_edges for group in self.groups)

    @property
    def num_operations(self) -> int:
        """Largest number of candidates that an edge of a graph has."""
        return max((group.num_edges for group in self.operations), default=0)

    def split_operations(self, table: Tensor) -> dict[str, Tensor]:
        """Split one table over all edges of graphs into groups.

        Args:
            table: ``(..., num_groups, num_operations)`` values.

        Returns:
            For each group of :attr:`operations`, ``(..., *group.shape)`` views of the table.
        """
        return {
            group.name: table[..., row, : group.num_edges]
            for row, group in enumerate(self.operations)
        }

    def join_operations(self, values: Mapping[str, Tensor], absent: float) -> Tensor:
        """Put values of all edges of graphs into one table; the inverse of `split_operations`.

        Args:
            values: For each group of :attr:`operations`, ``group.shape`` values.
            absent: Value where a group has fewer candidates than the largest one.

        Returns:
            ``(num_groups, num_operations)`` values.

        Raises:
            ValueError: A group is missing or has another shape.
        """
        rows = []
        for group in self.operations:
            value = values.get(group.name)
            if value is None or tuple(value.shape) != group.shape:
                got = "nothing" if value is None else f"shape {tuple(value.shape)}"
                raise ValueError(
                    f"Expected values[{group.name!r}] of shape {group.shape}, one for each of "
                    f"{list(group.labels)}, but got {got}."
                )
            missing = self.num_operations - group.num_edges
            rows.append(torch.nn.functional.pad(value, (0, missing), value=absent))
        return torch.stack(rows)

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Split one vector over all edges into groups.

        Args:
            vector: ``(..., num_edges)`` values.

        Returns:
            For each group, ``(..., *group.shape)`` views of the vector.

        Raises:
            ValueError: The last axis does not have ``num_edges`` entries.
        """
        if vector.ndim == 0 or vector.shape[-1] != self.num_edges:
            raise ValueError(
                f"Expected vector of shape (..., {self.num_edges}), but got {tuple(vector.shape)}. "
                "Pass one value per edge."
            )
        parts = vector.split_with_sizes([group.num_edges for group in self.groups], dim=-1)
        leading = vector.shape[:-1]
        return {
            g.name: part.reshape(*leading, *g.shape)
            for g, part in zip(self.groups, parts, strict=True)
        }

    def join(self, values: Mapping[str, Tensor]) -> Tensor:
        """Put values of all groups into one vector; the inverse of :meth:`split`.

        Args:
            values: For each group, ``(..., *group.shape)`` values with the same leading axes.

        Returns:
            ``(..., num_edges)`` values.

        Raises:
            ValueError: A group is missing or has another shape.
        """
        self._check(values, leading=True)
        parts = []
        for group in self.groups:
            value = values[group.name]
            parts.append(
                value.reshape(*value.shape[: value.ndim - len(group.shape)], group.num_edges)
            )
        return torch.cat(parts, dim=-1)

    def fold(
        self, parameters: Mapping[str, Tensor], gates: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Multiply each tensor that reads gated edges with the gates of these edges.

        Args:
            parameters: Parameters by name, at least those that read edges (:attr:`folded_names`).
            gates: For each group, gates of shape ``group.shape``; those of :attr:`operations` may
                be missing and are then all on.

        Returns:
            The folded parameters, in the data type of ``parameters``, and the gates of operations
            under the names of the buffers that hold them.

        Raises:
            ValueError: A group or parameter is missing or has another shape.
        """
        self._check(gates, leading=False)
        folded = self.fold_operations(gates)
        for name, factors in self._plan.items():
            if name not in parameters:
                raise ValueError(
                    f"Expected the parameter {name!r}, but got {list(parameters)}. Pass all "
                    "parameters."
                )
            value = parameters[name]
            for factor in factors:
                value = factor.multiply(value, gates[factor.group])
            folded[name] = value
        return folded

    def fold_operations(self, gates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the gates of operations under the names of the buffers that hold them.

        Args:
            gates: For each group, gates; those of other groups are passed over.
        """
        return {
            slot.tensor: gates[group.name]
            for group in self.operations
            if group.name in gates
            for slot in group.consumers
        }

    @property
    def folded_names(self) -> tuple[str, ...]:
        """Names of the parameters that :meth:`fold` multiplies by gates."""
        return tuple(self._plan)

    @property
    def unfoldable(self) -> tuple[str, ...]:
        """Groups of :attr:`structure` whose constant units cannot move into biases.

        A convolution pads, and a layer that is applied at many positions may see another constant
        at each; only a linear layer that is applied once takes a constant into its bias.
        """
        units = [group for group in self.structure if group.granularity == "unit"]
        return tuple(
            group.name
            for group in units
            if any(slot.tensor in self.bare for slot in group.consumers)
            or any(
                len(self.shapes[slot.tensor]) > 2 or self.positions.get(slot.tensor, 1) > 1
                for slot in (*group.producers, *group.consumers)
            )
        )

    def num_parameters_per_edge(self) -> dict[str, Tensor]:
        """Parameters that disappear with each single edge: rows that make it, columns that read it.

        Returns:
            For each group, ``group.shape`` counts (float).
        """
        return counts_per_edge(self, {name: int(name not in self.buffers) for name in self.shapes})

    def to_json(self) -> str:
        """Everything as a JSON text; labels that are made on demand are not in it."""
        return json.dumps(
            {
                "groups": [group_to_dict(group) for group in self.groups],
                "skipped": [[item.name, item.reason] for item in self.skipped],
                "shapes": {name: list(shape) for name, shape in self.shapes.items()},
                "buffers": list(self.buffers),
                "structure": [group_to_dict(group) for group in self.structure],
                "positions": dict(self.positions),
                "rewritten": {name: list(indices) for name, indices in self.rewritten.items()},
                "products": {name: list(counts) for name, counts in self.products.items()},
                "operations": [group_to_dict(group) for group in self.operations],
                "bare": list(self.bare),
                "storage": {name: list(counts) for name, counts in self.storage.items()},
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Edges:
        """Rebuild from :meth:`to_json`.

        Args:
            text: What :meth:`to_json` returned.

        Returns:
            Equal edges.

        Raises:
            EdgeError: The text is not a description of edges.
        """
        try:
            content = parse_json(text)
            shapes = {name: sizes(shape) for name, shape in content["shapes"].items()}
            groups, structure, operations = (
                tuple(group_from_dict(group, shapes) for group in content.get(part, []))
                for part in ("groups", "structure", "operations")
            )
            known = {group.name for group in (*groups, *structure)}
            numbers = {
                part: {name: _counts(part, name, counts) for name, counts in found.items()}
                for part in ("rewritten", "products", "storage")
                for found in [content.get(part, {})]
            }
            buffers, positions = content["buffers"], content["positions"]
            bare = content.get("bare", [])
            _counts("positions", "", list(positions.values()))
            named = {*buffers, *positions, *bare, *numbers["storage"]}
            if any(len(counts) != 3 for counts in numbers["storage"].values()):
                raise ValueError("expected three numbers in each storage")
            if not shapes.keys() >= named or not known >= {
                *filter(None, (*numbers["rewritten"], *numbers["products"]))
            }:
                raise ValueError("a tensor or group is named that is not there")
            skipped = tuple(Skipped(name, reason) for name, reason in content["skipped"])
            if not all(isinstance(t, str) for s in skipped for t in (s.name, s.reason)):
                raise ValueError("a reason is no text")
            return cls(
                groups,
                skipped,
                shapes,
                tuple(buffers),
                structure,
                positions,
                rewritten=numbers["rewritten"],
                products=numbers["products"],
                storage={n: (a, b, c) for n, (a, b, c) in numbers["storage"].items()},
                operations=operations,
                bare=tuple(bare),
            )
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise EdgeError(
                f"Expected the text of Edges.to_json(), but could not read it: {error!r}"
            ) from error

    def __repr__(self) -> str:
        return str(summary_of(self))

    def _repr_html_(self) -> str:
        return summary_of(self).html()

    def __str__(self) -> str:
        rows = [("group", "granularity", "edges", "read by")]
        for group in self.groups:
            readers = ", ".join(dict.fromkeys(slot.tensor for slot in group.consumers))
            rows.append((group.name, group.granularity, f"{group.num_edges:,}", readers))
        for group in self.operations:
            candidates = ", ".join(group.labels)
            rows.append((group.name, group.granularity, f"1 of {group.num_edges}", candidates))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d}".rstrip()
            for a, b, c, d in rows
        ]
        rewritten = [name for name in self.names if name in self.rewritten]
        if rewritten:
            lines.append(
                f"pruning {', '.join(rewritten)} changes numbers in forward(): "
                "prune returns a list of operations"
            )
        lines += [f"skipped {item.name}: {item.reason}" for item in self.skipped]
        return "\n".join(lines)

    def _check(self, values: Mapping[str, Tensor], *, leading: bool) -> None:
        for group in self.groups:
            if group.name not in values:
                raise ValueError(
                    f"Expected a value for each of {list(self.names)}, but got {list(values)}."
                )
            shape = values[group.name].shape
            fits = (
                shape[len(shape) - len(group.shape) :] == group.shape
                if leading
                else shape == group.shape
            )
            if not fits:
                start = "(..., " if leading else "("
                raise ValueError(
                    f"Expected values[{group.name!r}] of shape "
                    f"{start}{', '.join(map(str, group.shape))}), "
                    f"but got {tuple(shape)}. Pass one value per edge."
                )


def _counts(part: str, name: str, counts: Any) -> tuple[int, ...]:
    if not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts):
        raise ValueError(f"expected numbers >= 0 in {part} {name!r}, but got {repr(counts)[:60]}")
    return tuple(counts)
