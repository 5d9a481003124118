"""Search: from data and a space to a trained plain network whose operations were chosen.

`search_structure` fits the posterior over a space of architectures and derives, trains and returns
a network; ``queries`` chooses architectures to measure one after the other; ``shared_weights``
values them under the weights of one supernet; ``collapse`` reports end points that are known to be
bad; ``tasks`` names spaces and data.
"""

from __future__ import annotations

from pyro_relevance.search.collapse import StructureReport, structure_report
from pyro_relevance.search.queries import QuerySearch, search_by_queries
from pyro_relevance.search.shared_weights import SharedWeights
from pyro_relevance.search.structure import SearchResult, SearchSettings, search_structure

__all__ = [
    "SearchResult",
    "SearchSettings",
    "search_structure",
    "QuerySearch",
    "search_by_queries",
    "SharedWeights",
    "StructureReport",
    "structure_report",
]
