"""Calls of operators in an exported graph: their names and settings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

__all__ = ["dims_of", "floating", "operator_name", "setting"]


def operator_name(node: fx.Node) -> str:
    """Return the name of the operator that a node calls: bare for ATen, else with its namespace."""
    target: Any = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target._schema.name).removeprefix("aten::")
    return str(getattr(target, "__name__", target))


def setting(node: fx.Node, name: str) -> Any:
    """Return an argument of an operator by its name in the schema, or its default.

    Args:
        node: A call.
        name: The argument.

    Returns:
        Its value, ``None`` where there is no such argument.
    """
    target: Any = node.target
    for position, argument in enumerate(target._schema.arguments):
        if argument.name == name:
            if position < len(node.args):
                return node.args[position]
            return node.kwargs.get(name, argument.default_value)
    return None


def dims_of(node: fx.Node, labels: Tensor) -> list[int]:
    """Return the axes that an operator works along; all of them where it names none."""
    dims = setting(node, "dim")
    named = [dims] if isinstance(dims, int) else dims or range(labels.ndim)
    return [dim % labels.ndim for dim in named]


def floating(value: Any) -> bool:
    """Whether a value is a tensor of floating-point numbers."""
    return isinstance(value, Tensor) and value.is_floating_point()
