"""Training to a budget: one run that ends with a network of a given size.

A `Budget` says how large the network may be (``budget``). `fit_to_budget` trains weights, then
weights and gates, then the weights of the small network (``stages``). In between, edges are closed
one after another, those of the lowest rank first (``closing``). `fit_front` trains networks of
several sizes, each from the one before it (``front``).
"""

from __future__ import annotations

from pyro_relevance.training.budgeted.budget import Budget
from pyro_relevance.training.budgeted.fitted import BudgetedFit
from pyro_relevance.training.budgeted.front import fit_front
from pyro_relevance.training.budgeted.stages import fit_to_budget

__all__ = ["Budget", "BudgetedFit", "fit_front", "fit_to_budget"]
