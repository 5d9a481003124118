"""From a network to the edges that can be gated: the first step of the path.

`find_edges` offers a group only if its edges can be pruned exactly; every other group is listed
with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from pyro_relevance.edges.candidates import HasOperations
from pyro_relevance.edges.coupling.units import follow_coupled_units
from pyro_relevance.edges.edges import Edges
from pyro_relevance.edges.exported import quiet, traceable_copy
from pyro_relevance.edges.flow import Flow, UnitFlow, WeightFlow
from pyro_relevance.edges.groups import EdgeGroup, GridLabels, Skipped, Slot
from pyro_relevance.edges.layerwise.units import follow_units, untraced
from pyro_relevance.edges.modules import example_arguments, modules_that_make_units
from pyro_relevance.edges.packing import storage_of
from pyro_relevance.edges.reasons import RETURNED, Reason, Why
from pyro_relevance.edges.size import masked_cost, num_macs
from pyro_relevance.errors import ArchitectureError, EdgeError

__all__ = ["EdgeGroup", "Edges", "Granularity", "Skipped", "Slot", "find_edges"]

Granularity = Literal["input", "unit", "weight", "operation"]


def find_edges(
    network: nn.Module,
    *,
    example_input: Tensor | tuple[Tensor, ...] | None = None,
    granularity: str | Sequence[str] = "unit",
    where: Callable[[str, nn.Module], bool] | None = None,
    input_labels: Sequence[str] | None = None,
    input_index: Sequence[int] | None = None,
) -> Edges:
    """List the edges of a network that can be pruned exactly.

    Args:
        network: The network; it is neither changed nor trained.
        example_input: ``(num_data, *input_shape)`` input, or a tuple of inputs. Without one, units
            of linear layers are followed through elementwise functions alone. With one, units of
            any network that ``torch.export`` traces are found; channels that must be pruned
            together (residual sums, grouped convolutions, normalisation, heads of attention) are
            one edge.
        granularity: ``"input"``, ``"unit"``, ``"weight"`` or ``"operation"`` (of the relaxed
            graphs in the network, see ``graphs.Graph``), or several of them: their gates multiply.
        where: Predicate over (name, module) of the layer that makes units or reads weight or input.
        input_labels: One name per input gate.
        input_index: Gate of each input column; equal numbers share a gate, -1 is not gated.

    Returns:
        The edges in groups, and the groups that were skipped with the reason.

    Raises:
        ValueError: An argument is wrong.
        EdgeError: The network cannot be traced, or nothing can be gated.
        ArchitectureError: A primitive of a graph makes another shape than its place asks for.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        >>> print(find_edges(network, granularity=("input", "unit")))
        group    granularity  edges  read by
        inputs   input            4  0.weight
        0.units  unit             8  2.weight
        skipped 2.units: it makes the outputs, and outputs are never gated
    """
    granularities = _granularities(granularity)
    operations = _operations(network, example_input) if "operation" in granularities else ()
    if granularities == ("operation",):
        return Edges((), (), _shapes(network), _buffers(network), operations=operations)
    flow = _follow(network, example_input)
    if "input" not in granularities and (input_labels is not None or input_index is not None):
        raise ValueError(
            f"Expected granularity with 'input' where input_labels or input_index are given, but "
            f"got {granularities}."
        )
    offers = [_input_offer(flow.inputs, input_labels, input_index)]
    offers += [_unit_offer(unit) for unit in flow.units]
    offers += [_weight_offer(weight) for weight in flow.weights]
    offers += _other_weights(network, flow)
    asked = [offer for offer in offers if offer.granularity in granularities]
    groups, skipped = _choose(asked, network, where)
    if not groups and not operations:
        raise EdgeError(_nothing(granularities, skipped))
    return _edges(network, flow, (groups, skipped, operations), example_input)


@dataclass(frozen=True)
class _Offer:
    """A group that may be gated, or the reason why it cannot be.

    Args:
        name: Name of the group.
        granularity: Its granularity.
        layers: Names of the layers that ``where`` is asked about.
        reason: Why it cannot be pruned exactly, or ``None``.
        make: Function that makes the group; it is called only if ``reason`` is ``None``.
    """

    name: str
    granularity: Granularity
    layers: Sequence[str]
    reason: Reason | None
    make: Callable[[], EdgeGroup]


def _input_offer(
    flow: UnitFlow, labels: Sequence[str] | None, index: Sequence[int] | None
) -> _Offer:
    make = partial(_gated_inputs, flow, labels, index)
    return _Offer("inputs", "input", tuple(flow.readers), flow.reason, make)


def _unit_offer(unit: UnitFlow) -> _Offer:
    name = _units_name(unit)
    return _Offer(name, "unit", (unit.module,), unit.reason, partial(_unit_group, unit))


def _weight_offer(weight: WeightFlow) -> _Offer:
    reason = Why.LAYER.reason(fault=weight.reason) if weight.reason else None

    def make() -> EdgeGroup:
        labels, slot = GridLabels(weight.shape), Slot(weight.tensor, None)
        return EdgeGroup(weight.tensor, "weight", weight.shape, labels, (slot,))

    return _Offer(weight.tensor, "weight", (weight.module,), reason, make)


def _other_weights(network: nn.Module, flow: Flow) -> list[_Offer]:
    """Matrices of parameters whose entries are not gated, each with the reason."""
    known = {weight.tensor for weight in flow.weights}
    offers = []
    for name, tensor in network.named_parameters():
        if tensor.ndim > 1 and name not in known:
            module = name.rpartition(".")[0]
            kind = type(network.get_submodule(module)).__name__
            reason = Why.NOT_SINGLE.reason(kind=kind)
            offers.append(_Offer(name, "weight", (module,), reason, _no_group))
    return offers


def _no_group() -> EdgeGroup:
    raise AssertionError("a group with a reason is not made")


def _choose(
    offers: Sequence[_Offer],
    network: nn.Module,
    where: Callable[[str, nn.Module], bool] | None,
) -> tuple[tuple[EdgeGroup, ...], tuple[Skipped, ...]]:
    """Return the chosen groups, and the skipped groups with their reasons."""
    modules = dict(network.named_modules())
    groups: list[EdgeGroup] = []
    skipped: list[Skipped] = []
    for offer in offers:
        is_input, reason = offer.granularity == "input", offer.reason
        if is_input and reason:  # its readers may be unknown, and where is not asked about them
            skipped.append(Skipped(offer.name, str(reason)))
            continue
        chosen = where is None or all(where(name, modules[name]) for name in offer.layers)
        if chosen and not reason:
            groups.append(offer.make())
        elif chosen:
            skipped.append(Skipped(offer.name, str(reason)))
        elif is_input:  # one group with several readers: that some are not chosen is reported
            skipped.append(Skipped(offer.name, str(Why.NOT_CHOSEN.reason())))
    return tuple(groups), tuple(skipped)


def _nothing(granularities: Sequence[str], skipped: Sequence[Skipped]) -> str:
    known = "; ".join(f"{item.name}: {item.reason}" for item in skipped)
    return (
        f"Expected edges of granularity {granularities}, but none can be gated: "
        f"{known or 'where chose no layer'}."
    )


def _edges(
    network: nn.Module,
    flow: Flow,
    found: tuple[tuple[EdgeGroup, ...], tuple[Skipped, ...], tuple[EdgeGroup, ...]],
    example_input: Tensor | tuple[Tensor, ...] | None,
) -> Edges:
    groups, skipped, operations = found
    units = {_units_name(unit): unit for unit in flow.units if not unit.reason}
    products = {name: unit.products for name, unit in units.items() if unit.products}
    edges = Edges(
        groups,
        skipped,
        _shapes(network),
        _buffers(network),
        _structure(flow),
        _positions(network, flow, example_input is not None),
        rewritten={name: unit.rewritten for name, unit in units.items() if unit.rewritten},
        products=products | ({"": (flow.num_fixed_macs,)} if flow.num_fixed_macs else {}),
        operations=operations,
        bare=_bare(network),
        storage=storage_of(network),
    )
    return edges if example_input is None else _with_all_macs(edges, network, example_input)


def _positions(network: nn.Module, flow: Flow, complete: bool) -> dict[str, int]:
    """How often one example multiplies each matrix; what is unknown is left out."""
    positions = dict(flow.positions)
    for name, tensor in network.named_parameters():
        kind = type(network.get_submodule(name.rpartition(".")[0]))
        if tensor.ndim > 1 and (complete or issubclass(kind, nn.Embedding | nn.EmbeddingBag)):
            positions.setdefault(name, 0)
        elif tensor.ndim > 1 and issubclass(kind, nn.Linear):
            positions.setdefault(name, 1)
    return positions


def _bare(network: nn.Module) -> tuple[str, ...]:
    """Matrices that are no weight of a linear layer."""
    return tuple(
        name
        for name, tensor in network.named_parameters()
        if tensor.ndim == 2
        and not (
            name.rpartition(".")[2] == "weight"
            and isinstance(network.get_submodule(name.rpartition(".")[0]), nn.Linear)
        )
    )


def _with_all_macs(
    edges: Edges, network: nn.Module, example_input: Tensor | tuple[Tensor, ...]
) -> Edges:
    """Add the multiply-accumulates that no edge takes along: the whole is what is counted."""
    whole = {group.name: torch.ones(group.shape, dtype=torch.bool) for group in edges}
    try:
        missing = num_macs(network, example_input) - masked_cost(edges, whole).num_macs
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        return edges  # an operator that the counter cannot run
    fixed = sum(edges.products.get("", ())) + missing
    return replace(edges, products={**edges.products, "": (fixed,)}) if missing > 0 else edges


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    named = (*network.named_parameters(), *network.named_buffers())
    return {name: tuple(tensor.shape) for name, tensor in named}


def _buffers(network: nn.Module) -> tuple[str, ...]:
    return tuple(name for name, _ in network.named_buffers())


def _operations(
    network: nn.Module, example_input: Tensor | tuple[Tensor, ...] | None
) -> tuple[EdgeGroup, ...]:
    """Edges of all relaxed graphs; graphs with the same structure share them."""
    labels: dict[str, tuple[str, ...]] = {}
    slots: dict[str, list[Slot]] = {}
    for prefix, module in network.named_modules():
        if not isinstance(module, HasOperations):
            continue
        for edge in module.operation_candidates():
            name = edge.group
            if labels.setdefault(name, edge.names) != edge.names:
                structure, source, target = name.split(".")
                raise EdgeError(
                    f"Expected the same operations on {source} -> {target} of all graphs of the "
                    f"structure {structure!r}, but got {list(labels[name])} and "
                    f"{list(edge.names)}. Give the second kind of graph another structure=."
                )
            owner = f"{prefix}." if prefix else ""
            slots.setdefault(name, []).append(Slot(f"{owner}{edge.gate}", 0))
    if not labels:
        raise EdgeError(
            "Expected a network with a relaxed graph (graphs.Graph) that has an edge with several "
            "operations, where granularity names 'operation', but found none."
        )
    if example_input is not None:
        _try_operations(network, example_input)
    return tuple(
        EdgeGroup(name, "operation", (len(names),), names, tuple(slots[name]))
        for name, names in labels.items()
    )


def _try_operations(network: nn.Module, example_input: Tensor | tuple[Tensor, ...]) -> None:
    """Let a graph check the shapes that its primitives make: a trace would not name them."""
    with torch.no_grad(), quiet():
        try:
            traceable_copy(network)(*example_arguments(example_input))
        except ArchitectureError:
            raise
        except Exception:  # the walks say what else is wrong
            return


def _follow(network: nn.Module, example_input: Tensor | tuple[Tensor, ...] | None) -> Flow:
    """Follow units layer by layer; with an example, also find units that are tied."""
    try:
        flow = follow_units(network, example_input)
    except EdgeError as error:
        if example_input is None:
            raise
        try:
            arguments = example_arguments(example_input)
            return follow_coupled_units(network, arguments, untraced(network, arguments))
        except EdgeError:
            raise error from None
    followed = {unit.module for unit in flow.units}
    left_out = [name for name in modules_that_make_units(network) if name not in followed]
    if example_input is None:
        units = [UnitFlow(name, 0, reason=_unseen(network, name)) for name in left_out]
        return replace(flow, units=(*flow.units, *units))
    known = all(u.reason is None or u.reason.why in RETURNED for u in flow.units)
    if known and not left_out:
        return flow
    return follow_coupled_units(network, example_arguments(example_input), flow)


def _unseen(network: nn.Module, name: str) -> Reason:
    return Why.NEEDS_EXAMPLE.reason(kind=type(network.get_submodule(name)).__name__)


def _granularities(granularity: str | Sequence[str]) -> tuple[str, ...]:
    names = (granularity,) if isinstance(granularity, str) else tuple(granularity)
    if not names or any(name not in get_args(Granularity) for name in names):
        raise ValueError(
            f"Expected granularity from {list(get_args(Granularity))}, but got {list(names)}."
        )
    if len(set(names)) != len(names):
        raise ValueError(
            f"Expected each granularity once, but got {list(names)}. Remove the duplicate."
        )
    return names


def _gated_inputs(
    flow: UnitFlow, labels: Sequence[str] | None, index: Sequence[int] | None
) -> EdgeGroup:
    columns = flow.num_units
    gates = None if index is None else tuple(int(gate) for gate in index)
    if gates is not None and len(gates) != columns:
        raise ValueError(
            f"Expected input_index with one gate per input column ({columns}), but got "
            f"{len(gates)}."
        )
    num_gates = columns if gates is None else max(gates, default=-1) + 1
    if gates is not None and (
        min(gates) < -1 or set(gates) - {-1} != set(range(num_gates)) or num_gates == 0
    ):
        raise ValueError(
            f"Expected input_index to use each gate number from 0 up (or -1), but got "
            f"{sorted(set(gates))}. "
            "Number the gates without holes."
        )
    if labels is not None and len(labels) != num_gates:
        raise ValueError(
            f"Expected input_labels with one name per gate ({num_gates}), but got {len(labels)}."
        )
    if labels is not None and len(set(labels)) != len(labels):
        raise ValueError(
            f"Expected different input_labels, but got {list(labels)}. Make them unique."
        )
    names = GridLabels((num_gates,)) if labels is None else tuple(str(label) for label in labels)
    consumers = tuple(replace(slot, index=gates) for slot in flow.consumers)
    return EdgeGroup("inputs", "input", (num_gates,), names, consumers)


def _unit_group(flow: UnitFlow) -> EdgeGroup:
    shape = (flow.num_units,)
    name = _units_name(flow)
    return EdgeGroup(
        name, "unit", shape, GridLabels(shape), tuple(flow.consumers), tuple(flow.producers)
    )


def _structure(flow: Flow) -> tuple[EdgeGroup, ...]:
    """Input, unit and output groups along which dead parts can be removed, gated or not."""
    groups = [] if flow.inputs.reason else [_gated_inputs(flow.inputs, None, None)]
    groups += [_unit_group(unit) for unit in flow.units if not unit.reason]
    if flow.num_outputs:
        shape = (flow.num_outputs,)
        groups.append(EdgeGroup("outputs", "output", shape, GridLabels(shape), ()))
    return tuple(groups)


def _units_name(flow: UnitFlow) -> str:
    layer = flow.label or flow.module
    return f"{layer}.units" if layer else "units"
