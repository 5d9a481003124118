"""The labels of all values of a graph, and the sets into which they are joined."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from pyro_relevance.edges.coupling.disjoint_sets import DisjointSets
from pyro_relevance.edges.coupling.label_tensors import FILLER, KEPT, filled, narrowed
from pyro_relevance.edges.exported import Exported, value_of
from pyro_relevance.edges.reasons import Reason, Why

__all__ = [
    *("Axis", "Coupling", "HEADS", "Ints", "Labelling", "Labels", "Product", "TAKEN_PART"),
    "tensors_of",
]

Ints = NDArray[np.int64]
Axis = tuple[str, int]
"""A tensor of the network and one of its axes."""
T = TypeVar("T")
Labels = dict[fx.Node, Any]
"""``(*shape)`` labels of the positions of each value, or a list of them; constants have none."""

HEADS = "the number of heads"
TAKEN_PART = "the position at which a part of them is taken"


@dataclass(frozen=True, slots=True)
class Product:
    """A value that is multiplied by a parameter.

    Args:
        x: The value.
        axis: Axis along which it is read.
        weight: Qualified name of the parameter.
        reads: Axis of the parameter that reads.
        bias: What is added, if anything.
        out: Axis of the result along which the units that are made lie.
    """

    x: fx.Node
    axis: int
    weight: str
    reads: int
    bias: fx.Node | None
    out: int


@dataclass(frozen=True, slots=True)
class Coupling:
    """Which positions of which tensors belong to the same unit.

    Args:
        roots: ``(num_labels,)`` set of each label.
        makers: Labels along axes that make units (rows of layers, normalisation, elementwise
            parameters); ``KEPT`` where a position is never pruned.
        layers: The axes in ``makers`` along which a layer makes new units, in call order.
        readers: Labels along axes that read units (columns of layers).
        reasons: Why a set cannot be pruned, by its root.
        written: Which number in ``forward()`` depends on the size of a set, by its root: the graph
            has to be rewritten when a part of the set is removed.
        inputs: Labels of the first input, ``(1, ...)``.
        outputs: Labels that the network returns.
        positions: How often one example multiplies each weight.
        products: Multiply-accumulates of products of two activations for one example, by the root
            of the set that they are pruned with; ``KEPT`` for those that are never pruned.
        applied: Products with a parameter that is no weight of a layer.
    """

    roots: Ints
    makers: dict[Axis, Ints]
    layers: tuple[Axis, ...]
    readers: dict[Axis, Ints]
    reasons: dict[int, Reason]
    written: dict[int, str]
    inputs: Tensor
    outputs: tuple[Tensor, ...]
    positions: dict[str, int]
    products: dict[int, int]
    applied: dict[fx.Node, Product]


class Labelling:
    """The state of a walk: labels of each value, joined sets, and facts about sets of labels.

    Args:
        exported: The graph.
        keep: Whether labels are kept after their last use.
    """

    def __init__(self, exported: Exported, *, keep: bool = False) -> None:
        self.exported = exported
        self.keep = keep
        self.num_examples = 1
        self.sets = DisjointSets()
        self.labels: Labels = {}
        self.constants: dict[fx.Node, Any] = {}
        self.elements: dict[str, Tensor] = {}  # labels of parameters that are operands themselves
        self.makers: dict[Axis, Ints] = {}
        self.layers: list[Axis] = []
        self.readers: dict[Axis, Ints] = {}
        self.blocked: list[tuple[Ints, Reason]] = []
        self.grids: list[Tensor] = []
        self.fixed: list[tuple[Tensor, int, bool]] = []  # axis, and whether it can be rewritten
        self.together: list[tuple[Tensor, list[int], Reason]] = []
        self.written: list[tuple[Ints, str]] = []
        self.positions: dict[str, int] = {}
        self.partial: dict[str, int] = {}
        self.products: list[tuple[Tensor, int]] = []
        self.applied: dict[fx.Node, Product] = {}
        self.created: set[fx.Node] = set()  # constants whose size is written into the code
        self.made_columns: dict[Axis, Ints] = {}  # of tables, whose columns are units
        self.placeholders: dict[str, list[fx.Node]] = {}
        for node in exported.graph.nodes:
            if node.op == "placeholder" and node.name in exported.names:
                self.placeholders.setdefault(exported.names[node.name], []).append(node)
        self.inputs = torch.empty(0, dtype=torch.long)
        self.outputs: list[Tensor] = []

    def coupling(self) -> Coupling:
        """Return what was found, after the last operator."""
        for outputs in self.outputs:
            self.block(outputs, Why.MAKES_OUTPUTS.reason())
        self._find_axes()
        self._make_rectangular()
        roots = self.sets.roots()
        return Coupling(
            roots, self.makers, tuple(self.layers), self.readers, _first(self.blocked, roots),
            _first(self.written, roots), self.inputs, tuple(self.outputs), self.positions,
            self._counted(roots), self.applied,
        )  # fmt: skip

    def _counted(self, roots: Ints) -> dict[int, int]:
        """Add up the products of two activations by the set that they are pruned with."""
        counts: dict[int, int] = {}
        for labels, num_macs in self.products:
            (thin,) = narrowed(labels)
            repeats = labels.numel() // thin.numel()
            for label in thin.reshape(-1).tolist():
                root = int(roots[label]) if label >= 0 else KEPT
                counts[root] = counts.get(root, 0) + repeats * num_macs
        return {root: count // self.num_examples for root, count in counts.items()}

    # Where values come from

    def enter(self, node: fx.Node) -> None:
        """Label an input, a parameter or a constant of the graph."""
        exported, value = self.exported, value_of(node)
        if node.name in exported.constants:
            self.constants[node] = exported.constants[node.name].detach().clone()
        elif node.name in exported.names:
            tensor = exported.tensors[exported.names[node.name]]
            if not tensor.is_floating_point():
                self.constants[node] = tensor.detach().cpu().clone()
        elif isinstance(value, Tensor):
            if value.is_floating_point() and not self.inputs.numel():
                self.num_examples = value.shape[0]
                self.inputs = self.new(tuple(value.shape[1:])).expand(value.shape)
                self.labels[node] = self.inputs
            else:
                self.labels[node] = filled(tuple(value.shape), KEPT)
        else:
            self.constants[node] = value

    def name_of(self, node: Any) -> str | None:
        """Return the name of the parameter or buffer that a node is."""
        is_node = isinstance(node, fx.Node) and node not in self.constants
        return self.exported.names.get(node.name) if is_node else None

    def value(self, argument: Any) -> Any:
        """Return the labels of an argument; parameters get one for each element."""
        if not isinstance(argument, fx.Node) or argument in self.constants:
            return None
        name = self.name_of(argument)
        if name is not None:
            if name not in self.elements:
                self.elements[name] = self.new(tuple(self.exported.tensors[name].shape))
            if self.keep:
                self.labels[argument] = self.elements[name]
            return self.elements[name]
        return self.labels[argument]

    def new(self, shape: tuple[int, ...]) -> Tensor:
        """Return new labels, ``(*shape)``."""
        count = math.prod(shape)
        return torch.arange(count).add_(self.sets.extend(count)).reshape(shape)

    def constant(self, argument: Any) -> Any:
        """Return the value of an argument that does not depend on the inputs."""
        return self.constants[argument] if isinstance(argument, fx.Node) else argument

    def operand(self, argument: Any) -> Tensor:
        """Return the labels of an argument; those of constants are ``KEPT``."""
        labels = self.value(argument)
        if labels is None:
            value = self.constant(argument)
            return filled(tuple(value.shape), KEPT)
        return labels  # type: ignore[no-any-return]

    # Joining

    def meet(self, one: Tensor, other: Tensor) -> Tensor:
        """Join the labels at the same positions and return one of each pair."""
        self.join(one, other)
        thin_one, thin_other = narrowed(one, other)
        return torch.maximum(thin_one, thin_other).expand(one.shape)

    def join(self, one: Tensor, other: Tensor) -> None:
        """Join the labels at the same positions; a label joined with ``KEPT`` is kept, too."""
        thin_one, thin_other = narrowed(one, other)
        a, b = thin_one.reshape(-1).numpy(), thin_other.reshape(-1).numpy()
        both = (a >= 0) & (b >= 0)
        self.sets.join(a[both], b[both])
        kept = np.concatenate([a[(b == KEPT) & (a >= 0)], b[(a == KEPT) & (b >= 0)]])
        self._note(kept, Why.WITH_KEPT.reason(), self.blocked)

    def join_along(self, elements: Tensor | None, columns: Tensor, what: str) -> None:
        """Join the labels of a parameter with those of the channels that it belongs to."""
        if elements is None:
            self.block(columns, Why.IS_CONSTANT.reason(what=what))
        elif elements.shape == columns.shape:
            self.join(elements, columns)
        else:
            self.block(columns, Why.OTHER_SHAPE.reason(what=what))

    def columns(self, labels: Tensor, axis: int) -> Ints:
        """Return one label for each position of an axis, after joining all labels at it."""
        (thin,) = narrowed(labels)
        flat = thin.expand(*thin.shape[:axis], labels.shape[axis], *thin.shape[axis + 1 :])
        flat = flat.movedim(axis, 0).reshape(labels.shape[axis], -1)
        first = flat.amax(1)
        self.join(flat, first[:, None])
        return first.numpy().copy()

    def collapsed(self, labels: Tensor, dims: Sequence[int]) -> Tensor:
        """Join all labels along some axes; return the result with these axes of size one."""
        for dim in dims:
            if labels.shape[dim] > 1 and labels.stride(dim) != 0:
                self.join(labels, labels.amax(dim, keepdim=True))
                labels = labels.amax(dim, keepdim=True)
            else:
                labels = labels.narrow(dim, 0, 1)
        return labels

    def block(self, labels: Tensor, reason: Reason) -> None:
        """Keep the reason why some labels cannot be pruned."""
        self._note(narrowed(labels)[0].reshape(-1).numpy(), reason, self.blocked)

    def write(self, labels: Tensor, what: str) -> None:
        """Keep that a number in ``forward()`` changes when some of these labels are pruned."""
        self._note(narrowed(labels)[0].reshape(-1).numpy(), what, self.written)

    def _note(self, labels: Ints, note: T, noted: list[tuple[Ints, T]]) -> None:
        found = np.unique(labels)
        found = found[found >= 0]
        if len(found):
            noted.append((found, note))

    def block_varying(self, labels: Tensor, dims: Sequence[int], reason: Reason) -> None:
        """Block the labels that differ along some axes, since these are used together."""
        (thin,) = narrowed(labels)
        for dim in dims:
            differs = (thin != thin.narrow(dim, 0, 1)).any(dim, keepdim=True)
            self.block(torch.where(differs, thin, KEPT), reason)

    # At the end

    def _find_axes(self) -> None:
        """Find the labelled axis of each parameter that is an operand itself."""
        for name, elements in self.elements.items():
            roots = self.sets.roots()
            found = roots[elements.numpy()]
            if not found.size or (np.bincount(roots)[found] == 1).all():
                continue  # joined with nothing: it stays as it is
            axes = [d for d in range(found.ndim) if not constant_along(found, d)]
            if len(axes) > 1:
                self.block(elements, Why.ACROSS_AXES.reason(name=name))
            else:
                axis = axes[0] if axes else int(np.argmax(found.shape))
                first = np.moveaxis(elements.numpy(), axis, 0).reshape(found.shape[axis], -1)[:, 0]
                self.makers[name, axis] = first.copy()

    def _make_rectangular(self) -> None:
        """Tie labels until each tensor can be pruned by a choice of rows and columns.

        Where labels vary along several axes of one tensor (channels split into heads, or shuffled),
        one axis is chosen, the longest, and labels are joined along the others.
        """
        number = -1
        while number != (number := len(np.unique(self.sets.roots()))):
            for grid in self.grids:
                axes, thin = self._varying(grid)
                if len(axes) > 1:
                    self.columns(thin, max(axes, key=lambda d: thin.shape[d]))
        for grid in self.grids:
            axes, thin = self._varying(grid)
            if len(axes) > 1:
                self.block(thin, Why.MIXED_WITH_KEPT.reason())
        for labels, dims, reason in self.together:
            axes, thin = self._varying(labels)
            if set(axes) & set(dims):
                self.block(thin, reason)
        for labels, dim, can_be_moved in self.fixed:
            axes, thin = self._varying(labels)
            if dim in axes and can_be_moved:
                self.write(thin, TAKEN_PART)
            elif dim in axes:
                self.block(thin, Why.SINGLE_PLACES.reason())

    def _varying(self, grid: Tensor) -> tuple[list[int], Tensor]:
        """Return the axes along which units differ, and the labels without those of kept ones."""
        (thin,) = narrowed(grid)
        values = thin.numpy()
        found = np.where(values >= 0, self.sets.roots()[np.maximum(values, 0)], FILLER)
        axes = [d for d in range(found.ndim) if not constant_along(found, d)]
        return axes, torch.from_numpy(np.where(values >= 0, values, FILLER))


def constant_along(values: Ints, axis: int) -> bool:
    return bool((values == values.take([0], axis=axis)).all())


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Return the tensors in a value."""
    return (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


def _first(noted: list[tuple[Ints, T]], roots: Ints) -> dict[int, T]:
    """Return what was noted first for each set, by its root."""
    first: dict[int, T] = {}
    for labels, note in noted:
        for root in np.unique(roots[labels]).tolist():
            first.setdefault(root, note)
    return first
