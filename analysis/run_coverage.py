"""Are intervals kept? The table job on the standard splits of Boston, one split after another.

On each split: the share of test rows inside the posterior's predictive intervals, under the noise
that the report states and under the noise of the training; and whether the pruned network's test
loss and error lie in the intervals that were stated before the test. Everything comes from what
``pyro-relevance table`` computes and writes.

    python -m analysis.run_coverage
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.command import Command
from analysis.records import runs_row, write_record
from pyro_relevance import datasets
from pyro_relevance.commands.table.files import arviz_of
from pyro_relevance.commands.table.run import TableRun, run_table
from pyro_relevance.commands.table.settings import TableSettings
from pyro_relevance.comparison.records import write_json

RECORD = "coverage"
WIDTHS = (0.5, 0.8, 0.89, 0.95)
"""Nominal coverage of the predictive intervals that are looked at."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the experiment does.

    Args:
        table: Settings of the table job, without its dense network.
        num_splits: Standard splits.
    """

    table: TableSettings = TableSettings(dense=False)
    num_splits: int = 20


def covered(draws: NDArray[Any], y: NDArray[Any], width: float) -> tuple[float, float]:
    """Return the share of targets inside the equal-tailed interval, and its mean length."""
    tail = (1 - width) / 2
    low, high = np.quantile(draws.reshape(-1, len(y)), [tail, 1 - tail], axis=0)
    return float(((y >= low) & (y <= high)).mean()), float((high - low).mean())


def measure(run: TableRun) -> dict[str, float]:
    """Return what one split says, in the unit of the target."""
    idata = arviz_of(run)
    predictions = idata["predictions"]
    y = idata["predictions_constant_data"]["y"].to_numpy()
    found = {}
    for width in WIDTHS:
        share, length = covered(predictions["y"].to_numpy(), y, width)
        found[f"coverage_{width:g}"] = share
        found[f"length_{width:g}"] = length
    encoder = run.encoder
    before = run.fit.posterior.predict(run.test[0], num_samples=200).sample.numpy()
    found["coverage_0.89_training_noise"] = covered(before, run.test[1].numpy(), 0.89)[0]
    density = np.exp(predictions["log_likelihood"].to_numpy()).mean((0, 1))
    found["log_likelihood_of_file"] = float(np.log(density).mean())
    held_out = np.exp(idata["log_likelihood"]["y"].to_numpy()).mean((0, 1))
    found["log_likelihood_held_out"] = float(np.log(held_out).mean())
    for name, score in run.scores.items():
        key = name.replace(" ", "_")
        found[f"rmse_{key}"] = score.error
        found[f"log_likelihood_{key}"] = score.log_likelihood
    shift = float(np.log(encoder.target_scale))
    loss, error = run.expected.loss, run.expected.error
    stated = {
        "loss": (-run.scores["pruned"].log_likelihood, float(loss.lower), float(loss.upper), shift),
        "rmse": (
            run.scores["pruned"].error,
            float(error.lower) * encoder.target_scale,
            float(error.upper) * encoder.target_scale,
            0.0,
        ),
    }
    for name, (value, low, high, added) in stated.items():
        found[f"{name}_lower"], found[f"{name}_upper"] = low + added, high + added
        found[f"{name}_covered"] = float(low + added <= value <= high + added)
    return found


def run(settings: Settings, folder: Path, *, command: str) -> Path:
    """Run all splits that are not there yet, and write the record when they are."""
    table = datasets.boston()
    parts = folder / f".{RECORD}"
    parts.mkdir(parents=True, exist_ok=True)
    described = json.loads(json.dumps(dataclasses.asdict(settings.table)))
    results = []
    for number, rows in enumerate(datasets.standard_splits(table.num_rows, settings.num_splits)):
        part = parts / f"{number}.json"
        known = json.loads(part.read_text()) if part.exists() else {}
        if known.get("settings") != described:
            started = time.perf_counter()
            found = measure(run_table(table, settings.table, rows=rows, progress=False))
            seconds = time.perf_counter() - started
            known = {"settings": described, "metrics": found, "seconds": seconds}
            write_json(part, known)
        metrics = known["metrics"]
        results.append(metrics | {"seconds": known["seconds"]})
        print(
            f"split {number:2d}: {metrics['coverage_0.89']:.2f} of the rows in the 89 % interval, "
            f"{known['seconds']:.0f} s",
            flush=True,
        )
    return write_record(
        RECORD,
        command=command,
        settings=dataclasses.asdict(settings),
        rows=[runs_row("table job", "boston", results)],
        wall_seconds=sum(result["seconds"] for result in results),
        folder=folder,
        targets={"coverage_0.89": [0.85, 0.93], "loss_covered": [0.85, 0.95]},
    )


def main() -> None:
    """Read the command line and run."""
    command = Command("run_coverage", __doc__, smoke="two splits, few steps")
    arguments = command.parse_args()
    settings = smoke(Settings()) if arguments.smoke else Settings()
    path = run(settings, arguments.out, command=command.line())
    metrics = json.loads(path.read_text())["rows"][0]["metrics"]
    for name, metric in metrics.items():
        print(f"{name:32s} {metric['mean']:.3f} +- {metric['se']:.3f}")
    print(path)


def smoke(settings: Settings) -> Settings:
    """Return settings that take seconds."""
    recipe = dataclasses.replace(settings.table.recipe, num_steps=40, hidden=(6,))
    table = dataclasses.replace(settings.table, recipe=recipe, num_chains=2, num_folds=2)
    return Settings(table, num_splits=2)


if __name__ == "__main__":
    main()
