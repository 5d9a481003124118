"""Record the tensor operators of a function once, and replay them without its Python.

A Pyro step on a small network spends most of its time in Python: handlers, distributions, autograd.
Its tensor operators are the same at every step. ``record`` runs the function once, lists each ATen
operator (random ones too, so a replay makes new draws), drops those without an effect, and compiles
the list to one flat Python function.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from pyro_relevance.training.programs.simplification import Form, simplify

__all__ = ["record"]

_ATEN = torch.ops.aten
_BOUND_FUNCTIONS = {
    *("add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor", "rsub.Scalar", "pow.Tensor_Scalar"),
    *("neg.default", "exp.default", "log.default", "sigmoid.default", "relu.default"),
    *("tanh.default", "sqrt.default", "square.default", "log1p.default", "reciprocal.default"),
    *("sum.default", "sum.dim_IntList", "dot.default", "mm.default", "addmm.default"),
    *("bmm.default", "baddbmm.default", "cat.default", "where.self", "gt.Scalar", "t.default"),
    *("logit_.default", "rand.default", "split_with_sizes.default", "abs.default"),
    *("gather.default", "transpose.int", "stack.default", "logsumexp.default", "permute.default"),
    *("addcmul.default", "copysign.Tensor"),
}
_BOUND_METHODS = {"view.default", "expand.default", "unsqueeze.default", "squeeze.dim"}


def record(
    function: Callable[..., Sequence[Tensor]], arguments: Sequence[Tensor]
) -> Callable[..., tuple[Tensor, ...]]:
    """Return a function that repeats the operators of another one.

    Python numbers, control flow and shapes are fixed at their present values, and so is a tensor
    that is no argument, unless the function writes to it. Changes in place are repeated.

    Args:
        function: A function from tensors to tensors. It runs once, with its effects.
        arguments: Tensors to run it with.

    Raises:
        RuntimeError: If the function reads the value of a tensor that depends on the arguments
            (data-dependent control flow), or on chance.
    """
    recorder = _Recorder(arguments)
    with recorder:
        results = function(*arguments)
    recorder.graph.output(tuple(recorder.node_of(result) for result in results))
    simplify(recorder.graph, recorder.values)
    return _compile(recorder.graph, recorder.values)


class _Recorder(TorchDispatchMode):
    """Lists the operators that run below autograd and vmap.

    ``make_fx`` of torch does the same for a hundred times the cost: it computes each operator a
    second time on shapes alone, and keeps the Python stack of each.

    Args:
        arguments: Tensors that differ between replays.

    Attributes:
        graph: The operators in their order.
        values: Name -> tensor that is no argument.
    """

    def __init__(self, arguments: Sequence[Tensor]) -> None:
        super().__init__()
        self.graph = Graph()
        self.values: dict[str, Tensor] = {}
        # Weak: intermediate results are freed as they are without a recording.
        self._nodes = WeakTensorKeyDictionary()
        self._fixed: set[Node] = set()
        for index, argument in enumerate(arguments):
            node = self.graph.placeholder(f"argument_{index}")
            node.meta["form"] = Form.of(argument)
            self._nodes[argument] = node

    def node_of(self, tensor: Tensor) -> Node:
        """Return what made a tensor; one of unknown origin is a constant."""
        node: Node | None = self._nodes.get(tensor)
        if node is None:
            name = f"constant_{len(self.values)}"
            self.values[name] = tensor.detach()
            node = self._nodes[tensor] = self.graph.get_attr(name)
            node.meta["form"] = Form.of(tensor)
            self._fixed.add(node)
        return node

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is _ATEN.lift_fresh.default:  # a constant may be written to: each replay copies it
            func = _ATEN.lift_fresh_copy.default
        result = func(*args, **kwargs)
        node = self.graph.call_function(func, self._named(args), self._named(kwargs))
        random = torch.Tag.nondeterministic_seeded in func.tags
        if not random and all(source in self._fixed for source in node.all_input_nodes):
            self._fixed.add(node)
        self._keep(result, node)
        return result

    def _named(self, value: Any) -> Any:
        """Return arguments of an operator with nodes in place of tensors."""
        if isinstance(value, Tensor):
            return self.node_of(value)
        if isinstance(value, tuple | list):
            return type(value)(map(self._named, value))
        if isinstance(value, dict):
            return {key: self._named(item) for key, item in value.items()}
        return value

    def _keep(self, result: Any, node: Node) -> None:
        if isinstance(result, Tensor):
            node.meta["form"] = Form.of(result)
            self._nodes[result] = node
        elif isinstance(result, tuple | list):
            for index, item in enumerate(result):
                part = self.graph.call_function(operator.getitem, (node, index))
                if node in self._fixed:
                    self._fixed.add(part)
                self._keep(item, part)
        elif result is not None and node not in self._fixed:
            raise RuntimeError(
                f"Expected a function of tensors alone, but '{node.target}' reads a value that "
                "differs between replays. Compute with tensors, such as torch.where."
            )


def _compile(graph: Graph, constants: dict[str, Tensor]) -> Callable[..., tuple[Tensor, ...]]:
    """Return the graph as one Python function, which frees each tensor after its last use."""
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
            values[node.name] = constants[str(node.target)]
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
        values[name] = _shortest(target)
    else:
        name = f"_function_{len(values)}"
        values[name] = target
    arguments = [_text(argument, values) for argument in node.args]
    arguments += [f"{key}={_text(argument, values)}" for key, argument in node.kwargs.items()]
    return f"{name}({', '.join(arguments)})"


def _shortest(target: torch._ops.OpOverload) -> Callable[..., Any]:
    """Return the way to call an operator that costs the least Python.

    A call of torch's own binding takes two thirds of the time of one through the registry. Only
    operators whose binding has the same arguments and chooses the same overload are called so.
    """
    name = target._schema.name.removeprefix("aten::")
    if f"{name}.{target._overloadname}" in _BOUND_FUNCTIONS:
        bound: Callable[..., Any] = getattr(torch._C._VariableFunctions, name)
        return bound
    if f"{name}.{target._overloadname}" in _BOUND_METHODS:
        method: Callable[..., Any] = getattr(torch._C.TensorBase, name)
        return method
    return getattr(target, "_op", target)


def _text(argument: Any, values: dict[str, Any]) -> str:
    """Return the source text of an argument; what has none goes by name."""
    if isinstance(argument, Node):
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
