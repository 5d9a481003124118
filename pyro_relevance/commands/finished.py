"""A run folder that has a finished run: recognised before any work."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd

from pyro_relevance.commands.table.settings import TableSettings
from pyro_relevance.comparison.records import read_sealed
from pyro_relevance.data.tables import Table

__all__ = ["finished_report", "identity"]

_FILES = ("record.json", "report.txt", "posterior.nc", "network.safetensors", "fit.safetensors")


def identity(table: Table, settings: TableSettings) -> dict[str, Any]:
    """Return what decides the numbers of a run, as JSON-able values.

    Args:
        table: The table; its rows and columns count, its path does not.
        settings: The settings.
    """
    digest = hashlib.sha256(json.dumps([table.task, table.target_name]).encode())
    for name, column in [*table.features.items(), (table.target_name, table.target)]:
        digest.update(json.dumps([str(name), str(column.dtype)]).encode())
        digest.update(pd.util.hash_pandas_object(column, index=False).to_numpy().tobytes())
    described = {"table": digest.hexdigest(), **dataclasses.asdict(settings)}
    content: dict[str, Any] = json.loads(json.dumps(described, default=str))
    return content


def finished_report(folder: Path, table: Table, settings: TableSettings) -> tuple[str, bool] | None:
    """Return the report of a folder that has this very run, and whether its fit failed.

    Args:
        folder: The run folder.
        table: The table of the run that is asked for.
        settings: Its settings.

    Returns:
        ``None`` where there is no finished run yet, or one that does not say what it was.

    Raises:
        ValueError: If the folder has a finished run of another table or of other settings.
    """
    if not all((folder / name).is_file() for name in _FILES):
        return None
    if any(folder.glob("checkpoint.safetensors*")):
        return None  # killed before everything was written
    try:
        record = read_sealed(folder / "record.json")
        report = (folder / "report.txt").read_text(encoding="utf-8")
    except (ValueError, OSError):
        return None  # damaged: it is written again
    known, asked = record.get("identity"), identity(table, settings)
    if not isinstance(known, dict):
        return None
    if known == asked:
        return report, bool(record.get("fit_failed", False))
    different = _differences(known, asked)
    raise ValueError(
        f"Expected an empty run folder or one of the same run, but {folder} has a finished run "
        f"with {different}. Choose another folder with --out, or delete this one."
    )


def _differences(known: dict[str, Any], asked: dict[str, Any]) -> str:
    """Return what differs, in words."""
    found = []
    for name in sorted({*known, *asked}):
        one, other = known.get(name), asked.get(name)
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            found.append(_differences(one, other))
        elif name == "table":
            found.append("another table")
        else:
            found.append(f"{name} {one} (now {other})")
    return ", ".join(found)
