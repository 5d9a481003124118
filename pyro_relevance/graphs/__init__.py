"""Networks whose edges are primitive functions: relaxed graphs, primitives and search spaces."""

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
