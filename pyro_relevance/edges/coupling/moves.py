"""Operators that only move elements: they are run on the labels themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_map

from pyro_relevance.edges.coupling.label_tensors import FILLER, compact, filled, variable_axes
from pyro_relevance.edges.coupling.labelling import Labelling
from pyro_relevance.edges.coupling.operators import floating, setting
from pyro_relevance.edges.exported import value_of

__all__ = ["MOVES", "CUTS", "TAKEN_APART", "move"]

PADDED = "the number of channels that are added"
MOVES = frozenset([
    "_unsafe_view", "adjoint", "cat", "channel_shuffle", "chunk", "constant_pad_nd", "dsplit",
    "expand", "flatten", "flip", "hsplit", "index", "index_select", "mT", "moveaxis", "movedim",
    "narrow", "numpy_T", "pad", "permute", "pixel_shuffle", "pixel_unshuffle", "repeat",
    "repeat_interleave",
    "reshape", "reshape_as", "roll", "select", "slice", "split", "split_with_sizes", "squeeze",
    "squeeze_", "stack", "swapaxes", "t", "tensor_split", "tile", "transpose", "unbind",
    "unflatten", "unfold", "unsafe_chunk", "unsafe_split", "unsqueeze", "unsqueeze_", "view",
    "view_as", "vsplit",
])  # fmt: skip
CUTS = frozenset([
    "chunk", "index_select", "narrow", "select", "slice", "split", "split_with_sizes",
    "unsafe_chunk", "unsafe_split",
])  # fmt: skip
"""Operators that take parts of an axis."""
TAKEN_APART = frozenset(["dsplit", "hsplit", "tensor_split", "unbind", "vsplit"])
"""Operators that take an axis apart in a way that a cut would change."""


def move(run: Labelling, node: fx.Node, name: str) -> Any:
    """Run an operator that moves elements on the labels."""
    target: Any = node.target

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
    if name in CUTS:
        _cut(run, node, args[0], name)
    elif name == "roll":
        dims = setting(node, "dims")
        run.fixed += [(compact(args[0]), dim % args[0].ndim, True) for dim in dims]
    elif name == "index":
        chosen = [dim for dim, index in enumerate(args[1]) if index is not None]
        simple = len(chosen) == 1 and args[1][chosen[0]].ndim == 1
        run.fixed += [(compact(args[0]), dim, simple) for dim in chosen]
    elif name in TAKEN_APART:
        dim = setting(node, "dim")
        dims = range(args[0].ndim) if dim is None else [dim % args[0].ndim]
        run.fixed += [(compact(args[0]), d, False) for d in dims]
    if name == "pad" and setting(node, "mode") != "constant":
        return _spread(run, node, args[0])
    if name in ("pad", "constant_pad_nd"):
        return _padded(run, args[0], args[1])
    if name in ("view", "_unsafe_view"):
        return args[0].reshape(args[1])  # labels may lie in memory otherwise than the data
    return target(*args, **kwargs)


def _cut(run: Labelling, node: fx.Node, labels: Tensor, name: str) -> None:
    """Parts of an axis: halves stay halves, and what has a size in the code cannot shrink."""
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
    """Whether a slice leaves anything out."""
    start, end = (run.constant(setting(node, name)) for name in ("start", "end"))
    whole = (start or 0) == 0 and (end is None or end >= size)
    return not whole or setting(node, "step") != 1


def _padded(run: Labelling, labels: Tensor, widths: Sequence[int]) -> Tensor:
    """Pad with constants: what is added to an axis of units are units, each on its own."""
    for place in range(len(widths) // 2):
        dim, (before, after) = labels.ndim - 1 - place, widths[2 * place : 2 * place + 2]
        varies = dim in variable_axes(labels)
        if varies and min(before, after) < 0:
            run.fixed.append((compact(labels), dim, False))
        around = [0] * (2 * place) + [before, after]
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
