r"""Which channels of a network must be cut together, for any network that ``torch.export`` traces.

Every position of a channel axis gets a label, and the labels travel through the graph as data do:
an operator that only moves elements (reshape, permute, slice, concatenate, roll, ...) is run on the
labels themselves. Where two tensors meet element by element (residual sum, product of
squeeze-and-excitation, BatchNorm's parameters) the labels that meet are joined, and must be cut
together. A layer that mixes channels *reads* the labels of its columns and makes new ones. What
reads all channels at once (LayerNorm, softmax over channels) makes its labels impossible to cut
exactly, with a reason.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map

from pyro_relevance.disjoint_sets import DisjointSets
from pyro_relevance.exported import Exported, export_graph, value_of
from pyro_relevance.flow import NEVER_JUDGED
from pyro_relevance.label_tensors import FILLER, KEPT, compact, filled, narrowed, variable_axes

__all__ = [
    "Coupling",
    "Labels",
    "follow_channels",
    "follow_graph",
    "operator_name",
    "setting",
]

Ints = NDArray[np.int64]
Axis = tuple[str, int]
"""A tensor of the network and one of its axes."""
Labels = dict[fx.Node, Any]
"""``(*shape)`` labels of the positions of each value, or a list of them; constants have none."""

HEADS = "the number of heads"
PLACE = "the place where a part of them is taken"
PADDED = "the number of channels that are added"
_MOVES = frozenset([
    "_unsafe_view", "adjoint", "cat", "channel_shuffle", "chunk", "constant_pad_nd", "dsplit",
    "expand", "flatten", "flip", "hsplit", "index", "index_select", "mT", "moveaxis", "movedim",
    "narrow", "numpy_T", "pad", "permute", "pixel_shuffle", "pixel_unshuffle", "repeat",
    "repeat_interleave",
    "reshape", "reshape_as", "roll", "select", "slice", "split", "split_with_sizes", "squeeze",
    "squeeze_", "stack", "swapaxes", "t", "tensor_split", "tile", "transpose", "unbind",
    "unflatten", "unfold", "unsafe_chunk", "unsafe_split", "unsqueeze", "unsqueeze_", "view",
    "view_as", "vsplit",
])  # fmt: skip
_SPATIAL = {
    "max_pool1d": 1, "max_pool2d": 2, "max_pool3d": 3, "avg_pool1d": 1, "avg_pool2d": 2,
    "avg_pool3d": 3, "adaptive_avg_pool1d": 1, "adaptive_avg_pool2d": 2, "adaptive_avg_pool3d": 3,
    "adaptive_max_pool1d": 1, "adaptive_max_pool2d": 2, "max_pool2d_with_indices": 2,
    "upsample_nearest2d": 2, "upsample_bilinear2d": 2, "upsample_bicubic2d": 2,
    "upsample_nearest1d": 1, "_adaptive_avg_pool2d": 2, "lp_pool2d": 2,
}  # fmt: skip
_CUTS = frozenset([
    "chunk", "index_select", "narrow", "select", "slice", "split", "split_with_sizes",
    "unsafe_chunk", "unsafe_split",
])  # fmt: skip
"""Operators that take parts of an axis."""
_TAKEN_APART = frozenset(["dsplit", "hsplit", "tensor_split", "unbind", "vsplit"])
"""Operators that take an axis apart in a way that a cut would change."""
_AS_THEY_ARE = frozenset([
    "alias", "alpha_dropout", "clone", "contiguous", "detach", "dropout", "dropout_",
    "feature_dropout", "lift_fresh_copy",
])  # fmt: skip
"""Operators that leave each element where it is."""
_CONVOLUTIONS = {
    "conv1d": False, "conv2d": False, "conv3d": False,
    "conv_transpose1d": True, "conv_transpose2d": True, "conv_transpose3d": True,
}  # fmt: skip
_ALONG = frozenset(["softmax", "log_softmax", "_softmax", "cumsum", "logcumsumexp", "cumprod"])
_REDUCTIONS = frozenset(
    ["mean", "sum", "amax", "amin", "linalg_vector_norm", "norm", "var", "std", "logsumexp", "prod"]
)
_POINTWISE = frozenset([
    "_to_copy", "add", "celu", "clamp", "div", "elu", "fill", "float", "gelu", "half",
    "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "masked_fill", "mish", "mul", "pow",
    "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "sub", "tanh", "to",
    "type_as", "where", "zero",
])  # fmt: skip
_CREATED = frozenset([
    "empty_like", "full_like", "new_ones", "new_zeros", "ones_like", "zeros_like",
])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Coupling:
    """Which positions of which tensors belong to the same unit.

    Args:
        roots: ``(num_labels,)`` set of each label.
        makers: Labels along axes that make units (rows of layers, normalisation, elementwise
            parameters); ``KEPT`` where a position always stays.
        layers: The axes in ``makers`` along which a layer makes new units, in call order.
        readers: Labels along axes that read units (columns of layers).
        reasons: Why a set cannot be cut, by its root.
        written: What about a set is a number in ``forward()``, by its root: the graph has to be
            written anew when some of it is cut.
        inputs: Labels of the first input, ``(1, ...)``.
        outputs: Labels that the network returns.
        positions: How often one example multiplies each weight.
        products: Multiply-accumulates of products of two activations for one example, by the root
            of the set that they go with; ``KEPT`` for those that stay.
    """

    roots: Ints
    makers: dict[Axis, Ints]
    layers: tuple[Axis, ...]
    readers: dict[Axis, Ints]
    reasons: dict[int, str]
    written: dict[int, str]
    inputs: Tensor
    outputs: tuple[Tensor, ...]
    positions: dict[str, int]
    products: dict[int, int]


def follow_channels(network: nn.Module, arguments: tuple[Any, ...]) -> Coupling:
    """Find out which channels of a network must be cut together.

    Args:
        network: Any network that ``torch.export`` traces; it is not touched.
        arguments: Example inputs; one example is enough.

    Returns:
        The coupling.

    Raises:
        EdgeError: The network cannot be traced.
    """
    one = tree_map(lambda a: a[:1] if isinstance(a, Tensor) and a.ndim else a, arguments)
    return _Follower(export_graph(network, one)).follow()


def follow_graph(exported: Exported) -> tuple[Coupling, Labels, dict[fx.Node, Any]]:
    """Find out the same of a graph, and keep what was found of each value.

    Args:
        exported: The graph.

    Returns:
        The coupling, labels by node, and values of the nodes that do not depend on the inputs.
    """
    follower = _Follower(exported, keep=True)
    return follower.follow(), follower.labels, follower.constants


class _Follower:
    """One walk over the graph: labels of each value, and what was joined so far."""

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
        self.blocked: list[tuple[Ints, str]] = []
        self.grids: list[Tensor] = []
        self.fixed: list[tuple[Tensor, int, bool]] = []  # axis, and whether it can be written anew
        self.together: list[tuple[Tensor, list[int], str]] = []
        self.written: list[tuple[Ints, str]] = []
        self.positions: dict[str, int] = {}
        self._partial: dict[str, int] = {}
        self.products: list[tuple[Tensor, int]] = []
        self.inputs = torch.empty(0, dtype=torch.long)
        self.outputs: list[Tensor] = []

    def follow(self) -> Coupling:
        last = {}
        for node in self.exported.graph.nodes:
            for source in node.all_input_nodes:
                last[source] = node
        for node in self.exported.graph.nodes:
            if node.op == "placeholder":
                self._place(node)
            elif node.op == "output":
                for leaf in tree_leaves(node.args):
                    if isinstance(leaf, fx.Node) and leaf in self.labels:
                        self.outputs += [compact(t) for t in _tensors(self.labels[leaf])]
            else:
                self._call(node)
            for source in node.all_input_nodes:
                if last[source] is node and not self.keep:
                    self.labels.pop(source, None)
        for outputs in self.outputs:
            self._block(outputs, f"it makes the outputs, and {NEVER_JUDGED}")
        self._place_elements()
        self._make_rectangular()
        roots = self.sets.roots()
        return Coupling(
            roots, self.makers, tuple(self.layers), self.readers, _first(self.blocked, roots),
            _first(self.written, roots), self.inputs, tuple(self.outputs), self.positions,
            self._counted(roots),
        )  # fmt: skip

    def _counted(self, roots: Ints) -> dict[int, int]:
        """Add up the products of two activations by the set that they go with."""
        counts: dict[int, int] = {}
        for labels, num_macs in self.products:
            (thin,) = narrowed(labels)
            repeats = labels.numel() // thin.numel()
            for label in thin.reshape(-1).tolist():
                root = int(roots[label]) if label >= 0 else KEPT
                counts[root] = counts.get(root, 0) + repeats * num_macs
        return {root: count // self.num_examples for root, count in counts.items()}

    # Where values come from

    def _place(self, node: fx.Node) -> None:
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
                self.inputs = self._new(tuple(value.shape[1:])).expand(value.shape)
                self.labels[node] = self.inputs
            else:
                self.labels[node] = filled(tuple(value.shape), KEPT)
        else:
            self.constants[node] = value

    def _name(self, node: Any) -> str | None:
        """Return the name of the parameter or buffer that a node is."""
        is_node = isinstance(node, fx.Node) and node not in self.constants
        return self.exported.names.get(node.name) if is_node else None

    def _value(self, argument: Any) -> Any:
        """Return the labels of an argument; parameters get one for each element."""
        if not isinstance(argument, fx.Node) or argument in self.constants:
            return None
        name = self._name(argument)
        if name is not None:
            if name not in self.elements:
                self.elements[name] = self._new(tuple(self.exported.tensors[name].shape))
            if self.keep:
                self.labels[argument] = self.elements[name]
            return self.elements[name]
        return self.labels[argument]

    def _new(self, shape: tuple[int, ...]) -> Tensor:
        count = math.prod(shape)
        return torch.arange(count).add_(self.sets.extend(count)).reshape(shape)

    # Operators

    def _call(self, node: fx.Node) -> None:
        nodes = node.all_input_nodes
        if all(n in self.constants for n in nodes):
            arguments = tree_map(self._constant, (node.args, node.kwargs))
            with torch.no_grad():
                self.constants[node] = node.target(*arguments[0], **arguments[1])  # type: ignore[operator]
            return
        name, value = operator_name(node), value_of(node)
        if value is None or isinstance(value, (bool, int, float)):
            self.constants[node] = value  # a size, or a check of one
            return
        if name in _CREATED:
            self.labels[node] = filled(tuple(value.shape), FILLER)
            return
        rule: Callable[[fx.Node, str], Any] = self._rule(node, name)
        result = rule(node, name)
        if result is None:
            return
        if isinstance(result, Tensor):
            result = compact(result)
            if sum(size > 1 for size in narrowed(result)[0].shape) > 1:
                self.grids.append(result)
        self.labels[node] = result

    def _rule(self, node: fx.Node, name: str) -> Callable[[fx.Node, str], Any]:
        is_layer = name == "linear" or name in _CONVOLUTIONS
        if is_layer and self._name(node.args[1]) is not None:
            return self._layer
        if name == "linear" and self._rows_of(node.args[1]) is not None:
            return self._part_of_layer
        if node.target is operator.getitem or name in _MOVES:
            return self._move
        for names, rule in (
            (_AS_THEY_ARE, self._same),
            (_SPATIAL, self._spatial),
            (_ALONG, self._along),
            (_REDUCTIONS, self._reduce),
            (("batch_norm", "instance_norm"), self._channels),
            (("prelu",), self._prelu),
            (("group_norm",), self._group_norm),
            (("layer_norm", "rms_norm"), self._layer_norm),
            (("matmul", "bmm"), self._matmul),
            (("einsum",), self._einsum),
            (("scaled_dot_product_attention",), self._attention),
            (("embedding",), self._embedding),
            (("expand_as",), self._expand_as),
        ):
            if name in names:
                return rule
        is_operator = isinstance(node.target, torch._ops.OpOverload)
        tagged = is_operator and torch.Tag.pointwise in node.target.tags  # type: ignore[union-attr]
        return self._pointwise if tagged or name.rstrip("_") in _POINTWISE else self._unknown

    def _constant(self, argument: Any) -> Any:
        return self.constants[argument] if isinstance(argument, fx.Node) else argument

    def _layer(self, node: fx.Node, name: str) -> Tensor:
        """A linear layer or convolution: it reads columns and makes rows."""
        x = self._value(node.args[0])
        weight = self._name(node.args[1])
        assert weight is not None
        shape = tuple(self.exported.tensors[weight].shape)
        out_shape = tuple(value_of(node).shape)
        linear = name == "linear"
        transposed = not linear and _CONVOLUTIONS[name]
        groups = 1 if linear else int(setting(node, "groups"))
        channel = len(out_shape) - (1 if linear else len(shape) - 1)
        columns = self._columns(x, channel)
        row_axis, column_axis = (1, 0) if transposed else (0, 1)
        made = self._axis((weight, row_axis), shape[row_axis])
        if groups == 1:
            self._read((weight, column_axis), columns)
        else:
            made = self._grouped(weight, columns, made, groups, transposed)
        bias = setting(node, "bias")
        if bias is not None:
            self._join_along(self._value(bias), torch.from_numpy(made), "its bias")
        if transposed:  # each input position is multiplied, not each output position
            positions = math.prod(x.shape) // x.shape[channel] // self.num_examples
        else:
            positions = math.prod(out_shape) // len(made) // self.num_examples
        self.positions[weight] = self.positions.get(weight, 0) + positions
        view = [1] * len(out_shape)
        view[channel] = len(made)
        return torch.from_numpy(made).reshape(view).expand(out_shape)

    def _rows_of(self, argument: Any) -> tuple[str, Ints] | None:
        """Return the parameter of which a value is some rows, and which ones."""
        labels = self.labels.get(argument) if isinstance(argument, fx.Node) else None
        if not isinstance(labels, Tensor) or labels.ndim != 2:
            return None
        for name, elements in self.elements.items():
            if elements.ndim == 2 and elements.shape[1] == labels.shape[1]:
                first, width = int(elements[0, 0]), elements.shape[1]
                places = labels - first
                rows = places[:, 0].div(width, rounding_mode="floor")
                whole = rows[:, None] * width + torch.arange(width)
                inside = bool((rows >= 0).all()) and int(rows.max()) < len(elements)
                if inside and torch.equal(places, whole):
                    return name, rows.numpy()
        return None

    def _part_of_layer(self, node: fx.Node, name: str) -> Tensor:
        """A linear layer by some rows of a parameter, as attention has for queries and for keys."""
        found = self._rows_of(node.args[1])
        assert found is not None
        weight, rows = found
        x, elements = self._value(node.args[0]), self.elements[weight]
        out_shape = tuple(value_of(node).shape)
        made = elements[:, 0].numpy().copy()
        if (weight, 0) not in self.makers:
            self._join(elements, elements[:, :1].expand_as(elements))
            self.makers[weight, 0] = made
            self.layers.append((weight, 0))
        self._read((weight, 1), self._columns(x, x.ndim - 1))
        bias = setting(node, "bias")
        if bias is not None:
            self._join_along(self._value(bias), torch.from_numpy(made[rows]), "its bias")
        # Each row counts as often as its part is applied; an even share of all rows is stored.
        count = math.prod(out_shape) // self.num_examples
        self._partial[weight] = self._partial.get(weight, 0) + count
        self.positions[weight] = self._partial[weight] // len(made)
        return torch.from_numpy(made[rows]).expand(out_shape)

    def _axis(self, axis: Axis, size: int) -> Ints:
        if axis not in self.makers:
            self.makers[axis] = self._new((size,)).numpy()
            self.layers.append(axis)
        return self.makers[axis]

    def _read(self, axis: Axis, columns: Ints) -> None:
        """Note who is read along an axis; a layer that is called again reads both at once."""
        if axis in self.readers:
            self._join(torch.from_numpy(self.readers[axis]), torch.from_numpy(columns))
        self.readers.setdefault(axis, columns)

    def _grouped(
        self, weight: str, columns: Ints, made: Ints, groups: int, transposed: bool
    ) -> Ints:
        """A grouped convolution: all inputs and outputs of a group are one unit."""
        if transposed:
            self._block(
                torch.from_numpy(columns),
                f"the grouped transposed convolution {weight!r} reads them",
            )
            self._block(torch.from_numpy(made), "they are made by a grouped transposed convolution")
            return np.tile(made, groups)
        per_input, per_output = len(columns) // groups, len(made) // groups
        first = made[::per_output]
        self.sets.join(made, np.repeat(first, per_output))
        self._join(torch.from_numpy(columns), torch.from_numpy(np.repeat(first, per_input)))
        return made

    def _columns(self, labels: Tensor, axis: int) -> Ints:
        """Return one label for each position of an axis, after joining all it stands for."""
        (thin,) = narrowed(labels)
        flat = thin.expand(*thin.shape[:axis], labels.shape[axis], *thin.shape[axis + 1 :])
        flat = flat.movedim(axis, 0).reshape(labels.shape[axis], -1)
        first = flat.amax(1)
        self._join(flat, first[:, None])
        return first.numpy().copy()

    def _same(self, node: fx.Node, name: str) -> Any:
        return self._value(node.args[0])

    def _move(self, node: fx.Node, name: str) -> Any:
        target: Any = node.target

        def labelled(argument: Any) -> Any:
            if not isinstance(argument, fx.Node):
                return argument
            if argument not in self.constants:
                return self._value(argument)
            value = self.constants[argument]
            if _floating(value):
                return filled(tuple(value.shape), FILLER)
            return value.cpu() if isinstance(value, Tensor) else value

        args, kwargs = tree_map(labelled, (tuple(node.args), dict(node.kwargs)))
        if name in _CUTS:
            self._cut(node, args[0], name)
        elif name == "roll":
            dims = setting(node, "dims")
            self.fixed += [(compact(args[0]), dim % args[0].ndim, True) for dim in dims]
        elif name == "index":
            chosen = [dim for dim, index in enumerate(args[1]) if index is not None]
            simple = len(chosen) == 1 and args[1][chosen[0]].ndim == 1
            self.fixed += [(compact(args[0]), dim, simple) for dim in chosen]
        elif name in _TAKEN_APART:
            dim = setting(node, "dim")
            dims = range(args[0].ndim) if dim is None else [dim % args[0].ndim]
            self.fixed += [(compact(args[0]), d, False) for d in dims]
        if name == "pad" and setting(node, "mode") != "constant":
            return self._spread(node, args[0])
        if name in ("pad", "constant_pad_nd"):
            return self._padded(args[0], args[1])
        if name in ("view", "_unsafe_view"):
            return args[0].reshape(args[1])  # labels may lie in memory otherwise than the data
        return target(*args, **kwargs)

    def _cut(self, node: fx.Node, labels: Tensor, name: str) -> None:
        """Parts of an axis: halves stay halves, and what has a size in the code cannot shrink."""
        dim = int(setting(node, "dim")) % labels.ndim
        size = labels.shape[dim]
        num_parts = int(setting(node, "chunks")) if name in ("chunk", "unsafe_chunk") else 0
        if num_parts and size % num_parts == 0:
            first, *others = labels.chunk(num_parts, dim)
            for part in others:
                self._join(first, part)
        elif name != "slice" or self._cuts_off(node, size):
            single = name == "select" or (name == "slice" and setting(node, "step") != 1)
            self.fixed.append((compact(labels), dim, not single))

    def _cuts_off(self, node: fx.Node, size: int) -> bool:
        """Whether a slice leaves anything out."""
        start, end = (self._constant(setting(node, name)) for name in ("start", "end"))
        whole = (start or 0) == 0 and (end is None or end >= size)
        return not whole or setting(node, "step") != 1

    def _padded(self, labels: Tensor, widths: Sequence[int]) -> Tensor:
        """Pad with constants: what is added to an axis of units are units, each on its own."""
        for place in range(len(widths) // 2):
            dim, (before, after) = labels.ndim - 1 - place, widths[2 * place : 2 * place + 2]
            varies = dim in variable_axes(labels)
            if varies and min(before, after) < 0:
                self.fixed.append((compact(labels), dim, False))
            around = [0] * (2 * place) + [before, after]
            labels = torch.nn.functional.pad(labels, around, value=FILLER).clone()
            for start, count in ((0, before), (labels.shape[dim] - after, after)):
                if varies and count > 0:
                    shape = [count if d == dim else 1 for d in range(labels.ndim)]
                    added = self._new(tuple(shape))
                    self._write(added, PADDED)
                    labels.narrow(dim, start, count).copy_(added)
            labels = compact(labels)
        return labels

    def _spread(self, node: fx.Node, labels: Tensor) -> Tensor:
        """Padding by copies: labels must not vary along the padded axes."""
        shape = tuple(value_of(node).shape)
        changed = [d for d, (a, b) in enumerate(zip(labels.shape, shape, strict=True)) if a != b]
        return self._collapsed(labels, changed).expand(shape)

    def _spatial(self, node: fx.Node, name: str) -> Any:
        labels = self._value(node.args[0])
        value = value_of(node)
        shapes = [tuple(v.shape) for v in (value if isinstance(value, tuple | list) else [value])]
        count = _SPATIAL[name]
        kept = self._collapsed(labels, list(range(labels.ndim - count, labels.ndim)))
        results = [kept.expand(shape) for shape in shapes]
        return results if isinstance(value, tuple | list) else results[0]

    def _collapsed(self, labels: Tensor, dims: Sequence[int]) -> Tensor:
        """Join all labels along some axes; return the result with these axes of size one."""
        for dim in dims:
            if labels.shape[dim] > 1 and labels.stride(dim) != 0:
                self._join(labels, labels.amax(dim, keepdim=True))
                labels = labels.amax(dim, keepdim=True)
            else:
                labels = labels.narrow(dim, 0, 1)
        return labels

    def _channels(self, node: fx.Node, name: str) -> Tensor:
        """BatchNorm and InstanceNorm: parameters along axis 1 go with its channels."""
        labels = self._value(node.args[0])
        columns = torch.from_numpy(self._columns(labels, 1))
        for argument in node.args[1:5]:
            if isinstance(argument, fx.Node) and argument not in self.constants:
                self._join_along(self._value(argument), columns, "normalisation")
        return labels  # type: ignore[no-any-return]

    def _prelu(self, node: fx.Node, name: str) -> Tensor:
        labels, slopes = self._value(node.args[0]), self._value(node.args[1])
        if slopes is not None and slopes.numel() > 1:
            self._join_along(slopes, torch.from_numpy(self._columns(labels, 1)), "its slope")
        return labels  # type: ignore[no-any-return]

    def _group_norm(self, node: fx.Node, name: str) -> Tensor:
        """GroupNorm takes statistics over each group of channels: a group goes as a whole."""
        labels = self._value(node.args[0])
        groups = int(node.args[1])  # type: ignore[arg-type]
        columns = torch.from_numpy(self._columns(labels, 1))
        size = len(columns) // groups
        if size > 1:
            self._join(
                columns.reshape(groups, size), columns.reshape(groups, size)[:, :1].expand(-1, size)
            )
        if groups == 1 and size > 1:
            self._block(labels, "GroupNorm with one group reads all of them together")
        for argument in node.args[2:4]:
            if isinstance(argument, fx.Node):
                self._join_along(self._value(argument), columns, "normalisation")
        return labels  # type: ignore[no-any-return]

    def _layer_norm(self, node: fx.Node, name: str) -> Tensor:
        labels = self._value(node.args[0])
        normalised: Any = node.args[1]
        dims = list(range(labels.ndim - len(normalised), labels.ndim))
        self._block_varying(labels, dims, "LayerNorm reads all of them together")
        for argument in node.args[2:4]:
            if isinstance(argument, fx.Node) and argument not in self.constants:
                self._join(labels, self._value(argument).expand_as(labels))
        return labels  # type: ignore[no-any-return]

    def _along(self, node: fx.Node, name: str) -> Tensor:
        labels = self._value(node.args[0])
        self.together.append((compact(labels), _dims(node, labels), _together(name)))
        return labels  # type: ignore[no-any-return]

    def _reduce(self, node: fx.Node, name: str) -> Tensor:
        labels: Tensor = self._value(node.args[0])
        dims = _dims(node, labels)
        self.together.append((compact(labels), dims, _together(name)))
        kept = labels
        for dim in dims:
            kept = kept.amax(dim, keepdim=True) if kept.stride(dim) else kept.narrow(dim, 0, 1)
        shape = tuple(value_of(node).shape)
        if len(shape) != labels.ndim:
            kept = kept.squeeze(tuple(dims))
        return kept.expand(shape)

    def _matmul(self, node: fx.Node, name: str) -> Any:
        a, b = (self._operand(argument) for argument in node.args[:2])
        shape = tuple(value_of(node).shape)
        if a.ndim < 2 or b.ndim < 2:
            return self._unknown(node, name)
        return self._product(a, b, shape)

    def _operand(self, argument: Any) -> Tensor:
        labels = self._value(argument)
        if labels is None:
            value = self._constant(argument)
            return filled(tuple(value.shape), KEPT)
        return labels  # type: ignore[no-any-return]

    def _product(self, a: Tensor, b: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Batched matrix product: what is contracted cannot go alone.

        Where both sides have labels everything at one batch index is one unit (a head); where one
        side has none, the labels of the other's free axis pass.
        """
        batch = shape[:-2]
        a = a.expand(*batch, *a.shape[-2:])
        b = b.expand(*batch, *b.shape[-2:])
        a_labelled, b_labelled = bool((a >= 0).any()), bool((b >= 0).any())
        if a_labelled and b_labelled:
            left = self._collapsed(a, [a.ndim - 1, a.ndim - 2])
            right = self._collapsed(b, [b.ndim - 1, b.ndim - 2])
            met = self._meet(left, right)
            self._write(met, HEADS)
            self.products.append((met, math.prod(shape[-2:]) * a.shape[-1]))
            return met.expand(shape)
        if b_labelled:
            result = self._collapsed(b, [b.ndim - 2]).expand(shape)
        elif a_labelled:
            result = self._collapsed(a, [a.ndim - 1]).expand(shape)
        else:
            result = filled(shape, KEPT)
        self.products.append((result, a.shape[-1]))
        return result

    def _einsum(self, node: fx.Node, name: str) -> Any:
        equation: Any = node.args[0]
        operands: Any = node.args[1]
        sides, _, out = equation.replace(" ", "").partition("->")
        left, _, right = sides.partition(",")
        if len(operands) != 2 or not out or "." in equation or "," in right:
            return self._unknown(node, name)
        a, b = (self._operand(operand) for operand in operands)
        batch = [i for i in out if i in left and i in right]
        rows = [i for i in out if i in left and i not in right]
        columns = [i for i in out if i in right and i not in left]
        inner = [i for i in left if i in right and i not in out]
        if (
            len(rows) > 1
            or len(columns) > 1
            or len(inner) != 1
            or len(left) != len(batch) + len(rows) + 1
        ):
            return self._unknown(node, name)
        first = a.permute([left.index(i) for i in (*batch, *rows, *inner)])
        second = b.permute([right.index(i) for i in (*batch, *inner, *columns)])
        first = first if rows else first.unsqueeze(-2)
        second = second if columns else second.unsqueeze(-1)
        shape = (*first.shape[:-1], second.shape[-1])
        result = self._product(first, second, tuple(shape))
        result = result if rows else result.squeeze(-2)
        result = result if columns else result.squeeze(-1)
        order = [*batch, *rows, *columns]
        return result.permute([order.index(i) for i in out])

    def _attention(self, node: fx.Node, name: str) -> Tensor:
        query, key, value = (self._operand(argument) for argument in node.args[:3])
        joined = None
        for labels in (query, key, value):
            one = self._collapsed(labels, [labels.ndim - 1, labels.ndim - 2])
            joined = one if joined is None else self._meet(joined, one)
        assert joined is not None
        self._write(joined, HEADS)
        # Query times key, and what they weigh: the values.
        self.products.append((joined, query.shape[-2] * math.prod(key.shape[-2:])))
        self.products.append((joined, query.shape[-2] * math.prod(value.shape[-2:])))
        return joined.expand(tuple(value_of(node).shape))

    def _embedding(self, node: fx.Node, name: str) -> Any:
        table = self._value(node.args[0])
        if table is None:
            return self._unknown(node, name)
        return self._collapsed(table, [0])[0].expand(tuple(value_of(node).shape))

    def _expand_as(self, node: fx.Node, name: str) -> Tensor:
        labels = self._operand(node.args[0])
        return labels.expand(tuple(value_of(node).shape))

    def _pointwise(self, node: fx.Node, name: str) -> Tensor:
        shape = tuple(value_of(node).shape)
        result = filled(shape, FILLER)
        operands = [self._value(n) for n in node.all_input_nodes if n not in self.constants]
        for labels in sorted(operands, key=lambda operand: -operand.numel()):
            whole = labels.expand(shape)
            wide, narrow = variable_axes(result), variable_axes(whole)
            if wide - narrow and not wide & narrow:
                # One value for many units: these can go without it, it cannot go without them.
                self._block(labels, "one value of it is combined with many units")
            else:
                result = self._meet(result, whole)
        for source in node.all_input_nodes:
            # A constant that is written out along judged channels could not be cut with them.
            value = self.constants.get(source)
            if isinstance(value, Tensor) and value.ndim:
                first = len(shape) - value.ndim
                dims = [first + d for d, size in enumerate(value.shape) if size > 1]
                self._block_varying(result, dims, "a constant of their size is combined with them")
        return result

    def _unknown(self, node: fx.Node, name: str) -> Any:
        reason = f"they pass through the operation {name!r}, which may mix or move units"
        for source in node.all_input_nodes:
            labels = self._value(source) if source not in self.constants else None
            for tensor in _tensors(labels):
                self._block(tensor, reason)
        return tree_map(
            lambda v: filled(tuple(v.shape), KEPT) if isinstance(v, Tensor) else v,
            value_of(node),
        )

    # Joining

    def _meet(self, one: Tensor, other: Tensor) -> Tensor:
        """Join labels that meet and return what stands for both."""
        self._join(one, other)
        thin_one, thin_other = narrowed(one, other)
        return torch.maximum(thin_one, thin_other).expand(one.shape)

    def _join(self, one: Tensor, other: Tensor) -> None:
        """Join labels that meet; what meets something that is kept is kept."""
        thin_one, thin_other = narrowed(one, other)
        a, b = thin_one.reshape(-1).numpy(), thin_other.reshape(-1).numpy()
        both = (a >= 0) & (b >= 0)
        self.sets.join(a[both], b[both])
        kept = np.concatenate([a[(b == KEPT) & (a >= 0)], b[(a == KEPT) & (b >= 0)]])
        self._note(kept, "they are combined with values that always stay", self.blocked)

    def _join_along(self, elements: Tensor | None, columns: Tensor, what: str) -> None:
        if elements is None:
            self._block(columns, f"{what} is a constant")
        elif elements.shape == columns.shape:
            self._join(elements, columns)
        else:
            self._block(columns, f"{what} has another shape than they have")

    def _block(self, labels: Tensor, reason: str) -> None:
        self._note(narrowed(labels)[0].reshape(-1).numpy(), reason, self.blocked)

    def _write(self, labels: Tensor, what: str) -> None:
        """Note that a number in ``forward()`` changes when some of these labels are cut."""
        self._note(narrowed(labels)[0].reshape(-1).numpy(), what, self.written)

    def _note(self, labels: Ints, text: str, noted: list[tuple[Ints, str]]) -> None:
        found = np.unique(labels)
        found = found[found >= 0]
        if len(found):
            noted.append((found, text))

    def _block_varying(self, labels: Tensor, dims: Sequence[int], reason: str) -> None:
        """Block the labels that differ along some axes, since these are used together."""
        (thin,) = narrowed(labels)
        for dim in dims:
            differs = (thin != thin.narrow(dim, 0, 1)).any(dim, keepdim=True)
            self._block(torch.where(differs, thin, KEPT), reason)

    # At the end

    def _place_elements(self) -> None:
        """Find the axis along which the labels of parameters that are operands lie."""
        for name, elements in self.elements.items():
            roots = self.sets.roots()
            found = roots[elements.numpy()]
            if not found.size or (np.bincount(roots)[found] == 1).all():
                continue  # joined with nothing: it stays as it is
            axes = [d for d in range(found.ndim) if not _constant_along(found, d)]
            if len(axes) > 1:
                self._block(elements, f"the parameter {name!r} ties them across axes")
            else:
                axis = axes[0] if axes else int(np.argmax(found.shape))
                first = np.moveaxis(elements.numpy(), axis, 0).reshape(found.shape[axis], -1)[:, 0]
                self.makers[name, axis] = first.copy()

    def _make_rectangular(self) -> None:
        """Tie labels until what is kept of each tensor is a choice of rows and columns.

        Where labels vary along several axes of one tensor (channels split into heads, or shuffled),
        one axis is chosen, the longest, and labels are joined along the others.
        """
        number = -1
        while number != (number := len(np.unique(self.sets.roots()))):
            for grid in self.grids:
                axes, thin = self._varying(grid)
                if len(axes) > 1:
                    self._columns(thin, max(axes, key=lambda d: thin.shape[d]))
        for grid in self.grids:
            axes, thin = self._varying(grid)
            if len(axes) > 1:
                self._block(thin, "they are mixed with values that always stay")
        for labels, dims, reason in self.together:
            axes, thin = self._varying(labels)
            if set(axes) & set(dims):
                self._block(thin, reason)
        for labels, dim, can_be_moved in self.fixed:
            axes, thin = self._varying(labels)
            if dim in axes and can_be_moved:
                self._write(thin, PLACE)
            elif dim in axes:
                self._block(thin, "single ones are taken whose places are written into forward()")

    def _varying(self, grid: Tensor) -> tuple[list[int], Tensor]:
        """Return the axes along which units differ, and labels without those that always stay."""
        (thin,) = narrowed(grid)
        values = thin.numpy()
        found = np.where(values >= 0, self.sets.roots()[np.maximum(values, 0)], FILLER)
        axes = [d for d in range(found.ndim) if not _constant_along(found, d)]
        return axes, torch.from_numpy(np.where(values >= 0, values, FILLER))


def _constant_along(values: Ints, axis: int) -> bool:
    return bool((values == values.take([0], axis=axis)).all())


def _tensors(value: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


def setting(node: fx.Node, name: str) -> Any:
    """Return an argument of an operator by its name in the schema, or its default.

    Args:
        node: A call.
        name: The argument.

    Returns:
        Its value, ``None`` where there is no such argument.
    """
    target: Any = node.target
    for place, argument in enumerate(target._schema.arguments):
        if argument.name == name:
            if place < len(node.args):
                return node.args[place]
            return node.kwargs.get(name, argument.default_value)
    return None


def _dims(node: fx.Node, labels: Tensor) -> list[int]:
    """Return the axes that an operator works along; all of them where it names none."""
    dims = setting(node, "dim")
    named = [dims] if isinstance(dims, int) else dims or range(labels.ndim)
    return [dim % labels.ndim for dim in named]


def _together(name: str) -> str:
    return f"the operation {name!r} reads all of them together"


def _floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _first(noted: list[tuple[Ints, str]], roots: Ints) -> dict[int, str]:
    """Return the first text that was noted for each set, by its root."""
    texts: dict[int, str] = {}
    for labels, text in noted:
        for root in np.unique(roots[labels]).tolist():
            texts.setdefault(root, text)
    return texts


def operator_name(node: fx.Node) -> str:
    """Return the name of the operator that a node calls, without its overload."""
    target: Any = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target._schema.name).rpartition("::")[2]
    return str(getattr(target, "__name__", target))
