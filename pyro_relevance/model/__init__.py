"""p and q: the Pyro model of a network with latent gates, and its variational families.

`RelevanceModel` joins a network, its edges, ``priors``, a likelihood (``likelihoods``) and a
relaxation of the gates (``relaxations``) into one Pyro model. ``guides`` are the variational
posteriors that are fitted to it, and ``elbo`` is the objective. Distributions with their KL
divergences are in ``distributions``, one a file.
"""

from __future__ import annotations

from pyro_relevance.model.elbo import LeanELBO
from pyro_relevance.model.model import Noise, RelevanceModel
from pyro_relevance.model.noise import fit_noise
from pyro_relevance.model.operation_elbo import LocalExpectationELBO, ScoreFunctionELBO
from pyro_relevance.model.precision import Precision

__all__ = [
    "Noise",
    "RelevanceModel",
    "Precision",
    "LeanELBO",
    "LocalExpectationELBO",
    "ScoreFunctionELBO",
    "fit_noise",
]
