"""Distributions of gates and weights, one per file, with their KL divergences beside them.

Everything here is mathematics: no training, no files. Gate values live on the real line (the logit
of the gate), where densities stay finite at every temperature; ``pyro_relevance.model.relaxations``
turns a value into a gate.
"""

from __future__ import annotations

from pyro_relevance.model.distributions.hard_concrete import HardConcrete
from pyro_relevance.model.distributions.hardening import HardeningConcrete
from pyro_relevance.model.distributions.log_uniform import LogUniform, MultiplicativeNormal
from pyro_relevance.model.distributions.logit_beta import LogitBeta
from pyro_relevance.model.distributions.logit_concrete import LogitConcrete, concrete_kl_monte_carlo
from pyro_relevance.model.distributions.normal import LogNormal, Normal
from pyro_relevance.model.distributions.one_hot_concrete import OneHotConcrete
from pyro_relevance.model.distributions.per_example import PerExample
from pyro_relevance.model.distributions.spike_and_slab import Slab
from pyro_relevance.model.distributions.student_t import StudentT

__all__ = [
    "HardConcrete",
    "HardeningConcrete",
    "LogNormal",
    "LogUniform",
    "LogitBeta",
    "LogitConcrete",
    "MultiplicativeNormal",
    "Normal",
    "OneHotConcrete",
    "PerExample",
    "Slab",
    "StudentT",
    "concrete_kl_monte_carlo",
]
