"""Training: the one loop for models with gates and for plain networks.

`fit` prepares chains and programs (``preparation``, ``programs``), runs the loop (``run``) with
schedules, callbacks and checkpoints, and returns a `Fit` with the posterior. A program computes one
step of all chains; it may be vectorised, recorded and replayed. Settings that belong together are
the frozen values `Optimisation`, `Estimation` and `Execution` (``settings``). `fine_tune` trains a
pruned network further; `fit_to_budget` (``budgeted``) ends with a network of a given size;
``plain`` trains networks without gates, with the same loop.
"""

from __future__ import annotations

from pyro_relevance.training.budgeted import Budget, BudgetedFit, fit_front, fit_to_budget
from pyro_relevance.training.callbacks import (
    Callback,
    EarlyStopping,
    ProgressBar,
    TensorBoard,
    TrainingState,
    every,
)
from pyro_relevance.training.checkpoint import Checkpoint
from pyro_relevance.training.fine_tuning import FineTuned, fine_tune
from pyro_relevance.training.schedules import Schedules
from pyro_relevance.training.settings import Estimation, Execution, Optimisation
from pyro_relevance.training.svi import Fit, fit

__all__ = [
    "Fit",
    "fit",
    "Optimisation",
    "Estimation",
    "Execution",
    "Schedules",
    "Checkpoint",
    "Callback",
    "EarlyStopping",
    "ProgressBar",
    "TensorBoard",
    "TrainingState",
    "every",
    "FineTuned",
    "fine_tune",
    "Budget",
    "BudgetedFit",
    "fit_to_budget",
    "fit_front",
]
