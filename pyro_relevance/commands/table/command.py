"""The command ``table``: its options, and what is done with them."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyro_relevance.commands.table.settings import TableSettings

__all__ = ["add_table", "run_table_command"]

TABLE = """\
Which columns of a table, and which weights of a network, matter for a target?

Says first whether the fit worked, then which columns are relevant at a false discovery rate: a
holdout randomisation test on the networks of the cross-validation. Fits a network with a latent
gate on every input and every weight, shows the posterior of the gates, prunes the network, and
tests dense, posterior mean and pruned network on rows that were not used. Without FILE the Boston
housing data are used. Exit status: 0 done, 2 wrong input, 3 the fit failed, 130 interrupted, 143
ended by SIGTERM.

The run folder holds: posterior.nc (ArviZ), network.safetensors (the small network),
fit.safetensors (the posterior), encoder.json, record.json, report.txt and the figures as PDF and
PNG. While a run is unfinished, checkpoint.safetensors and checkpoint.safetensors.previous are
there, too: the same command goes on from them. They are removed when all else is written. In the
folder of a finished run the same command prints the report again, and any other is refused.
"""


def add_table(commands: Any) -> None:
    """Add the command ``table`` to the commands of a parser."""
    table = commands.add_parser(
        "table",
        help="relevance of the columns of a CSV file, and a small network for its target",
        description=TABLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    table.set_defaults(run=run_table_command)
    table.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="a CSV file with a header, perhaps compressed, or a Parquet file",
    )
    table.add_argument("--target", metavar="COLUMN", help="the column to predict")
    table.add_argument(
        "--task",
        choices=("auto", "regression", "classification"),
        default="auto",
        help="what the target is (default: decided by the values of the column)",
    )
    table.add_argument(
        "--separator",
        metavar="CHAR",
        help="between columns: a character, tab or whitespace (default: recognised)",
    )
    table.add_argument("--encoding", metavar="NAME", help="of the file (default: recognised)")
    table.add_argument(
        "--out", type=Path, metavar="DIR", help="run folder (default: runs/<file>-<target>)"
    )
    table.add_argument(
        "--hidden",
        type=_sizes,
        default=(50,),
        metavar="N[,N...]",
        help="hidden units (default: 50)",
    )
    table.add_argument(
        "--rule",
        choices=("median", "fdr"),
        default="median",
        help="what is kept: inclusion probability above 1/2 (median, the default), or the largest "
        "set with at most --rate false discoveries expected by the posterior (fdr); this recipe is "
        "tuned to predict, and its posterior does not keep that rate",
    )
    table.add_argument(
        "--rate", type=float, default=0.1, help="false discovery rate of fdr (default: 0.1)"
    )
    table.add_argument(
        "--prior-log-odds",
        type=float,
        default=-1.5,
        metavar="NATS",
        help="prior log-odds of every gate; lower keeps less (default: -1.5)",
    )
    _add_sizes(table)


def _add_sizes(table: argparse.ArgumentParser) -> None:
    """Add how much is computed, and where it goes."""
    table.add_argument("--chains", type=int, default=8, help="independent fits (default: 8)")
    table.add_argument(
        "--workers",
        type=int,
        default=min(2, _cores()),
        metavar="W",
        help="processes; with 2 the dense network has its own (default: 2, where there are cores)",
    )
    table.add_argument("--steps", type=int, default=6000, help="steps of a fit (default: 6000)")
    table.add_argument("--folds", type=int, default=5, help="folds that choose the noise scale")
    table.add_argument(
        "--test-fraction",
        type=float,
        default=0.1,
        help="share of the rows to test on (default: 0.1)",
    )
    table.add_argument("--seed", type=int, default=0, help="seed of everything (default: 0)")
    table.add_argument("--quiet", action="store_true", help="no progress bars")
    table.add_argument("--traceback", action="store_true", help="show where an error was raised")


def run_table_command(given: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from pyro_relevance._locks import locked_folder
    from pyro_relevance.commands.finished import finished_report
    from pyro_relevance.commands.table.files import CHECKPOINT, write_run
    from pyro_relevance.commands.table.job import one_thread
    from pyro_relevance.commands.table.report import table_report
    from pyro_relevance.commands.table.run import run_table
    from pyro_relevance.data import datasets, tables
    from pyro_relevance.training.checkpoint import remove_checkpoint

    if given.file is None:
        if given.target not in (None, "MEDV"):
            raise ValueError(
                f"Expected FILE beside --target {given.target}, but got none. Name the CSV file."
            )
        table = datasets.boston()
    elif given.target is None:
        raise ValueError(f"Expected --target, the column of {given.file} to predict. Name it.")
    else:
        table = tables.read_table(
            given.file,
            target=given.target,
            task=given.task,
            separator=given.separator,
            encoding=given.encoding,
        )
    settings = _settings(given)
    folder = given.out or Path("runs") / f"{Path(table.path).stem}-{table.target_name}"
    with locked_folder(folder):
        if (finished := finished_report(folder, table, settings)) is not None:
            report, failed = finished
            print(f"{report}\nAlready in {folder}: a finished run of this table and settings.")
            return 3 if failed else 0
        with one_thread():
            run = run_table(
                table,
                settings,
                workers=given.workers,
                progress=not given.quiet,
                checkpoint=folder / CHECKPOINT,
            )
        with warnings.catch_warnings():
            # ArviZ and xarray warn about their own future; a user of the command cannot act on it.
            warnings.simplefilter("ignore", FutureWarning)
            paths = write_run(run, folder, command=shlex.join(["pyro-relevance", *sys.argv[1:]]))
        # fit.safetensors has the posterior; a state to go on from would only refuse another run.
        remove_checkpoint(folder / CHECKPOINT)
    print(table_report(run))
    print(f"\nWritten to {folder}: {', '.join(path.name for path in paths)}")
    return 3 if run.diagnosis.failed else 0


def _settings(given: argparse.Namespace) -> TableSettings:
    """Return the settings of the options."""
    from pyro_relevance.commands.table.settings import TableSettings

    return TableSettings(
        recipe=replace(
            TableSettings().recipe,
            hidden=given.hidden,
            prior_log_odds=given.prior_log_odds,
            num_steps=given.steps,
        ),
        rule=given.rule,
        rate=given.rate,
        num_chains=given.chains,
        num_folds=given.folds,
        test_fraction=given.test_fraction,
        seed=given.seed,
    )


def _cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise argparse.ArgumentTypeError(
            f"expected positive numbers such as 50 or 50,20, got {text!r}"
        )
    return sizes
