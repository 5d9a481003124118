"""Records of experiments: what the library writes of any run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyro_relevance.comparison.records import make_record, metric, row, write_json

__all__ = ["RESULTS", "metric", "read_record", "row", "runs_row", "write_record"]

RESULTS = Path(__file__).parent / "results"


def runs_row(
    method: str, task: str, runs: Sequence[Mapping[str, float]], **more: Any
) -> dict[str, Any]:
    """Return the row of a method from the metrics of its runs.

    Args:
        method: The method.
        task: What it was run on.
        runs: Metrics of the runs with seeds 0, 1, and so on.
        **more: Further entries.
    """
    metrics = {name: [run[name] for run in runs] for name in runs[0]}
    return row(method, task, range(len(runs)), metrics, **more)


def write_record(
    name: str,
    *,
    command: str,
    settings: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    wall_seconds: float,
    folder: Path = RESULTS,
    device: str = "cpu",
    **more: Any,
) -> Path:
    """Write ``<folder>/<name>.json``, completely or not at all; return its path."""
    record = make_record(
        name,
        command=command,
        settings=settings,
        rows=rows,
        wall_seconds=wall_seconds,
        device=device,
        **more,
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    write_json(path, record)
    return path


def read_record(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """Return a record.

    Raises:
        SystemExit: If it has not been made yet; the message says how to make it.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        sys.exit(f"Expected {path}, but there is none. See analysis/README.md for its command.")
    return json.loads(path.read_text())  # type: ignore[no-any-return]
