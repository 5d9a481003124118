"""What a comparison asks of a method: a plan for a time, and a run of the plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pyro_relevance.comparison.baselines import BaselineResult
from pyro_relevance.comparison.tasks import Task

__all__ = ["Method", "Plan"]

Plan = dict[str, Any]
"""Numbers of epochs and queries by name; epochs need not be whole.

Where the recipe has a deadline, trainings have shares of the time, and epochs are estimates."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a comparison.

    Args:
        needs: ``"network"``: it starts from the network built by people; ``"space"``: it searches.
        plan: From task, seconds and seed to a plan.
        run: From task, plan and seed to results, by the name of the row. A control that needs what
            the method found has a row of its own.
        about: What it is, for a table.
    """

    needs: Literal["network", "space"]
    plan: Callable[[Task, float, int], Plan]
    run: Callable[[Task, Plan, int], dict[str, BaselineResult]]
    about: str
