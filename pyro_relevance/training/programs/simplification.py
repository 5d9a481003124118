"""Simplify a list of tensor operators without a change of its results.

Views that change nothing go, operators on constants are computed beforehand, what is computed twice
is computed once, and what has no effect is dropped. The numbers stay the same, bit by bit.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.fx.node import map_arg

__all__ = ["Form", "simplify"]

_MAX_FOLDED = 4096
"""Largest constant, in elements, that is computed beforehand."""

_ATEN = torch.ops.aten
_ALIASES = {_ATEN.alias.default, _ATEN.detach.default}
_RESHAPES = {_ATEN.expand.default, _ATEN.view.default}
_OF_FORM_ALONE = {
    _ATEN.ones_like.default,
    _ATEN.zeros_like.default,
    _ATEN.full_like.default,
    _ATEN.new_zeros.default,
    _ATEN.new_ones.default,
    _ATEN.new_full.default,
}
"""Operators that read the form of their input, not its values."""
_TIMES = {_ATEN.mul.Tensor, _ATEN.mul.Scalar, _ATEN.div.Tensor, _ATEN.div.Scalar}
_POWERS = {_ATEN.pow.Tensor_Scalar}


@dataclass(frozen=True, slots=True)
class Form:
    """All of a tensor but its values, kept as a node's ``meta["form"]``."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> Form:
        """Return the form of a tensor."""
        return cls(tensor.shape, tensor.stride(), tensor.dtype, tensor.device)

    def empty(self) -> Tensor:
        """Return a tensor of this form."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)


def simplify(graph: Graph, values: dict[str, Tensor]) -> None:
    """Shorten a list of operators; its results stay the same bits.

    Args:
        graph: Operators of ATen; each node that makes a tensor has its ``meta["form"]``. It is
            changed.
        values: Name of a ``get_attr`` node's target -> tensor; constants are added.
    """
    in_place = _near_changes(graph)
    # A result has memory of its own, which may be written to: it is neither shared nor constant.
    results = set(next(n for n in graph.nodes if n.op == "output").all_input_nodes)
    constants: dict[Node, Tensor] = {}
    known: dict[Hashable, Node] = {}
    for node in list(graph.nodes):
        if node.op == "get_attr" and node not in in_place:
            constants[node] = values[str(node.target)]
        if not _is_operator(node):
            continue
        same = _unchanged(node)
        if same is None and node not in in_place and node not in results:
            same = _times_one(node, constants) or _folded(node, constants, graph, values)
            if same is None and not _is_random(node):
                same = known.setdefault(_key(node), node)
        if same is not None and same is not node:
            node.replace_all_uses_with(same)
            graph.erase_node(node)
    _drop_unused(graph)


def _folded(
    node: Node, constants: dict[Node, Tensor], graph: Graph, values: dict[str, Tensor]
) -> Node | None:
    """Return a constant with the value of an operator on constants."""
    target: Any = node.target
    if target in _OF_FORM_ALONE:
        source: Any = node.args[0]
        inputs = constants | {source: source.meta["form"].empty()}
    elif _is_random(node) or "empty" in target._schema.name:
        return None
    elif all(i in constants for i in node.all_input_nodes):
        inputs = constants
    else:
        return None
    args, kwargs = map_arg((node.args, node.kwargs), inputs.__getitem__)
    with torch.no_grad():
        value = target(*args, **kwargs)
    if not isinstance(value, Tensor) or value.numel() > _MAX_FOLDED:
        return None
    name = f"folded_{len(values)}"
    values[name] = value
    with graph.inserting_before(node):
        folded = graph.get_attr(name)
    folded.meta["form"] = Form.of(value)
    constants[folded] = value
    return folded


def _times_one(node: Node, constants: dict[Node, Tensor]) -> Node | None:
    """Return the input of a multiplication by one, or of a first power, in the same form."""
    if node.target not in _TIMES | _POWERS:
        return None
    source, factor = node.args[:2]
    if not isinstance(source, Node) or source.meta["form"] != node.meta["form"]:
        return None
    if isinstance(factor, Node):
        value = constants.get(factor)
        return source if value is not None and bool((value == 1).all()) else None
    return source if factor == 1 else None


def _key(node: Node) -> Hashable:
    """Return what two operators with the same result have in common."""

    def fixed(value: Any) -> Hashable:
        if isinstance(value, list | tuple):
            return (type(value).__name__, *map(fixed, value))
        # 1, 1.0 and True are equal, and not the same argument.
        return (type(value).__name__, repr(value) if isinstance(value, float) else value)

    named = sorted((name, fixed(value)) for name, value in node.kwargs.items())
    return (node.target, fixed(node.args), tuple(named))


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
    if node.target in _RESHAPES and node.meta["form"].shape == source.meta["form"].shape:
        return source  # type: ignore[no-any-return]
    if node.target is _ATEN.t.default and source.target is _ATEN.t.default:
        return source.args[0]  # type: ignore[no-any-return]
    return None


def _drop_unused(graph: Graph) -> None:
    """Remove what nobody reads; draws stay, so that later ones are the same."""
    for node in reversed(list(graph.nodes)):
        needed = node.op in ("placeholder", "output") or _changes(node) or _is_random(node)
        if not node.users and not needed:
            graph.erase_node(node)
