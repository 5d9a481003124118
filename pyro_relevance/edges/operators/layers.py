"""Layers: they read the labels of their columns and make new ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from pyro_relevance.edges.coupling.labelling import Axis, Ints, Labelling
from pyro_relevance.edges.exported import value_of
from pyro_relevance.edges.operators.calls import setting
from pyro_relevance.edges.operators.pointwise import unknown
from pyro_relevance.edges.operators.registry import LayerAxes, find, note, operator
from pyro_relevance.edges.reasons import Why

__all__ = ["embedding", "layer"]

_CONVOLUTION = (
    "in_channels out_channels kernel_size stride padding dilation groups bias padding_mode"
)


def layer(run: Labelling, node: fx.Node, name: str) -> Any:
    """A linear layer or convolution: it reads columns and makes rows."""
    weight = run.name_of(node.args[1])
    if weight is None:
        found = rows_of(run, node.args[1]) if name == "linear" else None
        return part_of_layer(run, node, *found) if found else unknown(run, node, name)
    x, axes = run.value(node.args[0]), find(name).layer
    assert axes is not None
    shape = tuple(run.exported.tensors[weight].shape)
    out_shape = tuple(value_of(node).shape)
    linear = name == "linear"
    transposed = axes.makes == 1
    groups = 1 if linear else int(setting(node, "groups"))
    channel = len(out_shape) - 1 - axes.spatial
    columns = run.columns(x, channel)
    made = _axis(run, (weight, axes.makes), shape[axes.makes])
    if groups == 1:
        _read(run, (weight, axes.reads), columns)
    else:
        made = _grouped(run, weight, columns, made, groups, transposed)
    bias = setting(node, "bias")
    if bias is not None:
        run.join_along(run.value(bias), torch.from_numpy(made), "its bias")
    if transposed:  # each input position is multiplied, not each output position
        positions = math.prod(x.shape) // x.shape[channel] // run.num_examples
    else:
        positions = math.prod(out_shape) // len(made) // run.num_examples
    run.positions[weight] = run.positions.get(weight, 0) + positions
    view = [1] * len(out_shape)
    view[channel] = len(made)
    return torch.from_numpy(made).reshape(view).expand(out_shape)


def rows_of(run: Labelling, argument: Any) -> tuple[str, Ints] | None:
    """Return the parameter and its rows, if a value consists of rows of a parameter."""
    labels = run.labels.get(argument) if isinstance(argument, fx.Node) else None
    if not isinstance(labels, Tensor) or labels.ndim != 2:
        return None
    for name, elements in run.elements.items():
        if elements.ndim == 2 and elements.shape[1] == labels.shape[1]:
            first, width = int(elements[0, 0]), elements.shape[1]
            positions = labels - first
            rows = positions[:, 0].div(width, rounding_mode="floor")
            whole = rows[:, None] * width + torch.arange(width)
            inside = bool((rows >= 0).all()) and int(rows.max()) < len(elements)
            if inside and torch.equal(positions, whole):
                return name, rows.numpy()
    return None


def part_of_layer(run: Labelling, node: fx.Node, weight: str, rows: Ints) -> Tensor:
    """A linear layer whose weight is some rows of a parameter, such as the queries of attention."""
    x, elements = run.value(node.args[0]), run.elements[weight]
    out_shape = tuple(value_of(node).shape)
    made = elements[:, 0].numpy().copy()
    if (weight, 0) not in run.makers:
        run.join(elements, elements[:, :1].expand_as(elements))
        run.makers[weight, 0] = made
        run.layers.append((weight, 0))
    _read(run, (weight, 1), run.columns(x, x.ndim - 1))
    bias = setting(node, "bias")
    if bias is not None:
        run.join_along(run.value(bias), torch.from_numpy(made[rows]), "its bias")
    # Each row counts as often as its part is applied; an even share of all rows is stored.
    count = math.prod(out_shape) // run.num_examples
    run.partial[weight] = run.partial.get(weight, 0) + count
    run.positions[weight] = run.partial[weight] // len(made)
    return torch.from_numpy(made[rows]).expand(out_shape)


def _axis(run: Labelling, axis: Axis, size: int) -> Ints:
    if axis not in run.makers:
        run.makers[axis] = run.new((size,)).numpy()
        run.layers.append(axis)
    return run.makers[axis]


def _read(run: Labelling, axis: Axis, columns: Ints) -> None:
    """Keep the labels that an axis reads; a second call of a layer joins both."""
    if axis in run.readers:
        run.join(torch.from_numpy(run.readers[axis]), torch.from_numpy(columns))
    run.readers.setdefault(axis, columns)


def _grouped(
    run: Labelling, weight: str, columns: Ints, made: Ints, groups: int, transposed: bool
) -> Ints:
    """A grouped convolution: all inputs and outputs of a group are one unit."""
    if transposed:
        run.block(
            torch.from_numpy(columns),
            Why.READ_GROUPED_TRANSPOSED.reason(name=weight),
        )
        run.block(torch.from_numpy(made), Why.MADE_GROUPED_TRANSPOSED.reason())
        return np.tile(made, groups)
    per_input, per_output = len(columns) // groups, len(made) // groups
    first = made[::per_output]
    run.sets.join(made, np.repeat(first, per_output))
    run.join(torch.from_numpy(columns), torch.from_numpy(np.repeat(first, per_input)))
    return made


@operator(
    "embedding",
    modules={nn.Embedding: "num_embeddings embedding_dim padding_idx max_norm norm_type"},
    saved=True,
)
def embedding(run: Labelling, node: fx.Node, name: str) -> Any:
    """Look up rows of a table: its columns are units, its rows are never pruned."""
    table = run.value(node.args[0])
    if table is None:
        return unknown(run, node, name)
    return run.collapsed(table, [0])[0].expand(tuple(value_of(node).shape))


def _resize_linear(module: nn.Linear) -> None:
    module.out_features, module.in_features = module.weight.shape


def _resize_convolution(module: Any) -> None:
    # A group is pruned as a whole, so each remaining one has as many outputs as before.
    if module.groups > 1:
        module.groups = module.groups * len(module.weight) // module.out_channels
    module.out_channels = len(module.weight)
    module.in_channels = module.weight.shape[1] * module.groups


def _resize_transposed(module: Any) -> None:
    module.in_channels, module.out_channels = module.weight.shape[:2]


operator(
    "linear",
    layer=LayerAxes(makes=0, reads=1),
    modules={nn.Linear: "in_features out_features bias"},
    resize=_resize_linear,
    saved=True,
)(layer)
for _spatial, _plain, _transposed in (
    (1, nn.Conv1d, nn.ConvTranspose1d),
    (2, nn.Conv2d, nn.ConvTranspose2d),
    (3, nn.Conv3d, nn.ConvTranspose3d),
):
    operator(
        f"conv{_spatial}d",
        layer=LayerAxes(makes=0, reads=1, spatial=_spatial),
        modules={_plain: _CONVOLUTION},
        resize=_resize_convolution,
        saved=True,
    )(layer)
    operator(
        f"conv_transpose{_spatial}d",
        layer=LayerAxes(makes=1, reads=0, spatial=_spatial),
        modules={_transposed: f"{_CONVOLUTION} output_padding"},
        resize=_resize_transposed,
        saved=True,
    )(layer)
note("bilinear", modules={nn.Bilinear: "in1_features in2_features out_features bias"}, saved=True)
