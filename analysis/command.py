"""Command lines of the experiments: the options that they share, read in one way."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.records import RESULTS

__all__ = ["Command"]


class Command(argparse.ArgumentParser):
    """The command line of an experiment, ``python -m analysis.<module>``.

    Every experiment has ``--out``, the folder of its record, and most have ``--smoke``. Options
    that several experiments share have a method each; those of one experiment are added as usual.

    Args:
        module: Name of the script in this folder.
        description: What the experiment is, shown by ``--help`` as it stands.
        smoke: What ``--smoke`` makes small, such as ``"two rounds"``; empty for no such option.
    """

    def __init__(self, module: str, description: str | None, *, smoke: str = "") -> None:
        super().__init__(
            prog=f"python -m analysis.{module}",
            description=description,
            formatter_class=argparse.RawTextHelpFormatter,
        )
        self.add_argument("--out", type=Path, default=RESULTS, help="folder of the record")
        if smoke:
            self.add_argument("--smoke", action="store_true", help=f"{smoke}: seconds")

    def add_root(self, files: str) -> None:
        """Add ``--root``, the folder of the data.

        Args:
            files: What lies there.
        """
        self.add_argument("--root", help=f"folder with {files}; or PYRO_RELEVANCE_DATA")

    def add_table(self) -> None:
        """Add ``--table``, the file of NAS-Bench-201, which must be given."""
        self.add_argument("--table", type=Path, required=True, help="CSV file of the benchmark")

    def add_seeds(self, number: int, what: str) -> None:
        """Add ``--seeds``.

        Args:
            number: How many seeds without the option.
            what: What is done with each, in the plural.
        """
        self.add_argument("--seeds", type=int, default=number, help=f"number of {what}")

    def add_seed(self) -> None:
        """Add ``--seed``: only one of the seeds, so that processes share the work."""
        self.add_argument("--seed", type=int, help="one of the seeds, beside other processes")

    def add_validate(self) -> None:
        """Add ``--validate``: evaluate on images carved from the training images."""
        self.add_argument("--validate", action="store_true", help="evaluate on validation images")

    def add_only(self, what: str, choices: Sequence[str] | None = None) -> None:
        """Add ``--only``.

        Args:
            what: What it names.
            choices: All of these; ``None`` where it is checked later.
        """
        self.add_argument("--only", choices=choices, help=what)

    def line(self, arguments: Sequence[str] | None = None) -> str:
        """Return the command as it was given, for the record.

        Args:
            arguments: The arguments; by default those of this process.
        """
        return " ".join([self.prog, *(sys.argv[1:] if arguments is None else arguments)])
