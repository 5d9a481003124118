"""NAS-Bench-201 at the benchmark's time budget: reinforcement learning, evolution, random search.

The benchmark's own protocol: a search has 12,000 simulated seconds, each query trains a cell for 12
epochs and returns its validation accuracy; what is reported is the test accuracy after 200 epochs
of the cell with the highest value. The table that is read has no training times, so that of a query
is simulated: half of it the same for all cells, half in proportion to their multiply-accumulates,
120 seconds for the mean cell (100 queries in 12,000 seconds). Settings of evolution are those of
the benchmark's paper; the step size of the controller was chosen among 0.001, 0.003 and 0.01 on
other seeds with the table in view, since this reproduces published numbers.

The table must be a CSV file with the columns ``arch``, ``valid_acc_12ep``, ``test_acc_200ep`` and
``macs_m``, one row for each of the 15,625 cells.

    python -m analysis.run_nasbench201_rivals --table nasbench201/cifar10.csv
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from analysis.command import Command
from analysis.nasbench201.repeated import repeat
from analysis.nasbench201.table import TASK, Table, cell_edges
from analysis.records import row, write_record
from pyro_relevance import Edges
from pyro_relevance.comparison.baselines import evolution, random_search, reinforce
from pyro_relevance.search.queries import QuerySearch

SECONDS = (6_000.0, 12_000.0, 24_000.0)
MEAN_SECONDS = 120.0
METHODS: dict[str, Callable[..., QuerySearch]] = {
    "REINFORCE": reinforce,
    "regularised evolution": partial(evolution, population_size=10, tournament_size=3),
    "evolution without ageing": partial(
        evolution, population_size=10, tournament_size=3, ageing=False
    ),
    "random search": random_search,
}
PUBLISHED = {"REINFORCE": 93.85, "regularised evolution": 93.92, "random search": 93.70}
"""Dong and Yang, NAS-Bench-201, ICLR 2020, table 5: CIFAR-10 test accuracy at 12,000 seconds."""


def main() -> None:
    """Read the command line and run."""
    command = Command("run_nasbench201_rivals", __doc__, smoke="two seeds, little time")
    command.add_table()
    command.add_seeds(200, "repetitions of each search")
    arguments = command.parse_args()
    num_seeds, budgets = (2, (2_000.0,)) if arguments.smoke else (arguments.seeds, SECONDS)
    path = run(
        arguments.table,
        num_seeds,
        budgets,
        arguments.out,
        command=command.line(),
    )
    print(path)


def run(
    table: Path, num_seeds: int, budgets: tuple[float, ...], folder: Path, *, command: str
) -> Path:
    """Run all searches and write the record."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    benchmark, edges = Table.read(table), cell_edges()
    # The cheapest cells take half of the mean: no search makes more queries than this.
    most = int(max(budgets) / (0.5 * MEAN_SECONDS))
    searches = {
        name: partial(search, method, edges, benchmark, most) for name, method in METHODS.items()
    }
    rows = []
    for name, found in repeat(searches, num_seeds).items():
        spent = [np.cumsum(simulated_seconds(benchmark, one.result)) for one in found]
        for budget in budgets:
            # The query in which the budget ends is the last one.
            numbers = [min(int(np.searchsorted(times, budget)) + 1, most) for times in spent]
            accuracy = [
                benchmark.test_accuracy(one.result.best(number))
                for one, number in zip(found, numbers, strict=True)
            ]
            rows.append(
                row(
                    f"{name}, {budget:,.0f} simulated seconds",
                    TASK,
                    range(num_seeds),
                    {"test_accuracy": accuracy, "num_queries": numbers},
                    standard_deviation=float(np.std(accuracy, ddof=1)),
                    published=PUBLISHED.get(name) if budget == 12_000 else None,
                )
            )
    return write_record(
        "nasbench201_rivals",
        command=command,
        settings={"seconds": list(budgets), "mean_seconds_of_a_query": MEAN_SECONDS},
        rows=rows,
        wall_seconds=time.perf_counter() - started,
        folder=folder,
    )


def search(
    method: Callable[..., QuerySearch], edges: Edges, benchmark: Table, most: int, seed: int
) -> QuerySearch:
    """Search with one method."""
    return method(edges, benchmark.validation_accuracy, num_queries=most, seed=seed)


def simulated_seconds(benchmark: Table, found: QuerySearch) -> list[float]:
    """Return the time of each query: half is the same for all cells, half goes with their MACs."""
    mean = statistics.fmean(line["macs_m"] for line in benchmark.rows.values())
    return [
        MEAN_SECONDS * (0.5 + 0.5 * benchmark.column(cell, "macs_m") / mean)
        for cell in found.architectures
    ]


if __name__ == "__main__":
    main()
