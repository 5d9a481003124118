"""The state while a graph is written down: labels, results, and the kept parts of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from pyro_relevance.edges.coupling.label_tensors import FILLER, narrowed
from pyro_relevance.edges.coupling.labelling import Labels, Product
from pyro_relevance.edges.exported import Exported, is_free, value_of
from pyro_relevance.errors import SurgeryError
from pyro_relevance.surgery.rewriting.expressions import has_form, written
from pyro_relevance.surgery.steps import Result, Step

__all__ = ["DEAD", "Writer"]


class Dead:
    """Marks a value that was removed as a whole."""


DEAD = Dead()


class Writer:
    """The steps that are written so far, and the facts about the values between them.

    Args:
        exported: The graph.
        modules: Modules of the network by name.
        labels: Labels of each value.
        constants: Values that do not depend on the inputs.
        dropped: ``(num_labels + 2,)`` whether a label is removed.
        kept: For (tensor, axis), booleans of the kept positions along the axis.
        applied: Products with a parameter that is no weight of a layer.
    """

    def __init__(
        self,
        exported: Exported,
        modules: Mapping[str, nn.Module],
        labels: Labels,
        constants: Mapping[fx.Node, Any],
        dropped: NDArray[np.bool_],
        kept: Mapping[tuple[str, int], Tensor],
        applied: Mapping[fx.Node, Product],
    ) -> None:
        self.exported, self.modules = exported, modules
        self.labels, self.constants = labels, constants
        self.dropped, self.kept, self.applied = dropped, kept, applied
        self.steps: list[Step] = []
        self.effects: set[int] = set()  # steps that change the result of an earlier one in place
        self.results: dict[fx.Node, Any] = {}
        self.tensors: dict[str, Tensor] = {}
        self.layers: dict[str, nn.Module] = {}
        self.input: fx.Node | None = None
        self.sizes_of: dict[Any, Any] = {}  # symbols of sizes of the inputs

    def emit(self, op: str, target: str, args: Any = (), kwargs: Any = None) -> Result:
        """Write a step and return the reference to its result."""
        self.steps.append(Step(op, target, tuple(args), dict(kwargs or {})))
        return Result(len(self.steps) - 1)

    def tensor(self, name: str, tensor: Tensor) -> Result:
        """Store a tensor under a name and read it."""
        self.tensors[name] = tensor
        return self.emit("get_attr", name)

    def kept_part(self, name: str, tensor: Tensor) -> Tensor:
        """Return the kept part of a parameter or buffer."""
        small = tensor.detach().clone()
        for dim in range(tensor.ndim):
            flags = self.kept.get((name, dim))
            if flags is not None and not bool(flags.all()):
                small = small.index_select(dim, flags.nonzero()[:, 0].to(small.device))
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(small, requires_grad=tensor.requires_grad)
        return small

    # Kept parts of a value

    def flags(self, labels: Tensor, dim: int) -> Tensor:
        """``(size,)`` booleans of the kept positions along an axis of a value."""
        (values,) = narrowed(labels)
        size = labels.shape[dim]
        if values.shape[dim] == 1:
            return torch.ones(size, dtype=torch.bool)
        along = values.movedim(dim, 0).reshape(size, -1).numpy()
        gone = self.dropped[along]
        stays = ~gone & (along != FILLER)
        return torch.from_numpy(~(gone.any(1) & ~stays.any(1)))

    def is_dead(self, labels: Any) -> bool:
        """Whether nothing is kept of a value."""
        parts = [leaf for leaf in tree_leaves(labels) if isinstance(leaf, Tensor)]
        return bool(parts) and all(self._nothing_kept(part) for part in parts)

    def _nothing_kept(self, labels: Tensor) -> bool:
        values = narrowed(labels)[0].numpy()
        gone = self.dropped[values]
        return bool(gone.any() and (gone | (values == FILLER)).all())

    def filled(self, argument: Any) -> Any:
        """An argument whose nodes are replaced by results, in plain containers."""
        if isinstance(argument, tuple | list):
            items = [self.filled(item) for item in argument]
            return tuple(items) if isinstance(argument, tuple) else items
        if isinstance(argument, dict):
            return {key: self.filled(value) for key, value in argument.items()}
        if not isinstance(argument, fx.Node):
            return argument
        result = self.results[argument]
        if result is DEAD:
            raise SurgeryError(
                f"Expected an operation that can do without {argument.name!r}, which was removed "
                "whole, but found none. Keep one unit of each layer with on_empty='keep'."
            )
        return result

    def size(self, node: fx.Node, dim: int) -> Any:
        """A size of a value as a number, or as it follows from sizes of the inputs."""
        traced = node.meta["val"].shape[dim]
        if not is_free(traced):
            return int(traced)
        expression = traced.node.expr
        if not has_form(expression) or not expression.free_symbols <= self.sizes_of.keys():
            raise SurgeryError(
                f"Expected sizes that are sums, products and quotients of those of the inputs, but "
                f"got {expression} in {node.name!r}. Keep one unit of each layer with "
                "on_empty='keep'."
            )
        return written(expression, self.sizes_of, self.emit)

    def whole(self, node: fx.Node, dim: int) -> None:
        """Refuse an axis whose kept positions are only known for the size of the example."""
        if is_free(node.meta["val"].shape[dim]):
            raise SurgeryError(
                f"Expected an axis of one size, but axis {dim} of {node.name!r} has any size, and "
                "parts of it are taken and removed."
            )

    def sizes(self, labels: Tensor, written: Sequence[Any], first: int = 0) -> list[Any]:
        """Sizes as the code has them, corrected where they changed."""
        sizes: list[Any] = []
        for dim, size in enumerate(written, first):
            old, new = labels.shape[dim], int(self.flags(labels, dim).sum())
            if new == old or size == -1:
                sizes.append(size)
            elif isinstance(size, fx.Node):
                product = self.emit("call_function", "operator.mul", (self.filled(size), new))
                sizes.append(self.emit("call_function", "operator.floordiv", (product, old)))
            else:
                sizes.append(new)
        return sizes

    def constant(self, node: fx.Node, value: float) -> Result:
        """A constant of the kept shape of the value of ``node``."""
        labels = self.labels[node]
        sizes = []
        for dim, old in enumerate(labels.shape):
            new = int(self.flags(labels, dim).sum())
            sizes.append(self.size(node, dim) if new == old else new)
        args, kwargs = (self.filled(self.input), sizes, value), {"dtype": value_of(node).dtype}
        return self.emit("call_function", "torch.ops.aten.new_full.default", args, kwargs)
