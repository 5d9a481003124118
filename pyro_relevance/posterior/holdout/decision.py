"""From p-values of sets and of their members to verdicts at a false discovery rate."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from pyro_relevance.posterior.holdout.monte_carlo import benjamini_hochberg

__all__ = ["Verdict", "decide"]


class Verdict(StrEnum):
    """What is said of a group of inputs."""

    RELEVANT = "relevant"
    """Rejected by itself: it says of the target what no other input says."""
    INSEPARABLE = "cannot be told apart"
    """Its set is relevant, but none of the members by itself, given the others."""
    NOT_SHOWN = "not shown"
    """No evidence on these rows; that is not evidence of irrelevance."""


def decide(
    p_groups: Sequence[float],
    sets: Sequence[Sequence[int]],
    p_sets: Sequence[float],
    rate: float,
) -> tuple[list[Verdict], NDArray[np.bool_]]:
    """Return the verdict of each group, and which sets are relevant.

    Sets by Benjamini-Hochberg at `rate`; members of relevant sets by the same rule at ``rate *
    share of relevant sets``, which keeps the average rate over the sets that were selected.

    Args:
        p_groups: ``(num_groups,)`` p-values of groups, each given all others.
        sets: Numbers of groups, each group in one set.
        p_sets: ``(num_sets,)`` p-values of the sets; of a set of one, that of its group.
        rate: False discovery rate.

    References:
        Benjamini and Bogomolov, Selective inference on multiple families of hypotheses, JRSS B
        2014.
    """
    relevant = benjamini_hochberg(p_sets, rate)
    verdicts = [Verdict.NOT_SHOWN] * len(p_groups)
    for members, found in zip(sets, relevant, strict=True):
        if not found:
            continue
        own = benjamini_hochberg([p_groups[i] for i in members], rate * float(relevant.mean()))
        for i, by_itself in zip(members, own, strict=True):
            if len(members) == 1 or by_itself:
                verdicts[i] = Verdict.RELEVANT
            elif not own.any():
                verdicts[i] = Verdict.INSEPARABLE
    return verdicts, relevant
