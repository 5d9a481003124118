"""How long an epoch takes is measured by a clock that the test sets."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pyro_relevance.comparison import make_task, pace
from pyro_relevance.comparison.baselines import recipe as recipes


class Clock:
    """Seconds that pass when `wait` is called."""

    def __init__(self):
        self.now = 100.0

    def wait(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    fake = SimpleNamespace(perf_counter=lambda: clock.now)
    assert recipes.time is time
    monkeypatch.setattr(recipes, "time", fake)
    return clock


def training(clock, seconds):
    """A training whose step ``i`` takes ``seconds(i)`` and that may be stopped."""

    def train(num_epochs, callbacks):
        (callback,) = callbacks
        for step in range(10_000):
            clock.wait(seconds(step))
            if callback(None):
                return

    return train


@pytest.fixture(scope="module")
def task():
    return make_task("boston")


@pytest.mark.exact
@pytest.mark.parametrize("step", [0.5, 0.021, 0.004])
def test_an_epoch_takes_its_steps_times_the_time_of_one(clock, task, step):
    steps = math.ceil(len(task.data.train[0]) / task.recipe.batch_size)
    found = pace.seconds_per_epoch(task, training(clock, lambda i: step))
    assert found == pytest.approx(steps * step)


@pytest.mark.exact
def test_the_first_slow_steps_do_not_count(clock, task):
    steps = pace.steps_per_epoch(task)
    found = pace.seconds_per_epoch(task, training(clock, lambda i: 3.0 if i < 3 else 0.25))
    assert found == pytest.approx(steps * 0.25)


@pytest.mark.exact
def test_short_steps_are_timed_in_a_run_long_enough_to_be_recorded(clock, task):
    """The faster of two runs counts: a step is recorded only where a run has many of them."""
    steps, lengths = pace.steps_per_epoch(task), []

    def train(num_epochs, callbacks):
        lengths.append(num_epochs * steps)
        training(clock, lambda i: 0.01 if len(lengths) == 1 else 0.002)(num_epochs, callbacks)

    assert pace.seconds_per_epoch(task, train) == pytest.approx(steps * 0.002)
    assert lengths[0] < lengths[1]
    assert lengths[1] >= 2000


@pytest.mark.exact
def test_the_pace_of_a_network_is_that_of_its_training(clock, task):
    """Each forward of the network takes 0.3 seconds, so does each step."""

    class Slow(torch.nn.Linear):
        def forward(self, x):
            clock.wait(0.3)
            return super().forward(x)

    x = task.data.train[0]
    small = replace(task, recipe=replace(task.recipe, batch_size=200))
    found = pace.seconds_of_network(small, Slow(x.shape[1], 1))
    assert found == pytest.approx(0.3 * math.ceil(len(x) / 200))


@pytest.mark.exact
def test_a_budget_is_filled_with_whole_epochs_or_a_share_of_one():
    assert pace.epochs_within(10.0, 3.0) == 3
    assert pace.epochs_within(1.0, 3.0) == 1
    assert pace.epochs_or_share(10.0, 3.0) == 3
    assert pace.epochs_or_share(1.5, 3.0) == 0.5
    assert pace.epochs_or_share(1e-9, 3.0) == 0.02


@pytest.mark.exact
def test_a_budget_is_filled_with_steps(task):
    steps = pace.steps_per_epoch(task)
    assert pace.epochs_in_steps(task, 10.0, 3.0) == round(steps * 10 / 3) / steps
    assert pace.epochs_in_steps(task, 1.0, 3.0) == round(steps / 3) / steps
    assert pace.epochs_in_steps(task, 1e-9, 3.0) == 1 / steps


@pytest.mark.contract
def test_there_must_be_a_step_to_time():
    with pytest.raises(ValueError, match="at least two steps to time one"):
        recipes.StepTimer().per_step()
