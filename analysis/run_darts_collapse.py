"""DARTS on the NAS-Bench-201 cell, watched pass by pass: does it collapse to skip connections?

Published for this space (Dong and Yang 2020, table 5): DARTS ends in a cell of skip connections
alone, 54.30 % after full training. Its search takes 50 passes of the network of the benchmark
(five cells a stage, images of 32 x 32, minibatches of 64). Here passes, minibatches, step
sizes and halves of the data are those, but the network is the small proxy of
``run_nasbench201_shared`` (one cell a stage, images of 16 x 16): what a processor can do in half an
hour. After each pass the probabilities of the operations are noted, and the cell that would be
derived; the table is used to report it.

    python -m analysis.run_darts_collapse --table nasbench201/cifar10.csv --root DATA
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from analysis.command import Command
from analysis.nasbench201_table import Table
from analysis.parts import keep, kept
from analysis.records import row, write_record
from analysis.run_nasbench201_shared import (
    Settings,
    make_network,
    recipe,
    reported,
    small_images,
    text,
)
from pyro_relevance import find_edges
from pyro_relevance._random import seeded, substream
from pyro_relevance.comparison.baselines import DartsSettings, strongest_operations
from pyro_relevance.comparison.baselines.darts import search_operations
from pyro_relevance.comparison.baselines.recipe import seeded_network
from pyro_relevance.graphs import Architecture

ROWS = {"all": "strongest operation", "some": "strongest operation but none"}


def search(
    data: tuple[Tensor, Tensor], num_epochs: int, batch_size: int, seed: int
) -> dict[str, Any]:
    """Search, and return what was there after each pass."""
    network = seeded_network(lambda: make_network(False), substream(seed, "network"))
    edges = find_edges(network, granularity="operation")
    labels = edges.operations[0].labels
    found: dict[str, list[Any]] = {"probability": [], "all": [], "some": []}

    def watch(number: int, chances: Mapping[str, Tensor]) -> None:
        best = {g.name: g.labels[int(chances[g.name].argmax())] for g in edges.operations}
        found["all"].append(text(Architecture(best)))
        found["some"].append(text(strongest_operations(edges, chances)))
        mean = torch.stack(list(chances.values())).mean(0).tolist()
        found["probability"].append(mean)
        shown = ", ".join(f"{n} {p:.3f}" for n, p in zip(labels, mean, strict=True))
        print(f"seed {seed}, pass {number}: {shown}; {found['some'][-1]}", flush=True)

    training = dataclasses.replace(recipe(Settings()), batch_size=batch_size)
    with seeded(substream(seed, "darts")), torch.enable_grad():
        search_operations(network, edges, data, training, num_epochs, DartsSettings(), watch)
    return {"labels": list(labels), **found}


def main() -> None:
    """Read the command line and run."""
    command = Command("run_darts_collapse", __doc__, smoke="few images and passes")
    command.add_table()
    command.add_root("CIFAR-10")
    command.add_seeds(2, "searches")
    command.add_seed()
    command.add_argument("--epochs", type=int, default=50, help="passes of a search")
    given = command.parse_args()
    torch.set_num_threads(1)
    num_epochs, num_data, batch_size = (2, 300, 64) if given.smoke else (given.epochs, 25_000, 64)
    benchmark, data = Table.read(given.table), small_images(given.root, num_data)
    about = {"num_epochs": num_epochs, "num_data": num_data, "batch_size": batch_size}
    parts = given.out / ".darts_collapse"
    parts.mkdir(parents=True, exist_ok=True)
    known: dict[int, dict[str, Any]] = {}
    for seed in range(given.seeds):
        path = parts / f"{seed}.json"
        content = kept(path, about)
        if content is None:
            if given.seed not in (None, seed):
                continue
            started = time.perf_counter()
            found = search(data, num_epochs, batch_size, seed)
            content = keep(path, about, found=found, seconds=time.perf_counter() - started)
        known[seed] = content
    if len(known) < given.seeds:
        print("Some seeds are missing: no record yet.")
        return
    rows, courses = [], {}
    for name, method in ROWS.items():
        cells = {s: content["found"][name] for s, content in known.items()}
        course = {s: [reported(benchmark, c) for c in of_seed] for s, of_seed in cells.items()}
        courses[method] = course
        last = [of_seed[-1] for of_seed in cells.values()]
        metrics = {
            "test_accuracy": [values[-1] for values in course.values()],
            "num_skips": [float(c.count("skip_connect")) for c in last],
            "num_none": [float(c.count("none")) for c in last],
            "seconds": [content["seconds"] for content in known.values()],
        }
        rows.append(row(method, "nasbench201", list(known), metrics, cells=last))
    first = known[0]["found"]
    print(
        write_record(
            "darts_collapse",
            command=command.line(),
            settings=about,
            rows=rows,
            wall_seconds=sum(content["seconds"] for content in known.values()),
            folder=given.out,
            labels=first["labels"],
            probability={s: content["found"]["probability"] for s, content in known.items()},
            test_accuracy_by_pass=courses,
        )
    )


if __name__ == "__main__":
    main()
