"""Methods of a comparison: what each does with a budget of seconds.

A method first makes a plan: numbers of epochs and of queries, from the time that its steps take on
this machine. Then it runs the plan. The plan is kept, so that a run can be repeated.
"""

from __future__ import annotations

from pyro_relevance.comparison.method import Method, Plan
from pyro_relevance.comparison.pruning import PRUNING
from pyro_relevance.comparison.searching import SEARCHING
from pyro_relevance.comparison.tasks import Task
from pyro_relevance.comparison.to_budget import TO_BUDGET

__all__ = ["METHODS", "Method", "Plan", "methods_of"]

METHODS: dict[str, Method] = {**PRUNING, **TO_BUDGET, **SEARCHING}
"""All methods by the name that the command takes."""


def methods_of(task: Task) -> tuple[str, ...]:
    """Return the names of the methods that a task allows.

    Args:
        task: The task.
    """
    return tuple(
        name
        for name, method in METHODS.items()
        if method.needs == "space" or task.make_network is not None
    )
