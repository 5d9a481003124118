"""The command ``report``: a page of a finished run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_report"]

REPORT = """\
One page of a finished run of 'pyro-relevance table', to read, to print and to pass on.

Writes report.html, which holds its figures and needs no network, and report.tex, the tables for
LaTeX (booktabs). The page has the verdict in words, which inputs are relevant and why, test results
beside simple baselines, sizes and times before and after, the risk, figures, settings and versions.
Exit status: 0 done, 2 wrong input, 3 done, but the fit of the run failed.
"""


def add_report(commands: Any) -> None:
    """Add the command ``report`` to the commands of a parser."""
    report = commands.add_parser(
        "report",
        help="a finished run as one HTML page, and LaTeX tables",
        description=REPORT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.set_defaults(run=_report)
    report.add_argument(
        "folder", type=Path, metavar="RUN", help="run folder of pyro-relevance table"
    )
    report.add_argument(
        "--out", type=Path, metavar="FILE", help="HTML file (default: report.html in RUN)"
    )
    report.add_argument("--traceback", action="store_true", help="show where an error was raised")


def _report(given: argparse.Namespace) -> int:
    from pyro_relevance.commands.report.content import read_content
    from pyro_relevance.commands.report.page import write_report

    paths = write_report(given.folder, given.out)
    print(f"Written: {', '.join(map(str, paths))}")
    return 3 if read_content(given.folder).failed else 0
