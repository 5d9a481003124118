"""What flows where: which tensors make the units of a layer and which tensors read them.

The network is traced symbolically (``torch.fx``) on a copy, and every value on the way is followed
as "position j along the last axis is unit j". Only what leaves units apart (elementwise functions,
flattening, BatchNorm) is followed; at anything else the units are given up with a reason, because
they could not be removed exactly.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

from pyro_relevance.edges.flow import Flow, UnitFlow, WeightFlow
from pyro_relevance.edges.groups import Slot
from pyro_relevance.edges.layerwise.tracing import (
    LAYERS,
    function_name,
    is_flatten,
    join_name,
    keeps_last_axis,
    layer_faults,
    shape_of,
    trace_graph,
)
from pyro_relevance.edges.modules import copy_of, evaluating
from pyro_relevance.edges.operators.registry import find, find_module
from pyro_relevance.edges.reasons import Reason, Why
from pyro_relevance.errors import EdgeError

__all__ = ["follow_units", "untraced"]

INPUT = "\0input"


@dataclass(frozen=True, slots=True)
class _Value:
    """A traced tensor made by ``source``; ``flat``: several columns of the last axis per unit."""

    source: str
    num_units: int
    flat: bool = False


def follow_units(network: nn.Module, example_input: Tensor | tuple[Tensor, ...] | None) -> Flow:
    """Follow units from the layers that make them to the layers that read them.

    Args:
        network: Any network that ``torch.fx`` can trace. It is copied, not touched.
        example_input: ``(num_data, *input_shape)`` input, or a tuple of inputs; needed only where
            the network reshapes with ``view`` or ``reshape``.

    Returns:
        Producers and consumers of the input columns and of the units of every linear layer.

    Raises:
        EdgeError: The network cannot be traced, has uninitialised parameters, or fails on
            ``example_input``.
    """
    for name, tensor in network.named_parameters():
        if is_lazy(tensor):
            raise EdgeError(
                f"Expected a network with initialised parameters, but {name!r} has no shape yet. "
                "Call the network once on an example before looking for its edges."
            )
    return _Follower(network, example_input).follow()


def untraced(network: nn.Module, arguments: tuple[Tensor, ...]) -> Flow:
    """What is known of a network that cannot be followed: the weights of its layers.

    Args:
        network: The network.
        arguments: Inputs, ``(num_data, *input_shape)``, on which it is run to see what it calls.

    Returns:
        A flow without units.

    Raises:
        EdgeError: The network fails on the inputs.
    """
    network = copy_of(network)  # some networks keep what they computed in evaluation
    modules = dict(network.named_modules())
    called: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: called.append(name))
        for name, module in modules.items()
        if isinstance(module, LAYERS)
    ]
    try:
        with evaluating(network), torch.no_grad():
            network(*arguments)
    except Exception as error:  # the code of a user's forward() may raise anything
        raise EdgeError(
            f"Expected an example_input that the network accepts, but it failed: {error}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    calls = fx.Graph()
    for name in called:
        calls.call_module(name)
    weights = _weights(modules, layer_faults(calls, modules))
    return Flow(UnitFlow("", 0, reason=Why.UNTRACED.reason()), (), weights, 0, {})


class _Follower:
    """One walk over the traced graph; holds what was found so far."""

    def __init__(
        self, network: nn.Module, example_input: Tensor | tuple[Tensor, ...] | None
    ) -> None:
        self.graph, self.modules = trace_graph(network, example_input)
        self.values: dict[fx.Node, _Value] = {}
        self.inputs = UnitFlow("", 0)
        self.units: dict[str, UnitFlow] = {}
        self.shapes_known = example_input is not None
        self.num_outputs = 0
        self.positions: dict[str, int] = {}
        self.faults = layer_faults(self.graph, self.modules)

    def follow(self) -> Flow:
        num_inputs = 0
        for node in self.graph.nodes:
            if node.op == "placeholder":
                num_inputs += 1
                self.values[node] = _Value(INPUT, 0)
            elif node.op == "call_module":
                self._call_module(node, str(node.target))
            elif node.op in ("call_function", "call_method"):
                self._call_function(node)
            elif node.op == "output":
                self._return(node)
        if num_inputs != 1:
            self.inputs.block(Why.SEVERAL_INPUTS.reason(count=num_inputs))
        if not self.inputs.consumers:
            self.inputs.block(Why.INPUT_UNREAD.reason())
        for unit in self.units.values():
            if not unit.consumers:
                unit.block(Why.NO_LINEAR_READER.reason())
        return Flow(
            self.inputs,
            tuple(self.units.values()),
            _weights(self.modules, self.faults),
            self.num_outputs,
            self.positions,
        )

    def _call_module(self, node: fx.Node, name: str) -> None:
        module = self.modules[name]
        known, value = find_module(module), self._argument(node)
        if isinstance(module, LAYERS):
            self._read(node, name, module)
            self._count(node, name, len(module.weight))
            if type(module) is nn.Linear:
                self._produce(node, name, module)
            else:
                self._produce_ungated(name, module)
        elif value is None:
            self._block(node, Why.COMBINED.reason(kind=type(module).__name__, name=name))
        elif known.last_axis == "apart" or (
            isinstance(module, nn.PReLU) and module.num_parameters == 1
        ):
            self.values[node] = value
        elif isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
            self.values[node] = _Value(value.source, value.num_units, flat=True)
        elif known.last_axis == "channels" and type(module) in known.modules:
            self._normalise(node, name, module, value)
        else:
            if any(True for _ in module.parameters()) and known.last_axis != "together":
                self._produce_ungated(name, module)
            self._block(node, Why.THROUGH_MODULE.reason(kind=type(module).__name__, name=name))
            if known.last_axis == "together":
                self.values[node] = _Value("", value.num_units, value.flat)

    def _count(self, node: fx.Node, name: str, width: int) -> None:
        shape = shape_of(node)
        if shape:
            tensor = join_name(name, "weight")
            repeats = math.prod(shape[1:]) // max(width, 1)
            self.positions[tensor] = self.positions.get(tensor, 0) + repeats

    def _call_function(self, node: fx.Node) -> None:
        name = function_name(node)
        known, value = find(name), self._argument(node)
        scalars = not any(isinstance(a, fx.Node) for a in (*node.args[1:], *node.kwargs.values()))
        if known.last_axis == "asked" or node.target is operator.getitem and value is None:
            return
        if value is not None and known.last_axis == "apart" and len(node.all_input_nodes) == 1:
            self.values[node] = value
        elif value is not None and is_flatten(node, name, self.shapes_known):
            self.values[node] = _Value(value.source, value.num_units, flat=True)
        elif (
            value is not None and not value.flat and keeps_last_axis(node, name, self.shapes_known)
        ):
            self.values[node] = value
        else:
            self._block(node, self._why_lost(node, name))
            if value is not None and scalars and known.last_axis == "together":
                self.values[node] = _Value("", value.num_units, value.flat)

    def _why_lost(self, node: fx.Node, name: str) -> Reason:
        if find(name).last_axis == "reshaped":
            why = Why.RESHAPED if self.shapes_known else Why.RESHAPED_UNSEEN
        else:
            why = Why.JOINED if len(node.all_input_nodes) > 1 else Why.THROUGH_OPERATION
        return why.reason(name=name)

    def _read(self, node: fx.Node, name: str, module: nn.Module) -> None:
        value = self._argument(node)
        if value is None or not value.source:
            return
        flow = self._flow(value.source)
        fault = self.faults.get(name)
        if fault:
            flow.block(Why.READER.reason(name=name, fault=fault))
        elif type(module) is not nn.Linear:
            flow.block(Why.READ_BY_KIND.reason(kind=type(module).__name__, name=name))
        elif value.source == INPUT:
            if flow.num_units not in (0, module.in_features):
                flow.block(Why.UNEQUAL_COLUMNS.reason())
            flow.num_units = module.in_features
            flow.consumers.append(Slot(join_name(name, "weight"), 1))
            flow.readers.append(name)
        else:
            flow.consumers.append(
                Slot(join_name(name, "weight"), 1, _columns(module.in_features, value.num_units))
            )
            flow.readers.append(name)

    def _produce(self, node: fx.Node, name: str, module: nn.Linear) -> None:
        flow = self.units.setdefault(name, UnitFlow(name, module.out_features))
        if not flow.producers:
            flow.producers.append(Slot(join_name(name, "weight"), 0))
            if module.bias is not None:
                flow.producers.append(Slot(join_name(name, "bias"), 0))
        if name in self.faults:
            flow.block(Why.LAYER.reason(fault=self.faults[name]))
        self.values[node] = _Value(name, module.out_features)

    def _produce_ungated(self, name: str, module: nn.Module) -> None:
        flow = self.units.setdefault(name, UnitFlow(name, 0))
        flow.block(Why.MADE_BY_KIND.reason(kind=type(module).__name__))

    def _normalise(self, node: fx.Node, name: str, module: nn.Module, value: _Value) -> None:
        if self.shapes_known and len(shape_of(node)) != 2:
            self._block(node, Why.OTHER_AXIS.reason(kind=type(module).__name__, name=name))
            return
        self.values[node] = value
        if value.source in ("", INPUT):
            return
        flow = self._flow(value.source)
        for key, tensor in (
            *module.named_parameters(recurse=False),
            *module.named_buffers(recurse=False),
        ):
            if tensor.ndim == 1:
                flow.producers.append(
                    Slot(join_name(name, key), 0, _columns(len(tensor), value.num_units))
                )
        if name in self.faults:
            kind = type(module).__name__
            flow.block(Why.MODULE.reason(kind=kind, name=name, fault=self.faults[name]))

    def _return(self, node: fx.Node) -> None:
        for origin in node.all_input_nodes:
            value = self.values.get(origin)
            if value is not None and value.source:
                flow = self._flow(value.source)
                why = Why.ALSO_RETURNED if flow.consumers else Why.MAKES_OUTPUTS
                flow.block(why.reason())
        if len(node.all_input_nodes) == 1 and isinstance(node.args[0], fx.Node):
            value = self.values.get(node.args[0])
            if value is not None and value.source != INPUT and not value.flat:
                self.num_outputs = value.num_units

    def _argument(self, node: fx.Node) -> _Value | None:
        """The value that the node works on, if it is the only one."""
        carried = [self.values[n] for n in node.all_input_nodes if n in self.values]
        return carried[0] if len(carried) == 1 else None

    def _block(self, node: fx.Node, reason: Reason) -> None:
        for origin in node.all_input_nodes:
            value = self.values.get(origin)
            if value is not None and value.source:
                self._flow(value.source).block(reason)

    def _flow(self, source: str) -> UnitFlow:
        return self.inputs if source == INPUT else self.units[source]


def _weights(modules: dict[str, nn.Module], faults: dict[str, Reason]) -> tuple[WeightFlow, ...]:
    weights = []
    for name, module in modules.items():
        if isinstance(module, LAYERS):
            reason = faults.get(name)
            if reason is not None and reason.why is Why.CALLED_TWICE:
                reason = None  # the entries of a weight are the same at each call
            tensor = join_name(name, "weight")
            weights.append(WeightFlow(tensor, name, tuple(module.weight.shape), reason))
    return tuple(weights)


def _columns(num_columns: int, num_units: int) -> tuple[int, ...] | None:
    """Unit of each column of a flattened (n, ..., num_units) tensor: the last axis runs fastest."""
    if num_columns == num_units:
        return None
    return tuple(column % num_units for column in range(num_columns))
