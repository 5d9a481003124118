"""Layers: they read the labels of their columns and make new ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from pyro_relevance.edges.coupling.labelling import Axis, Ints, Labelling
from pyro_relevance.edges.coupling.operators import setting
from pyro_relevance.edges.coupling.pointwise import unknown
from pyro_relevance.edges.exported import value_of
from pyro_relevance.edges.reasons import Why

__all__ = ["CONVOLUTIONS", "layer", "rows_of", "part_of_layer", "embedding"]

CONVOLUTIONS = {
    "conv1d": False, "conv2d": False, "conv3d": False,
    "conv_transpose1d": True, "conv_transpose2d": True, "conv_transpose3d": True,
}  # fmt: skip


def layer(run: Labelling, node: fx.Node, name: str) -> Tensor:
    """A linear layer or convolution: it reads columns and makes rows."""
    x = run.value(node.args[0])
    weight = run.name_of(node.args[1])
    assert weight is not None
    shape = tuple(run.exported.tensors[weight].shape)
    out_shape = tuple(value_of(node).shape)
    linear = name == "linear"
    transposed = not linear and CONVOLUTIONS[name]
    groups = 1 if linear else int(setting(node, "groups"))
    channel = len(out_shape) - (1 if linear else len(shape) - 1)
    columns = run.columns(x, channel)
    row_axis, column_axis = (1, 0) if transposed else (0, 1)
    made = _axis(run, (weight, row_axis), shape[row_axis])
    if groups == 1:
        _read(run, (weight, column_axis), columns)
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
    """Return the parameter of which a value is some rows, and which ones."""
    labels = run.labels.get(argument) if isinstance(argument, fx.Node) else None
    if not isinstance(labels, Tensor) or labels.ndim != 2:
        return None
    for name, elements in run.elements.items():
        if elements.ndim == 2 and elements.shape[1] == labels.shape[1]:
            first, width = int(elements[0, 0]), elements.shape[1]
            places = labels - first
            rows = places[:, 0].div(width, rounding_mode="floor")
            whole = rows[:, None] * width + torch.arange(width)
            inside = bool((rows >= 0).all()) and int(rows.max()) < len(elements)
            if inside and torch.equal(places, whole):
                return name, rows.numpy()
    return None


def part_of_layer(run: Labelling, node: fx.Node, name: str) -> Tensor:
    """A linear layer by some rows of a parameter, as attention has for queries and for keys."""
    found = rows_of(run, node.args[1])
    assert found is not None
    weight, rows = found
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
    """Note who is read along an axis; a layer that is called again reads both at once."""
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


def embedding(run: Labelling, node: fx.Node, name: str) -> Any:
    """Look up rows of a table: its columns are units, its rows always stay."""
    table = run.value(node.args[0])
    if table is None:
        return unknown(run, node, name)
    return run.collapsed(table, [0])[0].expand(tuple(value_of(node).shape))
