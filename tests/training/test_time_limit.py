"""Runs that end when their time is over, by a clock that the test sets."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

import pyro_relevance as pr
from pyro_relevance.training import run as runs
from pyro_relevance.training.schedules import Schedules, cosine, linear
from pyro_relevance.training.settings import FitSettings, Optimisation
from tests.small_fits import quick_fit, same


class Clock:
    """Seconds that pass after each step, as a callback."""

    def __init__(self, seconds):
        self.now, self.seconds = 50.0, seconds
        self.states = []

    def __call__(self, state):
        self.states.append(state)

    def wait(self):
        self.now += self.seconds


@pytest.fixture
def clock(monkeypatch):
    """A step takes a quarter of a second."""
    clock = Clock(0.25)
    take_step = runs.TrainingRun.take_step

    def timed(run):
        losses = take_step(run)
        clock.wait()
        return losses

    monkeypatch.setattr(runs, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(runs.TrainingRun, "take_step", timed)
    return clock


@pytest.mark.exact
def test_a_run_ends_with_its_time_and_so_do_its_schedules(clock):
    """Three steps in an epoch, so that 300 are planned; the time is enough for 40."""
    asked, falling = [], cosine(1.0, 0.0)

    def noted(progress):
        asked.append(progress)
        return falling(progress)

    schedules = Schedules(learning_rate=noted, temperature=linear(1.0, 0.5))
    asked.clear()
    fitted = quick_fit(
        num_epochs=100, max_seconds=10.0, schedules=schedules, callbacks=[clock], replay=False
    )
    assert fitted.num_steps == 40
    assert fitted.seconds == 10.0
    assert asked[-40:] == pytest.approx([step / 40 for step in range(40)])
    assert [state.progress for state in clock.states] == pytest.approx(np.arange(1, 41) / 40)
    assert [state.is_last for state in clock.states] == [False] * 39 + [True]
    assert fitted.history.step[-1] == 40
    assert clock.states[-1].temperature == pytest.approx(1 - 0.5 * 39 / 40)


@pytest.mark.exact
def test_a_run_that_is_fast_enough_ends_with_its_steps(clock):
    limited = quick_fit(num_epochs=4, max_seconds=100.0, callbacks=[clock])
    assert limited.num_steps == 12
    assert [state.is_last for state in clock.states] == [False] * 11 + [True]
    free = quick_fit(num_epochs=4)
    assert same(limited.posterior.state, free.posterior.state)


@pytest.mark.exact
def test_one_step_is_taken_however_short_the_time(clock):
    assert quick_fit(num_epochs=4, max_seconds=1e-9).num_steps == 1


@pytest.mark.exact
def test_time_goes_on_where_a_run_was_killed(clock, tmp_path):
    where = pr.Checkpoint(tmp_path / "run", interval=0.0)

    def killed(state):
        if state.step == 30:
            raise KeyboardInterrupt

    settings = {"num_epochs": 100, "max_seconds": 10.0, "checkpoint": where}
    with pytest.raises(KeyboardInterrupt):
        quick_fit(callbacks=[killed], **settings)
    clock.now += 1000.0
    resumed = quick_fit(callbacks=[clock], **settings)
    first = clock.states[0]
    assert 1 < first.step <= 30
    assert first.progress == pytest.approx(first.step / 40)
    assert resumed.num_steps == 40
    assert resumed.seconds == 10.0


@pytest.mark.exact
def test_what_is_called_after_the_last_step_is_called_after_that(clock):
    steps = []
    every = pr.callbacks.every(100, lambda state: steps.append(state.step))
    quick_fit(num_epochs=100, max_seconds=10.0, callbacks=[every])
    assert steps == [40]


@pytest.mark.exact
@pytest.mark.parametrize(("num_epochs", "steps"), [(2.5, 8), (1 / 3, 1), (1e-6, 1), (4, 12)])
def test_a_run_may_be_a_share_of_an_epoch(num_epochs, steps):
    assert quick_fit(num_epochs=num_epochs).num_steps == steps


@pytest.mark.exact
def test_a_time_without_a_limit_is_no_part_of_a_fingerprint():
    free, limited = (
        FitSettings(Optimisation(max_seconds=seconds)).identity() for seconds in (math.inf, 2.0)
    )
    assert limited == {**free, "max_seconds": 2.0}
