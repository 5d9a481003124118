"""NAS-Bench-201 on a processor in minutes: posteriors, DARTS and uniform paths in equal time.

All searches choose a cell of the benchmark by the same small proxy: images of 16 x 16 pixels (means
of 2 x 2), 16 channels, one cell in each stage. The table is used only to report the test accuracy
of the chosen cell after 200 epochs of the full network. Each search takes about ten minutes of one
core: numbers of epochs were set by their time, not by their results.

- posterior: ``search_structure``. Weights warm up under uniform paths. The posterior over
  operations is then fitted to held-out images. Some of its draws are re-initialised and trained for
  the same number of epochs; the better half is trained twice as long, until one draw remains.
- mixture: ``search_structure`` with the mixture of all operations of each edge, weighed by relaxed
  gates as in DARTS. The posterior is held close to its prior (the evidence counts as 30 examples),
  and its mode is reported. DARTS, watched epoch by epoch (``run_darts_collapse``), had shown before
  that a mixture prefers other cells than paths do.
- posterior of values: ``search_by_queries`` with expected improvement. Each query trains a
  re-initialised proxy for a few epochs; no weights are shared.
- DARTS, first order: the strongest operation other than none of each edge, and the strongest of
  all.
- uniform paths: shared weights are trained along random paths and compare random cells.

Random cells and the largest cell, all 3 x 3 convolutions, are reported beside them.

    python -m analysis.run_nasbench201_shared --table nasbench201/cifar10.csv --root DATA
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.command import Command
from analysis.nasbench201.proxy import PRECISION, small_images
from analysis.nasbench201.searches import ROWS, SEARCHES, Settings
from analysis.nasbench201.table import TASK, Table, cell_edges, has_path
from analysis.parts import Parts
from analysis.records import row, write_record
from pyro_relevance.comparison.baselines.random_search import random_architecture


def run(
    table: Path,
    root: str | None,
    settings: Settings,
    folder: Path,
    *,
    command: str,
    only: str | None,
) -> Path:
    """Run all searches (or the one named) and write the record of the runs that are there."""
    torch.set_num_threads(1)
    benchmark, data = Table.read(table), small_images(root, settings.num_data)
    parts = Parts.of("nasbench201_shared", folder)
    about = dataclasses.asdict(settings) | {"num_seeds": 0}
    known: dict[tuple[str, int], dict[str, Any]] = {}
    for seed in range(settings.num_seeds):
        for name in SEARCHES:
            if only in (None, name) or parts.has(f"{name}-{seed}", about):
                compute = partial(timed, name, data, settings, seed, parts.folder)
                known[name, seed] = parts.once(f"{name}-{seed}", about, compute)
    seeds = {name: [s for s in range(settings.num_seeds) if (name, s) in known] for name in ROWS}
    rows = [
        row_of(benchmark, method, [known[name, s] for s in seeds[name]], seeds[name])
        for name, methods in ROWS.items()
        for method in methods
        if seeds[name]
    ]
    return write_record(
        "nasbench201_shared",
        command=command,
        settings=dataclasses.asdict(settings) | {"precision": repr(PRECISION)},
        rows=[*rows, random_cells_row(benchmark), benchmark.largest_cell_row()],
        wall_seconds=sum(content["seconds"] for content in known.values()),
        folder=folder,
        found={f"{name}-{seed}": content["found"] for (name, seed), content in known.items()},
    )


def timed(
    name: str, data: tuple[Tensor, Tensor], settings: Settings, seed: int, folder: Path
) -> dict[str, Any]:
    """Run a search; return what it found, its wall time and its core time in seconds."""
    started, core_started = time.perf_counter(), time.process_time()
    found = SEARCHES[name](data, settings, seed, folder)
    seconds = time.perf_counter() - started
    core = time.process_time() - core_started
    print(f"{name}, seed {seed}: {found}, {core:.0f} core seconds", flush=True)
    return {"found": found, "seconds": seconds, "core": core}


def row_of(
    benchmark: Table, method: str, contents: Sequence[Mapping[str, Any]], seeds: Sequence[int]
) -> dict[str, Any]:
    """Return the row of the cells that a search chose.

    Args:
        benchmark: The table.
        method: The way of choosing, one of the search's rows.
        contents: Content of each run.
        seeds: Their seeds.
    """
    cells = [content["found"][method] for content in contents]
    metrics = {
        "test_accuracy": [benchmark.reported_accuracy(cell) for cell in cells],
        "dead": [float(not has_path(cell)) for cell in cells],
        "num_skips": [float(cell.count("skip_connect")) for cell in cells],
        "seconds": [content["seconds"] for content in contents],
        "core_seconds": [content["core"] for content in contents],
    }
    return row(method, TASK, seeds, metrics, cells=cells)


def random_cells_row(benchmark: Table) -> dict[str, Any]:
    """Return the row of 1,000 random cells."""
    edges, generator = cell_edges(), np.random.default_rng(0)
    drawn = [random_architecture(edges, generator) for _ in range(1000)]
    metrics = {"test_accuracy": [benchmark.test_accuracy(cell) for cell in drawn]}
    return row("random cells", TASK, [0], metrics)


def smoke(settings: Settings) -> Settings:
    """Return settings that take seconds."""
    return dataclasses.replace(
        settings,
        num_seeds=1,
        num_data=300,
        num_epochs=4,
        num_finalists=2,
        num_epochs_trial=1,
        num_epochs_mixture=2,
        num_queries=8,
        num_epochs_query=1,
        num_epochs_darts=1,
        num_epochs_paths=1,
        num_candidates=10,
    )


def main() -> None:
    """Read the command line and run."""
    command = Command("run_nasbench201_shared", __doc__, smoke="few images and steps")
    command.add_table()
    command.add_root("CIFAR-10")
    command.add_seeds(5, "runs of each search")
    command.add_only("one search", list(SEARCHES))
    arguments = command.parse_args()
    settings = dataclasses.replace(Settings(), num_seeds=arguments.seeds)
    if arguments.smoke:
        settings = smoke(settings)
    path = run(
        arguments.table,
        arguments.root,
        settings,
        arguments.out,
        command=command.line(),
        only=arguments.only,
    )
    print(path)


if __name__ == "__main__":
    main()
