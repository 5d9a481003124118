"""Simplify a list of tensor operators without a change of its results.

Views that change nothing go, operators on constants are computed beforehand, what is computed twice
is computed once, and what has no effect is dropped. The numbers stay the same, bit by bit.
"""

from __future__ import annotations

import operator
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
    versions = _Versions()
    for node in list(graph.nodes):
        if node.op == "get_attr" and node not in in_place:
            constants[node] = values[str(node.target)]
        if not _is_operator(node) and node.target is not operator.getitem:
            continue
        _reduce(node)
        key = (_key(node), versions.of_inputs(node))
        versions.add(node)
        same = _unchanged(node)
        if same is None and node not in in_place and node not in results:
            same = _identity(node, constants, in_place)
            same = same or _folded(node, constants, graph, values)
            if same is None and not _is_random(node):
                same = known.setdefault(key, node)
        if same is not None and same is not node:
            node.replace_all_uses_with(same)
            graph.erase_node(node)
    _drop_unused(graph)


class _Versions:
    """How often the memory of each tensor has been written to, up to a place in the list."""

    def __init__(self) -> None:
        self._owners: dict[Node, Node] = {}
        self._counts: dict[Node, int] = {}

    def of_inputs(self, node: Node) -> tuple[int, ...]:
        """Return the versions of what an operator reads."""
        owners = [self._owners.get(source, source) for source in node.all_input_nodes]
        return tuple(self._counts.get(owner, 0) for owner in owners)

    def add(self, node: Node) -> None:
        """Go on by one operator: whose memory its result is, and what it writes to."""
        sources = node.all_input_nodes
        if not sources:
            return
        target: Any = node.target
        views = target is operator.getitem or any(r.alias_info for r in target._schema.returns)
        if views:
            self._owners[node] = self._owners.get(sources[0], sources[0])
        if _changes(node):
            for source in sources:  # more than it writes to, which does no harm
                owner = self._owners.get(source, source)
                self._counts[owner] = self._counts.get(owner, 0) + 1


def _folded(
    node: Node, constants: dict[Node, Tensor], graph: Graph, values: dict[str, Tensor]
) -> Node | None:
    """Return a constant with the value of an operator on constants."""
    target: Any = node.target
    if not _is_operator(node):
        return None
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


def _identity(node: Node, constants: dict[Node, Tensor], in_place: set[Node]) -> Node | None:
    """Return the input of an operator that copies it: times one, a first power, a single part."""
    source, factor = (*node.args, None, None)[:2]
    if node.target is _ATEN.cat.default and isinstance(source, list) and len(source) == 1:
        source, factor = source[0], 1
    elif node.target not in _TIMES | _POWERS:
        return None
    if not isinstance(source, Node) or source in in_place:
        return None
    if source.meta["form"] != node.meta["form"]:
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
    if node.target is operator.getitem and source.target is _ATEN.split_with_sizes.default:
        whole: Any = source.args[0]
        return whole if len(source.args[1]) == 1 else None
    return None


def _reduce(node: Node) -> None:
    """Turn an operator, and a view of its result, into a single cheaper one with the same bits."""
    source: Any = node.args[0] if node.args else None
    if node.target is _ATEN.pow.Tensor_Scalar and node.args[1] == 2:
        node.target, node.args = _ATEN.mul.Tensor, (source, source)
    elif (
        node.target is _ATEN.view.default
        and isinstance(source, Node)
        and source.target is _ATEN.sum.dim_IntList
        and source.args[2:] == (True,)
        and len(source.users) == 1
        and _is_without(source.args[1], source.meta["form"].shape, node.meta["form"].shape)
    ):
        node.target, node.args = _ATEN.sum.dim_IntList, (*source.args[:2], False)


def _is_without(dims: Any, shape: torch.Size, other: torch.Size) -> bool:
    """Whether a shape is another one without some of its dimensions."""
    gone = {dim % len(shape) for dim in dims}
    return tuple(n for i, n in enumerate(shape) if i not in gone) == tuple(other)


def _drop_unused(graph: Graph) -> None:
    """Remove what nobody reads; draws stay, so that later ones are the same."""
    for node in reversed(list(graph.nodes)):
        needed = node.op in ("placeholder", "output") or _changes(node) or _is_random(node)
        if not node.users and not needed:
            graph.erase_node(node)
