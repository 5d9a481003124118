"""Methods that start from a network built by people, with a budget of seconds."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable

from torch import nn

from pyro_relevance.comparison.baselines import (
    BaselineResult,
    Configuration,
    configurations,
    dense,
    filter_pruning,
    fit_and_prune,
    gradual_magnitude_pruning,
    lottery_ticket,
    magnitude_pruning,
    random_ticket,
)
from pyro_relevance.comparison.baselines.configurations import fit_configuration
from pyro_relevance.comparison.baselines.filter_pruning import prune_filters, random_channels
from pyro_relevance.comparison.baselines.recipe import seeded_network
from pyro_relevance.comparison.method import Method, Plan
from pyro_relevance.comparison.pace import (
    epochs_in_steps,
    seconds_of_network,
    seconds_per_epoch,
)
from pyro_relevance.comparison.tasks import Task
from pyro_relevance.edges.modules import reinitialise
from pyro_relevance.masks import Mask

__all__ = ["PRUNING", "density_within", "plan_one_training"]

NUM_ROUNDS = 3
NUM_TICKETS = 6
SHARE_OF_UNITS = 0.2


def _network(task: Task) -> Callable[[], nn.Module]:
    assert task.make_network is not None
    return task.make_network


def _one_training(
    make_network: Callable[[Task], Callable[[], nn.Module]],
) -> Callable[[Task, float, int], Plan]:
    """Plans one training of a network for all of the time."""

    def plan(task: Task, seconds: float, seed: int) -> Plan:
        network = seeded_network(make_network(task), seed)
        return {"num_epochs": epochs_in_steps(task, seconds, seconds_of_network(task, network))}

    return plan


plan_one_training = _one_training(_network)
"""Plan of one training of a task's network: from task, seconds and seed."""


def _by_people(
    row: str, make_network: Callable[[Task], Callable[[], nn.Module]], about: str
) -> Method:
    """A network that is trained without pruning."""

    def run(task: Task, plan: Plan, seed: int) -> dict[str, BaselineResult]:
        return {
            row: dense(make_network(task), task.data.train, recipe=task.recipe, seed=seed, **plan)
        }

    return Method("network", _one_training(make_network), run, about)


def _small_network(task: Task) -> Callable[[], nn.Module]:
    assert task.make_small_network is not None
    return task.make_small_network


def _seconds_of_dense(task: Task, seed: int) -> float:
    return seconds_of_network(task, seeded_network(_network(task), seed))


def _plan_magnitude(task: Task, seconds: float, seed: int) -> Plan:
    each = _seconds_of_dense(task, seed)
    return {
        "num_epochs": epochs_in_steps(task, 0.4 * seconds, each),
        "num_epochs_round": epochs_in_steps(task, 0.6 * seconds / NUM_ROUNDS, each),
        "num_rounds": NUM_ROUNDS,
    }


def density_within(task: Task) -> float:
    """Return the share of the weights within the limit on parameters when all biases are kept.

    Args:
        task: The task.
    """
    parameters = list(_network(task)().parameters())
    weights = sum(p.numel() for p in parameters if p.ndim > 1)
    others = sum(p.numel() for p in parameters if p.ndim <= 1)
    return math.floor(task.num_parameters - others) / weights


def _to_the_limit(
    method: Callable[..., BaselineResult], task: Task, plan: Plan, seed: int
) -> BaselineResult:
    """Run a method that removes weights down to the limit on parameters."""
    return method(
        _network(task),
        task.data.train,
        recipe=task.recipe,
        density=density_within(task),
        seed=seed,
        **plan,
    )


def _run_magnitude(task: Task, plan: Plan, seed: int) -> dict[str, BaselineResult]:
    return {"magnitude": _to_the_limit(magnitude_pruning, task, plan, seed)}


def _run_gradual(task: Task, plan: Plan, seed: int) -> dict[str, BaselineResult]:
    return {"gradual-magnitude": _to_the_limit(gradual_magnitude_pruning, task, plan, seed)}


def _plan_tickets(task: Task, seconds: float, seed: int) -> Plan:
    each = _seconds_of_dense(task, seed)
    return {
        "num_epochs": epochs_in_steps(task, seconds / (NUM_TICKETS + 1), each),
        "num_rounds": NUM_TICKETS,
    }


def _run_tickets(task: Task, plan: Plan, seed: int) -> dict[str, BaselineResult]:
    winner = _to_the_limit(lottery_ticket, task, plan, seed)
    assert isinstance(winner.choice, Mask)
    recipe = task.recipe
    if recipe.deadline < math.inf:  # as much time as the last training of the winner
        deadline = time.perf_counter() + winner.history[-1].seconds
        recipe = dataclasses.replace(recipe, deadline=deadline)
    control = random_ticket(
        _network(task),
        task.data.train,
        recipe=recipe,
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


def _uniform_network(task: Task) -> Callable[[], nn.Module]:
    """Makes the network built by people with the same share of each layer's channels."""

    def make() -> nn.Module:
        small, _ = prune_filters(_network(task)(), task.data.train[0][:2], **_limit(task))
        reinitialise(small)
        return small.train()

    return make


def _seconds_of_pruned(task: Task, seed: int) -> float:
    """Seconds of an epoch of a network that is pruned to the limit."""
    return seconds_of_network(task, seeded_network(_uniform_network(task), seed))


def _plan_filters(task: Task, seconds: float, seed: int) -> Plan:
    return {
        "num_epochs": epochs_in_steps(task, 0.4 * seconds, _seconds_of_dense(task, seed)),
        "num_epochs_after": epochs_in_steps(task, 0.6 * seconds, _seconds_of_pruned(task, seed)),
    }


def _run_filters(task: Task, plan: Plan, seed: int) -> dict[str, BaselineResult]:
    result = filter_pruning(
        _network(task), task.data.train, recipe=task.recipe, seed=seed, **plan, **_limit(task)
    )
    return {"filters": result}


def _run_random(task: Task, plan: Plan, seed: int) -> dict[str, BaselineResult]:
    result = random_channels(
        _network(task),
        task.data.train,
        recipe=task.recipe,
        granularity=task.units,
        seed=seed,
        **plan,
        **_limit(task),
    )
    return {"random-channels": result}


def _configuration(task: Task, name: str) -> Configuration:
    if name == "relevance of units":
        return Configuration(
            task.units,
            task.unit_prior,
            noise="per_example",
            gate_learning_rate=0.1,
            initial_log_odds=2.0,
        )
    scale = task.recipe.weight_scale
    return configurations(task.weight_log_odds, units=task.units, weight_scale=scale)[name]


def _share(configuration: Configuration) -> float:
    """Return the share of the time for the posterior, chosen on validation data of MNIST.

    Widths are decided early, and a network of them has to be trained; single weights are not.
    """
    return 0.6 if configuration.granularity == ("weight",) else SHARE_OF_UNITS


def _plan_configuration(name: str) -> Callable[[Task, float, int], Plan]:
    def plan(task: Task, seconds: float, seed: int) -> Plan:
        configuration = _configuration(task, name)
        each = seconds_per_epoch(
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
        of_weights = configuration.granularity == ("weight",)
        each_after = (_seconds_of_dense if of_weights else _seconds_of_pruned)(task, seed)
        share = _share(configuration)
        return {
            "num_epochs": epochs_in_steps(task, share * seconds, each),
            "num_epochs_after": epochs_in_steps(task, (1 - share) * seconds, each_after),
        }

    return plan


def _run_configuration(
    row: str, name: str
) -> Callable[[Task, Plan, int], dict[str, BaselineResult]]:
    def run(task: Task, plan: Plan, seed: int) -> dict[str, BaselineResult]:
        configuration = _configuration(task, name)
        of_weights = configuration.granularity == ("weight",)
        limit = {"num_parameters": task.num_parameters} if of_weights else _limit(task)
        result = fit_and_prune(
            _network(task),
            task.data.train,
            recipe=task.recipe,
            configuration=configuration,
            share=_share(configuration),
            seed=seed,
            **plan,
            **limit,
        )
        return {row: result}

    return run


def _plan_same_widths(task: Task, seconds: float, seed: int) -> Plan:
    return {
        **_plan_configuration("relevance of units")(task, seconds, seed),
        # The widths are given, so that the control has all of the time for its weights.
        "num_epochs_after": epochs_in_steps(task, seconds, _seconds_of_pruned(task, seed)),
    }


def _run_same_widths(task: Task, plan: Plan, seed: int) -> dict[str, BaselineResult]:
    """Find widths by the posterior over units, and train a network of them from the start."""
    started = time.perf_counter()
    found = fit_and_prune(
        _network(task),
        task.data.train,
        recipe=task.recipe,
        configuration=_configuration(task, "relevance of units"),
        num_epochs=plan["num_epochs"],
        num_epochs_after=0,
        seed=seed,
        **_limit(task),
    )

    def make() -> nn.Module:
        small = copy.deepcopy(found.network)
        reinitialise(small)
        return small.train()

    spent = time.perf_counter() - started
    recipe = dataclasses.replace(task.recipe, deadline=task.recipe.deadline + spent)
    control = dense(
        make,
        task.data.train,
        recipe=recipe,
        num_epochs=plan["num_epochs_after"],
        seed=seed,
    )
    given = dataclasses.replace(found.history[0], kind="given", seconds=spent)
    control = dataclasses.replace(control, choice=found.choice, history=(given, *control.history))
    return {"same-widths": control}


def _by_configuration(row: str, name: str, about: str) -> Method:
    return Method("network", _plan_configuration(name), _run_configuration(row, name), about)


PRUNING: dict[str, Method] = {
    "dense": _by_people("dense", _network, "built by people"),
    "small": _by_people("small", _small_network, "built by people, small"),
    "uniform-widths": _by_people(
        "uniform-widths", _uniform_network, "control: the same share of each layer's channels"
    ),
    "same-widths": Method(
        "network",
        _plan_same_widths,
        _run_same_widths,
        "control: the widths of relevance-units, given, and trained from the start",
    ),
    "relevance-weights": _by_configuration(
        "relevance-weights", "relevance of weights", "posterior over single weights"
    ),
    "relevance-units": _by_configuration(
        "relevance-units", "relevance of units", "posterior over inputs, units or channels"
    ),
    "magnitude": Method("network", _plan_magnitude, _run_magnitude, "Han et al. 2015"),
    "gradual-magnitude": Method(
        "network",
        plan_one_training,
        _run_gradual,
        "gradual magnitude pruning in one training (Zhu and Gupta 2017)",
    ),
    "filters": Method("network", _plan_filters, _run_filters, "Li et al. 2017"),
    "random-channels": Method(
        "network", _plan_filters, _run_random, "control: random inputs, units or channels"
    ),
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
    "gaussian-weights": _by_configuration(
        "gaussian-weights", "Gaussian weights", "signal-to-noise ratio of weights; Graves 2011"
    ),
    "gaussian-units": _by_configuration(
        "gaussian-units",
        "Gaussian weights of units",
        "signal-to-noise ratio of inputs, units or channels",
    ),
    "gumbel-no-kl": _by_configuration(
        "gumbel-no-kl", "Gumbel-softmax without KL", "gates without a prior"
    ),
}
"""Methods by name."""
