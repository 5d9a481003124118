"""The command line: thin, over the same functions that Python users call."""

from __future__ import annotations

import argparse
import shlex
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyro_relevance

__all__ = ["main"]

TABLE = """\
Which columns of a table, and which weights of a network, matter for a target?

Fits a network with a latent gate on every input and every weight, shows the posterior of the gates,
prunes the network, and tests dense, posterior mean and pruned network on rows that were not used.
Without FILE the Boston housing data are used.

The run folder holds: posterior.nc (ArviZ), network.safetensors (the small network),
fit.safetensors (the posterior), checkpoint.safetensors (an interrupted run goes on from it),
encoder.json, record.json, report.txt and the figures as PDF and PNG.
"""

SEARCH = """\
Which operations, how deep, how wide? Searches a space of networks for one that fits the data.

The operations of each edge are a latent variable with a posterior; what is left of the choice is a
plain trained network. Without --data the Boston housing data are used, with --space mlp.

The run folder holds: posterior.nc (ArviZ), posterior.safetensors, network.safetensors (the plain
network), record.json, report.txt, a figure of each structure as PDF and PNG, and checkpoints/, from
which an interrupted search goes on.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 2 wrong input, 130 interrupted."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        return int(given.run(given))
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if given.traceback:
            raise
        print(f"pyro-relevance: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pyro-relevance: interrupted; the same command goes on from here.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pyro-relevance",
        description="Which parts of a neural network matter, as a posterior.",
    )
    parser.add_argument(
        "--version", action="version", version=f"pyro-relevance {pyro_relevance.__version__}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    table = commands.add_parser(
        "table",
        help="relevance of the columns of a CSV file, and a small network for its target",
        description=TABLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    table.set_defaults(run=_table)
    table.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="a CSV file with a header"
    )
    table.add_argument("--target", metavar="COLUMN", help="the column to predict")
    table.add_argument(
        "--task",
        choices=("auto", "regression", "classification"),
        default="auto",
        help="what the target is (default: told from the column)",
    )
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
    table.add_argument("--chains", type=int, default=8, help="independent fits (default: 8)")
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
    _add_search(commands)
    return parser


def _add_search(commands: Any) -> None:
    search = commands.add_parser(
        "search",
        help="structure of a network: operations, depth, activations, widths",
        description=SEARCH,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    search.set_defaults(run=_search)
    search.add_argument(
        "--space",
        choices=("mlp", "lenet", "nasbench201", "darts"),
        required=True,
        help="what can be chosen: mlp for tables, the others for images",
    )
    search.add_argument(
        "--data",
        metavar="FILE|mnist|cifar10",
        help="a CSV file with a header, or the name of a data set (default: Boston housing)",
    )
    search.add_argument("--target", metavar="COLUMN", help="the column of the table to predict")
    search.add_argument("--root", type=Path, help="folder of the images; or PYRO_RELEVANCE_DATA")
    search.add_argument("--num-data", type=int, metavar="N", help="training images, at most")
    search.add_argument("--epochs", type=int, help="passes of the search")
    search.add_argument("--epochs-after", type=int, help="passes of the derived network")
    search.add_argument("--out", type=Path, metavar="DIR", help="run folder (default: runs/...)")
    search.add_argument("--seed", type=int, default=0, help="seed of everything (default: 0)")
    search.add_argument("--quiet", action="store_true", help="no progress bars")
    search.add_argument("--traceback", action="store_true", help="show where an error was raised")


def _search(given: argparse.Namespace) -> int:
    from pyro_relevance import datasets, tables
    from pyro_relevance.search_run import DEFAULTS, image_data, run_search, table_data

    if given.data in ("mnist", "cifar10"):
        data = image_data(given.data, given.root, num_data=given.num_data)
    elif given.data is None and given.target in (None, "MEDV"):
        data = table_data(datasets.boston(), seed=given.seed)
    elif given.data is None or given.target is None:
        raise ValueError(
            "Expected --data FILE and --target COLUMN for a table, or --data mnist or cifar10, but "
            f"got --data {given.data} and --target {given.target}."
        )
    else:
        data = table_data(tables.read_table(Path(given.data), target=given.target), seed=given.seed)
    changed = {"num_epochs": given.epochs, "num_epochs_after": given.epochs_after}
    settings = replace(
        DEFAULTS[given.space],
        seed=given.seed,
        **{name: value for name, value in changed.items() if value is not None},
    )
    folder = given.out or Path("runs") / f"search-{given.space}-{data.name}"
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # ArviZ and xarray, about their own future
        _, text = run_search(
            given.space,
            data,
            settings,
            folder,
            command=shlex.join(["pyro-relevance", *sys.argv[1:]]),
            progress=not given.quiet,
        )
    print(text)
    print(f"\nWritten to {folder}.")
    return 0


def _table(given: argparse.Namespace) -> int:
    import torch

    from pyro_relevance import datasets, tables
    from pyro_relevance.table_files import CHECKPOINT, write_run
    from pyro_relevance.table_report import table_report
    from pyro_relevance.table_run import TableSettings, run_table

    if given.file is None:
        if given.target not in (None, "MEDV"):
            raise ValueError(
                f"Expected FILE beside --target {given.target}, but got none. Name the CSV file."
            )
        table = datasets.boston()
    elif given.target is None:
        raise ValueError(f"Expected --target, the column of {given.file} to predict. Name it.")
    else:
        table = tables.read_table(given.file, target=given.target, task=given.task)
    settings = TableSettings(
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
    folder = given.out or Path("runs") / f"{Path(table.path).stem}-{table.target_name}"
    folder.mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    # The tensors of a table are small: a second thread waits more than it works.
    torch.set_num_threads(1)
    try:
        run = run_table(table, settings, progress=not given.quiet, checkpoint=folder / CHECKPOINT)
    finally:
        torch.set_num_threads(threads)
    with warnings.catch_warnings():
        # ArviZ and xarray warn about their own future; a user of the command cannot act on it.
        warnings.simplefilter("ignore", FutureWarning)
        paths = write_run(run, folder, command=shlex.join(["pyro-relevance", *sys.argv[1:]]))
    print(table_report(run))
    print(f"\nWritten to {folder}: {', '.join(path.name for path in paths)}")
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
