"""Figures of a posterior, one per file: an ArviZ object in, a matplotlib ``Figure`` out.

A plot selects and draws; everything drawn was computed by ``report``. No plot changes matplotlib's
settings or opens a window; :func:`save` writes what a paper needs.
"""

from __future__ import annotations

from pyro_relevance.plots._style import DOUBLE_COLUMN, SINGLE_COLUMN, save
from pyro_relevance.plots.cell import cell
from pyro_relevance.plots.network import network
from pyro_relevance.plots.pareto import pareto
from pyro_relevance.plots.path import path
from pyro_relevance.plots.relevance import relevance
from pyro_relevance.plots.training import training

__all__ = [
    "DOUBLE_COLUMN",
    "SINGLE_COLUMN",
    "cell",
    "network",
    "pareto",
    "path",
    "relevance",
    "save",
    "training",
]
