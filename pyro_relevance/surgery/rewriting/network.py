"""One walk over the graph of a network, which writes a step for each operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map, tree_unflatten

from pyro_relevance.edges.coupling.labelling import Coupling
from pyro_relevance.edges.coupling.walk import follow_graph
from pyro_relevance.edges.exported import Sizes, export_graph, value_of
from pyro_relevance.edges.operators.calls import operator_name
from pyro_relevance.edges.operators.registry import find
from pyro_relevance.errors import SurgeryError
from pyro_relevance.surgery.operations import ATTRIBUTE_OF, name_of_function
from pyro_relevance.surgery.rewriting.sizes import check_sizes
from pyro_relevance.surgery.rewriting.writer import DEAD, Writer
from pyro_relevance.surgery.steps import GraphNetwork, Result, Step, plain_containers

__all__ = ["resized_network"]


def resized_network(
    network: nn.Module,
    arguments: tuple[Tensor, ...],
    kept: Mapping[tuple[str, int], Tensor],
    *,
    sizes: Sizes = "any",
) -> tuple[GraphNetwork, list[list[int]]]:
    """Write a network down as operations on the kept parts of its tensors.

    It computes what the network computes in evaluation mode. Inputs of a size that the trace does
    not serve are refused when it runs. Layers
    whose inputs were all removed become their bias. Operations whose result is not used are
    dropped, as are parameters and buffers that evaluation does not use. BatchNorm and dropout
    remain modules and train as before. Operations that evaluation does not run (dropout inside of
    attention, stochastic depth) are lost.

    Args:
        network: Network of the old sizes whose removed columns are zero; it is not changed.
        arguments: ``(num_data, *input_shape)`` inputs.
        kept: For (tensor, axis), booleans of the kept positions along the axis.
        sizes: Which sizes of inputs the list should serve.

    Returns:
        The network, and for each input the axes along which its size is free.

    Raises:
        EdgeError: The network cannot be traced for these sizes.
        SurgeryError: An operation has no form with the new sizes.
    """
    exported = export_graph(network, arguments, sizes=sizes)
    coupling, labels, constants = follow_graph(exported)
    modules = dict(network.named_modules())
    dropped = _dropped(coupling, kept)
    writer = Writer(exported, modules, labels, constants, dropped, kept, coupling.applied)
    return _network(writer)


def _dropped(coupling: Coupling, kept: Mapping[tuple[str, int], Tensor]) -> NDArray[np.bool_]:
    """Return whether each label is removed; the last entries are for labels below zero."""
    roots = coupling.roots
    removed = np.zeros(len(roots), dtype=bool)
    for axis, flags in kept.items():
        if axis in coupling.makers:
            made = coupling.makers[axis]
            removed[roots[made[~flags.numpy() & (made >= 0)]]] = True
    return np.concatenate([removed[roots], [False, False]])


def _network(writer: Writer) -> tuple[GraphNetwork, list[list[int]]]:
    """Return the whole as a module, and the free axes of each input."""
    nodes = list(writer.exported.graph.nodes)
    placeholders = [node for node in nodes if node.op == "placeholder"]
    for node in sorted(
        placeholders, key=lambda node: _is_tensor(writer, node)
    ):  # inputs stand before all else
        _enter(writer, node)
    inputs = [n for n in placeholders if not _is_tensor(writer, n)]
    free = check_sizes(writer, inputs)
    for node in nodes:
        if node.op == "call_function":
            _call(writer, node)
        elif node.op == "output":
            leaves = [writer.filled(leaf) for leaf in tree_leaves(node.args)]
            outputs = plain_containers(tree_unflatten(leaves, writer.exported.outputs))
            writer.emit("output", "output", (outputs,))
    steps = _used(writer.steps, writer.effects)
    read = {step.target for step in steps if step.op in ("get_attr", "call_module")}
    network = GraphNetwork(
        steps,
        {name: module for name, module in writer.layers.items() if name in read},
        {name: tensor for name, tensor in writer.tensors.items() if name in read},
    )
    return network, free


def _is_tensor(writer: Writer, node: fx.Node) -> bool:
    return node.name in writer.exported.names or node.name in writer.exported.constants


def _enter(writer: Writer, node: fx.Node) -> None:
    exported = writer.exported
    if node.name in exported.constants:
        constant = exported.constants[node.name].detach().clone()
        writer.results[node] = writer.tensor(f"constants.{node.name}", constant)
    elif node.name in exported.names:
        name = exported.names[node.name]
        writer.results[node] = writer.tensor(name, writer.kept_part(name, exported.tensors[name]))
    else:
        writer.input = writer.input or node
        writer.results[node] = writer.emit("placeholder", node.name)


def _call(writer: Writer, node: fx.Node) -> None:
    if value_of(node) is None or node.op != "call_function":
        return  # a check of sizes
    if writer.is_dead(writer.labels.get(node)):
        writer.results[node] = DEAD
        return
    name = operator_name(node)
    if (
        node.kwargs.get("device") is not None
        and not node.all_input_nodes
        and node in writer.constants
    ):
        # A constant of the code becomes a buffer, which moves with the network.
        writer.results[node] = writer.tensor(f"constants.{node.name}", writer.constants[node])
        return
    # What is made of constants alone has no labels and stays as it is.
    rule = find(name).rewrite if node in writer.labels else None
    call: Any = (node.args, node.kwargs, node.target)
    args, kwargs, target = rule(writer, node) if rule else call
    if target is None:  # written already
        writer.results[node] = args
        return
    if kwargs.get("device") is not None and writer.input is not None:
        device = writer.emit("call_function", ATTRIBUTE_OF, (writer.filled(writer.input), "device"))
        kwargs = {**kwargs, "device": device}  # that of the input, wherever the network is
    found = name_of_function(target)
    if found is None:
        raise SurgeryError(
            f"Expected operations that a file can name, but got {target}. Keep whole what "
            "makes the network a list of operations: heads of attention and whole layers."
        )
    schema = getattr(target, "_schema", None)
    if schema is not None and schema.is_mutable:
        writer.effects.add(len(writer.steps))
    writer.results[node] = writer.emit(
        "call_function", found, writer.filled(tuple(args)), writer.filled(dict(kwargs))
    )


def _used(steps: Sequence[Step], effects: set[int]) -> list[Step]:
    """Drop the steps whose result nothing reads, and number the others."""
    needed = {i for i, step in enumerate(steps) if step.op in ("placeholder", "output")} | effects
    for position in range(len(steps) - 1, -1, -1):
        if position in needed:
            needed |= {result.step for result in _reads(steps[position])}
    number = {old: new for new, old in enumerate(sorted(needed))}

    def renumbered(value: Any) -> Any:
        return Result(number[value.step]) if isinstance(value, Result) else value

    return [
        Step(step.op, step.target, *tree_map(renumbered, (step.args, dict(step.kwargs))))
        for position, step in enumerate(steps)
        if position in needed
    ]


def _reads(step: Step) -> list[Result]:
    return [
        leaf for leaf in tree_leaves((step.args, dict(step.kwargs))) if isinstance(leaf, Result)
    ]
