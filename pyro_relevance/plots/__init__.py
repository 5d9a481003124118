"""Figures of a posterior, one per file: an ArviZ object in, a matplotlib ``Figure`` out.

A plot selects and draws; everything drawn was computed by ``report``. No plot changes matplotlib's
settings or opens a window; :func:`save` writes what a paper needs.
"""

from __future__ import annotations

from pyro_relevance.plots._style import DOUBLE_COLUMN, SINGLE_COLUMN, as_png, caption, save
from pyro_relevance.plots.cell import cell
from pyro_relevance.plots.effect_inclusion import effect_inclusion
from pyro_relevance.plots.network import network
from pyro_relevance.plots.pareto import pareto
from pyro_relevance.plots.path import path
from pyro_relevance.plots.predictions.calibration import calibration
from pyro_relevance.plots.predictions.observed_predicted import observed_predicted
from pyro_relevance.plots.predictions.partial_dependence import partial_dependence
from pyro_relevance.plots.relevance import relevance
from pyro_relevance.plots.structures.architectures import architectures
from pyro_relevance.plots.structures.before_after import before_after
from pyro_relevance.plots.structures.filters import filters
from pyro_relevance.plots.structures.gate_correlation import gate_correlation
from pyro_relevance.plots.structures.pixels import pixels
from pyro_relevance.plots.structures.stability import stability
from pyro_relevance.plots.training import training

__all__ = [
    "DOUBLE_COLUMN",
    "SINGLE_COLUMN",
    "architectures",
    "as_png",
    "before_after",
    "calibration",
    "caption",
    "cell",
    "effect_inclusion",
    "filters",
    "gate_correlation",
    "network",
    "observed_predicted",
    "pareto",
    "partial_dependence",
    "path",
    "pixels",
    "relevance",
    "save",
    "stability",
    "training",
]
