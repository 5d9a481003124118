"""Parameters that a product uses as its weight, without a layer: ``x @ w``, ``addmm``, ``einsum``.

A weight may be a whole matrix of parameters, its transpose, or some of its rows (the queries of
attention). Its elements must reach the product as they are: a weight that is computed, by a
parametrisation say, cannot be pruned column by column.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from pyro_relevance.edges.coupling.labelling import Ints, Labelling, Product
from pyro_relevance.edges.exported import value_of
from pyro_relevance.edges.operators.calls import operator_name
from pyro_relevance.edges.reasons import Why

__all__ = ["Weight", "apply_weight", "read_columns", "used_elsewhere", "weight_of"]

_MOVES = frozenset(
    ("alias", "chunk", "clone", "contiguous", "detach", "getitem", "mT", "narrow", "numpy_T")
    + ("permute", "reshape", "select", "slice", "split", "split_with_sizes", "squeeze", "t")
    + ("transpose", "unbind", "unsqueeze", "view", "chunk", "unflatten", "flatten")
)
# The operators that use a parameter as their weight, each with the position of the weight.
_POSITIONS = {"linear": 1, "matmul": 1, "mm": 1, "addmm": 2, "bilinear": 2, "embedding": 0} | {
    f"conv{kind}{spatial}d": 1 for kind in ("", "_transpose") for spatial in (1, 2, 3)
}
_RECURRENT = frozenset(
    f"{kind}{cell}" for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu") for cell in ("", "_cell")
)


@dataclass(frozen=True, slots=True)
class Weight:
    """A parameter that is used as a weight.

    Args:
        name: Its qualified name.
        makes: Axis of the parameter that makes units.
        reads: Axis that reads units.
        chosen: ``(num_outputs,)`` positions along ``makes`` that are used.
    """

    name: str
    makes: int
    reads: int
    chosen: Ints


def weight_of(run: Labelling, argument: Any, *, transposed: bool) -> Weight | None:
    """Return the parameter whose elements a value consists of, as they are.

    Args:
        run: The walk.
        argument: A value of two axes.
        transposed: Whether its first axis reads units, as in ``x @ w``; otherwise the second does.
    """
    name = _origin(run, argument)
    labels = run.value(argument) if name is not None else None
    elements = run.elements.get(name or "")
    if name is None or elements is None or elements.ndim != 2 or not isinstance(labels, Tensor):
        return None
    if labels.ndim != 2:
        return None
    values = labels.t() if transposed else labels  # (made, read)
    for makes, table in ((0, elements), (1, elements.t())):
        if values.shape[1] != table.shape[1]:
            continue
        chosen = (values[:, 0] - int(elements[0, 0])).div(table.stride(0), rounding_mode="floor")
        inside = bool((chosen >= 0).all()) and int(chosen.max()) < len(table)
        if inside and torch.equal(table[chosen], values):
            return Weight(name, makes, 1 - makes, chosen.numpy())
    return None


def used_elsewhere(run: Labelling, name: str) -> bool:
    """Return whether a parameter is also used in another way than as a weight."""
    return any(
        not _only_weight(user, node)
        for node in run.placeholders.get(name, ())
        for user in node.users
    )


def apply_weight(
    run: Labelling, node: fx.Node, product: Product, x: Tensor, found: Weight, axis: int
) -> Tensor:
    """Read the labels of a value by a parameter and make new ones.

    Args:
        run: The walk.
        node: The product.
        product: What it combines, for the surgery.
        x: Labels of the value that is read along ``product.axis``.
        found: The parameter.
        axis: Axis of the result along which the new units lie.

    Returns:
        Labels of the result.
    """
    name, elements = found.name, run.elements[found.name]
    first = elements.narrow(found.reads, 0, 1)
    made = first.reshape(-1).numpy().copy()
    if (name, found.makes) not in run.makers:
        run.join(elements, first.expand_as(elements))
        run.makers[name, found.makes] = made
        run.layers.append((name, found.makes))
    columns = run.columns(x, product.axis)
    read_columns(run, (name, found.reads), columns)
    labels = torch.from_numpy(made[found.chosen])
    if used_elsewhere(run, name):
        reason = Why.LAYER.reason(fault=Why.USED_DIRECTLY.reason())
        run.block(torch.cat((torch.from_numpy(made), torch.from_numpy(columns))), reason)
    if product.bias is not None:
        run.join_along(run.value(product.bias), labels, "its bias")
    shape = tuple(value_of(node).shape)
    # Each row counts as often as its part is applied; an even share of all rows is stored.
    count = math.prod(shape) // run.num_examples
    run.partial[name] = run.partial.get(name, 0) + count
    run.positions[name] = run.partial[name] // len(made)
    run.applied[node] = product
    view = [1] * len(shape)
    view[axis] = len(labels)
    return labels.reshape(view).expand(shape)


def read_columns(run: Labelling, axis: tuple[str, int], columns: Ints) -> None:
    """Keep the labels that an axis reads; a second use of a parameter joins both."""
    for known in (run.readers, run.made_columns):
        if axis not in known:
            continue
        one, other = torch.from_numpy(known[axis]), torch.from_numpy(columns)
        run.join(one, other)
        # A column that reads a unit in one call and a constant in another stays.
        for side, opposite in ((one, other), (other, one)):
            run.block(side[opposite < 0], Why.WITH_KEPT.reason())
    run.readers.setdefault(axis, columns)


def _origin(run: Labelling, argument: Any) -> str | None:
    """Return the parameter that a value is a part of, after moves alone."""
    while isinstance(argument, fx.Node):
        name = run.name_of(argument)
        if name is not None:
            return name
        if argument.op != "call_function" or operator_name(argument) not in _MOVES:
            return None
        argument = argument.args[0]
    return None


def _only_weight(user: fx.Node, node: fx.Node) -> bool:
    """Whether a value is nothing but the weight of the products that use it."""
    if user.op == "output":
        return False
    name = operator_name(user)
    if name in _MOVES:
        return all(_only_weight(later, user) for later in user.users)
    if name == "einsum" or name in _RECURRENT:
        return True
    position = _POSITIONS.get(name)
    return position is not None and [i for i, n in enumerate(user.args) if n is node] == [position]
