"""Before anything is removed: what pruning will cost, and how much the choice rests on the prior.

``loss`` gives the predictive interval of the loss and error of the network behind a mask, and the
rise of the loss when more is removed; ``prior_odds`` the masks under other prior odds without
another fit.
"""

from __future__ import annotations

from pyro_relevance.posterior.before_pruning.loss import (
    Fold,
    cross_validated_loss_interval,
    expected_rise,
    network_loss_interval,
    pruned_loss_interval,
    without,
)
from pyro_relevance.posterior.before_pruning.prior_odds import PriorSensitivity, prior_sensitivity

__all__ = [
    "Fold",
    "PriorSensitivity",
    "cross_validated_loss_interval",
    "expected_rise",
    "network_loss_interval",
    "prior_sensitivity",
    "pruned_loss_interval",
    "without",
]
