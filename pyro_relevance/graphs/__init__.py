"""Networks whose edges are operations: from candidates on each edge to one plain network.

A `Graph` computes all candidates of an edge (the relaxed graph, or supernet); ``primitives`` makes
them, ``spaces`` are graphs that are ready. An `Architecture` chooses one operation for each edge:
``mode`` and ``most_probable`` read it from a posterior, and ``derivation`` writes the plain network
that computes what the relaxed graph computes with gates of zero and one.
"""

from __future__ import annotations

from pyro_relevance.graphs import convolutions, dense, spaces
from pyro_relevance.graphs.architectures import (
    Architecture,
    canonical,
    free_edges,
    is_connected,
    mode,
    most_probable,
)
from pyro_relevance.graphs.convolutions import DARTS_OPERATIONS, NASBENCH201_OPERATIONS
from pyro_relevance.graphs.costs import operation_macs
from pyro_relevance.graphs.graph import Graph, GraphEdge, MixedOperation
from pyro_relevance.graphs.primitives import Place, Zero, primitive, primitives

__all__ = [
    "Architecture",
    "DARTS_OPERATIONS",
    "NASBENCH201_OPERATIONS",
    "Graph",
    "GraphEdge",
    "MixedOperation",
    "Place",
    "Zero",
    "canonical",
    "convolutions",
    "dense",
    "free_edges",
    "is_connected",
    "mode",
    "most_probable",
    "operation_macs",
    "primitive",
    "primitives",
    "spaces",
]
