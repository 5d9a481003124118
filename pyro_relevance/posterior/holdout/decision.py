"""From p-values of sets and of their members to verdicts at a false discovery rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from pyro_relevance.posterior.holdout.carried import Tree, members, nodes
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
    p_values: Mapping[tuple[int, ...], float], trees: Sequence[Tree], rate: float
) -> dict[tuple[int, ...], Verdict]:
    """Return the verdict of each group and of each set of groups that carry each other.

    Trees are tested by Benjamini-Hochberg at `rate`. Within a tree that is rejected, its two parts
    are tested by the same rule at ``rate * share of trees rejected``, and so on downwards, which
    keeps the average rate over the families that were selected. A tree whose parts are both not
    rejected cannot be told apart.

    Args:
        p_values: P-value of each set of groups, by its members in ascending order; a set of one is
            a group given all others.
        trees: The groups, each in one tree.
        rate: False discovery rate.

    Returns:
        Verdict of each key of `p_values`: ``INSEPARABLE`` for a set whose parts are not told apart
        and for all in it; ``RELEVANT`` for a set of which a part is relevant.

    References:
        Benjamini and Bogomolov, Selective inference on multiple families of hypotheses, JRSS B
        2014; Yekutieli, Hierarchical false discovery rate-controlling methodology, JASA 2008.
    """
    verdicts = dict.fromkeys(p_values, Verdict.NOT_SHOWN)

    def descend(family: Sequence[Tree], level: float) -> bool:
        """Test a family of trees; return whether any was rejected."""
        keys = [members(tree) for tree in family]
        rejected = benjamini_hochberg([p_values[key] for key in keys], level)
        for tree, key, found in zip(family, keys, rejected, strict=True):
            if not found:
                continue
            verdicts[key] = Verdict.RELEVANT
            if not isinstance(tree, int) and not descend(tree, level * float(rejected.mean())):
                for inner in (*map(members, nodes(tree)), *((group,) for group in key)):
                    verdicts[inner] = Verdict.INSEPARABLE
        return bool(rejected.any())

    descend(trees, rate)
    return verdicts
