"""Look at a fitted posterior before pruning: draws, predictions, scores and diagnostics.

`Posterior` samples gates, weights and predictions with hard gates. ``relevance`` computes one score
per edge from its draws. ``diagnostics`` asks whether it is calibrated. ``arviz`` converts it to
ArviZ, and ``files`` saves and loads it without pickled code.
"""

from __future__ import annotations

from pyro_relevance.posterior.draws import Draws, Prediction
from pyro_relevance.posterior.files import load_posterior, save_posterior
from pyro_relevance.posterior.history import History
from pyro_relevance.posterior.posterior import Posterior

__all__ = ["Posterior", "Draws", "Prediction", "History", "load_posterior", "save_posterior"]
