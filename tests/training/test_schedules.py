"""Schedules: values at both ends, shape between, errors."""

from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyro_relevance import schedules
from pyro_relevance.training.schedules import Schedules

FUNCTIONS = [schedules.linear, schedules.exponential, schedules.cosine]
positive = st.floats(1e-3, 1e3)
progress = st.floats(0, 1)


@pytest.mark.property
@pytest.mark.parametrize("function", FUNCTIONS)
@given(start=positive, end=positive, first=progress, second=progress)
def test_monotone_from_start_to_end(function, start, end, first, second):
    schedule = function(start, end)
    assert schedule(0.0) == pytest.approx(start)
    assert schedule(1.0) == pytest.approx(end)
    low, high = sorted((schedule(0.0), schedule(1.0)))
    slack = 1e-9 * high
    assert low - slack <= schedule(first) <= high + slack
    early, late = sorted((first, second))
    if start <= end:
        assert schedule(early) <= schedule(late) + slack
    else:
        assert schedule(early) >= schedule(late) - slack


@pytest.mark.exact
def test_values_between():
    assert schedules.linear(1.0, 3.0)(0.25) == pytest.approx(1.5)
    assert schedules.exponential(1.0, 0.1)(0.5) == pytest.approx(math.sqrt(0.1))
    assert schedules.cosine(2.0, 0.0)(1 / 3) == pytest.approx(1.5)
    assert schedules.constant(4.0)(0.9) == 4.0
    warmup = schedules.warmup(0.3)
    assert warmup(0.0) == pytest.approx(1e-3)
    assert warmup(0.15) == pytest.approx(0.5005)
    assert warmup(0.3) == warmup(1.0) == 1.0
    assert schedules.warmup(0.0)(0.0) == 1.0
    assert schedules.warmup(1.0, start=2.0, end=4.0)(0.75) == 3.5


@pytest.mark.exact
def test_a_step_from_zero_to_one():
    schedule = schedules.after(0.25)
    assert [schedule(p) for p in (0.0, 0.24, 0.25, 1.0)] == [0.0, 0.0, 1.0, 1.0]
    assert schedules.after(0.0)(0.0) == 1.0
    assert [schedules.after(1.0)(p) for p in (0.99, 1.0)] == [0.0, 1.0]


@pytest.mark.exact
def test_a_course_between_two_moments():
    line = schedules.linear(3.0, 5.0)
    inner = schedules.within(line, 0.2, 0.6)
    assert [inner(p) for p in (0.0, 0.2, 0.6, 1.0)] == pytest.approx([3.0, 3.0, 5.0, 5.0])
    assert inner(0.3) == pytest.approx(3.5)
    whole = schedules.within(line)
    for p in (0.0, 0.3, 1.0):
        assert whole(p) == pytest.approx(line(p))
    assert schedules.within(line, start=0.5)(0.75) == pytest.approx(4.0)
    assert schedules.within(line, end=0.5)(0.25) == pytest.approx(4.0)


@pytest.mark.contract
@pytest.mark.parametrize("make", FUNCTIONS)
def test_the_ends_of_the_progress_are_allowed_and_nothing_beyond(make):
    line = make(1.0, 2.0)
    for schedule in (line, schedules.within(line, 0.2, 0.6), schedules.after(0.5)):
        assert schedule(0.0) < schedule(1.0)
        for outside in (-1e-9, -1.0, 1 + 1e-9, 2.0, math.nan):
            with pytest.raises(ValueError, match="Pass step / num_steps"):
                schedule(outside)


@pytest.mark.exact
def test_defaults():
    default = Schedules()
    assert default.temperature(0.0) == 1.0
    assert default.temperature(1.0) == pytest.approx(0.1)
    assert default.kl_weight(0.3) == 1.0
    assert default.kl_weight(0.0) == pytest.approx(1e-3)
    assert default.learning_rate(0.7) == 1.0
    assert default.gate_learning_rate(0.7) == 1.0
    assert pickle.loads(pickle.dumps(default)).temperature(0.5) == default.temperature(0.5)
    assert repr(Schedules()) == repr(default)
    with pytest.raises(AttributeError):
        default.temperature = schedules.constant(1.0)


@pytest.mark.contract
@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: schedules.exponential(1.0, 0.0), "Expected end to be positive and finite"),
        (lambda: schedules.exponential(math.inf, 1.0), "Expected start .* but got inf"),
        (lambda: schedules.linear(math.nan, 1.0), "Expected start to be finite, but got nan"),
        (lambda: schedules.cosine(1.0, math.inf), "Expected end to be finite"),
        (lambda: schedules.constant(math.inf), "Expected value to be finite"),
        (lambda: schedules.exponential(-1.0, 1.0), "Expected start to be positive"),
        (lambda: schedules.warmup(1.5), r"Expected fraction in \[0, 1\], but got 1.5"),
        (lambda: schedules.warmup(-0.5), r"Expected fraction in \[0, 1\], but got -0.5"),
        (lambda: schedules.after(1.5), r"Expected fraction in \[0, 1\], but got 1.5"),
        (lambda: schedules.after(-0.5), r"Expected fraction in \[0, 1\], but got -0.5"),
        (lambda: schedules.within(schedules.constant(1.0), -0.1), "got -0.1 and 1.0"),
        (lambda: schedules.within(schedules.constant(1.0), 0.5, 0.5), "got 0.5 and 0.5"),
        (lambda: schedules.within(schedules.constant(1.0), 0.5, 0.2), "got 0.5 and 0.2"),
        (lambda: schedules.within(schedules.constant(1.0), 0.5, 1.1), "got 0.5 and 1.1"),
        (lambda: schedules.warmup(0.5, start=math.nan), "Expected start to be finite"),
        (lambda: schedules.constant(1.0)(1.1), r"Expected progress in \[0, 1\], but got 1.1"),
        (lambda: schedules.cosine(1.0, 2.0)(-0.1), "Pass step / num_steps"),
        (lambda: Schedules(temperature=schedules.linear(1.0, 0.0)), "Expected temperature .* > 0"),
        (lambda: Schedules(kl_weight=schedules.warmup(0.5, start=0.0)), "Expected kl_weight"),
        (lambda: Schedules(kl_weight=schedules.constant(-1.0)), "got -1.0 at progress 0.0"),
        (lambda: Schedules(learning_rate=schedules.constant(-1.0)), "Expected learning_rate"),
        (lambda: Schedules(learning_rate=schedules.linear(1.0, -0.5)), "got -0.5 at progress 1.0"),
        (lambda: Schedules(gate_learning_rate=schedules.linear(-0.5, 1.0)), "at progress 0.0"),
        (lambda: Schedules(temperature=lambda p: math.inf if p else 1.0), "got inf at progress 1"),
        (lambda: Schedules(learning_rate=lambda p: math.nan), "learning_rate to be .* got nan"),
    ],
)
def test_errors(call, text):
    with pytest.raises(ValueError, match=text):
        call()


@pytest.mark.contract
def test_learning_rates_may_be_zero():
    rest = Schedules(schedules.constant(1.0), schedules.constant(1.0), schedules.linear(1.0, 0.0))
    assert rest.learning_rate(1.0) == 0.0
    assert Schedules(gate_learning_rate=schedules.after(0.3)).gate_learning_rate(0.0) == 0.0


@pytest.mark.contract
def test_a_number_is_not_a_schedule():
    with pytest.raises(TypeError, match=r"Pass schedules.constant\(0.5\)"):
        Schedules(temperature=0.5)
