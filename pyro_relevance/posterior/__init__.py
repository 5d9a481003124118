"""Look at a fitted posterior before pruning: draws, predictions, scores and diagnostics.

`Posterior` samples gates, weights and predictions with hard gates. ``relevance`` computes one score
per edge from its draws. ``diagnostics`` asks whether it is calibrated. ``arviz`` converts it to
ArviZ, and ``files`` saves and loads it without pickled code. `reweighted_inclusion` makes the gates
of a linear model dependent.
"""

from __future__ import annotations

from pyro_relevance.posterior.draws import Draws, Prediction
from pyro_relevance.posterior.files import load_posterior, save_posterior
from pyro_relevance.posterior.history import History
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.posterior.reweighting import ReweightedInclusion, reweighted_inclusion

__all__ = [
    "Posterior",
    "Draws",
    "Prediction",
    "History",
    "ReweightedInclusion",
    "load_posterior",
    "reweighted_inclusion",
    "save_posterior",
]
