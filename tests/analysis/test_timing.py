"""Times of computations in turn."""

from __future__ import annotations

import pytest
import torch

from analysis import timing
from analysis.timing import Rounds, alternate, one_thread


@pytest.mark.exact
def test_computations_alternate_and_times_are_means_of_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, order = [0.0], []

    def spend(name: str, seconds: float) -> None:
        order.append(name)
        clock[0] += seconds

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    rounds = alternate(lambda: spend("a", 0.25), lambda: spend("b", 0.5), num_rounds=2, num_steps=2)
    assert order == ["a", "a", "b", "b"] * 2
    assert rounds.times == ((250.0, 500.0), (250.0, 500.0))
    assert (rounds.slowdown, rounds.speedup) == (2.0, 0.5)


@pytest.mark.exact
def test_ratios_are_medians_over_rounds_and_not_ratios_of_medians() -> None:
    rounds = Rounds(((1.0, 2.0), (2.0, 20.0), (4.0, 12.0)))
    assert (rounds.first_ms, rounds.second_ms) == (2.0, 12.0)
    assert rounds.slowdown == 3.0
    assert rounds.speedup == pytest.approx(1 / 3)


@pytest.mark.contract
def test_the_number_of_threads_is_restored_after_an_error() -> None:
    before, seen = torch.get_num_threads(), []

    @one_thread()
    def fail() -> None:
        seen.append(torch.get_num_threads())
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (seen, torch.get_num_threads()) == ([1], before)
