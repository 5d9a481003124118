"""Layers: they read the labels of their columns and make new ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from pyro_relevance.edges.coupling.labelling import Axis, Ints, Labelling, Product
from pyro_relevance.edges.exported import value_of
from pyro_relevance.edges.operators.calls import operator_name, setting
from pyro_relevance.edges.operators.pointwise import unknown
from pyro_relevance.edges.operators.registry import LayerAxes, find, note, operator
from pyro_relevance.edges.operators.weights import (
    apply_weight,
    read_columns,
    used_elsewhere,
    weight_of,
)
from pyro_relevance.edges.reasons import Why

__all__ = ["computed", "embedding", "layer"]

_CONVOLUTION = (
    "in_channels out_channels kernel_size stride padding dilation groups bias padding_mode"
)


def layer(run: Labelling, node: fx.Node, name: str) -> Any:
    """A linear layer or convolution: it reads columns and makes rows."""
    weight = run.name_of(node.args[1])
    if weight is None:
        found = weight_of(run, node.args[1], transposed=False) if name == "linear" else None
        if found is None:
            return computed(run, node)
        x = run.value(node.args[0])
        source: Any = node.args[0]
        product = Product(
            source, x.ndim - 1, found.name, found.reads, setting(node, "bias"), x.ndim - 1
        )
        return apply_weight(run, node, product, x, found, x.ndim - 1)
    x, axes = run.operand(node.args[0]), find(name).layer
    assert axes is not None
    shape = tuple(run.exported.tensors[weight].shape)
    out_shape = tuple(value_of(node).shape)
    transposed = axes.makes == 1
    groups = 1 if name == "linear" else int(setting(node, "groups"))
    channel = len(out_shape) - 1 - axes.spatial
    columns = run.columns(x, channel)
    made = _axis(run, (weight, axes.makes), shape[axes.makes])
    if groups == 1:
        read_columns(run, (weight, axes.reads), columns)
    else:
        made = _grouped(run, weight, columns, made, groups, transposed)
    if used_elsewhere(run, weight):
        reason = Why.LAYER.reason(fault=Why.USED_DIRECTLY.reason())
        run.block(torch.cat((torch.from_numpy(made), torch.from_numpy(columns))), reason)
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


def computed(run: Labelling, node: fx.Node) -> Any:
    """Block what a layer reads and makes whose weight is computed."""
    return unknown(run, node, operator_name(node), Why.COMPUTED_READER.reason())


def _axis(run: Labelling, axis: Axis, size: int) -> Ints:
    if axis not in run.makers:
        run.makers[axis] = run.new((size,)).numpy()
        run.layers.append(axis)
    return run.makers[axis]


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


def _resize_embedding(module: nn.Embedding) -> None:
    module.embedding_dim = module.weight.shape[1]


@operator(
    "embedding",
    modules={nn.Embedding: "num_embeddings embedding_dim padding_idx max_norm norm_type"},
    resize=_resize_embedding,
    saved=True,
)
def embedding(run: Labelling, node: fx.Node, name: str) -> Any:
    """Look up rows of a table: its columns are units, its rows are never pruned."""
    table = run.name_of(node.args[0])
    if table is None:
        return unknown(run, node, name)
    axis, shape = (table, 1), tuple(value_of(node).shape)
    made = _axis(run, axis, shape[-1])
    run.made_columns[axis] = made
    if axis in run.readers:  # tied to the weight of a layer
        run.join(torch.from_numpy(run.readers[axis]), torch.from_numpy(made))
    if used_elsewhere(run, table):
        reason = Why.LAYER.reason(fault=Why.USED_DIRECTLY.reason())
        run.block(torch.from_numpy(made), reason)
    return torch.from_numpy(made).expand(shape)


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
