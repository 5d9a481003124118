"""Training to a budget on MNIST: is the limit met, and what does a whole front cost?

Three parts. "hit": LeNet-300-100 is trained to limits on parameters, multiply-accumulates and
bytes, by single weights and by inputs and units; the record has the limit and what the pruned
network has, counted anew. "front": eight networks from one training (``fit_front``) in 1.5 times
the time of one, beside eight separate trainings (``fit_to_budget``) of that time each, and beside
gradual magnitude pruning. The hypervolume is the area, in the plane of the logarithm of the size
and the share of test images that are right, below the front (the reference is the dense size and
90 %).
"coverage": on Boston, a fifth of the training rows is held out, and the test loss and error of the
network of 200 parameters are looked for in the 90 % intervals that `loss_interval` states before.

    python -m analysis.run_budget --root DATA

Networks of "hit" are not evaluated. Settings are those of ``compare``; the test images are looked
at once, when a network is finished.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pyro_relevance as pr
from analysis.command import Command
from analysis.image_split import percent_wrong
from analysis.parts import Parts
from analysis.records import row, write_record
from pyro_relevance.comparison.baselines import gradual_magnitude_pruning
from pyro_relevance.comparison.pruning import density_within
from pyro_relevance.comparison.tasks import Task, make_task
from pyro_relevance.comparison.to_budget import keywords_of, ungated_model
from pyro_relevance.edges.size import count_cost
from pyro_relevance.posterior.intervals import losses_and_errors, root_if_squared

HITS: dict[str, tuple[tuple[str, ...], dict[str, int]]] = {
    "weights, parameters": (("weight",), {"num_parameters": 20_000}),
    "weights, bytes": (("weight",), {"num_bytes": 400_000}),
    "weights, MACs": (("weight",), {"num_macs": 100_000}),
    "inputs and units, parameters": (("input", "unit"), {"num_parameters": 20_000}),
    "inputs and units, MACs": (("input", "unit"), {"num_macs": 50_000}),
    "inputs and units, bytes": (("input", "unit"), {"num_bytes": 200_000}),
}
"""Name -> what is removed, and the limit."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the experiment does.

    Args:
        num_seeds: Seeds of each part.
        seconds: Time of one training of the front.
        share: Time of the front of one training, as a multiple of that.
        sizes: Limits of the front, in parameters that are not zero.
        num_epochs: Epochs of a training to a limit that is checked.
        num_data: Training images, at most.
        worst: Error in percent of the reference point of the hypervolume.
        num_splits: Splits of Boston on which intervals are looked at.
        num_epochs_boston: Epochs of these trainings.
    """

    num_seeds: int = 5
    seconds: float = 15.0
    share: float = 1.5
    sizes: tuple[int, ...] = (40_000, 20_000, 10_000, 7_000, 5_000, 3_500, 2_500, 1_800)
    num_epochs: float = 1.0
    num_data: int | None = None
    worst: float = 10.0
    num_splits: int = 20
    num_epochs_boston: float = 500.0


def hit(task: Task, name: str, settings: Settings, seed: int) -> dict[str, float]:
    """Return the limit, what the pruned network has, and the ratio."""
    granularity, limits = HITS[name]
    ((unit, limit),) = limits.items()
    fitted = pr.fit_to_budget(
        ungated_model(task, granularity, seed),
        task.data.train,
        pr.Budget(**limits),  # type: ignore[arg-type]
        num_epochs=settings.num_epochs,
        seed=seed,
        **keywords_of(task.recipe),
    )
    cost = count_cost(fitted.pruned.network, task.data.train[0][:1])
    counted = cost.num_nonzero if unit == "num_parameters" else getattr(cost, unit)
    return {"limit": limit, "counted": counted, "share_of_limit": counted / limit}


def coverage(settings: Settings, seed: int) -> dict[str, float]:
    """Return the intervals that were stated on a split of Boston, and whether the test is inside.

    The loss is in nats of the standardised target, the error its RMSE.
    """
    task = make_task("boston", seed=seed)
    (x, y), (x_test, y_test) = task.data.train, task.data.test
    some = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    held_out, rest = some[: len(x) // 5], some[len(x) // 5 :]
    split = dataclasses.replace(task.data, train=(x[rest], y[rest]))
    fitted = pr.fit_to_budget(
        ungated_model(dataclasses.replace(task, data=split), ("weight",), seed),
        split.train,
        pr.Budget(num_parameters=task.num_parameters),
        num_epochs=settings.num_epochs_boston,
        seed=seed,
        **keywords_of(task.recipe),
    )
    stated = fitted.loss_interval((x[held_out], y[held_out]), num_rows=len(x_test))
    with torch.no_grad():
        outputs = fitted.pruned.network.eval()(x_test).unsqueeze(0)
    losses, errors = losses_and_errors(fitted.likelihood, outputs, y_test)
    error = float(root_if_squared(fitted.likelihood, errors.mean()))
    found: dict[str, float] = {}
    tested = (("loss", float(losses.mean()), stated.loss), ("error", error, stated.error))
    for name, value, ends in tested:
        low, high = float(ends.lower), float(ends.upper)
        found |= {name: value, f"{name}_lower": low, f"{name}_upper": high}
        found[f"{name}_covered"] = float(low <= value <= high)
    return found


def evaluated(task: Task, network: nn.Module) -> dict[str, float]:
    """Return size and test error of a network."""
    x, y = task.data.test
    network.eval()
    with torch.no_grad():
        error = percent_wrong(network(x), y)
    return {"error": error, "size": count_cost(network, x[:1]).num_nonzero}


def front(task: Task, method: str, settings: Settings, seed: int) -> dict[str, Any]:
    """Return errors, sizes, time and hypervolume of the networks of one method."""
    started = time.perf_counter()
    budgets = [pr.Budget(num_parameters=size) for size in settings.sizes]
    keywords = keywords_of(task.recipe) | {"num_epochs": 1e4, "seed": seed}
    found: list[nn.Module] = []
    if method == "one training":
        model, seconds = ungated_model(task, ("weight",), seed), settings.share * settings.seconds
        fits = pr.fit_front(model, task.data.train, budgets, max_seconds=seconds, **keywords)
        found = [fitted.pruned.network for fitted in fits]
    elif method == "separate trainings":
        for budget in budgets:
            model, seconds = ungated_model(task, ("weight",), seed), settings.seconds
            one = pr.fit_to_budget(model, task.data.train, budget, max_seconds=seconds, **keywords)
            found.append(one.pruned.network)
    else:
        found = [gradual(task, budget, settings, seed) for budget in budgets]
    spent = time.perf_counter() - started
    points = [evaluated(task, network) for network in found]
    return {"points": points, "seconds": spent, "hypervolume": hypervolume(points, settings.worst)}


def gradual(task: Task, budget: pr.Budget, settings: Settings, seed: int) -> nn.Module:
    """Return the network of gradual magnitude pruning within the budget, biases kept."""
    assert task.make_network is not None
    assert budget.num_parameters is not None
    limited = dataclasses.replace(task, num_parameters=budget.num_parameters)
    recipe = dataclasses.replace(task.recipe, deadline=time.perf_counter() + settings.seconds)
    return gradual_magnitude_pruning(
        task.make_network,
        task.data.train,
        recipe=recipe,
        density=density_within(limited),
        num_epochs=1e4,
        seed=seed,
    ).network


def hypervolume(
    points: Sequence[Mapping[str, float]], worst: float, most: float = 266_610
) -> float:
    """Return the area that a front dominates: log10 of the size times percent right.

    Args:
        points: ``size`` and ``error`` in percent of each network.
        worst: Error of the reference point.
        most: Size of the reference point.
    """
    area, best, right = 0.0, worst, None
    for point in sorted(points, key=lambda point: point["size"]):
        if right is not None:
            area += (worst - best) * (math.log10(min(point["size"], most)) - right)
        best, right = min(best, point["error"]), math.log10(min(point["size"], most))
    return area + (worst - best) * (math.log10(most) - (right or math.log10(most)))


def run(root: str | None, settings: Settings, folder: Path, *, command: str) -> Path:
    """Run what is not there yet, and write the record."""
    task = make_task("mnist", root=root, num_data=settings.num_data)
    parts, rows, seconds = Parts.of("budget", folder), [], 0.0
    seeds = list(range(settings.num_seeds))
    shared = dataclasses.asdict(settings)
    shared.pop("num_seeds")
    for name in HITS:
        metrics = [
            parts.once(
                f"hit {name} {seed}",
                shared,
                lambda name=name, seed=seed: hit(task, name, settings, seed),
            )
            for seed in seeds
        ]
        kept = [{k: one[k] for k in ("limit", "counted", "share_of_limit")} for one in metrics]
        rows.append(row(f"hit: {name}", "mnist", seeds, _columns(kept)))
        print(name, [round(one["share_of_limit"], 4) for one in metrics], flush=True)
    splits = list(range(settings.num_splits))
    covered = [
        parts.once(f"coverage {seed}", shared, lambda seed=seed: coverage(settings, seed))
        for seed in splits
    ]
    kept = [{k: v for k, v in one.items() if isinstance(v, float)} for one in covered]
    rows.append(row("coverage", "boston", splits, _columns(kept)))
    print("covered", *[sum(one[f"{n}_covered"] for one in covered) for n in ("loss", "error")])
    for method in ("one training", "separate trainings", "gradual magnitude"):
        made = [
            parts.once(
                f"front {method} {seed}",
                shared,
                lambda method=method, seed=seed: front(task, method, settings, seed),
            )
            for seed in seeds
        ]
        seconds += sum(one["seconds"] for one in made)
        metrics = [{k: one[k] for k in ("hypervolume", "seconds")} for one in made]
        for number, size in enumerate(settings.sizes):
            for one, values in zip(made, metrics, strict=True):
                values[f"error_{size}"] = one["points"][number]["error"]
                values[f"size_{size}"] = one["points"][number]["size"]
        rows.append(row(f"front: {method}", "mnist", seeds, _columns(metrics)))
        print(method, [round(one["hypervolume"], 3) for one in made], flush=True)
    return write_record(
        "budget",
        command=command,
        settings=dataclasses.asdict(settings),
        rows=rows,
        wall_seconds=seconds,
        folder=folder,
    )


def _columns(metrics: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    return {name: [one[name] for one in metrics] for name in metrics[0]}


def main() -> None:
    """Read the command line and run."""
    command = Command("run_budget", __doc__, smoke="one seed, few images, two sizes")
    command.add_root("MNIST")
    command.add_seeds(Settings.num_seeds, "seeds")
    arguments = command.parse_args()
    settings = Settings(num_seeds=arguments.seeds)
    if arguments.smoke:
        settings = Settings(
            1,
            1.0,
            sizes=(20_000, 5_000),
            num_epochs=0.5,
            num_data=2000,
            num_splits=2,
            num_epochs_boston=5,
        )
    torch.set_num_threads(1)
    print(run(arguments.root, settings, arguments.out, command=command.line()))


if __name__ == "__main__":
    main()
