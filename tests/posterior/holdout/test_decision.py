"""Verdicts by hand."""

from __future__ import annotations

import pytest

from pyro_relevance.posterior.holdout.decision import Verdict, decide

RELEVANT, INSEPARABLE, NOT_SHOWN = Verdict.RELEVANT, Verdict.INSEPARABLE, Verdict.NOT_SHOWN


@pytest.mark.exact
@pytest.mark.parametrize(
    ("parts", "expected", "whole"),
    [
        # Two of four trees are relevant: parts are judged at 0.1 * 2 / 4 = 0.05.
        ((0.02, 0.9), [RELEVANT, NOT_SHOWN], RELEVANT),
        ((0.03, 0.04), [RELEVANT, RELEVANT], RELEVANT),
        ((0.03, 0.2), [INSEPARABLE, INSEPARABLE], INSEPARABLE),
        ((1.0, 1.0), [INSEPARABLE, INSEPARABLE], INSEPARABLE),
    ],
)
def test_parts_of_a_relevant_tree(
    parts: tuple[float, float], expected: list[Verdict], whole: Verdict
) -> None:
    p = {(0,): parts[0], (1,): parts[1], (2,): 0.001, (3,): 0.9, (4,): 0.8, (0, 1): 0.002}
    verdicts = decide(p, [(0, 1), 2, 3, 4], 0.1)
    assert [verdicts[(i,)] for i in range(5)] == [*expected, RELEVANT, NOT_SHOWN, NOT_SHOWN]
    assert verdicts[(0, 1)] is whole


@pytest.mark.exact
def test_parts_of_a_tree_that_is_not_relevant_are_not_looked_at() -> None:
    verdicts = decide({(0,): 0.001, (1,): 0.9, (0, 1): 0.2}, [(0, 1)], 0.1)
    assert set(verdicts.values()) == {NOT_SHOWN}


@pytest.mark.exact
def test_a_group_that_stands_alone_is_judged_once() -> None:
    assert set(decide({(0,): 0.09, (1,): 0.04}, [0, 1], 0.1).values()) == {RELEVANT}


@pytest.mark.exact
def test_copies_are_not_lost_beside_a_relative_that_is_relevant_by_itself() -> None:
    # 0 and 1 are copies, 2 is correlated with them; all matter.
    p = {(0,): 1.0, (1,): 1.0, (2,): 0.001, (0, 1): 0.002, (0, 1, 2): 0.001}
    verdicts = decide(p, [((0, 1), 2)], 0.1)
    assert verdicts[(2,)] is RELEVANT
    assert verdicts[(0,)] is verdicts[(1,)] is verdicts[(0, 1)] is INSEPARABLE
    assert verdicts[(0, 1, 2)] is RELEVANT


@pytest.mark.exact
def test_the_level_falls_with_each_family() -> None:
    # One of two trees at 0.1; then one of two parts at 0.05; then at 0.025.
    p = {(3,): 0.9, (0, 1, 2): 0.04, (2,): 0.9, (0, 1): 0.02, (0,): 0.012, (1,): 0.9}
    verdicts = decide(p, [((0, 1), 2), 3], 0.1)
    assert verdicts[(0,)] is RELEVANT
    p[(0,)] = 0.013
    assert decide(p, [((0, 1), 2), 3], 0.1)[(0,)] is INSEPARABLE
