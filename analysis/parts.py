"""Runs of a long experiment, each kept in a file of its own, so that a killed one goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyro_relevance.comparison.records import write_json

__all__ = ["keep", "kept"]


def kept(path: Path, about: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the content of the file of a run, where it was made with the same settings.

    Args:
        path: The file.
        about: All that the run depends on.
    """
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text())
    return content if content.get("about") == json.loads(json.dumps(about)) else None


def keep(path: Path, about: Mapping[str, Any], **content: Any) -> dict[str, Any]:
    """Write the file of a run and return its content.

    Args:
        path: The file.
        about: All that the run depends on.
        content: What it found.
    """
    whole = {"about": dict(about), **content}
    write_json(path, whole)
    return whole
