"""Records of experiments: everything that is needed to repeat a figure, beside its numbers."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

__all__ = ["RESULTS", "metric", "read_record", "row", "write_record"]

RESULTS = Path(__file__).parent / "results"


def metric(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, standard error and values of one metric over seeds or splits."""
    numbers = [float(value) for value in values]
    mean = sum(numbers) / len(numbers)
    variance = sum((v - mean) ** 2 for v in numbers) / max(1, len(numbers) - 1)
    return {"mean": mean, "se": math.sqrt(variance / len(numbers)), "values": numbers}


def row(
    method: str,
    task: str,
    seeds: Sequence[int],
    metrics: Mapping[str, Sequence[float]],
    **more: Any,
) -> dict[str, Any]:
    """Return one row of a record: a method on a task, values in the order of the seeds or splits."""
    return {
        "method": method,
        "task": task,
        "seeds": list(seeds),
        "metrics": {name: metric(values) for name, values in metrics.items()},
        **more,
    }


def write_record(
    name: str,
    *,
    command: str,
    settings: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    wall_seconds: float,
    folder: Path = RESULTS,
    **more: Any,
) -> Path:
    """Write ``<folder>/<name>.json``, completely or not at all; return its path."""
    record = {
        "name": name,
        "command": command,
        "commit": _commit(),
        "device": f"cpu, {torch.get_num_threads()} threads",
        "versions": {
            "python": platform.python_version(),
            **{
                package: metadata.version(package)
                for package in ("torch", "pyro-ppl", "arviz", "numpy")
            },
        },
        "settings": dict(settings),
        "wall_seconds": round(wall_seconds, 1),
        "rows": list(rows),
        **more,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    temporary = path.with_suffix(".json.tmp")
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(temporary, path)
    return path


def read_record(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """Return a record.

    Raises:
        SystemExit: If it has not been made yet; the message says how to make it.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        sys.exit(
            f"Expected {path}, but there is none. analysis/README.md says which command makes it."
        )
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def _commit() -> str:
    """Return the commit, with a plus sign where the package or the analysis has uncommitted changes."""
    root = Path(__file__).parents[1]
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", "pyro_relevance", "analysis/*.py"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")
