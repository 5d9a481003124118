"""Verdicts by hand."""

from __future__ import annotations

import pytest

from pyro_relevance.posterior.holdout.decision import Verdict, decide

RELEVANT, INSEPARABLE, NOT_SHOWN = Verdict.RELEVANT, Verdict.INSEPARABLE, Verdict.NOT_SHOWN


@pytest.mark.exact
@pytest.mark.parametrize(
    ("members", "expected"),
    [
        # Two of four sets are relevant: members are judged at 0.1 * 2 / 4 = 0.05.
        ((0.02, 0.9), [RELEVANT, NOT_SHOWN]),
        ((0.03, 0.04), [RELEVANT, RELEVANT]),
        ((0.03, 0.2), [INSEPARABLE, INSEPARABLE]),
        ((1.0, 1.0), [INSEPARABLE, INSEPARABLE]),
    ],
)
def test_members_of_a_relevant_set(members: tuple[float, float], expected: list[Verdict]) -> None:
    p = [*members, 0.001, 0.9, 0.8]
    verdicts, relevant = decide(p, [(0, 1), (2,), (3,), (4,)], [0.002, 0.001, 0.9, 0.8], 0.1)
    assert relevant.tolist() == [True, True, False, False]
    assert verdicts == [*expected, RELEVANT, NOT_SHOWN, NOT_SHOWN]


@pytest.mark.exact
def test_members_of_a_set_that_is_not_relevant_are_not_looked_at() -> None:
    verdicts, relevant = decide([0.001, 0.9], [(0, 1)], [0.2], 0.1)
    assert not relevant.any()
    assert verdicts == [NOT_SHOWN, NOT_SHOWN]


@pytest.mark.exact
def test_a_set_of_one_is_judged_once() -> None:
    verdicts, _ = decide([0.09, 0.04], [(0,), (1,)], [0.09, 0.04], 0.1)
    assert verdicts == [RELEVANT, RELEVANT]
