"""Guides: variational families with their parameters made at construction.

Any guide of Pyro's can be fitted. ``protocol`` lists the questions that a guide may answer, and
what each answer buys.
"""

from pyro_relevance.model.guides.autoregressive import AutoregressiveGuide
from pyro_relevance.model.guides.low_rank import LowRankGuide
from pyro_relevance.model.guides.mean_field import MeanFieldGuide
from pyro_relevance.model.guides.protocol import RelevanceGuide
from pyro_relevance.model.guides.spike_and_slab import SpikeAndSlabGuide, default_guide

__all__ = [
    "AutoregressiveGuide",
    "LowRankGuide",
    "MeanFieldGuide",
    "RelevanceGuide",
    "SpikeAndSlabGuide",
    "default_guide",
]
