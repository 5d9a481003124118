"""The command ``predict``: new rows of a file through the network of a run folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

__all__ = ["add_predict"]

PREDICT = """\
The target of new rows, by the pruned network of a run folder of 'pyro-relevance table'.

FILE needs the columns that the network was trained on, in any order; others are not looked at. A
CSV file is written: the number of the row (1 is the first below the header), the prediction in the
target's units and the ends of its interval, or the class and the probability of each. Levels that
the training rows did not have are told. Exit status: 0 done, 2 wrong input, 3 done, but the fit of
the run failed.
"""


def add_predict(commands: Any) -> None:
    """Add the command ``predict`` to the commands of a parser."""
    predict = commands.add_parser(
        "predict",
        help="the target of new rows, by the network of a run folder",
        description=PREDICT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    predict.set_defaults(run=_predict)
    predict.add_argument(
        "folder", type=Path, metavar="RUN", help="run folder of pyro-relevance table"
    )
    predict.add_argument("file", type=Path, metavar="FILE", help="a CSV file with a header")
    predict.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="CSV file to write (default: <file>-predictions.csv beside FILE)",
    )
    predict.add_argument(
        "--probability",
        type=float,
        default=0.89,
        help="probability of the target to lie in the interval (default: 0.89)",
    )
    predict.add_argument("--traceback", action="store_true", help="show where an error was raised")


def _predict(given: argparse.Namespace) -> int:
    import warnings

    import pandas as pd

    from pyro_relevance._files import replacing
    from pyro_relevance.commands.table.predictor import load_run
    from pyro_relevance.data.tables.rows import read_rows

    out = given.out or given.file.with_name(f"{given.file.stem}-predictions.csv")
    if out.resolve() == given.file.resolve():
        raise ValueError(f"Expected --out to be another file than {given.file}. Name another.")
    run = load_run(given.folder)
    frame, notes = read_rows(given.file, run.encoder)
    notes += run.notes(frame)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # they are printed
        columns: dict[str, Any] = {"row": range(1, len(frame) + 1)}
        columns["prediction"] = run.predict(frame)
        if run.task == "regression":
            ends = run.predict_interval(frame, given.probability)
            columns |= {"lower": ends[:, 0], "upper": ends[:, 1]}
        else:
            shares = run.predict_proba(frame)
            columns |= {f"P({label})": shares[:, k] for k, label in enumerate(run.classes)}
    with replacing(out) as temporary:
        pd.DataFrame(columns).to_csv(temporary, index=False, float_format="%.8g")
    for note in notes:
        print(f"Note: {note}")
    what = f"'{run.encoder.target_name}' of {len(frame)} rows"
    inside = f", {given.probability:.3g} intervals" if run.task == "regression" else ""
    print(f"Predictions for {what}{inside}, written to {out}.")
    if run.failed:
        print(
            f"The fit of {given.folder} failed: do not use these predictions. Its report.txt says "
            "what to do.",
            file=sys.stderr,
        )
    return 3 if run.failed else 0
