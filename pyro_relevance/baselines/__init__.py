"""Other ways to a network, called like the library's own: for honest comparisons."""

from __future__ import annotations

from pyro_relevance.baselines.evolution import evolution
from pyro_relevance.baselines.random_search import random_search

__all__ = ["evolution", "random_search"]
