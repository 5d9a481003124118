"""NAS-Bench-201 by queries: which cell is found after so many measurements.

The benchmark's own protocol: a query measures a cell by its validation accuracy after 12 epochs,
read from the table instead of trained; what is reported is the test accuracy of the cell that is
recommended, after 200 epochs. The table must be a CSV file with the columns ``arch``,
``valid_acc_12ep`` and ``test_acc_200ep``, one row for each of the 15,625 cells. In real compute a
query is a training of 12 epochs of the full network: this is a comparison of searches, not of
times.

    python -m analysis.run_nasbench201 --table nasbench201/cifar10.csv
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from analysis.command import Command
from analysis.nasbench201_table import Table
from analysis.records import row, write_record
from pyro_relevance import find_edges
from pyro_relevance.comparison.baselines import evolution, random_search
from pyro_relevance.graphs import Architecture, spaces
from pyro_relevance.search.queries import Candidates, QuerySearch, search_by_queries

QUERIES = (50, 100, 200)
IMPROVEMENT = "posterior of values, expected improvement"
THOMPSON = "posterior of values, Thompson sampling"
EVOLUTION = "regularised evolution"
RANDOM = "random search"


def main() -> None:
    """Read the command line and run."""
    command = Command("run_nasbench201", __doc__, smoke="two seeds, few queries")
    command.add_table()
    command.add_seeds(100, "repetitions of each search")
    arguments = command.parse_args()
    num_seeds, queries = (2, (12, 15, 20)) if arguments.smoke else (arguments.seeds, QUERIES)
    path = run(
        arguments.table,
        num_seeds,
        queries,
        arguments.out,
        command=command.line(),
    )
    print(path)


def run(
    table: Path, num_seeds: int, queries: tuple[int, ...], folder: Path, *, command: str
) -> Path:
    """Run all searches and write the record."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    benchmark = Table.read(table)
    cells = [spaces.architecture_from_string(name) for name in benchmark.rows]
    cell = spaces.nasbench201_cell(1)
    edges, candidates = find_edges(cell, granularity="operation"), Candidates(cell, cells)

    most = max(queries)
    searches: dict[str, Callable[[int], QuerySearch]] = {
        IMPROVEMENT: lambda seed: search_by_queries(
            candidates,
            benchmark.validation_accuracy,
            num_queries=most,
            proposal="expected_improvement",
            seed=seed,
        ),
        THOMPSON: lambda seed: search_by_queries(
            candidates,
            benchmark.validation_accuracy,
            num_queries=most,
            proposal="thompson",
            seed=seed,
        ),
        EVOLUTION: lambda seed: evolution(
            edges, benchmark.validation_accuracy, num_queries=most, seed=seed
        ),
        RANDOM: lambda seed: random_search(
            edges, benchmark.validation_accuracy, num_queries=most, seed=seed
        ),
    }
    found: dict[tuple[str, int], list[float]] = {}
    by_value: dict[tuple[str, int], list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for seed in range(num_seeds):
        for name, search in searches.items():
            before = time.perf_counter()
            result = search(seed)
            seconds.setdefault(name, []).append(time.perf_counter() - before)
            for number in queries:
                best = result.best(number)
                found.setdefault((name, number), []).append(benchmark.test_accuracy(best))
                top = result.architectures[int(np.argmax(result.values[:number]))]
                by_value.setdefault((name, number), []).append(benchmark.test_accuracy(top))
        print(f"seed {seed}", flush=True)
    records = []
    for name in searches:
        for number in queries:
            against = np.subtract(found[name, number], found[EVOLUTION, number])
            metrics = {
                "test_accuracy": found[name, number],
                "test_accuracy_of_largest_value": by_value[name, number],
                "above_evolution": against.tolist(),
                "seconds": seconds[name],
            }
            records.append(
                row(f"{name}, {number} queries", "nasbench201", [*range(num_seeds)], metrics)
            )
    largest = Architecture(dict.fromkeys((g.name for g in edges.operations), "nor_conv_3x3"))
    records.append(
        row(
            "largest cell, no search",
            "nasbench201",
            [0],
            {"test_accuracy": [benchmark.test_accuracy(largest)]},
        )
    )
    return write_record(
        "nasbench201_queries",
        command=command,
        settings={"queries": list(queries), "num_seeds": num_seeds},
        rows=records,
        wall_seconds=time.perf_counter() - started,
        folder=folder,
    )


if __name__ == "__main__":
    main()
