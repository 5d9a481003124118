"""Methods that end at the limit within one training (``fit_to_budget``), in the same time."""

from __future__ import annotations

import math
import time

from pyro_relevance.comparison.baselines import BaselineResult, Stage
from pyro_relevance.comparison.baselines.recipe import length, seeded_network
from pyro_relevance.comparison.method import Method, Plan
from pyro_relevance.comparison.pace import epochs_in_steps, seconds_of_network
from pyro_relevance.comparison.tasks import Task
from pyro_relevance.edges.find import find_edges
from pyro_relevance.edges.size import count_cost
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.model.priors import PointWeights
from pyro_relevance.training.budgeted import Budget, BudgetedFit, fit_to_budget
from pyro_relevance.training.budgeted.budget import Score
from pyro_relevance.training.schedules import Schedules

__all__ = ["TO_BUDGET", "train_to_budget"]


def train_to_budget(
    task: Task,
    budget: Budget,
    *,
    granularity: tuple[str, ...],
    num_epochs: float,
    seed: int,
) -> BaselineResult:
    """Train the network of a task to a budget by the recipe of the comparison.

    Args:
        task: The task; its recipe may have a deadline.
        budget: The limit.
        granularity: What is removed.
        num_epochs: Epochs that were planned.
        seed: Seed of everything.
    """
    assert task.make_network is not None
    recipe, started = task.recipe, time.perf_counter()
    network = seeded_network(task.make_network, seed)
    x = task.data.train[0]
    model = RelevanceModel(
        network,
        find_edges(network, example_input=x[:2], granularity=granularity),
        likelihood=recipe.likelihood,
        num_data=len(x),
        gate_prior=None,
        weight_prior=PointWeights(recipe.weight_scale),
    )
    fitted = fit_to_budget(
        model,
        task.data.train,
        budget,
        **length(num_epochs, recipe.deadline),
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        schedules=Schedules(learning_rate=recipe.schedules.learning_rate),
        augment=recipe.augment,
        precision=recipe.precision,
        callbacks=recipe.bars("to the budget"),
        seed=seed,
    )
    spent = time.perf_counter() - started
    return BaselineResult(
        fitted.pruned.network.eval(),
        fitted.likelihood,
        fitted.mask,
        _stages(fitted, spent),
        count_cost(fitted.pruned.network, x[:2]),
    )


def _stages(fitted: BudgetedFit, seconds: float) -> tuple[Stage, ...]:
    """One stage: the parts go over into each other."""
    loss = float(fitted.history.final_loss()[0])
    return (Stage("training to the budget", "training", sum(fitted.num_epochs), seconds, loss),)


def _plan(task: Task, seconds: float, seed: int) -> Plan:
    assert task.make_network is not None
    each = seconds_of_network(task, seeded_network(task.make_network, seed))
    return {"num_epochs": epochs_in_steps(task, seconds, each)}


def _of_weights(row: str, score: Score, about: str) -> Method:
    def run(task: Task, plan: Plan, seed: int) -> dict[str, BaselineResult]:
        budget = Budget(num_parameters=math.floor(task.num_parameters), score=score)
        return {row: train_to_budget(task, budget, granularity=("weight",), seed=seed, **plan)}

    return Method("network", _plan, run, about)


TO_BUDGET: dict[str, Method] = {
    "budget-weights": _of_weights(
        "budget-weights", "saliency", "one training to the budget, single weights by saliency"
    ),
    "budget-weights-magnitude": _of_weights(
        "budget-weights-magnitude", "magnitude", "control: the same, ranked by magnitude"
    ),
}
"""Methods by name."""
