"""The command line: thin, over the same functions that Python users call."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyro_relevance
from pyro_relevance.commands.predict import add_predict
from pyro_relevance.commands.report.command import add_report
from pyro_relevance.commands.table.command import add_table

__all__ = ["main"]

SEARCH = """\
Which operations, how deep, how wide? Searches a space of networks for one that fits the data.

The operations of each edge are a latent variable with a posterior. The result is a plain trained
network of the chosen operations. Without --data the Boston housing data are used, with --space mlp.

The run folder holds: posterior.nc (ArviZ), posterior.safetensors, network.safetensors (the plain
network), record.json, report.txt and a figure of each structure as PDF and PNG. While a search is
unfinished, checkpoints/ is there, too: the same command goes on from it.
"""

COMPARE = """\
The library and its rivals on the same data, with the same training recipe and the same time.

Each run (a method and a seed) has the same wall-clock budget, design, training and retraining
together. Finished runs are kept, and a comparison that was killed goes on. On several
machines: torchrun --nnodes N ... --no-python pyro-relevance compare ..., with a folder that all of
them share.

The folder holds: table.txt, table.tex (booktabs), record.json, pareto.pdf and .png, and runs/
with the results and the network of each run.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0 done, 2 wrong input, 3 done, but the fit failed and there is nothing to report from it, 130
    interrupted, 143 ended by SIGTERM.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    with _anything_printable():
        return _run(given)


def _run(given: argparse.Namespace) -> int:
    try:
        with _interrupted_by_sigterm(), _logged(not getattr(given, "quiet", False)):
            return int(given.run(given))
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if given.traceback:
            raise
        print(f"pyro-relevance: {error}", file=sys.stderr)
        return 2
    except _Terminated:
        print(
            "pyro-relevance: ended by SIGTERM; the same command goes on from here.", file=sys.stderr
        )
        return 143
    except KeyboardInterrupt:
        print("pyro-relevance: interrupted; the same command goes on from here.", file=sys.stderr)
        return 130


@contextlib.contextmanager
def _logged(wanted: bool) -> Iterator[None]:
    """Write what the library logs, such as the progress in a file, to the standard error stream."""
    logger, handler = logging.getLogger("pyro_relevance"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    level = logger.level
    if wanted:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Terminated(KeyboardInterrupt):
    """The process was asked to end: everything is left as after Ctrl-C."""


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM interrupt the block, as Ctrl-C does; outside of the main thread nothing changes.

    A worker that was forked inside the block just ends.
    """
    process = os.getpid()

    def end(number: int, frame: object) -> None:
        if os.getpid() != process:
            os._exit(128 + number)
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextlib.contextmanager
def _anything_printable() -> Iterator[None]:
    """Print question marks for what a terminal's encoding lacks, inside the block."""
    streams = [s for s in (sys.stdout, sys.stderr) if isinstance(s, io.TextIOWrapper)]
    before = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors="replace")
    try:
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            stream.reconfigure(errors=errors)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pyro-relevance",
        description="Which parts of a neural network matter, as a posterior.",
    )
    parser.add_argument(
        "--version", action="version", version=f"pyro-relevance {pyro_relevance.__version__}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_table(commands)
    add_predict(commands)
    add_report(commands)
    _add_search(commands)
    _add_compare(commands)
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
    search.add_argument(
        "--size",
        choices=("small", "full"),
        default="small",
        help="of the cells: small for a CPU (default), or full, the sizes of the papers, for a GPU",
    )
    search.add_argument("--epochs", type=int, help="epochs of the search")
    search.add_argument("--epochs-after", type=int, help="epochs of the derived network")
    search.add_argument("--device", default="cpu", help="where to train: cpu (default), cuda, ...")
    search.add_argument("--out", type=Path, metavar="DIR", help="run folder (default: runs/...)")
    search.add_argument("--seed", type=int, default=0, help="seed of everything (default: 0)")
    search.add_argument("--quiet", action="store_true", help="no progress bars")
    search.add_argument("--traceback", action="store_true", help="show where an error was raised")


def _add_compare(commands: Any) -> None:
    compare = commands.add_parser(
        "compare",
        help="methods on the same task in the same time",
        description=COMPARE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.set_defaults(run=_compare)
    compare.add_argument(
        "--task",
        choices=("boston", "mnist", "cifar10", "nasbench201"),
        required=True,
        help="data, recipe, network to prune and space to search",
    )
    compare.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help="names of methods (default: all that the task allows); --methods list shows them",
    )
    compare.add_argument(
        "--budget-minutes", type=float, default=1.0, metavar="M", help="of one run (default: 1)"
    )
    compare.add_argument("--seeds", type=int, default=5, metavar="K", help="runs of each method")
    compare.add_argument("--root", type=Path, help="folder of the images; or PYRO_RELEVANCE_DATA")
    compare.add_argument("--num-data", type=int, metavar="N", help="training images, at most")
    compare.add_argument(
        "--num-parameters",
        type=int,
        metavar="N",
        help="limit on parameters (default: 200 of boston, 20000 of mnist)",
    )
    compare.add_argument(
        "--table", type=Path, help="CSV file of NAS-Bench-201, used to report found cells only"
    )
    compare.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="W",
        help="processes among which runs and cores are shared out (default: 1)",
    )
    compare.add_argument("--device", default="cpu", help="where to train: cpu (default), cuda, ...")
    compare.add_argument("--out", type=Path, metavar="DIR", help="folder (default: runs/compare-*)")
    compare.add_argument("--quiet", action="store_true", help="no progress bar")
    compare.add_argument("--traceback", action="store_true", help="show where an error was raised")


def _compare(given: argparse.Namespace) -> int:
    from pyro_relevance.comparison import METHODS, Comparison, make_task, methods_of, run_all
    from pyro_relevance.comparison.files import write_comparison

    if given.methods == ["list"]:
        for name, method in METHODS.items():
            print(f"{name:20s} {method.about}")
        return 0
    root = None if given.root is None else str(given.root)
    methods = given.methods
    if methods is None:
        methods = methods_of(make_task(given.task, root=root, num_data=given.num_data))
    comparison = Comparison(
        given.task,
        tuple(methods),
        given.budget_minutes,
        given.seeds,
        root,
        given.num_data,
        None if given.table is None else str(given.table),
        str(_device(given.device)),
        given.num_parameters,
    )
    folder = given.out or Path("runs") / f"compare-{given.task}"
    run_all(comparison, folder / "runs", num_workers=given.workers, progress=not given.quiet)
    if int(os.environ.get("RANK", 0)) > 0:
        return 0
    command = shlex.join(["pyro-relevance", *sys.argv[1:]])
    print(write_comparison(comparison, folder, command=command))
    print(f"\nWritten to {folder}.")
    return 0


def _search(given: argparse.Namespace) -> int:
    from pyro_relevance._locks import locked_folder
    from pyro_relevance.commands.search import run_search
    from pyro_relevance.data import datasets, tables
    from pyro_relevance.search.tasks import default_settings, image_data, table_data

    device = _device(given.device)
    defaults = default_settings(given.space, given.size)
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
        defaults,
        seed=given.seed,
        **{name: value for name, value in changed.items() if value is not None},
    )
    folder = given.out or Path("runs") / f"search-{given.space}-{data.name}"
    with warnings.catch_warnings(), locked_folder(folder):
        warnings.simplefilter("ignore", FutureWarning)  # ArviZ and xarray, about their own future
        _, text = run_search(
            given.space,
            data.to(device),
            settings,
            folder,
            command=shlex.join(["pyro-relevance", *sys.argv[1:]]),
            size=given.size,
            progress=not given.quiet,
        )
    print(text)
    print(f"\nWritten to {folder}.")
    return 0


def _device(name: str) -> Any:
    """Return an available device.

    Raises:
        ValueError: If it is not.
    """
    import torch

    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise ValueError(
            f"Expected --device to name a device of this machine, such as cpu, but got {name!r}: "
            f"{str(error).splitlines()[0]}"
        ) from None
    return device


if __name__ == "__main__":
    sys.exit(main())
