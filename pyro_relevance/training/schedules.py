"""How temperature, KL weight and learning rate change while a model trains.

Each function returns a schedule: a pure function of the progress in [0, 1] (fraction of the steps
done). Schedules can be compared by their ``repr`` and pickled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

__all__ = [
    "Schedule",
    "Schedules",
    "after",
    "constant",
    "cosine",
    "exponential",
    "linear",
    "part",
    "warmup",
    "within",
]

Schedule = Callable[[float], float]


def constant(value: float) -> Schedule:
    """Return a schedule that never changes.

    Args:
        value: The value, finite.

    Returns:
        Function of the progress in [0, 1].

    Raises:
        ValueError: If the value is not finite.

    Example:
        >>> constant(0.5)(0.3)
        0.5
    """
    _check_finite(value=value)
    return partial(_constant, value=value)


def linear(start: float, end: float) -> Schedule:
    """Return ``start + (end - start) * progress``.

    Args:
        start: Value at progress 0.
        end: Value at progress 1.

    Returns:
        Function of the progress in [0, 1].

    Raises:
        ValueError: If a value is not finite.

    Example:
        >>> linear(1.0, 0.0)(0.25)
        0.75
    """
    _check_finite(start=start, end=end)
    return partial(_linear, start=start, end=end)


def exponential(start: float, end: float) -> Schedule:
    """Return ``start * (end / start) ** progress``: the same factor for every step.

    Args:
        start: Value at progress 0, > 0.
        end: Value at progress 1, > 0.

    Returns:
        Function of the progress in [0, 1].

    Raises:
        ValueError: If a value is not positive and finite.

    Example:
        >>> round(exponential(1.0, 0.01)(0.5), 6)
        0.1
    """
    _check_positive(start=start, end=end)
    return partial(_exponential, start=start, end=end)


def cosine(start: float, end: float) -> Schedule:
    """Return ``end + (start - end) * (1 + cos(pi * progress)) / 2``: flat at both ends.

    Args:
        start: Value at progress 0.
        end: Value at progress 1.

    Returns:
        Function of the progress in [0, 1].

    Raises:
        ValueError: If a value is not finite.

    Example:
        >>> cosine(1.0, 0.0)(0.5)
        0.5
    """
    _check_finite(start=start, end=end)
    return partial(_cosine, start=start, end=end)


def after(fraction: float) -> Schedule:
    """Return a schedule that is 0 at first and 1 from a given progress on.

    Args:
        fraction: That progress, in [0, 1].

    Returns:
        Function of the progress in [0, 1].

    Raises:
        ValueError: If ``fraction`` is outside [0, 1].

    Example:
        >>> schedule = after(0.5)
        >>> schedule(0.25), schedule(0.5)
        (0.0, 1.0)
    """
    if not 0 <= fraction <= 1:
        raise ValueError(
            f"Expected fraction in [0, 1], but got {fraction}. It is a share of the training steps."
        )
    return partial(_after, fraction=fraction)


def warmup(fraction: float, start: float = 1e-3, end: float = 1.0) -> Schedule:
    """Return a line from ``start`` to ``end`` over the first ``fraction`` of steps, then ``end``.

    The default start is small but not 0: Pyro refuses to scale a log density by 0.

    Args:
        fraction: Progress at which ``end`` is reached, in [0, 1]; 0 means ``end`` from the first
            step.
        start: Value at progress 0.
        end: Value from ``fraction`` on.

    Returns:
        Function of the progress in [0, 1].

    Raises:
        ValueError: If ``fraction`` is outside [0, 1] or a value is not finite.

    Example:
        >>> schedule = warmup(0.5, start=0.0, end=2.0)
        >>> schedule(0.25), schedule(0.75)
        (1.0, 2.0)
    """
    if not 0 <= fraction <= 1:
        raise ValueError(
            f"Expected fraction in [0, 1], but got {fraction}. It is a share of the training steps."
        )
    _check_finite(start=start, end=end)
    return partial(_warmup, fraction=fraction, start=start, end=end)


def within(schedule: Schedule, start: float = 0.0, end: float = 1.0) -> Schedule:
    """Return a schedule compressed into a part of the run, and constant before and after.

    Args:
        schedule: The schedule.
        start: Progress at which ``schedule(0)`` is reached.
        end: Progress at which ``schedule(1)`` is reached.

    Returns:
        Function of the progress in [0, 1].

    Raises:
        ValueError: If not 0 <= start < end <= 1.

    Example:
        >>> schedule = within(linear(1.0, 0.0), start=0.5)
        >>> schedule(0.25), schedule(0.75)
        (1.0, 0.5)
    """
    if not 0 <= start < end <= 1:
        raise ValueError(
            f"Expected 0 <= start < end <= 1, but got {start} and {end}. They are shares of "
            "the steps."
        )
    return partial(_within, schedule=schedule, start=start, end=end)


def part(schedule: Schedule, start: float, end: float) -> Schedule:
    """Return a part of a schedule as the schedule of a whole run: the inverse of `within`.

    Args:
        schedule: The schedule.
        start: Its progress at the start of the run.
        end: Its progress at the end of the run.

    Returns:
        Function of the progress in [0, 1].

    Raises:
        ValueError: If not 0 <= start < end <= 1.

    Example:
        >>> schedule = part(linear(1.0, 0.0), start=0.5, end=1.0)
        >>> schedule(0.0), schedule(0.5)
        (0.5, 0.25)
    """
    if not 0 <= start < end <= 1:
        raise ValueError(
            f"Expected 0 <= start < end <= 1, but got {start} and {end}. They are shares of "
            "the schedule."
        )
    return partial(_part, schedule=schedule, start=start, end=end)


@dataclass(frozen=True, slots=True)
class Schedules:
    """The schedules of a fit.

    Args:
        temperature: Temperature of the relaxation, > 0.
        kl_weight: Factor of every KL term, > 0; 1 is the ELBO.
        learning_rate: Factor of every learning rate, >= 0.
        gate_learning_rate: Further factor of the gates' learning rate, >= 0. Zero at the start is a
            warm-up: the weights train under the gates' initial posterior (for operations: with
            equally probable paths) before the structure is trained.

    Raises:
        TypeError: If a schedule cannot be called.
        ValueError: If temperature or KL weight is not positive at the first or the last step, or
            the factor of the learning rate is negative there.
    """

    temperature: Schedule = field(default_factory=lambda: exponential(1.0, 0.1))
    kl_weight: Schedule = field(default_factory=lambda: warmup(0.3))
    learning_rate: Schedule = field(default_factory=lambda: constant(1.0))
    gate_learning_rate: Schedule = field(default_factory=lambda: constant(1.0))

    def __post_init__(self) -> None:
        for name in ("temperature", "kl_weight", "learning_rate", "gate_learning_rate"):
            schedule = getattr(self, name)
            if not callable(schedule):
                raise TypeError(
                    f"Expected {name} to be a function of the progress, but got {schedule!r}. "
                    f"Pass schedules.constant({schedule!r})."
                )
            for progress in (0.0, 1.0):
                value = schedule(progress)
                positive = name in ("temperature", "kl_weight")
                if not math.isfinite(value) or value < 0 or (positive and value == 0):
                    raise ValueError(
                        f"Expected {name} to be finite and {'> 0' if positive else '>= 0'}, but "
                        f"got {value} at progress {progress}. Use a small positive value there."
                    )


def _constant(progress: float, *, value: float) -> float:
    _check_progress(progress)
    return value


def _linear(progress: float, *, start: float, end: float) -> float:
    _check_progress(progress)
    return start * (1 - progress) + end * progress  # exact at both ends


def _exponential(progress: float, *, start: float, end: float) -> float:
    _check_progress(progress)
    return float(start ** (1 - progress) * end**progress)


def _cosine(progress: float, *, start: float, end: float) -> float:
    _check_progress(progress)
    return _linear(0.5 * (1 - math.cos(math.pi * progress)), start=start, end=end)


def _after(progress: float, *, fraction: float) -> float:
    _check_progress(progress)
    return 1.0 if progress >= fraction else 0.0


def _warmup(progress: float, *, fraction: float, start: float, end: float) -> float:
    _check_progress(progress)
    return end if progress >= fraction else _linear(progress / fraction, start=start, end=end)


def _within(progress: float, *, schedule: Schedule, start: float, end: float) -> float:
    _check_progress(progress)
    return schedule(min(1.0, max(0.0, (progress - start) / (end - start))))


def _part(progress: float, *, schedule: Schedule, start: float, end: float) -> float:
    _check_progress(progress)
    return schedule(min(1.0, _linear(progress, start=start, end=end)))


def _check_progress(progress: float) -> None:
    if not 0 <= progress <= 1:
        raise ValueError(f"Expected progress in [0, 1], but got {progress}. Pass step / num_steps.")


def _check_finite(**values: float) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"Expected {name} to be finite, but got {value}. Pass a number.")


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(
                f"Expected {name} to be positive and finite, but got {value}. "
                "An exponential schedule never reaches 0; use linear for that."
            )
