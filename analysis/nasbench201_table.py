"""The table of NAS-Bench-201 on CIFAR-10: what the benchmark knows of each of its 15,625 cells."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from pyro_relevance.graphs import Architecture, spaces

__all__ = ["Table"]


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
