"""Look at it: draws, predictions, scores and diagnostics of a fitted posterior, before any cut.

`Posterior` samples gates, weights and predictions with hard gates; ``relevance`` makes one score
per edge of its draws; ``diagnostics`` asks whether it is calibrated; ``arviz`` is the only place
that knows ArviZ's formats; ``files`` saves and loads it without pickled code.
"""

from __future__ import annotations

from pyro_relevance.posterior.draws import Draws, Prediction
from pyro_relevance.posterior.files import load_posterior, save_posterior
from pyro_relevance.posterior.history import History
from pyro_relevance.posterior.posterior import Posterior

__all__ = ["Posterior", "Draws", "Prediction", "History", "load_posterior", "save_posterior"]
