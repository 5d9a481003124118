"""Sizes that follow from those of the inputs, from expressions of sympy to steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sympy
from torch.utils._sympy.functions import FloorDiv, Max, Min, Mod, PythonMod

__all__ = ["has_form", "written"]

_FUNCTIONS: dict[type[Any], str] = {
    sympy.Add: "operator.add",
    sympy.Mul: "operator.mul",
    FloorDiv: "operator.floordiv",
    Mod: "operator.mod",
    PythonMod: "operator.mod",
    Max: "torch.sym_max",
    Min: "torch.sym_min",
}


def has_form(expression: Any) -> bool:
    """Return whether an expression can be written as steps."""
    if isinstance(expression, sympy.Symbol | sympy.Integer):
        return True
    if type(expression) in _FUNCTIONS:
        return all(map(has_form, expression.args))
    whole = isinstance(expression, sympy.Pow) and expression.exp.is_Integer and expression.exp > 0
    return bool(whole and has_form(expression.base))


def written(expression: Any, sizes: Mapping[Any, Any], emit: Callable[..., Any]) -> Any:
    """Return a size as a number or as the result of a step.

    Args:
        expression: An expression that has a form as steps.
        sizes: The result of a step for each of its symbols.
        emit: Writes a step and returns its result.
    """
    if isinstance(expression, sympy.Integer):
        return int(expression)
    if isinstance(expression, sympy.Symbol):
        return sizes[expression]
    if isinstance(expression, sympy.Pow):
        base = written(expression.base, sizes, emit)
        return emit("call_function", "operator.pow", (base, int(expression.exp)))
    result, *parts = (written(part, sizes, emit) for part in expression.args)
    for part in parts:
        result = emit("call_function", _FUNCTIONS[type(expression)], (result, part))
    return result
