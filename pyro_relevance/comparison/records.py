"""Records of results as JSON: metrics with their values, settings, versions, wall time."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from pyro_relevance._files import SCHEMA, digest_of_json, parse_json, replacing

__all__ = [
    "commit",
    "machine",
    "make_record",
    "metric",
    "read_sealed",
    "row",
    "sealed",
    "write_json",
]


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
    """Return one row of a record: a method on a task, values in the order of the seeds."""
    return {
        "method": method,
        "task": task,
        "seeds": list(seeds),
        "metrics": {name: metric(values) for name, values in metrics.items()},
        **more,
    }


def make_record(
    name: str,
    *,
    command: str,
    settings: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    wall_seconds: float,
    device: torch.device | str = "cpu",
    **more: Any,
) -> dict[str, Any]:
    """Return a record.

    Args:
        name: Name of the experiment or run.
        command: The command that repeats it.
        settings: All settings.
        rows: One `row` for each method and task.
        wall_seconds: Wall time of everything, in seconds.
        device: Where it was run.
        **more: Further entries.
    """
    packages = ("torch", "pyro-ppl", "arviz", "numpy")
    versions = {package: metadata.version(package) for package in packages}
    return {
        "name": name,
        "command": command,
        "device": _named(torch.device(device)),
        "versions": {"python": platform.python_version(), **versions},
        "settings": dict(settings),
        "machine": machine(),
        "commit": commit(),
        "wall_seconds": round(wall_seconds, 1),
        "rows": list(rows),
        **more,
    }


def machine() -> dict[str, Any]:
    """Return the processor, its cores, and the mean number of busy processes of 1, 5, 15 minutes.

    The load says how far times of this record can be compared with those of an idle machine.
    """
    load = os.getloadavg() if hasattr(os, "getloadavg") else ()
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": [round(value, 2) for value in load],
    }


def commit() -> str | None:
    """Return the commit of the source, with ``+`` where files differ from it.

    Returns:
        ``None`` where the package was installed without its history, or git is not there.
    """
    git, folder = shutil.which("git"), Path(__file__).parent
    if git is None:
        return None
    try:
        answer = subprocess.run(  # noqa: S603 (fixed arguments)
            [git, "-C", str(folder), "describe", "--always", "--dirty=+", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        inside = subprocess.run(  # noqa: S603 (a package in another project's checkout)
            [git, "-C", str(folder), "ls-files", "--error-unmatch", Path(__file__).name],
            capture_output=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() if inside.returncode == 0 else None


def _named(device: torch.device) -> str:
    """Return what a device is, in words."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {torch.get_num_threads()} threads"
    return f"{device.type}, {torch.get_num_threads()} threads"


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, completely or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON-able mapping with its digest and the version of this layout."""
    marked = {**content, "schema": SCHEMA}
    return {**marked, "digest": digest_of_json(json.loads(json.dumps(marked)))}


def read_sealed(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file, after a check of its digest where it has one.

    Args:
        path: The file; those of earlier releases have no digest.

    Raises:
        ValueError: If it is damaged, or no mapping.
        OSError: If it cannot be read.
    """
    content = parse_json(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("it is not a mapping")
    digest = content.pop("digest", None)
    if (digest is not None or "schema" in content) and digest != digest_of_json(content):
        raise ValueError("its content does not fit its digest")
    return content
