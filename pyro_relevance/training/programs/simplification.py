"""Simplify a list of tensor operators without a change of its results.

Views that change nothing go, operators on constants are computed beforehand, and what has no effect
is dropped. The numbers stay the same, bit by bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.fx.node import map_arg

__all__ = ["simplify"]

_MAX_FOLDED = 4096
"""Largest constant, in elements, that is computed beforehand."""

_ATEN = torch.ops.aten
_ALIASES = {_ATEN.alias.default, _ATEN.detach.default}
_RESHAPES = {_ATEN.expand.default, _ATEN.view.default}


def simplify(graph: Graph, values: dict[str, Tensor]) -> None:
    """Remove views that change nothing and operators on constants; results stay the same bits.

    Args:
        graph: Operators of ATen; each node that makes a tensor has its ``meta["shape"]``. It is
            changed.
        values: Name of a ``get_attr`` node's target -> tensor; constants are added.
    """
    in_place = _near_changes(graph)
    constants: dict[Node, Tensor] = {}
    for node in list(graph.nodes):
        if node.op == "get_attr" and node not in in_place:
            constants[node] = values[str(node.target)]
        if not _is_operator(node):
            continue
        same = _unchanged(node)
        if same is not None:
            node.replace_all_uses_with(same)
            graph.erase_node(node)
        elif node not in in_place and _is_constant(node, constants):
            value = _evaluate(node, constants)
            if isinstance(value, Tensor) and value.numel() <= _MAX_FOLDED:
                name = f"folded_{len(values)}"
                values[name] = value
                with graph.inserting_before(node):
                    folded = graph.get_attr(name)
                folded.meta["shape"] = value.shape
                constants[folded] = value
                node.replace_all_uses_with(folded)
                graph.erase_node(node)
    _drop_unused(graph)


def _is_operator(node: Node) -> bool:
    return node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)


def _changes(node: Node) -> bool:
    return _is_operator(node) and bool(node.target._schema.is_mutable)  # type: ignore[union-attr]


def _is_random(node: Node) -> bool:
    target: Any = node.target
    return _is_operator(node) and torch.Tag.nondeterministic_seeded in target.tags


def _near_changes(graph: Graph) -> set[Node]:
    """Return the nodes that an operator in place may change: its inputs and all before them."""
    found: set[Node] = set()
    pending = [i for node in graph.nodes if _changes(node) for i in (node, *node.all_input_nodes)]
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            pending += node.all_input_nodes
    return found


def _unchanged(node: Node) -> Node | None:
    """Return the input of a view that shows the same elements in the same shape."""
    source: Any = node.args[0] if node.args else None
    if node.target in _ALIASES:
        return source  # type: ignore[no-any-return]
    if node.target in _RESHAPES and node.meta["shape"] == source.meta["shape"]:
        return source  # type: ignore[no-any-return]
    if node.target is _ATEN.t.default and source.target is _ATEN.t.default:
        return source.args[0]  # type: ignore[no-any-return]
    return None


def _is_constant(node: Node, constants: dict[Node, Tensor]) -> bool:
    target: Any = node.target
    unset = "empty" in target._schema.name
    return not _is_random(node) and not unset and all(i in constants for i in node.all_input_nodes)


def _evaluate(node: Node, constants: dict[Node, Tensor]) -> Any:
    target: Any = node.target
    args, kwargs = map_arg((node.args, node.kwargs), constants.__getitem__)
    with torch.no_grad():
        return target(*args, **kwargs)


def _drop_unused(graph: Graph) -> None:
    """Remove what nobody reads; draws stay, so that later ones are the same."""
    for node in reversed(list(graph.nodes)):
        needed = node.op in ("placeholder", "output") or _changes(node) or _is_random(node)
        if not node.users and not needed:
            graph.erase_node(node)
