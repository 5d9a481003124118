"""DARTS on the NAS-Bench-201 cell, epoch by epoch: does it collapse to skip connections?

Published for this space (Dong and Yang 2020, table 5): DARTS ends in a cell of skip connections
alone, with 54.30 % after full training. That search takes 50 epochs of the benchmark's network
(five cells a stage, images of 32 x 32, minibatches of 64). Here the epochs, minibatches, step sizes
and halves of the data are the same, but the network is the small proxy of
``run_nasbench201_shared`` (one cell a stage, images of 16 x 16), which a processor trains in half
an hour. After each epoch the probabilities of the operations are kept, and the cell that would be
derived. The table serves only to report the accuracy of that cell.

    python -m analysis.run_darts_collapse --table nasbench201/cifar10.csv --root DATA
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from analysis.command import Command
from analysis.nasbench201.proxy import (
    darts_network,
    darts_probabilities,
    make_recipe,
    small_images,
    strongest_of_all,
)
from analysis.nasbench201.table import TASK, Table
from analysis.parts import Parts
from analysis.records import row, write_record
from pyro_relevance.comparison.baselines import strongest_operations
from pyro_relevance.graphs.spaces import architecture_to_string

ROWS = {"all": "strongest operation", "some": "strongest operation but none"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What each search does.

    Args:
        num_epochs: Epochs over the half of the data from which the weights learn.
        num_data: Training images, at most.
        batch_size: Images in a step.
    """

    num_epochs: int = 50
    num_data: int = 25_000
    batch_size: int = 64


def search(data: tuple[Tensor, Tensor], settings: Settings, seed: int) -> dict[str, Any]:
    """Search; return what was there after each epoch, and the time in seconds."""
    started = time.perf_counter()
    network, edges = darts_network(seed)
    labels = edges.operations[0].labels
    found: dict[str, list[Any]] = {"probability": [], "all": [], "some": []}

    def watch(number: int, chances: Mapping[str, Tensor]) -> None:
        found["all"].append(architecture_to_string(strongest_of_all(edges, chances)))
        found["some"].append(architecture_to_string(strongest_operations(edges, chances)))
        mean = torch.stack(list(chances.values())).mean(0).tolist()
        found["probability"].append(mean)
        shown = ", ".join(f"{n} {p:.3f}" for n, p in zip(labels, mean, strict=True))
        print(f"seed {seed}, epoch {number}: {shown}; {found['some'][-1]}", flush=True)

    recipe = dataclasses.replace(make_recipe(), batch_size=settings.batch_size)
    darts_probabilities(network, edges, data, recipe, settings.num_epochs, seed, watch)
    seconds = time.perf_counter() - started
    return {"found": {"labels": list(labels), **found}, "seconds": seconds}


def run(
    table: Path,
    root: str | None,
    settings: Settings,
    folder: Path,
    *,
    command: str,
    num_seeds: int,
    seed_now: int | None,
) -> Path | None:
    """Run all searches (or that of one seed); write the record, where all of them are there."""
    torch.set_num_threads(1)
    benchmark, data = Table.read(table), small_images(root, settings.num_data)
    parts, about = Parts.of("darts_collapse", folder), dataclasses.asdict(settings)
    known: dict[int, dict[str, Any]] = {}
    for seed in range(num_seeds):
        if seed_now in (None, seed) or parts.has(f"{seed}", about):
            known[seed] = parts.once(f"{seed}", about, partial(search, data, settings, seed))
    if len(known) < num_seeds:
        return None
    rows, courses = [], {}
    for name, method in ROWS.items():
        cells = {s: content["found"][name] for s, content in known.items()}
        course = {s: [benchmark.reported_accuracy(c) for c in of] for s, of in cells.items()}
        courses[method] = course
        last = [of_seed[-1] for of_seed in cells.values()]
        metrics = {
            "test_accuracy": [values[-1] for values in course.values()],
            "num_skips": [float(cell.count("skip_connect")) for cell in last],
            "num_none": [float(cell.count("none")) for cell in last],
            "seconds": [content["seconds"] for content in known.values()],
        }
        rows.append(row(method, TASK, list(known), metrics, cells=last))
    return write_record(
        "darts_collapse",
        command=command,
        settings=about,
        rows=rows,
        wall_seconds=sum(content["seconds"] for content in known.values()),
        folder=folder,
        labels=known[0]["found"]["labels"],
        probability={seed: content["found"]["probability"] for seed, content in known.items()},
        test_accuracy_by_pass=courses,  # an epoch was called a pass when records were first made
    )


def main() -> None:
    """Read the command line and run."""
    command = Command("run_darts_collapse", __doc__, smoke="few images and epochs")
    command.add_table()
    command.add_root("CIFAR-10")
    command.add_seeds(2, "searches")
    command.add_seed()
    command.add_argument("--epochs", type=int, default=50, help="epochs of a search")
    arguments = command.parse_args()
    settings = Settings(num_epochs=arguments.epochs)
    if arguments.smoke:
        settings = dataclasses.replace(settings, num_epochs=2, num_data=300)
    path = run(
        arguments.table,
        arguments.root,
        settings,
        arguments.out,
        command=command.line(),
        num_seeds=arguments.seeds,
        seed_now=arguments.seed,
    )
    print(path or "Some seeds are missing: no record yet.")


if __name__ == "__main__":
    main()
