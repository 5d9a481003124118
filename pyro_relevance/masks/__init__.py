"""Scores to a decision: the immutable `Mask`, the `Risk` it accepts, and the rules.

Every rule takes a posterior of one chain, or one score per edge (larger = more relevant), and
returns a `Mask` (True = kept).
"""

from __future__ import annotations

from pyro_relevance.masks.mask import Mask, Risk
from pyro_relevance.masks.ranked import budget, path, top_fraction, within_cost
from pyro_relevance.masks.rules import (
    false_discovery_rate,
    median_probability,
    signal_to_noise,
    threshold,
)
from pyro_relevance.masks.source import PosteriorLike, Source

__all__ = [
    "Mask",
    "PosteriorLike",
    "Risk",
    "Source",
    "budget",
    "false_discovery_rate",
    "median_probability",
    "path",
    "signal_to_noise",
    "threshold",
    "top_fraction",
    "within_cost",
]
