"""How the ArviZ object spells edge groups and describes the network they belong to.

The plots draw the network from this description alone: they never see the network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyro_relevance.edges.find import EdgeGroup, Edges, Slot

__all__ = ["structure", "variable_name"]


def variable_name(group: str, quantity: str) -> str:
    """The ArviZ name of a quantity of one edge group: ``fc1_units_gate`` of ``"fc1.units"``.

    Names are Python identifiers, so that ``idata.posterior.fc1_units_gate`` and
    ``sel(fc1_units_edge="3")`` work: every character that an identifier cannot hold becomes ``_``,
    and a leading digit (``nn.Sequential`` counts its modules) is preceded by ``layer_``.

    Args:
        group: Name of the edge group, e.g. ``"inputs"`` or ``"0.units"``.
        quantity: ``"gate"``, ``"inclusion_probability"``, ``"effect"``, or ``"edge"`` for the
            dimension.

    Returns:
        The name.

    Example:
        >>> variable_name("0.units", "edge")
        'layer_0_units_edge'
    """
    stem = re.sub(r"\W", "_", group)
    return f"{'layer_' if stem[:1].isdigit() else ''}{stem}_{quantity}"


def structure(edges: Edges, groups: Sequence[EdgeGroup]) -> dict[str, str]:
    """Where gates touch the network, and its weights in their order, as JSON attributes."""

    def axes(slots: Sequence[Slot]) -> list[list[Any]]:
        return [[slot.tensor, slot.dim] for slot in slots]

    def index(slots: Sequence[Slot]) -> list[list[int] | None]:
        return [None if slot.index is None else list(slot.index) for slot in slots]

    described = [
        {
            "name": group.name,
            "variable": variable_name(group.name, "")[:-1],
            "granularity": group.granularity,
            "shape": list(group.shape),
            "consumers": axes(group.consumers),
            "consumer_index": index(group.consumers),
            "producers": axes(group.producers),
            "producer_index": index(group.producers),
        }
        for group in groups
    ]
    layers = [
        {"tensor": name, "shape": list(shape)}
        for name, shape in edges.shapes.items()
        if name.split(".")[-1] == "weight" and len(shape) >= 2
    ]
    return {
        "pyro_relevance_groups": json.dumps(described),
        "pyro_relevance_layers": json.dumps(layers),
    }
