"""The verdict on a run of the main job: the fit's diagnosis, and the networks of the folds."""

from __future__ import annotations

import torch

from pyro_relevance.commands.table.recipe import HeldOut
from pyro_relevance.masks import Mask
from pyro_relevance.posterior.diagnosis import Diagnosis, Finding, compare_losses, diagnose
from pyro_relevance.posterior.holdout.losses import log_loss, squared_error
from pyro_relevance.training.svi import Fit

__all__ = ["fold_findings", "run_diagnosis"]


def run_diagnosis(fit: Fit, mask: Mask, held: HeldOut, dense: HeldOut | None) -> Diagnosis:
    """Return the diagnosis of the chains, with the folds' networks on their held-out rows.

    Args:
        fit: All chains.
        mask: What is kept of the chain that was pruned.
        held: Held-out predictions of the recipe.
        dense: The same of the dense recipe, if there is one.
    """
    diagnosis = diagnose(fit, mask=mask, warn=False)
    return diagnosis.merged(fold_findings(held, dense), "networks of the folds on held-out rows")


def fold_findings(held: HeldOut, dense: HeldOut | None = None) -> tuple[Finding, ...]:
    """Return what is wrong with the pruned networks of the folds.

    Args:
        held: Held-out predictions of the recipe.
        dense: The same of the dense recipe, or ``None`` to compare with a constant alone.
    """
    y = held.y
    if y.is_floating_point():
        loss, name = squared_error, "squared error of the standardised target"
        best = y.mean().expand_as(y)
    else:
        loss, name = log_loss, "log loss"
        share = torch.bincount(y, minlength=held.pruned.shape[-1]).double() / len(y)
        best = share.clamp(min=1e-12).log().expand(len(y), -1)
    others = None if dense is None else loss(dense.pruned[0], y).double().numpy()
    return compare_losses(
        loss(held.pruned[0], y).double().numpy(),
        loss(best, y).double().numpy(),
        others,
        name=name,
    )
