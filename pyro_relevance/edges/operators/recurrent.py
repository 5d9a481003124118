"""Recurrent layers: a hidden unit goes with its gates, its cell and all that reads it.

The layers and directions of one module have hidden states of the same size, so unit j of each of
them is pruned together. Where a cell is projected, cells and projected units are gated apart.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from pyro_relevance.edges.coupling.labelling import Ints, Labelling
from pyro_relevance.edges.exported import value_of
from pyro_relevance.edges.operators.calls import setting
from pyro_relevance.edges.operators.pointwise import unknown
from pyro_relevance.edges.operators.registry import note, operator
from pyro_relevance.edges.operators.weights import read_columns, used_elsewhere
from pyro_relevance.edges.reasons import Why

__all__ = ["recurrent", "recurrent_cell"]

_SETTINGS = "input_size hidden_size num_layers bias batch_first dropout bidirectional"
_CELL = "input_size hidden_size bias"
_GATES = {"lstm": 4, "gru": 3}


def _resize(module: Any) -> None:
    # A projection makes the outputs; without one, the hidden units are the outputs.
    module.input_size = module.weight_ih_l0.shape[1]
    module.hidden_size = len(module.weight_ih_l0) // _GATES.get(module.mode.lower(), 1)
    if module.proj_size:
        module.proj_size = len(module.weight_hr_l0)
    module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]


def _resize_cell(module: Any) -> None:
    module.hidden_size, module.input_size = module.weight_hh.shape[1], module.weight_ih.shape[1]


def _macs(x: Any, weight_ih: Any, weight_hh: Any, *_: Any, **__: Any) -> int:
    """Count one layer in one direction, from ``(num_steps, num_data, num_inputs)`` shapes."""
    return int(math.prod(x[:2]) * (math.prod(weight_ih) + math.prod(weight_hh)))


note("mkldnn_rnn_layer", macs=_macs)


@operator(
    *("lstm", "gru", "rnn_tanh", "rnn_relu"),
    modules={nn.LSTM: f"{_SETTINGS} proj_size", nn.GRU: _SETTINGS, nn.RNN: None},
    resize=_resize,
    saved=True,
)
def recurrent(run: Labelling, node: fx.Node, name: str) -> Any:
    """Follow all layers and directions of a recurrent module."""
    names = [run.name_of(parameter) for parameter in setting(node, "params") or ()]
    if not names or None in names or not isinstance(value_of(node.args[0]), Tensor):
        return unknown(run, node, name)
    directions = 2 if setting(node, "bidirectional") else 1
    num_cells = int(setting(node, "num_layers")) * directions
    size = len(names) // num_cells
    cells = [[str(n) for n in names[k : k + size]] for k in range(0, len(names), size)]
    x = run.operand(node.args[0])
    columns = run.columns(x, x.ndim - 1)
    units, outputs = _units(run, name, cells[0])
    steps = x.shape[1 if setting(node, "batch_first") else 0]
    for start in range(0, num_cells, directions):
        for tensors in cells[start : start + directions]:
            _cell(run, tensors, (columns, units, outputs), steps)
        columns = np.concatenate([outputs] * directions)
    states = [outputs, units] if name == "lstm" else [outputs]
    given = setting(node, "hx")
    for state, made in zip(
        given if isinstance(given, list | tuple) else [given], states, strict=True
    ):
        _join_state(run, state, made)
    made_last = [columns, *states]
    return [
        torch.from_numpy(made).expand(tuple(value.shape))
        for made, value in zip(made_last, value_of(node), strict=True)
    ]


@operator(
    *("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
    modules={nn.LSTMCell: _CELL, nn.GRUCell: _CELL, nn.RNNCell: f"{_CELL} nonlinearity"},
    resize=_resize_cell,
    saved=True,
)
def recurrent_cell(run: Labelling, node: fx.Node, name: str) -> Any:
    """Follow one step of a recurrent layer."""
    arguments = [setting(node, key) for key in ("w_ih", "w_hh", "b_ih", "b_hh")]
    names = [run.name_of(argument) for argument in arguments if argument is not None]
    if None in names or any(used_elsewhere(run, str(n)) for n in names[:2]):
        return unknown(run, node, name, Why.COMPUTED_READER.reason())
    tensors = [str(n) for n in names]
    x = run.operand(node.args[0])
    units, _ = _units(run, name.removesuffix("_cell"), tensors)
    _cell(run, tensors, (run.columns(x, x.ndim - 1), units, units), 1)
    given = setting(node, "hx")
    for state in given if isinstance(given, list | tuple) else [given]:
        _join_state(run, state, units)
    values = value_of(node)
    made = torch.from_numpy(units)
    if isinstance(values, Tensor):
        return made.expand(tuple(values.shape))
    return [made.expand(tuple(value.shape)) for value in values]


def _units(run: Labelling, name: str, tensors: list[str]) -> tuple[Ints, Ints]:
    """Return the labels of the hidden units and of what the layer puts out."""
    shapes = [run.exported.tensors[tensor].shape for tensor in tensors]
    hidden = shapes[0][0] // _GATES.get(name, 1)
    projection = tensors[-1] if len(tensors) % 2 else None
    known = run.makers.get((tensors[0], 0))
    if known is not None:  # the module is called again
        units = known[:hidden]
        outputs = units if projection is None else run.makers[projection, 0]
        return units, outputs
    units = run.new((hidden,)).numpy()
    return units, units if projection is None else run.new((shapes[-1][0],)).numpy()


def _cell(run: Labelling, tensors: list[str], labels: tuple[Ints, Ints, Ints], steps: int) -> None:
    """Note what the tensors of one layer in one direction make and read."""
    columns, units, outputs = labels
    projected = len(tensors) % 2
    for position, tensor in enumerate(tensors):
        is_projection = bool(projected) and position == len(tensors) - 1
        axis = (tensor, 0)
        if axis not in run.makers:
            length = len(run.exported.tensors[tensor])
            made = outputs if is_projection else np.tile(units, length // len(units))
            run.makers[axis] = made
            if run.exported.tensors[tensor].ndim > 1:
                run.layers.append(axis)
        read = units if is_projection else (columns, outputs)[position] if position < 2 else None
        if read is not None:
            read_columns(run, (tensor, 1), read)
            run.positions[tensor] = run.positions.get(tensor, 0) + steps


def _join_state(run: Labelling, state: Any, units: Ints) -> None:
    """Join a first state that is no constant with the units; the surgery selects of constants."""
    labels = run.value(state) if isinstance(state, fx.Node) else None
    if isinstance(labels, Tensor):
        run.join(labels, torch.from_numpy(units).expand(labels.shape))
