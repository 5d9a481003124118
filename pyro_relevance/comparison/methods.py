"""Methods of a comparison: what each does with a budget of seconds.

A method first makes a plan, numbers of passes and of queries, from the time that its steps take on
this machine; then it runs the plan. The plan is kept, so that a run can be repeated.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from pyro_relevance import guides
from pyro_relevance.baselines import (
    BaselineResult,
    Configuration,
    DartsSettings,
    Stage,
    configurations,
    darts,
    dense,
    evolution,
    filter_pruning,
    fit_and_cut,
    lottery_ticket,
    magnitude_pruning,
    random_search,
    random_ticket,
    reinforce,
    search_by_training,
    single_path,
    strongest_operations,
)
from pyro_relevance.baselines.configurations import fit_configuration
from pyro_relevance.baselines.darts import Order, search_operations
from pyro_relevance.baselines.filter_pruning import prune_filters
from pyro_relevance.baselines.random_search import random_architecture
from pyro_relevance.baselines.recipe import StepTimer, Trained, fresh
from pyro_relevance.baselines.searching import QueryMethod, train_plain_architecture
from pyro_relevance.baselines.single_path import train_shared
from pyro_relevance.callbacks import Callback
from pyro_relevance.comparison.tasks import Task
from pyro_relevance.derivation import derive
from pyro_relevance.edge_set import Edges
from pyro_relevance.edges import find_edges
from pyro_relevance.evaluation import mean_log_likelihood
from pyro_relevance.graphs import Architecture, is_connected
from pyro_relevance.graphs.spaces import top_edges
from pyro_relevance.masks import Mask
from pyro_relevance.model import RelevanceModel
from pyro_relevance.priors import PointWeights
from pyro_relevance.random_state import seeded
from pyro_relevance.structure_search import SearchSettings, search_structure
from pyro_relevance.svi import fit

__all__ = ["METHODS", "Method", "Plan", "methods_of"]

Plan = dict[str, int]
"""Numbers of passes and queries by name."""

NUM_ROUNDS = 3
NUM_TICKETS = 6
NUM_QUERIES, FEWEST_QUERIES = 20, 8
NUM_CANDIDATES = 100


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a comparison.

    Args:
        needs: ``"network"``: it starts from the network built by people; ``"space"``: it searches.
        plan: From task, seconds and seed to a plan.
        run: From task, plan and seed to results, by the name of the row; a control that needs what
            the method found has a row of its own.
        about: What it is, for a table.
    """

    needs: Literal["network", "space"]
    plan: Callable[[Task, float, int], Plan]
    run: Callable[[Task, Plan, int], dict[str, BaselineResult]]
    about: str


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


# How long a pass over the data takes.


def _seconds_per_epoch(task: Task, train: Callable[[int, list[Callback]], object]) -> float:
    """Time some steps of a training that takes a number of passes and callbacks."""
    timer = StepTimer()
    steps = _steps_per_epoch(task)
    train(math.ceil((timer.most + 1) / steps), [timer])
    return timer.per_step() * steps


def _steps_per_epoch(task: Task) -> int:
    return math.ceil(len(task.data.train[0]) / task.recipe.batch_size)


def _of_network(task: Task, network: nn.Module) -> float:
    return _seconds_per_epoch(
        task,
        lambda num_epochs, callbacks: task.recipe.train(
            network, task.data.train, num_epochs=num_epochs, callbacks=callbacks
        ),
    )


def _architectures(task: Task, number: int, seed: int) -> list[Architecture]:
    """Random architectures with a path from input to output."""
    generator, relaxed = np.random.default_rng(seed), task.make_space(True)
    edges = find_edges(relaxed, granularity="operation")
    found: list[Architecture] = []
    while len(found) < number:
        architecture = random_architecture(edges, generator)
        if is_connected(relaxed, architecture):
            found.append(architecture)
    return found


def _of_architectures(task: Task, seed: int) -> float:
    """Mean time of two random architectures."""
    relaxed, times = task.make_space(True), []
    for architecture in _architectures(task, 2, seed):
        with seeded(seed):
            small = derive(
                relaxed, architecture, example_input=task.data.train[0][:2], weights="fresh"
            )
        times.append(_of_network(task, small.network.train()))
    return sum(times) / len(times)


def _of_a_query(task: Task, seed: int) -> float:
    """Time of a query with a few steps: what each costs beside its passes."""
    (architecture,) = _architectures(task, 1, seed)
    (x, y), number = task.data.train, task.recipe.batch_size
    started = time.perf_counter()
    train_plain_architecture(
        task.make_space,
        architecture,
        (x[:number], y[:number]),
        recipe=task.recipe,
        num_epochs=6,  # steps; their operators are recorded in the first ones
        name="query",
        seed=seed,
    )
    return time.perf_counter() - started


def _candidates(task: Task, seconds: float, seed: int) -> int:
    """Number of architectures that can be compared on a tenth of the data by shared weights."""
    network = fresh(lambda: task.make_space(False), seed).eval()
    x, y = task.data.train
    number = min(500, len(x))
    started = time.perf_counter()
    mean_log_likelihood(network, task.recipe.likelihood, (x[:number], y[:number]))
    # The relaxed network computes all operations, a candidate some of them: this is on the safe
    # side.
    each = (time.perf_counter() - started) * 0.1 * len(x) / number
    return max(2, min(NUM_CANDIDATES, int(seconds / each)))


def _passes(seconds: float, per_epoch: float) -> int:
    return max(1, int(seconds / per_epoch))


# Methods that cut a network.


def _network(task: Task) -> Callable[[], nn.Module]:
    assert task.make_network is not None
    return task.make_network


def _plan_dense(task: Task, seconds: float, seed: int) -> Plan:
    return {"num_epochs": _passes(seconds, _of_network(task, fresh(_network(task), seed)))}


def _run_dense(task: Task, plan: Plan, seed: int) -> dict[str, BaselineResult]:
    return {"dense": dense(_network(task), task.data.train, recipe=task.recipe, seed=seed, **plan)}


def _plan_small(task: Task, seconds: float, seed: int) -> Plan:
    assert task.make_small_network is not None
    return {"num_epochs": _passes(seconds, _of_network(task, fresh(task.make_small_network, seed)))}


def _run_small(task: Task, plan: Plan, seed: int) -> dict[str, BaselineResult]:
    assert task.make_small_network is not None
    result = dense(task.make_small_network, task.data.train, recipe=task.recipe, seed=seed, **plan)
    return {"small": result}


def _plan_magnitude(task: Task, seconds: float, seed: int) -> Plan:
    each = _of_network(task, fresh(_network(task), seed))
    return {
        "num_epochs": _passes(0.4 * seconds, each),
        "num_epochs_round": _passes(0.6 * seconds / NUM_ROUNDS, each),
        "num_rounds": NUM_ROUNDS,
    }


def _density(task: Task) -> float:
    """Share of the weights that the limit on parameters leaves when all biases are kept."""
    parameters = list(_network(task)().parameters())
    weights = sum(p.numel() for p in parameters if p.ndim > 1)
    others = sum(p.numel() for p in parameters if p.ndim <= 1)
    return math.floor(task.num_parameters - others) / weights


def _run_magnitude(task: Task, plan: Plan, seed: int) -> dict[str, BaselineResult]:
    result = magnitude_pruning(
        _network(task),
        task.data.train,
        recipe=task.recipe,
        density=_density(task),
        seed=seed,
        **plan,
    )
    return {"magnitude": result}


def _plan_tickets(task: Task, seconds: float, seed: int) -> Plan:
    each = _of_network(task, fresh(_network(task), seed))
    return {
        "num_epochs": _passes(seconds / (NUM_TICKETS + 1), each),
        "num_rounds": NUM_TICKETS,
    }


def _run_tickets(task: Task, plan: Plan, seed: int) -> dict[str, BaselineResult]:
    winner = lottery_ticket(
        _network(task),
        task.data.train,
        recipe=task.recipe,
        density=_density(task),
        seed=seed,
        **plan,
    )
    assert isinstance(winner.choice, Mask)
    control = random_ticket(
        _network(task),
        task.data.train,
        recipe=task.recipe,
        mask=winner.choice,
        num_epochs=plan["num_epochs"],
        seed=seed,
    )
    # The control trains once what the winner found: it has the winner's costs before that.
    before = [dataclasses.replace(s, kind="search") for s in winner.history[:-1]]
    control = dataclasses.replace(control, history=(*before, *control.history))
    return {"lottery-ticket": winner, "random-ticket": control}


def _limit(task: Task) -> dict[str, int]:
    if task.num_macs is None:
        return {"num_parameters": task.num_parameters}
    return {"num_macs": task.num_macs}


def _plan_filters(task: Task, seconds: float, seed: int) -> Plan:
    network = fresh(_network(task), seed)
    small, _ = prune_filters(network, task.data.train[0][:2], **_limit(task))
    return {
        "num_epochs": _passes(0.4 * seconds, _of_network(task, network)),
        "num_epochs_after": _passes(0.6 * seconds, _of_network(task, small)),
    }


def _run_filters(task: Task, plan: Plan, seed: int) -> dict[str, BaselineResult]:
    result = filter_pruning(
        _network(task), task.data.train, recipe=task.recipe, seed=seed, **plan, **_limit(task)
    )
    return {"filters": result}


def _configuration(task: Task, name: str) -> Configuration:
    if name == "relevance of units":
        return Configuration(
            task.units,
            task.unit_prior,
            noise="per_example",
            gate_learning_rate=0.1,
            initial_log_odds=2.0,
        )
    return configurations(task.weight_log_odds, units=task.units)[name]


def _plan_configuration(name: str) -> Callable[[Task, float, int], Plan]:
    def plan(task: Task, seconds: float, seed: int) -> Plan:
        configuration = _configuration(task, name)
        each = _seconds_per_epoch(
            task,
            lambda num_epochs, callbacks: fit_configuration(
                _network(task),
                task.data.train,
                recipe=task.recipe,
                configuration=configuration,
                num_epochs=num_epochs,
                callbacks=callbacks,
                seed=seed,
            ),
        )
        if configuration.granularity == ("weight",):
            small = fresh(_network(task), seed)
        else:
            limit = _limit(task)
            small, _ = prune_filters(fresh(_network(task), seed), task.data.train[0][:2], **limit)
        return {
            "num_epochs": _passes(0.6 * seconds, each),
            "num_epochs_after": _passes(0.4 * seconds, _of_network(task, small)),
        }

    return plan


def _run_configuration(
    row: str, name: str
) -> Callable[[Task, Plan, int], dict[str, BaselineResult]]:
    def run(task: Task, plan: Plan, seed: int) -> dict[str, BaselineResult]:
        configuration = _configuration(task, name)
        of_weights = configuration.granularity == ("weight",)
        limit = {"num_parameters": task.num_parameters} if of_weights else _limit(task)
        result = fit_and_cut(
            _network(task),
            task.data.train,
            recipe=task.recipe,
            configuration=configuration,
            seed=seed,
            **plan,
            **limit,
        )
        return {row: result}

    return run


def _by_configuration(row: str, name: str, about: str) -> Method:
    return Method("network", _plan_configuration(name), _run_configuration(row, name), about)


# Methods that search a space.


def _plan_darts(order: Order) -> Callable[[Task, float, int], Plan]:
    def plan(task: Task, seconds: float, seed: int) -> Plan:
        recipe, (x, y) = task.recipe, task.data.train
        # Twelve minibatches for the weights and as many for the logits.
        number = min(len(x), 24 * recipe.batch_size)
        network = fresh(lambda: task.make_space(False), seed)
        edges = find_edges(network, granularity="operation")
        settings = DartsSettings(order)
        with seeded(seed), torch.enable_grad():
            started = time.perf_counter()
            search_operations(network, edges, (x[:number], y[:number]), recipe, 1, settings)
            spent = time.perf_counter() - started
        per_step = spent / math.ceil(number / 2 / recipe.batch_size)
        each = per_step * _steps_per_epoch(task) / 2
        return {
            "num_epochs": _passes(0.5 * seconds, each),
            "num_epochs_after": _passes(0.5 * seconds, _of_architectures(task, seed)),
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


def _plan_single_path(task: Task, seconds: float, seed: int) -> Plan:
    network = fresh(lambda: task.make_space(False), seed)
    each = _seconds_per_epoch(
        task,
        lambda num_epochs, callbacks: train_shared(
            network,
            task.data.train,
            recipe=task.recipe,
            num_epochs=num_epochs,
            callbacks=callbacks,
        ),
    )
    return {
        "num_epochs": _passes(0.4 * seconds, each),
        "num_candidates": _candidates(task, 0.1 * seconds, seed),
        "num_epochs_after": _passes(0.5 * seconds, _of_architectures(task, seed)),
    }


def _run_single_path(task: Task, plan: Plan, seed: int) -> dict[str, BaselineResult]:
    result = single_path(task.make_space, task.data.train, recipe=task.recipe, seed=seed, **plan)
    return {"single-path": result}


def _plan_queries(task: Task, seconds: float, seed: int) -> Plan:
    each, beside = _of_architectures(task, seed), _of_a_query(task, seed)
    least = beside + 0.8 * each  # a fifth of the data is held out
    # Short of time, fewer architectures are measured rather than all of them for nothing.
    number = min(NUM_QUERIES, max(FEWEST_QUERIES, int(0.6 * seconds / least)))
    return {
        "num_queries": number,
        "num_epochs_query": _passes(0.6 * seconds / number - beside, 0.8 * each),
        "num_epochs_after": _passes(0.4 * seconds, each),
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


def _structure_settings(task: Task, plan: Mapping[str, int], seed: int) -> SearchSettings:
    recipe = task.recipe
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
        **plan,  # type: ignore[arg-type]
    )


def _plan_structure(task: Task, seconds: float, seed: int) -> Plan:
    network = fresh(lambda: task.make_space(False), seed)
    if task.shared:
        plan = _plan_single_path(task, seconds, seed)
        each = _of_architectures(task, seed)
        # Four finalists, then two of them for twice as long: eight times the first training.
        return {
            "num_epochs": plan["num_epochs"],
            "num_candidates": min(30, plan["num_candidates"]),
            "num_epochs_trial": _passes(0.2 * seconds / 8, each),
            "num_epochs_after": _passes(0.3 * seconds, each),
        }
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
    each = _seconds_per_epoch(
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
        ),
    )
    return {
        "num_epochs": _passes(0.6 * seconds, each),
        "num_candidates": min(30, _candidates(task, 0.1 * seconds, seed)),
        "num_epochs_after": _passes(0.3 * seconds, _of_architectures(task, seed)),
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
    trained = Trained(found.network.network, likelihood, float("nan"), 0.0)
    result = BaselineResult.of(trained, found.architecture, history, task.data.train[0][:2])
    return {"structure-posterior": result}


METHODS: dict[str, Method] = {
    "dense": Method("network", _plan_dense, _run_dense, "built by people"),
    "small": Method("network", _plan_small, _run_small, "built by people, small"),
    "relevance-weights": _by_configuration(
        "relevance-weights", "relevance of weights", "posterior over single weights"
    ),
    "relevance-units": _by_configuration(
        "relevance-units", "relevance of units", "posterior over inputs, units or channels"
    ),
    "magnitude": Method("network", _plan_magnitude, _run_magnitude, "Han et al. 2015"),
    "filters": Method("network", _plan_filters, _run_filters, "Li et al. 2017"),
    "lottery-ticket": Method(
        "network", _plan_tickets, _run_tickets, "Frankle and Carbin 2019, with its control"
    ),
    "sparse-vd": _by_configuration(
        "sparse-vd", "sparse variational dropout", "Molchanov et al. 2017"
    ),
    "hard-concrete-l0": _by_configuration(
        "hard-concrete-l0", "hard concrete L0", "Louizos et al. 2018"
    ),
    "normal-jeffreys": _by_configuration(
        "normal-jeffreys", "group normal-Jeffreys", "Louizos et al. 2017"
    ),
    "gumbel-no-kl": _by_configuration(
        "gumbel-no-kl", "Gumbel-softmax without KL", "gates without a prior"
    ),
    "structure-posterior": Method(
        "space", _plan_structure, _run_structure, "posterior over architectures"
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
"""All methods by the name that the command takes."""
