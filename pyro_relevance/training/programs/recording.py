"""Record the tensor operators of a function once, and replay them without its Python.

A Pyro step on a small network spends most of its time in Python: handlers, distributions, autograd.
Its tensor operators are the same at every step. ``record`` runs the function once under
``make_fx``, which lists each ATen operator (random ones too, so a replay makes new draws). It drops
operators without an effect and compiles the list to one flat Python function.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.fx import Graph, GraphModule, Node

__all__ = ["record"]

_MAX_FOLDED = 4096
"""Largest constant, in elements, that is computed beforehand."""

_ATEN = torch.ops.aten
_ALIASES = {_ATEN.alias.default, _ATEN.detach.default}
_RESHAPES = {_ATEN.expand.default, _ATEN.view.default}


def record(
    function: Callable[..., Sequence[Tensor]], arguments: Sequence[Tensor]
) -> Callable[..., tuple[Tensor, ...]]:
    """Return a function that repeats the operators of another one.

    Python numbers, control flow and shapes are fixed at their present values. A tensor that the
    function reads without an argument is read again at each replay, and a change of an argument in
    place is repeated.

    Args:
        function: A function from tensors to tensors. It runs once, with its effects.
        arguments: Tensors to run it with.

    Raises:
        RuntimeError: If the function reads the value of a tensor that depends on the arguments
            (data-dependent control flow).
    """
    # The first import brings sympy with it, which adds to the warning filters.
    with warnings.catch_warnings():
        from torch.fx.experimental.proxy_tensor import make_fx

        module = make_fx(function)(*arguments)
    _simplify(module)
    return _compile(module)


def _simplify(module: GraphModule) -> None:
    """Remove views that change nothing and operators on constants; results stay the same bits."""
    graph = module.graph
    in_place = _near_changes(graph)
    constants: dict[Node, Tensor] = {}
    for node in list(graph.nodes):
        if node.op == "get_attr" and node not in in_place:
            constants[node] = getattr(module, str(node.target))
        if not _is_operator(node):
            continue
        same = _unchanged(node)
        if same is not None:
            node.replace_all_uses_with(same)
            graph.erase_node(node)
        elif node not in in_place and _is_constant(node, constants):
            value = _evaluate(node, constants)
            if isinstance(value, Tensor) and value.numel() <= _MAX_FOLDED:
                name = f"_folded_{len(constants)}"
                module.register_buffer(name, value, persistent=False)
                with graph.inserting_before(node):
                    folded = graph.get_attr(name)
                folded.meta["val"] = value
                constants[folded] = value
                node.replace_all_uses_with(folded)
                graph.erase_node(node)
    graph.eliminate_dead_code()


def _is_operator(node: Node) -> bool:
    return node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)


def _changes(node: Node) -> bool:
    return _is_operator(node) and bool(node.target._schema.is_mutable)  # type: ignore[union-attr]


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
    if node.target in _RESHAPES and node.meta["val"].shape == source.meta["val"].shape:
        return source  # type: ignore[no-any-return]
    if node.target is _ATEN.t.default and source.target is _ATEN.t.default:
        return source.args[0]  # type: ignore[no-any-return]
    return None


def _is_constant(node: Node, constants: dict[Node, Tensor]) -> bool:
    target: Any = node.target
    random = torch.Tag.nondeterministic_seeded in target.tags
    unset = "empty" in target._schema.name
    return not random and not unset and all(i in constants for i in node.all_input_nodes)


def _evaluate(node: Node, constants: dict[Node, Tensor]) -> Any:
    from torch.fx.node import map_arg

    target: Any = node.target
    args, kwargs = map_arg((node.args, node.kwargs), constants.__getitem__)
    with torch.no_grad():
        return target(*args, **kwargs)


def _compile(module: GraphModule) -> Callable[..., tuple[Tensor, ...]]:
    """Return the graph as one Python function, which frees each tensor after its last use."""
    graph = module.graph
    last: dict[Node, Node] = {}
    for node in graph.nodes:
        for source in node.all_input_nodes:
            last[source] = node
    values: dict[str, Any] = {}
    parameters: list[str] = []
    lines: list[str] = []
    for node in graph.nodes:
        if node.op == "placeholder":
            parameters.append(node.name)
        elif node.op == "get_attr":
            values[node.name] = getattr(module, str(node.target))
        elif node.op == "output":
            lines.append(f"return {_text(node.args[0], values)}")
        else:
            lines.append(f"{node.name} = {_call(node, values)}")
            dead = [i.name for i in node.all_input_nodes if last[i] is node and i.op[:4] == "call"]
            dead += [] if node in last else [node.name]
            lines += [f"del {', '.join(dead)}"] if dead else []
    body = "\n".join(f"    {line}" for line in lines)
    # Names are those of the graph's nodes, and constants are passed by name: no text of a user is
    # compiled.
    exec(compile(f"def replay({', '.join(parameters)}):\n{body}\n", "<recording>", "exec"), values)
    replay: Callable[..., tuple[Tensor, ...]] = values["replay"]
    return replay


def _call(node: Node, values: dict[str, Any]) -> str:
    target: Any = node.target
    if target is operator.getitem:
        return f"{_text(node.args[0], values)}[{node.args[1]!r}]"
    if isinstance(target, torch._ops.OpOverload):
        name = f"_{target._schema.name.replace('::', '_')}_{target._overloadname}"
        values[name] = getattr(target, "_op", target)  # without a layer of Python, where there is
    else:
        name = f"_function_{len(values)}"
        values[name] = target
    arguments = [_text(argument, values) for argument in node.args]
    arguments += [f"{key}={_text(argument, values)}" for key, argument in node.kwargs.items()]
    return f"{name}({', '.join(arguments)})"


def _text(argument: Any, values: dict[str, Any]) -> str:
    """Return the source text of an argument; what has none goes by name."""
    if hasattr(argument, "all_input_nodes"):
        return str(argument.name)
    if isinstance(argument, list):
        return f"[{', '.join(_text(item, values) for item in argument)}]"
    if isinstance(argument, tuple):
        return f"({''.join(_text(item, values) + ', ' for item in argument)})"
    if argument is None or isinstance(argument, bool | int):
        return repr(argument)
    name = f"_value_{len(values)}"
    values[name] = argument
    return name
