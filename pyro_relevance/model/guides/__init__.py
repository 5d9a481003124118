"""Guides: variational families with their parameters made at construction."""

from pyro_relevance.model.guides.autoregressive import AutoregressiveGuide
from pyro_relevance.model.guides.low_rank import LowRankGuide
from pyro_relevance.model.guides.mean_field import MeanFieldGuide

__all__ = ["AutoregressiveGuide", "LowRankGuide", "MeanFieldGuide"]
