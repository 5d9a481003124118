"""Guides: variational families with their parameters made at construction.

``protocol`` says what a guide can tell the rest of the library, and what each answer buys. Any
guide of Pyro's will do.
"""

from pyro_relevance.model.guides.autoregressive import AutoregressiveGuide
from pyro_relevance.model.guides.low_rank import LowRankGuide
from pyro_relevance.model.guides.mean_field import MeanFieldGuide
from pyro_relevance.model.guides.protocol import RelevanceGuide

__all__ = ["AutoregressiveGuide", "LowRankGuide", "MeanFieldGuide", "RelevanceGuide"]
