"""Methods that end at the limit within one training (``fit_to_budget``), in the same time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from pyro_relevance.comparison.baselines import BaselineResult, Stage
from pyro_relevance.comparison.baselines.recipe import Recipe, length, seeded_network
from pyro_relevance.comparison.method import Method, Plan
from pyro_relevance.comparison.pruning import plan_one_training
from pyro_relevance.comparison.tasks import Task
from pyro_relevance.edges.find import find_edges
from pyro_relevance.edges.size import count_cost
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.model.priors import PointWeights
from pyro_relevance.training.budgeted import Budget, BudgetedFit, fit_to_budget
from pyro_relevance.training.budgeted.budget import Score
from pyro_relevance.training.schedules import Schedules

__all__ = ["TO_BUDGET", "keywords_of", "train_to_budget", "ungated_model"]


def ungated_model(task: Task, granularity: Sequence[str], seed: int) -> RelevanceModel:
    """Return the model of a task's network without gates.

    Args:
        task: The task.
        granularity: What can be removed.
        seed: Seed of the initial weights.
    """
    assert task.make_network is not None
    network, x = seeded_network(task.make_network, seed), task.data.train[0]
    return RelevanceModel(
        network,
        find_edges(network, example_input=x[:2], granularity=granularity),
        likelihood=task.recipe.likelihood,
        num_data=len(x),
        gate_prior=None,
        weight_prior=PointWeights(task.recipe.weight_scale),
    )


def keywords_of(recipe: Recipe) -> Any:
    """Return the settings of a recipe as keywords of ``fit_to_budget``, but for its length.

    Args:
        recipe: The recipe.
    """
    return {
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "schedules": Schedules(learning_rate=recipe.schedules.learning_rate),
        "augment": recipe.augment,
        "precision": recipe.precision,
    }


def train_to_budget(task: Task, budget: Budget, *, num_epochs: float, seed: int) -> BaselineResult:
    """Remove single weights of a task's network down to a budget, by the recipe of the comparison.

    Args:
        task: The task; its recipe may have a deadline.
        budget: The limit.
        num_epochs: Epochs that were planned.
        seed: Seed of everything.
    """
    recipe, started = task.recipe, time.perf_counter()
    fitted = fit_to_budget(
        ungated_model(task, ("weight",), seed),
        task.data.train,
        budget,
        **length(num_epochs, recipe.deadline),
        callbacks=recipe.bars("to the budget"),
        seed=seed,
        **keywords_of(recipe),
    )
    spent = time.perf_counter() - started
    return BaselineResult(
        fitted.pruned.network.eval(),
        fitted.likelihood,
        fitted.mask,
        _stages(fitted, spent),
        count_cost(fitted.pruned.network, task.data.train[0][:2]),
    )


def _stages(fitted: BudgetedFit, seconds: float) -> tuple[Stage, ...]:
    """One stage: the parts go over into each other."""
    loss = float(fitted.history.final_loss()[0])
    return (Stage("training to the budget", "training", sum(fitted.num_epochs), seconds, loss),)


def _of_weights(row: str, score: Score, about: str) -> Method:
    def run(task: Task, plan: Plan, seed: int) -> dict[str, BaselineResult]:
        budget = Budget(num_parameters=task.num_parameters, score=score)
        return {row: train_to_budget(task, budget, seed=seed, **plan)}

    return Method("network", plan_one_training, run, about)


TO_BUDGET: dict[str, Method] = {
    "budget-weights": _of_weights(
        "budget-weights", "saliency", "one training to the budget, single weights by saliency"
    ),
    "budget-weights-magnitude": _of_weights(
        "budget-weights-magnitude", "magnitude", "control: the same, ranked by magnitude"
    ),
}
"""Methods by name."""
