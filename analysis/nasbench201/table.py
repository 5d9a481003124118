"""The table of NAS-Bench-201 on CIFAR-10: what the benchmark knows of each of its 15,625 cells."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.records import row
from pyro_relevance import Edges, find_edges
from pyro_relevance.graphs import Architecture, is_connected, spaces

__all__ = ["TASK", "Table", "cell_edges", "has_path"]

TASK = "nasbench201"
"""Name of the task in records."""
DEAD = 10.0
"""Test accuracy of a cell without a path from input to output, in percent: that of chance."""


@dataclass(frozen=True)
class Table:
    """Numbers by cell.

    Args:
        rows: Name of a cell in the benchmark -> column -> number.
    """

    rows: dict[str, dict[str, float]]

    @classmethod
    def read(cls, path: Path) -> Table:
        """Read a CSV file with the column ``arch``, one row for each cell.

        Args:
            path: The file.
        """
        with path.open(encoding="utf-8", newline="") as file:
            return cls(
                {
                    line["arch"]: {k: float(v) for k, v in line.items() if k != "arch"}
                    for line in csv.DictReader(file)
                }
            )

    def column(self, architecture: Architecture, name: str) -> float:
        """Return a number of a cell.

        Args:
            architecture: The cell.
            name: The column, such as ``test_acc_200ep``, in percent.
        """
        return self.rows[spaces.architecture_to_string(architecture)][name]

    def test_accuracy(self, architecture: Architecture) -> float:
        """Return the test accuracy of a cell after 200 epochs, in percent.

        Args:
            architecture: The cell.
        """
        return self.column(architecture, "test_acc_200ep")

    def validation_accuracy(self, architecture: Architecture) -> float:
        """Return the validation accuracy of a cell after 12 epochs, in percent: a query.

        Args:
            architecture: The cell.
        """
        return self.column(architecture, "valid_acc_12ep")

    def reported_accuracy(self, cell: str) -> float:
        """Return the test accuracy of a cell in percent, that of chance where it has no path.

        Args:
            cell: Name of the cell in the benchmark.
        """
        return self.rows[cell]["test_acc_200ep"] if has_path(cell) else DEAD

    def largest_cell_row(self) -> dict[str, Any]:
        """Return the row of a record for the cell of 3 x 3 convolutions, which needs no search."""
        names = [group.name for group in cell_edges().operations]
        largest = Architecture(dict.fromkeys(names, "nor_conv_3x3"))
        metrics = {"test_accuracy": [self.test_accuracy(largest)]}
        return row("largest cell, no search", TASK, [0], metrics)


def cell_edges() -> Edges:
    """Return the edges of the benchmark's cell, with their candidate operations."""
    return find_edges(spaces.nasbench201_cell(1), granularity="operation")


def has_path(cell: str) -> bool:
    """Whether a cell has a path from input to output.

    Args:
        cell: Name of the cell in the benchmark.
    """
    return is_connected(spaces.nasbench201_cell(1), spaces.architecture_from_string(cell))
