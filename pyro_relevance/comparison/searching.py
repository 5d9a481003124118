"""Methods that search a space of architectures, with a budget of seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from pyro_relevance._random import seeded
from pyro_relevance.comparison.baselines import (
    BaselineResult,
    DartsSettings,
    Stage,
    darts,
    evolution,
    random_search,
    reinforce,
    search_by_training,
    single_path,
    strongest_operations,
    train_random_architecture,
)
from pyro_relevance.comparison.baselines.darts import Order, search_operations
from pyro_relevance.comparison.baselines.recipe import HEADROOM, SHORTEST, Trained, seeded_network
from pyro_relevance.comparison.baselines.searching import QueryMethod
from pyro_relevance.comparison.baselines.single_path import train_shared
from pyro_relevance.comparison.method import Method, Plan
from pyro_relevance.comparison.pace import (
    epochs_or_share,
    epochs_within,
    number_of_candidates,
    seconds_of_architectures,
    seconds_of_query,
    seconds_per_epoch,
    steps_per_epoch,
)
from pyro_relevance.comparison.tasks import Task
from pyro_relevance.edges.edges import Edges
from pyro_relevance.edges.find import find_edges
from pyro_relevance.graphs import Architecture
from pyro_relevance.graphs.spaces import top_edges
from pyro_relevance.model import guides
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.model.priors import PointWeights
from pyro_relevance.search.structure import SearchSettings, search_structure
from pyro_relevance.training.svi import fit

__all__ = ["SEARCHING"]

NUM_QUERIES, FEWEST_QUERIES = 20, 8


def _plan_darts(order: Order) -> Callable[[Task, float, int], Plan]:
    def plan(task: Task, seconds: float, seed: int) -> Plan:
        recipe, (x, y) = task.recipe, task.data.train
        # Twelve minibatches for the weights and as many for the logits.
        number = min(len(x), 24 * recipe.batch_size)
        network = seeded_network(lambda: task.make_space(False), seed)
        edges = find_edges(network, granularity="operation")
        settings = DartsSettings(order)
        with seeded(seed), torch.enable_grad():
            started = time.perf_counter()
            search_operations(network, edges, (x[:number], y[:number]), recipe, 1, settings)
            spent = time.perf_counter() - started
        per_step = spent / math.ceil(number / 2 / recipe.batch_size)
        each = per_step * steps_per_epoch(task) / 2
        return {
            "num_epochs": epochs_or_share(0.5 * seconds, each),
            "num_epochs_after": epochs_within(0.5 * seconds, seconds_of_architectures(task, seed)),
        }

    return plan


def _darts_rule(task: Task) -> Callable[[Edges, Mapping[str, Tensor]], Architecture]:
    return top_edges if task.cells_of_two_edges else strongest_operations


def _run_darts(order: Order) -> Callable[[Task, Plan, int], dict[str, BaselineResult]]:
    def run(task: Task, plan: Plan, seed: int) -> dict[str, BaselineResult]:
        result = darts(
            task.make_space,
            task.data.train,
            recipe=task.recipe,
            settings=DartsSettings(order),
            rule=_darts_rule(task),
            seed=seed,
            **plan,
        )
        return {f"darts-{order}": result}

    return run


def _seconds_of_paths(task: Task, seed: int) -> float:
    """Seconds of an epoch along uniform single paths."""
    network = seeded_network(lambda: task.make_space(False), seed)
    return seconds_per_epoch(
        task,
        lambda num_epochs, callbacks: train_shared(
            network,
            task.data.train,
            recipe=task.recipe,
            num_epochs=num_epochs,
            callbacks=callbacks,
        ),
    )


def _plan_single_path(task: Task, seconds: float, seed: int) -> Plan:
    return {
        "num_epochs": epochs_within(0.4 * seconds, _seconds_of_paths(task, seed)),
        "num_candidates": number_of_candidates(task, 0.1 * seconds, seed),
        "num_epochs_after": epochs_within(0.5 * seconds, seconds_of_architectures(task, seed)),
    }


def _run_single_path(task: Task, plan: Plan, seed: int) -> dict[str, BaselineResult]:
    result = single_path(task.make_space, task.data.train, recipe=task.recipe, seed=seed, **plan)
    return {"single-path": result}


def _plan_queries(task: Task, seconds: float, seed: int) -> Plan:
    each, beside = seconds_of_architectures(task, seed), seconds_of_query(task, seed)
    least = beside + 0.8 * each  # a fifth of the data is held out
    # In a short time fewer architectures are measured, since all of them would learn nothing.
    number = min(NUM_QUERIES, max(FEWEST_QUERIES, int(0.6 * seconds / least)))
    return {
        "num_queries": number,
        "num_epochs_query": epochs_or_share(0.6 * seconds / number - beside, 0.8 * each),
        "num_epochs_after": epochs_within(0.4 * seconds, each),
    }


def _run_queries(
    row: str, method: QueryMethod
) -> Callable[[Task, Plan, int], dict[str, BaselineResult]]:
    def run(task: Task, plan: Plan, seed: int) -> dict[str, BaselineResult]:
        result = search_by_training(
            method, task.make_space, task.data.train, recipe=task.recipe, seed=seed, **plan
        )
        return {row: result}

    return run


def _plan_random_architecture(task: Task, seconds: float, seed: int) -> Plan:
    return {"num_epochs": epochs_within(seconds, seconds_of_architectures(task, seed))}


def _run_random_architecture(task: Task, plan: Plan, seed: int) -> dict[str, BaselineResult]:
    result = train_random_architecture(
        task.make_space,
        task.data.train,
        recipe=task.recipe,
        rule=top_edges if task.cells_of_two_edges else None,
        seed=seed,
        **plan,
    )
    return {"random-architecture": result}


def _structure_settings(task: Task, plan: Plan, seed: int) -> SearchSettings:
    recipe, plan = task.recipe, dict(plan)
    if recipe.deadline < math.inf:
        plan["max_seconds"] = max(SHORTEST, recipe.deadline - time.perf_counter())
        plan["search_share"] = 0.25 if task.shared else 0.6
        for name in ("num_epochs", "num_epochs_after"):
            plan[name] = math.ceil(HEADROOM * plan[name])
    return SearchSettings(
        shared=task.shared,
        granularity=task.granularity,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        gate_learning_rate=1e-1 if task.shared else 3e-2,
        warm_up=0.75 if task.shared else 0.1,
        gate_prior=task.unit_prior,
        weight_scale=recipe.weight_scale,
        precision=recipe.precision,
        augment=recipe.augment,
        seed=seed,
        **plan,
    )


def _plan_structure(task: Task, seconds: float, seed: int) -> Plan:
    num_candidates = min(30, number_of_candidates(task, 0.1 * seconds, seed))
    if task.shared:
        each = seconds_of_architectures(task, seed)
        # Four finalists, then two of them for twice as long: eight times the first training.
        return {
            "num_epochs": epochs_within(0.25 * seconds, _seconds_of_paths(task, seed)),
            "num_candidates": num_candidates,
            "num_epochs_trial": epochs_or_share(0.2 * seconds / 8, each),
            "num_epochs_after": epochs_within(0.45 * seconds, each),
        }
    network = seeded_network(lambda: task.make_space(False), seed)
    edges = find_edges(
        network,
        granularity=("operation", *task.granularity),
        example_input=task.data.train[0][:2],
    )
    model = RelevanceModel(
        network,
        edges,
        likelihood=task.recipe.likelihood,
        num_data=len(task.data.train[0]),
        gate_prior=task.unit_prior,
        weight_prior=PointWeights(task.recipe.weight_scale),
    )
    each = seconds_per_epoch(
        task,
        lambda num_epochs, callbacks: fit(
            model,
            task.data.train,
            guide=guides.MeanFieldGuide,
            num_epochs=num_epochs,
            batch_size=task.recipe.batch_size,
            augment=task.recipe.augment,
            precision=task.recipe.precision,
            callbacks=callbacks,
            progress=False,
        ),
    )
    return {
        "num_epochs": epochs_within(0.6 * seconds, each),
        "num_candidates": num_candidates,
        "num_epochs_after": epochs_within(0.3 * seconds, seconds_of_architectures(task, seed)),
    }


def _run_structure(task: Task, plan: Plan, seed: int) -> dict[str, BaselineResult]:
    found = search_structure(
        task.make_space,
        task.data.train,
        likelihood=task.recipe.likelihood,
        settings=_structure_settings(task, plan, seed),
        progress=task.recipe.progress,
    )
    names = {"search": "num_epochs", "choice": "num_epochs_trial", "training": "num_epochs_after"}
    history = [
        Stage(
            name,
            "retraining" if name == "training" else "search",
            plan.get(names[name], 0),
            seconds,
        )
        for name, seconds in found.seconds.items()
    ]
    likelihood = found.posterior.likelihood
    trained = Trained(found.network.network, likelihood, float("nan"), 0.0, 0)
    result = BaselineResult.of(trained, found.architecture, history, task.data.train[0][:2])
    return {"structure-posterior": result}


SEARCHING: dict[str, Method] = {
    "structure-posterior": Method(
        "space", _plan_structure, _run_structure, "posterior over architectures"
    ),
    "random-architecture": Method(
        "space", _plan_random_architecture, _run_random_architecture, "control without a search"
    ),
    "random-search": Method(
        "space", _plan_queries, _run_queries("random-search", random_search), "control"
    ),
    "evolution": Method(
        "space",
        _plan_queries,
        _run_queries("evolution", partial(evolution, population_size=8, tournament_size=4)),
        "Real et al. 2017, 2019",
    ),
    "reinforce": Method(
        "space", _plan_queries, _run_queries("reinforce", reinforce), "Zoph and Le 2017"
    ),
    "single-path": Method("space", _plan_single_path, _run_single_path, "control"),
    "darts-first": Method(
        "space", _plan_darts("first"), _run_darts("first"), "Liu et al. 2019, first order"
    ),
    "darts-second": Method(
        "space", _plan_darts("second"), _run_darts("second"), "Liu et al. 2019, second order"
    ),
}
"""Methods by name."""
