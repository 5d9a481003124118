"""Checks of the sizes of inputs: what was assumed in the trace is asked when the network runs.

A graph serves every size that its symbols may have. Where the code of the network needs a certain
size, or was followed along one of several branches, the list of operations begins with a check, so
that another size is refused in words and never computed wrongly.
"""

from __future__ import annotations

from typing import Any

import sympy
import torch
from torch import Tensor, fx

from pyro_relevance.edges.exported import value_of
from pyro_relevance.surgery.rewriting.expressions import has_form, written
from pyro_relevance.surgery.rewriting.writer import Writer

__all__ = ["check_sizes"]

_SIZE = "torch.ops.aten.sym_size.int"
_RELATIONS: dict[type[Any], str] = {
    sympy.Eq: "==",
    sympy.Ne: "!=",
    sympy.StrictLessThan: "<",
    sympy.LessThan: "<=",
    sympy.StrictGreaterThan: ">",
    sympy.GreaterThan: ">=",
}


def check_sizes(writer: Writer, inputs: list[fx.Node]) -> list[list[int]]:
    """Write the checks of the sizes of the inputs.

    Args:
        writer: The inputs are written already.
        inputs: The inputs.

    Returns:
        For each input, the axes along which its size is free.
    """
    found = [
        (node, axis, size)
        for node in inputs
        if isinstance(node.meta["val"], Tensor)
        for axis, size in enumerate(node.meta["val"].shape)
    ]
    expressions = [_expression(size) for _, _, size in found]
    symbols = {e for e in expressions if e.is_Symbol}
    guards = [g for g in writer.exported.guards if g.free_symbols <= symbols]
    # A condition that has no form as operations: its sizes stay those of the example.
    fixed = {s for g in guards if not _relates(g) or _determines(g) for s in g.free_symbols}
    sizes = writer.sizes_of
    results = []
    for (node, axis, _), expression in zip(found, expressions, strict=True):
        results.append(writer.emit("call_function", _SIZE, (writer.filled(node), axis)))
        if expression.is_Symbol:
            sizes.setdefault(expression, results[-1])
    free: dict[fx.Node, list[int]] = {node: [] for node in inputs}
    for (node, axis, _), expression, size in zip(found, expressions, results, strict=True):
        if expression in fixed or not (has_form(expression) and expression.free_symbols <= symbols):
            expected: Any = value_of(node).shape[axis]
        else:
            expected = written(expression, sizes, writer.emit)
        if expected is not size:
            _check(
                writer, f"the size of axis {axis} of the input {node.name!r}", size, "==", expected
            )
        if expression.free_symbols - fixed:
            free[node].append(axis)
    names = {e: f"axis {a} of {n.name!r}" for (n, a, _), e in zip(found, expressions, strict=True)}
    for guard in guards:
        if guard.free_symbols - fixed:
            left, right = (written(side, sizes, writer.emit) for side in guard.args)
            words = "; ".join(names[s] for s in sorted(guard.free_symbols, key=str))
            _check(writer, f"{guard.args[0]} ({words})", left, _RELATIONS[guard.func], right)
    return list(free.values())


def _expression(size: Any) -> Any:
    return size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)


def _check(writer: Writer, what: str, found: Any, relation: str, expected: Any) -> None:
    writer.effects.add(len(writer.steps))
    writer.emit("check", what, (found, relation, expected))


def _determines(guard: Any) -> bool:
    """Whether only one size can fulfil a condition."""
    return isinstance(guard, sympy.Eq) and len(guard.free_symbols) == 1


def _relates(guard: Any) -> bool:
    return type(guard) in _RELATIONS and all(map(has_form, guard.args))
