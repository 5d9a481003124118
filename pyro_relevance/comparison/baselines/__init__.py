"""Rival methods of pruning and architecture search, all called in the same way.

A method that prunes takes a function that makes a network, data and a `Recipe`. A method that
searches takes a function that makes a relaxed network instead. All of them return a
`BaselineResult`: the plain trained network, the mask or architecture, the stages of the work, and
the size of the network. Searches that measure architectures one after the other (`evolution`,
`random_search`, `reinforce`) need no data of their own and return a ``QuerySearch``;
`search_by_training` runs them with short trainings as measurements.
"""

from __future__ import annotations

from pyro_relevance.comparison.baselines.configurations import (
    Configuration,
    configurations,
    fit_and_prune,
)
from pyro_relevance.comparison.baselines.darts import DartsSettings, darts, strongest_operations
from pyro_relevance.comparison.baselines.dense import dense
from pyro_relevance.comparison.baselines.evolution import evolution
from pyro_relevance.comparison.baselines.filter_pruning import filter_pruning
from pyro_relevance.comparison.baselines.gradual_magnitude import gradual_magnitude_pruning
from pyro_relevance.comparison.baselines.lottery_ticket import (
    lottery_ticket,
    random_ticket,
    ticket_rounds,
)
from pyro_relevance.comparison.baselines.magnitude import magnitude_pruning
from pyro_relevance.comparison.baselines.random_search import (
    random_search,
    train_random_architecture,
)
from pyro_relevance.comparison.baselines.recipe import Recipe
from pyro_relevance.comparison.baselines.reinforcement import reinforce
from pyro_relevance.comparison.baselines.result import BaselineResult, Stage
from pyro_relevance.comparison.baselines.searching import search_by_training
from pyro_relevance.comparison.baselines.single_path import single_path

__all__ = [
    "BaselineResult",
    "Configuration",
    "DartsSettings",
    "Recipe",
    "Stage",
    "configurations",
    "darts",
    "dense",
    "evolution",
    "filter_pruning",
    "fit_and_prune",
    "gradual_magnitude_pruning",
    "lottery_ticket",
    "magnitude_pruning",
    "random_search",
    "random_ticket",
    "reinforce",
    "search_by_training",
    "single_path",
    "strongest_operations",
    "ticket_rounds",
    "train_random_architecture",
]
