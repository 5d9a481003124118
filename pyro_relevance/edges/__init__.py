"""What can be pruned: from a network to its edges, and what each of them costs.

`find_edges` walks the network (``layerwise`` for plain layers, ``coupling`` for anything that
``torch.export`` traces) and returns `Edges`: groups of edges that are gated, with the slots where
their gates lie along the network's tensors, and groups that cannot be pruned exactly, with reasons.
Gates are folded into the tensors that read an edge, so that a zero gate and a removed edge are the
same function. ``size`` counts parameters, multiply-accumulates and bytes under any choice of edges.
"""

from __future__ import annotations

from pyro_relevance.edges.edges import Edges
from pyro_relevance.edges.find import Granularity, find_edges
from pyro_relevance.edges.groups import EdgeGroup, Skipped, Slot
from pyro_relevance.edges.size import (
    Cost,
    Latency,
    count_cost,
    latency,
    masked_cost,
    num_bytes,
    num_macs,
    num_nonzero,
    num_parameters,
)

__all__ = [
    "EdgeGroup",
    "Skipped",
    "Slot",
    "Edges",
    "Granularity",
    "find_edges",
    "Cost",
    "Latency",
    "count_cost",
    "latency",
    "masked_cost",
    "num_bytes",
    "num_macs",
    "num_nonzero",
    "num_parameters",
]
