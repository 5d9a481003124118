"""Priors over gates and over weights, one per file; any object with the same methods will do."""

from pyro_relevance.model.latents import Latent
from pyro_relevance.model.priors.ard import ArdWeights
from pyro_relevance.model.priors.description_length import DescriptionLengthPrior
from pyro_relevance.model.priors.gaussian import GaussianWeights
from pyro_relevance.model.priors.hierarchical import HierarchicalPrior
from pyro_relevance.model.priors.horseshoe import HorseshoeWeights
from pyro_relevance.model.priors.independent import IndependentPrior
from pyro_relevance.model.priors.log_uniform import LogUniformWeights
from pyro_relevance.model.priors.operations import (
    CategoricalPrior,
    DirichletPrior,
    OperationCostPrior,
)
from pyro_relevance.model.priors.point import PointWeights
from pyro_relevance.model.priors.protocols import GatePrior, OperationPrior, WeightPrior

__all__ = [
    "ArdWeights",
    "CategoricalPrior",
    "DescriptionLengthPrior",
    "DirichletPrior",
    "GatePrior",
    "GaussianWeights",
    "HierarchicalPrior",
    "HorseshoeWeights",
    "IndependentPrior",
    "Latent",
    "LogUniformWeights",
    "OperationCostPrior",
    "OperationPrior",
    "PointWeights",
    "WeightPrior",
]
