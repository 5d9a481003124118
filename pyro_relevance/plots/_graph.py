"""The feed-forward network behind a posterior as plain arrays: what the network plot draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from pyro_relevance.plots._data import Array, described, pooled

__all__ = ["Graph", "Layer", "graph_of", "is_chain", "probabilities"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One linear layer.

    Attributes:
        name: Name of its weight.
        probability: ``(out, in)`` probability that the connection is included.
        kept: ``(out, in)`` False where the connection is pruned.
    """

    name: str
    probability: Array
    kept: Array


@dataclass(frozen=True, slots=True)
class Graph:
    """The layers, and for each of their ``len(layers) + 1`` columns of nodes who is alive.

    Attributes:
        layers: From the inputs to the outputs.
        alive: ``(num_nodes,)`` per column: on a path of kept connections from an input to an
            output.
        labels: ``(num_inputs,)`` names of the input columns, or an empty tuple.
    """

    layers: tuple[Layer, ...]
    alive: tuple[Array, ...]
    labels: tuple[str, ...]


def graph_of(dataset: xr.Dataset, mask: Mapping[str, Any] | None, threshold: float) -> Graph:
    """The graph of a posterior, pruned by ``mask`` or, without one, by ``threshold``.

    A connection is included when every gate that touches its weight is: the gates of the unit it
    reads, of the unit it makes, and of the weight itself. Their probabilities are multiplied
    within each draw and then averaged.

    Args:
        dataset: The ``posterior`` group.
        mask: Kept edges (True) by edge group; groups that it lacks are kept.
        threshold: Probability, used where ``mask`` is ``None``.

    Returns:
        The graph.

    Raises:
        ValueError: If the network is not a chain of linear layers, the model has no gates, or the
            mask does not fit.
    """
    found = probabilities(dataset, mask, threshold)
    layers = [Layer(name, p, kept) for name, _, p, kept in found]
    first = _chain(described(dataset, "layers"))[0]
    labels = _labels(dataset, described(dataset, "groups"), first)
    return Graph(tuple(layers), _alive(layers), labels)


def probabilities(
    dataset: xr.Dataset, mask: Mapping[str, Any] | None, threshold: float
) -> list[tuple[str, tuple[int, ...], Array, Array]]:
    """Name, shape, inclusion probabilities and what is kept of each weight, inputs first.

    Both arrays are ``(out, in)`` as the first two dimensions of the weight lie; where the weights
    of a kernel have gates of their own they are ``(out, in, kernel)``.

    Args:
        dataset: The group ``relevance``.
        mask: Kept edges (True) by edge group; groups that it lacks are kept.
        threshold: Probability, used where ``mask`` is ``None``.

    Raises:
        ValueError: If the model has no gates or the mask does not fit.
    """
    groups = described(dataset, "groups")
    if "inclusion_probability" not in dataset:
        raise ValueError(
            "Expected a posterior of gates with 'inclusion_probability', but got "
            f"{sorted(map(str, dataset.data_vars))}. Draw effects with "
            "plots.relevance(var_name='effect')."
        )
    draws = {
        group["name"]: pooled(dataset[f"{group['variable']}_inclusion_probability"])
        for group in groups
    }
    kept = None if mask is None else _kept(groups, mask)
    found = []
    for layer in described(dataset, "layers"):
        name, shape = layer["tensor"], tuple(layer["shape"])
        probability = _product(groups, draws, name, shape)
        own = probability > threshold
        if kept is not None:
            own = _product(groups, kept, name, shape) > 0
        found.append((name, shape, probability, own))
    return found


def is_chain(dataset: xr.Dataset) -> bool:
    """Whether the network is a chain of linear layers."""
    try:
        return bool(_chain(described(dataset, "layers")))
    except ValueError:
        return False


def _chain(layers: Sequence[Mapping[str, Any]]) -> list[tuple[str, tuple[int, int]]]:
    """Names and shapes of the weights, where each layer reads what the one before makes."""
    shapes = [tuple(layer["shape"]) for layer in layers]
    linear = all(len(shape) == 2 for shape in shapes)
    if (
        not shapes
        or not linear
        or any(a[0] != b[1] for a, b in zip(shapes, shapes[1:], strict=False))
    ):
        raise ValueError(
            "Expected a feed-forward network of linear layers, each reading the one before, but "
            "got weights "
            f"{ {layer['tensor']: tuple(layer['shape']) for layer in layers} }. "
            "Draw other networks group by group with plots.relevance."
        )
    return [
        (layer["tensor"], (shape[0], shape[1])) for layer, shape in zip(layers, shapes, strict=True)
    ]


def _kept(groups: Sequence[Mapping[str, Any]], mask: Mapping[str, Any]) -> dict[str, Array]:
    """``(1, num_edges)`` zeros and ones per edge group."""
    kept = {}
    for group in groups:
        size = int(np.prod(group["shape"]))
        if group["name"] not in mask:
            kept[group["name"]] = np.ones((1, size))
            continue
        values = mask[group["name"]]
        values = np.asarray(values.cpu() if hasattr(values, "cpu") else values)
        if values.shape != tuple(group["shape"]):
            raise ValueError(
                f"Expected mask[{group['name']!r}] of shape {tuple(group['shape'])}, but got "
                f"{values.shape}. "
                "Pass a mask of the same edges."
            )
        kept[group["name"]] = values.reshape(1, size).astype(float)
    return kept


def _product(
    groups: Sequence[Mapping[str, Any]],
    draws: Mapping[str, Array],
    tensor: str,
    shape: tuple[int, ...],
) -> Array:
    """``(out, in)`` mean over draws of the product of all gates that touch ``tensor``.

    With gates of single weights of a kernel it is ``(out, in, kernel)``.
    """
    num_draws = max((len(values) for values in draws.values()), default=1)
    rows, columns = np.ones((num_draws, shape[0])), np.ones((num_draws, shape[1]))
    full: Array | None = None
    for group in groups:
        for role in ("consumer", "producer"):
            for (name, dim), index in zip(group[f"{role}s"], group[f"{role}_index"], strict=True):
                if name != tensor:
                    continue
                if dim is None:
                    weights = draws[group["name"]].reshape(-1, *shape[:2], *_kernel(shape))
                    full = weights if full is None else full * weights
                    continue
                gates = _along(draws[group["name"]], index)
                # Gates along a kernel, or along the groups of a convolution, are not drawn.
                if dim % 2 == 0 and gates.shape[1] == shape[0]:
                    rows = rows * gates
                elif dim % 2 == 1 and gates.shape[1] == shape[1]:
                    columns = columns * gates
    if full is None:
        mean = rows.T @ columns
    else:
        mean = np.zeros(full.shape[1:])
        more = (1,) * (mean.ndim - 2)
        for row, column, weights in zip(rows, columns, full, strict=True):
            mean += (row[:, None] * column).reshape(*shape[:2], *more) * weights
    return np.asarray(mean / num_draws)


def _kernel(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The kernel's positions as one dimension, where there is one."""
    return (int(np.prod(shape[2:])),) if len(shape) > 2 else ()


def _along(values: Array, index: Sequence[int] | None) -> Array:
    """``(draws, positions)`` gates along a dimension; 1 where nothing is gated.

    `Slot.spread` in numpy: a plot reads the index from the data set and never imports torch.
    """
    if index is None:
        return values
    positions = np.asarray(index)
    return np.where(positions < 0, 1.0, values[:, np.maximum(positions, 0)])


def _alive(layers: Sequence[Layer]) -> tuple[Array, ...]:
    """Nodes that an input reaches and that reach an output, column by column."""
    forward: list[Array] = [np.ones(layers[0].kept.shape[1], dtype=bool)]
    for layer in layers:
        forward.append(np.any(layer.kept & forward[-1], axis=1))
    backward: list[Array] = [np.ones(layers[-1].kept.shape[0], dtype=bool)]
    for layer in reversed(layers):
        backward.insert(0, np.any(layer.kept & backward[0][:, None], axis=0))
    return tuple(a & b for a, b in zip(forward, backward, strict=True))


def _labels(
    dataset: xr.Dataset, groups: Sequence[Mapping[str, Any]], first: tuple[str, tuple[int, int]]
) -> tuple[str, ...]:
    """Names of the input columns, from the edge group that gates them; "" for one without gate."""
    tensor, (_, num_inputs) = first
    for group in groups:
        for (name, dim), index in zip(group["consumers"], group["consumer_index"], strict=True):
            if name == tensor and dim is not None and dim % 2 == 1:
                names = [str(label) for label in dataset[f"{group['variable']}_edge"].to_numpy()]
                positions = range(num_inputs) if index is None else index
                return tuple(names[position] if position >= 0 else "" for position in positions)
    return ()
