"""Products of two activations: attention and its parts."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, fx

from pyro_relevance.edges.coupling.label_tensors import KEPT, filled
from pyro_relevance.edges.coupling.labelling import HEADS, Labelling, Product
from pyro_relevance.edges.exported import value_of
from pyro_relevance.edges.operators.calls import setting
from pyro_relevance.edges.operators.pointwise import unknown
from pyro_relevance.edges.operators.registry import operator
from pyro_relevance.edges.operators.weights import Weight, apply_weight, weight_of
from pyro_relevance.edges.reasons import Why

__all__ = ["matmul", "einsum", "attention"]


@operator("matmul", "bmm", saved=True)
def matmul(run: Labelling, node: fx.Node, name: str) -> Any:
    """Follow a matrix product of two activations, or of one with a parameter."""
    left, right = node.args[:2]
    if len(value_of(right).shape) == 2 and len(value_of(left).shape) >= 2:
        found = weight_of(run, right, transposed=True)
        if found is not None:
            return _weighted(run, node, left, found, None)
    if _reads_parameter(run, left) or _reads_parameter(run, right):
        return unknown(run, node, name, Why.COMPUTED_READER.reason())
    a, b = (run.operand(argument) for argument in node.args[:2])
    shape = tuple(value_of(node).shape)
    if a.ndim < 2 or b.ndim < 2:
        return unknown(run, node, name)
    return _product(run, a, b, shape)


@operator("mm", saved=True)
def mm(run: Labelling, node: fx.Node, name: str) -> Any:
    """Follow the product of two matrices."""
    return matmul(run, node, name)


@operator("addmm", saved=True)
def addmm(run: Labelling, node: fx.Node, name: str) -> Any:
    """Follow a matrix product with a parameter, and a bias."""
    found = weight_of(run, node.args[2], transposed=True)
    plain = all(setting(node, scale) == 1 for scale in ("alpha", "beta"))
    bias = node.args[0]
    is_bias = run.name_of(bias) is not None and len(value_of(bias).shape) == 1
    if found is None or not plain or not is_bias:
        return unknown(run, node, name)
    return _weighted(run, node, node.args[1], found, bias)


def _weighted(run: Labelling, node: fx.Node, left: Any, found: Weight, bias: Any) -> Any:
    x = run.operand(left)
    product = Product(left, x.ndim - 1, found.name, found.reads, bias, x.ndim - 1)
    return apply_weight(run, node, product, x, found, x.ndim - 1)


def _reads_parameter(run: Labelling, argument: Any) -> bool:
    """Whether a value is a parameter of two axes that is not known as a weight."""
    name = run.name_of(argument)
    return name is not None and run.exported.tensors[name].ndim <= 2


def _product(run: Labelling, a: Tensor, b: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Batched matrix product: positions of the contracted axis cannot be pruned one by one.

    Where both sides have labels, everything at one batch index is one unit (a head). Where one
    side has none, the result has the labels of the other's free axis.
    """
    batch = shape[:-2]
    a = a.expand(*batch, *a.shape[-2:])
    b = b.expand(*batch, *b.shape[-2:])
    a_labelled, b_labelled = bool((a >= 0).any()), bool((b >= 0).any())
    if a_labelled and b_labelled:
        left = run.collapsed(a, [a.ndim - 1, a.ndim - 2])
        right = run.collapsed(b, [b.ndim - 1, b.ndim - 2])
        met = run.meet(left, right)
        run.write(met, HEADS)
        run.products.append((met, math.prod(shape[-2:]) * a.shape[-1]))
        return met.expand(shape)
    if b_labelled:
        result = run.collapsed(b, [b.ndim - 2]).expand(shape)
    elif a_labelled:
        result = run.collapsed(a, [a.ndim - 1]).expand(shape)
    else:
        result = filled(shape, KEPT)
    run.products.append((result, a.shape[-1]))
    return result


@operator("einsum", saved=True)
def einsum(run: Labelling, node: fx.Node, name: str) -> Any:
    """Follow an einsum that is a batched matrix product; others have no rule."""
    equation: Any = node.args[0]
    operands: Any = node.args[1]
    sides, _, out = equation.replace(" ", "").partition("->")
    left, _, right = sides.partition(",")
    if len(operands) != 2 or not out or "." in equation or "," in right:
        return unknown(run, node, name)
    weighted = _einsum_with_weight(run, node, operands, (left, right, out))
    if weighted is not None:
        return weighted
    a, b = (run.operand(operand) for operand in operands)
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
        return unknown(run, node, name)
    first = a.permute([left.index(i) for i in (*batch, *rows, *inner)])
    second = b.permute([right.index(i) for i in (*batch, *inner, *columns)])
    first = first if rows else first.unsqueeze(-2)
    second = second if columns else second.unsqueeze(-1)
    shape = (*first.shape[:-1], second.shape[-1])
    result = _product(run, first, second, tuple(shape))
    result = result if rows else result.squeeze(-2)
    result = result if columns else result.squeeze(-1)
    order = [*batch, *rows, *columns]
    return result.permute([order.index(i) for i in out])


def _einsum_with_weight(
    run: Labelling, node: fx.Node, operands: Any, letters: tuple[str, str, str]
) -> Any:
    """An einsum that contracts one axis of a value with one of a matrix of parameters."""
    left, right, out = letters
    for x, weight, of_x, of_weight in (
        (operands[0], operands[1], left, right),
        (operands[1], operands[0], right, left),
    ):
        shared = [i for i in of_x if i in of_weight]
        made = [i for i in of_weight if i not in of_x]
        fits = len(of_weight) == 2 and len(shared) == 1 and len(made) == 1
        if not fits or out.count(made[0]) != 1 or shared[0] in out:
            continue
        if sorted(out) != sorted([i for i in of_x if i != shared[0]] + made):
            continue
        found = weight_of(run, weight, transposed=of_weight[0] == shared[0])
        if found is not None:
            axis, place = of_x.index(shared[0]), out.index(made[0])
            product = Product(x, axis, found.name, found.reads, None, place)
            return apply_weight(run, node, product, run.operand(x), found, place)
    return None


@operator("scaled_dot_product_attention", saved=True)
def attention(run: Labelling, node: fx.Node, name: str) -> Tensor:
    """Follow fused attention: a head is one unit."""
    query, key, value = (run.operand(argument) for argument in node.args[:3])
    joined = None
    for labels in (query, key, value):
        one = run.collapsed(labels, [labels.ndim - 1, labels.ndim - 2])
        joined = one if joined is None else run.meet(joined, one)
    assert joined is not None
    run.write(joined, HEADS)
    # Query times key, and the weighted sum of the values.
    run.products.append((joined, query.shape[-2] * math.prod(key.shape[-2:])))
    run.products.append((joined, query.shape[-2] * math.prod(value.shape[-2:])))
    return joined.expand(tuple(value_of(node).shape))
