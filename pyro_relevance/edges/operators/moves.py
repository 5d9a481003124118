"""Operators that only move elements: they are run on the labels themselves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from pyro_relevance.edges.coupling.label_tensors import FILLER, compact, filled, variable_axes
from pyro_relevance.edges.coupling.labelling import Labelling
from pyro_relevance.edges.exported import value_of
from pyro_relevance.edges.operators.calls import floating, setting
from pyro_relevance.edges.operators.registry import operator

__all__ = ["move"]

PADDED = "the number of channels that are added"
_PARTS = ("narrow", "select", "slice", "split", "split_with_sizes", "unsafe_split")


def move(run: Labelling, node: fx.Node, name: str) -> Any:
    """Run an operator that moves elements on the labels."""
    args, kwargs = _labelled(run, node)
    target: Any = node.target
    return target(*args, **kwargs)


@operator(*_PARTS, "chunk", "unsafe_chunk", "index_select", saved=True)
def part(run: Labelling, node: fx.Node, name: str) -> Any:
    """Take parts of an axis."""
    _cut(run, node, _labelled(run, node)[0][0], name)
    return move(run, node, name)


@operator("roll", saved=True)
def roll(run: Labelling, node: fx.Node, name: str) -> Any:
    """Shift along an axis; the distance depends on the positions that are kept."""
    labels = _labelled(run, node)[0][0]
    run.fixed += [(compact(labels), dim % labels.ndim, True) for dim in setting(node, "dims")]
    return move(run, node, name)


@operator("index", saved=True)
def index(run: Labelling, node: fx.Node, name: str) -> Any:
    """Choose positions by a constant."""
    args, _ = _labelled(run, node)
    chosen = [dim for dim, positions in enumerate(args[1]) if positions is not None]
    simple = len(chosen) == 1 and args[1][chosen[0]].ndim == 1
    run.fixed += [(compact(args[0]), dim, simple) for dim in chosen]
    return move(run, node, name)


@operator("dsplit", "hsplit", "tensor_split", "unbind", "vsplit", saved=True)
def taken_apart(run: Labelling, node: fx.Node, name: str) -> Any:
    """Split an axis in a way that pruning would change."""
    labels, dim = _labelled(run, node)[0][0], setting(node, "dim")
    dims = range(labels.ndim) if dim is None else [dim % labels.ndim]
    run.fixed += [(compact(labels), d, False) for d in dims]
    return move(run, node, name)


@operator(
    *("pad", "constant_pad_nd"),
    modules={
        nn.ZeroPad1d: "padding",
        nn.ZeroPad2d: "padding",
        nn.ZeroPad3d: "padding",
        nn.ConstantPad1d: "padding value",
        nn.ConstantPad2d: "padding value",
        nn.ConstantPad3d: "padding value",
        nn.ReflectionPad1d: "padding",
        nn.ReflectionPad2d: "padding",
        nn.ReflectionPad3d: "padding",
        nn.ReplicationPad1d: "padding",
        nn.ReplicationPad2d: "padding",
        nn.ReplicationPad3d: "padding",
    },
    saved=True,
)
def pad(run: Labelling, node: fx.Node, name: str) -> Any:
    """Pad with constants, or with copies. Constants along an axis of units are new units."""
    args, _ = _labelled(run, node)
    if name == "pad" and setting(node, "mode") != "constant":
        return _spread(run, node, args[0])
    return _padded(run, args[0], args[1])


@operator("view", last_axis="reshaped", saved=True)
@operator("_unsafe_view", saved=True)
def view(run: Labelling, node: fx.Node, name: str) -> Any:
    """Change the shape; the memory layout of labels may differ from that of the data."""
    args, _ = _labelled(run, node)
    return args[0].reshape(args[1])


_moves = partial(operator, saved=True)
_moves(
    *("adjoint", "cat", "column_stack", "concat", "concatenate", "dstack", "hstack", "vstack"),
    *("row_stack", "broadcast_to", "swapdims", "fliplr", "flipud", "rot90", "ravel", "diagonal"),
    *("expand", "flip", "mT", "moveaxis", "movedim", "numpy_T", "permute"),
    *("repeat", "repeat_interleave", "reshape_as", "squeeze_", "stack", "swapaxes", "t", "tile"),
    *("transpose", "unfold", "unsqueeze_", "view_as"),
)(move)
operator("getitem")(move)
_moves("channel_shuffle", modules={nn.ChannelShuffle: "groups"})(move)
_moves("pixel_shuffle", modules={nn.PixelShuffle: "upscale_factor"})(move)
_moves("pixel_unshuffle", modules={nn.PixelUnshuffle: "downscale_factor"})(move)
_moves("flatten", modules={nn.Flatten: "start_dim end_dim"}, last_axis="flattened")(move)
_moves("unflatten", modules={nn.Unflatten: "dim unflattened_size"}, last_axis="reshaped")(move)
_moves("reshape", "squeeze", "unsqueeze", last_axis="reshaped")(move)


@operator("slice_scatter", "select_scatter", saved=True)
def put(run: Labelling, node: fx.Node, name: str) -> Any:
    """Replace a part of an axis."""
    args, kwargs = _labelled(run, node)
    labels, dim = args[0], int(setting(node, "dim")) % args[0].ndim
    if name == "select_scatter" or _cuts_off(run, node, labels.shape[dim]):
        single = name == "select_scatter" or setting(node, "step") != 1
        run.fixed.append((compact(labels), dim, not single))
    labels = labels.contiguous()
    target: Any = node.target
    return target(labels, args[1].contiguous(), *args[2:], **kwargs)


@operator("copy", saved=True)
def copy(run: Labelling, node: fx.Node, name: str) -> Any:
    """Take over the values of the second argument."""
    labels = _labelled(run, node)[0][1]
    return labels.expand(tuple(value_of(node).shape))


@operator("glu", modules={nn.GLU: "dim"}, saved=True)
def glu(run: Labelling, node: fx.Node, name: str) -> Any:
    """Multiply one half of an axis by the sigmoid of the other."""
    labels = run.operand(node.args[0])
    one, other = labels.chunk(2, int(setting(node, "dim")))
    return run.meet(one, other)


def _labelled(run: Labelling, node: fx.Node) -> tuple[Any, Any]:
    """Return the arguments of a call with labels instead of values."""

    def labelled(argument: Any) -> Any:
        if not isinstance(argument, fx.Node):
            return argument
        if argument not in run.constants:
            return run.value(argument)
        value = run.constants[argument]
        if floating(value):
            return filled(tuple(value.shape), FILLER)
        return value.cpu() if isinstance(value, Tensor) else value

    args, kwargs = tree_map(labelled, (tuple(node.args), dict(node.kwargs)))
    return args, kwargs


def _cut(run: Labelling, node: fx.Node, labels: Tensor, name: str) -> None:
    """Parts of an axis: halves remain halves, and a part with a fixed size cannot shrink."""
    dim = int(setting(node, "dim")) % labels.ndim
    size = labels.shape[dim]
    num_parts = int(setting(node, "chunks")) if name in ("chunk", "unsafe_chunk") else 0
    if num_parts and size % num_parts == 0:
        first, *others = labels.chunk(num_parts, dim)
        for part in others:
            run.join(first, part)
    elif name != "slice" or _cuts_off(run, node, size):
        single = name == "select" or (name == "slice" and setting(node, "step") != 1)
        run.fixed.append((compact(labels), dim, not single))


def _cuts_off(run: Labelling, node: fx.Node, size: int) -> bool:
    """Whether a slice omits a part of the axis."""
    start, end = (run.constant(setting(node, name)) for name in ("start", "end"))
    whole = (start or 0) == 0 and (end is None or end >= size)
    return not whole or setting(node, "step") != 1


def _padded(run: Labelling, labels: Tensor, widths: Sequence[int]) -> Tensor:
    """Pad with constants: each position added to an axis of units is a unit of its own."""
    for position in range(len(widths) // 2):
        dim, (before, after) = labels.ndim - 1 - position, widths[2 * position : 2 * position + 2]
        varies = dim in variable_axes(labels)
        if varies and min(before, after) < 0:
            run.fixed.append((compact(labels), dim, False))
        around = [0] * (2 * position) + [before, after]
        labels = torch.nn.functional.pad(labels, around, value=FILLER).clone()
        for start, count in ((0, before), (labels.shape[dim] - after, after)):
            if varies and count > 0:
                shape = [count if d == dim else 1 for d in range(labels.ndim)]
                added = run.new(tuple(shape))
                run.write(added, PADDED)
                labels.narrow(dim, start, count).copy_(added)
        labels = compact(labels)
    return labels


def _spread(run: Labelling, node: fx.Node, labels: Tensor) -> Tensor:
    """Padding by copies: labels must not vary along the padded axes."""
    shape = tuple(value_of(node).shape)
    changed = [d for d, (a, b) in enumerate(zip(labels.shape, shape, strict=True)) if a != b]
    return run.collapsed(labels, changed).expand(shape)
