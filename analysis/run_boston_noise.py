"""Boston with columns of noise, with near duplicates and with copies: what is called relevant?

Each seed has a random split of its own. Noise columns are random permutations of ten of the
table's own columns; near duplicates have a correlation of 0.95 with five of its columns; copies are
equal to them. Recipe, folds and test are those of the command ``table``; the test rows are not
touched.

    python -m analysis.run_boston_noise
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from analysis.command import Command
from analysis.parts import Parts
from analysis.records import row, write_record
from pyro_relevance.commands.table.job import Job
from pyro_relevance.commands.table.settings import TableSettings
from pyro_relevance.data.datasets import boston
from pyro_relevance.posterior.holdout import HoldoutTest

REPEATED = ("LSTAT", "RM", "DIS", "NOX", "PTRATIO")
"""Columns that get a near duplicate or a copy: those with the largest rise of the loss."""


@dataclass(frozen=True)
class Settings:
    """What the experiment does.

    Args:
        num_seeds: Splits.
        num_noise: Columns of noise.
        correlation: Of a near duplicate with its column.
        table: Settings of the command.
    """

    num_seeds: int = 10
    num_noise: int = 10
    correlation: float = 0.95
    table: TableSettings = TableSettings()


def with_noise(
    features: pd.DataFrame, generator: np.random.Generator, settings: Settings
) -> pd.DataFrame:
    """Return the table with permuted columns of its own."""
    chosen = generator.choice(features.columns, settings.num_noise, replace=False)
    noise = {f"noise_{name}": generator.permutation(features[name]) for name in chosen}
    return features.assign(**noise)


def with_near_duplicates(
    features: pd.DataFrame, generator: np.random.Generator, settings: Settings
) -> pd.DataFrame:
    """Return the table with columns that are correlated with some of its own."""
    spread = np.sqrt(1 / settings.correlation**2 - 1)
    near = {
        f"near_{name}": features[name]
        + spread * features[name].std() * generator.normal(size=len(features))
        for name in REPEATED
    }
    return features.assign(**near)


def with_copies(
    features: pd.DataFrame, generator: np.random.Generator, settings: Settings
) -> pd.DataFrame:
    """Return the table with some of its columns twice."""
    return features.assign(**{f"copy_{name}": features[name] for name in REPEATED})


TASKS: dict[str, Callable[[pd.DataFrame, np.random.Generator, Settings], pd.DataFrame]] = {
    "ten columns of noise": with_noise,
    "near duplicates": with_near_duplicates,
    "copies": with_copies,
}


def found(tested: HoldoutTest) -> dict[str, float]:
    """Return what a test says of the columns."""
    relevant = set(tested.relevant)
    together = set().union(*tested.inseparable)
    own = [g.name for g in tested.groups if "_" not in g.name]
    pairs = [
        (name, f"{kind}_{name}")
        for name in REPEATED
        for kind in ("near", "copy")
        if any(g.name == f"{kind}_{name}" for g in tested.groups)
    ]
    apart = [relevant & set(pair) for pair in pairs]
    lost = [not relevant & set(pair) and not together & set(pair) for pair in pairs]
    numbers = {
        "noise_relevant": sum(name.startswith("noise_") for name in relevant | together),
        "own_relevant": sum(name in relevant | together for name in own),
        "lstat_and_rm": float({"LSTAT", "RM"} <= relevant | together),
    }
    if pairs:
        numbers |= {
            "pairs_not_told_apart": sum(set(pair) <= together for pair in pairs) / len(pairs),
            "pairs_column_alone": sum(
                one == {pair[0]} for one, pair in zip(apart, pairs, strict=True)
            )
            / len(pairs),
            "pairs_duplicate_relevant": sum(
                pair[1] in one for one, pair in zip(apart, pairs, strict=True)
            )
            / len(pairs),
            "pairs_lost": sum(lost) / len(pairs),
        }
    return {name: float(value) for name, value in numbers.items()}


def one(task: str, seed: int, settings: Settings) -> dict[str, Any]:
    """Return the result of one split."""
    started = time.perf_counter()
    table = boston()
    features = TASKS[task](table.features, np.random.default_rng(seed), settings)
    changed = dataclasses.replace(table, features=features)
    job = Job.of(changed, dataclasses.replace(settings.table, seed=seed))
    recipe, held, _ = job.choose()
    clock = time.perf_counter()
    tested = job.test_inputs(held)
    rmse = float((held.pruned[0, :, 0] - held.y).square().mean().sqrt())
    numbers = {
        **found(tested),
        "held_out_rmse": rmse * job.encoder.target_scale,
        "test_seconds": time.perf_counter() - clock,
        "seconds": time.perf_counter() - started,
    }
    return {"numbers": numbers, "noise_scale": recipe.noise_scale, "test": tested.to_dict()}


def run(settings: Settings, folder: Path, *, command: str) -> Path:
    """Run the experiment and write its record."""
    started = time.perf_counter()
    parts = Parts.of("boston_noise", folder)
    rows, tests = [], {}
    seeds = range(settings.num_seeds)
    for task in TASKS:
        made = [
            parts.once(
                f"{task} {seed}",
                {**dataclasses.asdict(settings), "seed": seed, "num_seeds": 0},
                lambda task=task, seed=seed: one(task, seed, settings),
            )
            for seed in seeds
        ]
        names = made[0]["numbers"]
        metrics = {name: [part["numbers"][name] for part in made] for name in names}
        rows.append(row("holdout test of the command", task, seeds, metrics))
        tests[task] = [part["test"] for part in made]
        shown = [f"{n} {m['mean']:.2f} +- {m['se']:.2f}" for n, m in rows[-1]["metrics"].items()]
        print(f"{task:22s}", *shown, flush=True)
    return write_record(
        "boston_noise",
        command=command,
        settings=dataclasses.asdict(settings),
        rows=rows,
        wall_seconds=time.perf_counter() - started,
        folder=folder,
        tests=tests,
    )


def main() -> None:
    """Read the command line and run."""
    command = Command("run_boston_noise", __doc__, smoke="two splits, few steps")
    arguments = command.parse_args()
    settings = Settings()
    if arguments.smoke:
        recipe = dataclasses.replace(settings.table.recipe, num_steps=20)
        table = dataclasses.replace(settings.table, recipe=recipe)
        settings = dataclasses.replace(settings, num_seeds=2, table=table)
    torch.set_num_threads(1)
    print(run(settings, arguments.out, command=command.line()))


if __name__ == "__main__":
    main()
