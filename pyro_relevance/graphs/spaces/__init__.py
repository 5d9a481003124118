"""Search spaces: relaxed networks from which a search chooses an architecture."""

from __future__ import annotations

from pyro_relevance.graphs.spaces.darts import DartsNetwork, top_edges
from pyro_relevance.graphs.spaces.lenet import lenet_space
from pyro_relevance.graphs.spaces.mlp import mlp_space
from pyro_relevance.graphs.spaces.nasbench201 import (
    architecture_from_string,
    architecture_to_string,
    nasbench201_cell,
    nasbench201_space,
)

__all__ = [
    "DartsNetwork",
    "architecture_from_string",
    "architecture_to_string",
    "lenet_space",
    "mlp_space",
    "nasbench201_cell",
    "nasbench201_space",
    "top_edges",
]
