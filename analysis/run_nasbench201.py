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
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from analysis.command import Command
from analysis.nasbench201.repeated import TimedSearch, repeat
from analysis.nasbench201.table import TASK, Table, cell_edges
from analysis.records import row, write_record
from pyro_relevance.comparison.baselines import evolution, random_search
from pyro_relevance.graphs import spaces
from pyro_relevance.search.queries import Candidates, Proposal, QuerySearch, search_by_queries

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
    searches = repeat(searches_of(benchmark, max(queries)), num_seeds)
    rows = []
    for name, found in searches.items():
        for number in queries:
            accuracy = recommended(benchmark, found, number)
            against = np.subtract(accuracy, recommended(benchmark, searches[EVOLUTION], number))
            metrics = {
                "test_accuracy": accuracy,
                "test_accuracy_of_largest_value": [
                    benchmark.test_accuracy(
                        one.result.architectures[int(np.argmax(one.result.values[:number]))]
                    )
                    for one in found
                ],
                "above_evolution": against.tolist(),
                "seconds": [one.seconds for one in found],
            }
            rows.append(row(f"{name}, {number} queries", TASK, range(num_seeds), metrics))
    return write_record(
        "nasbench201_queries",
        command=command,
        settings={"queries": list(queries), "num_seeds": num_seeds},
        rows=[*rows, benchmark.largest_cell_row()],
        wall_seconds=time.perf_counter() - started,
        folder=folder,
    )


def searches_of(benchmark: Table, most: int) -> dict[str, Callable[[int], QuerySearch]]:
    """Return the searches by name, each called with a seed.

    Args:
        benchmark: The table.
        most: Queries of each search.
    """
    cells = [spaces.architecture_from_string(name) for name in benchmark.rows]
    candidates, edges = Candidates(spaces.nasbench201_cell(1), cells), cell_edges()
    measure = benchmark.validation_accuracy

    def by_posterior(proposal: Proposal) -> Callable[[int], QuerySearch]:
        return lambda seed: search_by_queries(
            candidates, measure, num_queries=most, proposal=proposal, seed=seed
        )

    return {
        IMPROVEMENT: by_posterior("expected_improvement"),
        THOMPSON: by_posterior("thompson"),
        EVOLUTION: lambda seed: evolution(edges, measure, num_queries=most, seed=seed),
        RANDOM: lambda seed: random_search(edges, measure, num_queries=most, seed=seed),
    }


def recommended(benchmark: Table, found: Sequence[TimedSearch], number: int) -> list[float]:
    """Return the test accuracy of the cell that each search recommends after so many queries."""
    return [benchmark.test_accuracy(one.result.best(number)) for one in found]


if __name__ == "__main__":
    main()
