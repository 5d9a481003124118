"""The first table of a report: which inputs are relevant, and beside it what the network uses.

Three different statements stand in one row: the holdout test (does the target depend on the column,
given the others?), what the pruned network reads, and the posterior's inclusion probability (does
this network use it?). Where they disagree, a sentence says so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pyro_relevance.commands.table.columns import aligned, span
from pyro_relevance.posterior.holdout import HoldoutTest, Verdict
from pyro_relevance.posterior.intervals import Interval
from pyro_relevance.posterior.relevance import over_chains

__all__ = ["disagreements", "input_lines", "order_of", "posterior_lines", "relevant_line"]


def relevant_line(tested: HoldoutTest) -> str:
    """Return the answer in one sentence."""
    found = [", ".join(tested.relevant)] if tested.relevant else []
    found += [
        f"{' or '.join(names)} (cannot be told apart; together p {_p_together(tested, names):.2g})"
        for names in tested.inseparable
    ]
    answer = "; ".join(found) if found else "none could be shown"
    return f"Relevant inputs at a false discovery rate of {tested.rate:g}: {answer}."


def input_lines(
    tested: HoldoutTest,
    probability: NDArray[np.floating],
    read: NDArray[np.bool_],
    *,
    scale: float = 1.0,
) -> list[str]:
    """Return one line per input, the strongest evidence first, under a header.

    Args:
        tested: The holdout test, its groups in the order of the inputs.
        probability: ``(num_chains, num_inputs)`` inclusion probabilities.
        read: ``(num_inputs,)`` whether the pruned network reads the input.
        scale: Units of the target in one unit of the loss's root.
    """
    squared = tested.loss == "squared"
    header = (
        "input",
        "rise of RMSE" if squared else "rise of log loss",
        "+- SE",
        "p",
        f"at FDR {tested.rate:g}",
        "network",
        "inclusion",
    )
    rows = []
    for place in order_of(tested):
        group, p = tested.groups[place], probability[:, place]
        rows.append(
            (
                group.name,
                f"{group.root_rise * scale:.3g}",
                f"{group.root_standard_error * scale:.2g}",
                f"{group.p_value:.2g}",
                str(group.verdict),
                "reads it" if read[place] else "-",
                f"{p.mean():.2f}",
            )
        )
    return aligned(header, rows)


def posterior_lines(
    labels: Sequence[str], probability: Tensor, effect: Interval, *, chain: int
) -> list[str]:
    """Return one line per input on the posterior, the most probable first, under a header.

    Args:
        labels: Names of the inputs.
        probability: ``(num_chains, num_inputs)`` inclusion probabilities.
        effect: Interval of each input's effect over draws and chains.
        chain: Number of the chain that was pruned.
    """
    inclusion = over_chains({"inputs": probability})["inputs"]
    rows = [
        (
            labels[gate],
            f"{inclusion.mean[gate]:.2f}",
            span(inclusion.lowest[gate], inclusion.highest[gate]),
            f"{probability[chain, gate]:.2f}",
            f"{effect.mean[gate]:.2f}",
            span(effect.lower[gate], effect.upper[gate]),
        )
        for gate in np.argsort(-inclusion.mean.numpy(), kind="stable")
    ]
    header = ("posterior of", "inclusion", "over chains", f"chain {chain}", "effect")
    return aligned((*header, f"{effect.probability:.0%} interval"), rows)


def disagreements(tested: HoldoutTest, read: NDArray[np.bool_]) -> list[str]:
    """Return sentences on inputs where the test and the pruned network disagree."""
    unread = [
        group.name
        for group, own in zip(tested.groups, read, strict=True)
        if group.verdict is Verdict.RELEVANT and not own
    ]
    unshown = [
        group.name
        for group, own in zip(tested.groups, read, strict=True)
        if group.verdict is Verdict.NOT_SHOWN and own
    ]
    lines = []
    if unread:
        lines.append(
            f"Relevant by the test, but not read by the pruned network: {', '.join(unread)}."
        )
    if unshown:
        lines.append(
            "Read by the pruned network, but not shown to be relevant (it may be noise that it "
            f"fitted): {', '.join(unshown)}."
        )
    return lines


def order_of(tested: HoldoutTest) -> list[int]:
    """Return the numbers of the groups, small p-values first, then large rises.

    Groups that cannot be told apart have the place of their set.
    """

    def key(place: int) -> tuple[float, float]:
        group = tested.groups[place]
        p = group.p_value
        if group.verdict is Verdict.INSEPARABLE:
            p = _p_together(tested, (group.name, *tested.companions(group.name)))
        return p, -group.loss_rise

    return sorted(range(len(tested.groups)), key=key)


def _p_together(tested: HoldoutTest, names: Sequence[str]) -> float:
    return next(found.p_value for found in tested.sets if set(found.members) == set(names))
