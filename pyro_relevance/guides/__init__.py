"""Guides: variational families with their parameters made at construction."""

from pyro_relevance.guides.autoregressive import AutoregressiveGuide
from pyro_relevance.guides.low_rank import LowRankGuide
from pyro_relevance.guides.mean_field import MeanFieldGuide

__all__ = ["AutoregressiveGuide", "LowRankGuide", "MeanFieldGuide"]
