"""Groups of units of any network, from the channels that must be pruned together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from pyro_relevance.edges.coupling.labelling import Axis, Coupling, Ints
from pyro_relevance.edges.coupling.walk import follow_channels
from pyro_relevance.edges.exported import Sizes, export_graph
from pyro_relevance.edges.flow import Flow, UnitFlow
from pyro_relevance.edges.groups import Slot
from pyro_relevance.edges.modules import modules_that_make_units
from pyro_relevance.edges.reasons import Reason, Why
from pyro_relevance.errors import EdgeError

__all__ = ["follow_coupled_units"]


def follow_coupled_units(network: nn.Module, arguments: tuple[Any, ...], flow: Flow) -> Flow:
    """Replace the units of a flow by those of the whole network, tied where they must be.

    Args:
        network: Any network that ``torch.export`` traces.
        arguments: Example inputs.
        flow: The result of the layer-wise walk; inputs and weights are taken from it.

    Returns:
        The flow with one entry for each set of layers whose units are tied.

    Raises:
        EdgeError: The network cannot be traced.
    """
    coupling = follow_channels(network, arguments)
    reasons = _reasons(coupling)
    reasons |= _not_rewritable(network, arguments, coupling, reasons)
    tied = _tied_layers(coupling)
    units = [_unit_flow(coupling, layers, reasons) for layers in tied]
    _label(tied, units)
    units += [
        rest
        for layers, unit in zip(tied, units, strict=True)
        for rest in _ungated(coupling, layers, unit, reasons)
    ]
    followed = {axis[0].rpartition(".")[0] for axis in coupling.layers}
    units += [
        UnitFlow(name, 0, reason=Why.UNFOLLOWED.reason())
        for name in modules_that_make_units(network)
        if name not in followed
    ]
    outputs = flow.num_outputs
    if not outputs and len(coupling.outputs) == 1 and coupling.outputs[0].ndim == 2:
        outputs = coupling.outputs[0].shape[1]
    products = sum(coupling.products.values()) - sum(sum(unit.products) for unit in units)
    return replace(
        flow,
        units=tuple(units),
        num_outputs=outputs,
        positions=dict(coupling.positions),
        num_fixed_macs=products,
    )


def _label(tied: list[list[Axis]], units: list[UnitFlow]) -> None:
    """Name units after their tensor where a module makes several kinds of them."""
    modules = [unit.module for unit in units if not unit.reason]
    for layers, unit in zip(tied, units, strict=True):
        if not unit.reason and modules.count(unit.module) > 1:
            unit.label = layers[0][0].removesuffix(".weight")


def _tied_layers(coupling: Coupling) -> list[list[Axis]]:
    """Return the layers that make units, in call order; layers that share a unit are together."""
    first_layer: dict[int, int] = {}
    leader = list(range(len(coupling.layers)))

    def top(index: int) -> int:
        while leader[index] != index:
            index = leader[index]
        return index

    for index, axis in enumerate(coupling.layers):
        for root in np.unique(coupling.roots[coupling.makers[axis]]).tolist():
            one, other = sorted((top(first_layer.setdefault(root, index)), top(index)))
            leader[other] = one
    sets: dict[int, list[Axis]] = {}
    for index, axis in enumerate(coupling.layers):
        sets.setdefault(top(index), []).append(axis)
    return list(sets.values())


def _reasons(coupling: Coupling) -> dict[int, Reason]:
    """Return why a set of labels is not gated, by its root, for all that layers make."""
    roots = coupling.roots
    read = {
        r for columns in coupling.readers.values() for r in roots[columns[columns >= 0]].tolist()
    }
    inputs = roots[coupling.inputs.reshape(-1).numpy()].tolist()
    reasons = dict.fromkeys(inputs, Why.TIED_TO_INPUT.reason())
    for axis in coupling.layers:
        for root in roots[coupling.makers[axis]].tolist():
            if root not in read:
                reasons[root] = Why.NO_READER.reason()
    return reasons | coupling.reasons


def _not_rewritable(
    network: nn.Module, arguments: tuple[Any, ...], coupling: Coupling, reasons: dict[int, Reason]
) -> dict[int, Reason]:
    """Return why sets that change ``forward()`` cannot be pruned, if it cannot be rewritten."""
    changing = {root: what for root, what in coupling.written.items() if root not in reasons}
    if not changing:
        return {}
    failed: EdgeError | None = None
    order: tuple[Sizes, ...] = ("batch", "any")  # the first one is faster, and mostly enough
    for sizes in order:
        try:
            export_graph(network, arguments, sizes=sizes)
        except EdgeError as error:
            failed = error
        else:
            return {}
    return {
        root: Why.NOT_REWRITABLE.reason(what=what, error=str(failed))
        for root, what in changing.items()
    }


def _made(coupling: Coupling, layers: list[Axis]) -> list[int]:
    """Return the sets that some layers make, in the order of their positions."""
    made = np.concatenate([coupling.roots[coupling.makers[axis]] for axis in layers])
    return list(dict.fromkeys(made.tolist()))


def _ungated(
    coupling: Coupling, layers: list[Axis], gated: UnitFlow, reasons: dict[int, Reason]
) -> list[UnitFlow]:
    """Return one entry for each reason why some units of partly gated layers have no gate."""
    made = _made(coupling, layers)
    counts: dict[Reason, int] = {}
    for root in made if not gated.reason else ():
        if root in reasons:
            counts[reasons[root]] = counts.get(reasons[root], 0) + 1
    return [
        UnitFlow(
            gated.module,
            0,
            reason=Why.SOME.reason(count=count, total=len(made), reason=reason),
            label=gated.label,
        )
        for reason, count in counts.items()
    ]


def _unit_flow(coupling: Coupling, layers: list[Axis], reasons: dict[int, Reason]) -> UnitFlow:
    roots = coupling.roots
    ordered = _made(coupling, layers)
    module = layers[0][0].rpartition(".")[0]
    gated = [root for root in ordered if root not in reasons]
    if not gated:
        return UnitFlow(module, 0, reason=reasons[ordered[0]])
    number = np.full(len(roots) + 1, -1)
    number[gated] = np.arange(len(gated))
    flow = UnitFlow(module, len(gated))
    flow.rewritten = tuple(i for i, root in enumerate(gated) if root in coupling.written)
    if any(root in coupling.products for root in gated):
        flow.products = tuple(coupling.products.get(root, 0) for root in gated)
    for axis, labels in coupling.makers.items():
        flow.producers += _slots(axis, labels, roots, number)
    for axis, labels in coupling.readers.items():
        slots = _slots(axis, labels, roots, number)
        flow.consumers += slots
        flow.readers += [slot.tensor.rpartition(".")[0] for slot in slots]
    return flow


def _slots(axis: Axis, labels: Ints, roots: Ints, number: Ints) -> list[Slot]:
    """Return where units lie along an axis, or nothing where none do."""
    index = number[np.where(labels >= 0, roots[np.maximum(labels, 0)], len(roots))]
    if (index < 0).all():
        return []
    same = len(index) == number.max() + 1 and bool((index == np.arange(len(index))).all())
    return [Slot(axis[0], axis[1], None if same else tuple(index.tolist()))]
