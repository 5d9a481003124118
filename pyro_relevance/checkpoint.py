"""The state of an unfinished run on disk: tensors only, written atomically, with the previous one kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pyro_relevance._files import replacing
from pyro_relevance.errors import CheckpointError

__all__ = ["Checkpoint", "fingerprint", "read_checkpoint", "read_tensors", "write_checkpoint", "write_tensors"]

FORMAT = "pyro_relevance checkpoint 1"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where and how often ``fit`` writes its state; a run with the same path goes on from it.

    Args:
        path: The file. The previous state stays beside it under the same name with ``.previous`` added.
        interval: Seconds between two writes, at least.
    """

    path: str | os.PathLike[str]
    interval: float = 60.0


def fingerprint(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return a digest of a run's settings and data, by which a checkpoint knows the run that it belongs to."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(tensors.items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write tensors and a JSON-able description to one safetensors file, completely or not at all.

    Raises:
        OSError: If the disk is full or the folder cannot be written; the previous file stays as it was.
    """
    unshared = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(unshared, temporary, metadata={"description": json.dumps(description)})
        except SafetensorError as error:  # what the library makes of a full disk
            raise OSError(f"Expected to write {path}, but got: {error}. Free some space and try again.") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the description of a file of `write_tensors`.

    Raises:
        CheckpointError: If the file is missing, damaged or of another kind.
    """
    if not path.is_file():
        raise CheckpointError(f"Expected a file at {path}, but there is none. Check the path.")
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {}).get("description", ""))
            return {name: file.get_tensor(name) for name in file.keys()}, description  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(
            f"Expected a complete file of this library at {path}, but it is damaged or of another kind ({error}). "
            "Use another copy, or delete it to start again."
        ) from error


def _previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write the state of a run; the state before it stays beside it.

    Raises:
        OSError: As `write_tensors`; the last state stays in place.
    """
    fresh = path.with_name(path.name + ".new")
    write_tensors(fresh, tensors, {**description, "format": FORMAT})
    if path.exists():
        os.replace(path, _previous(path))
    os.replace(fresh, path)


def read_checkpoint(path: Path, run: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the state of a run, or ``None`` if there is none yet.

    A damaged file is passed over for the previous one, which costs one interval and loses nothing else.

    Args:
        path: The checkpoint.
        run: Fingerprint of the run that wants to go on.

    Raises:
        CheckpointError: If both files are damaged, or they belong to another run.
    """
    if not path.exists() and not _previous(path).exists():
        return None
    try:
        tensors, description = read_tensors(path)
    except CheckpointError:
        if not _previous(path).exists():
            raise
        tensors, description = read_tensors(_previous(path))
    if description.get("format") != FORMAT:
        raise CheckpointError(f"Expected a checkpoint at {path}, but the file is of another kind. Choose another path.")
    if description.get("run") != run:
        raise CheckpointError(
            f"Expected the checkpoint at {path} to belong to this run, but it was written with other data, settings or "
            "seed. Delete it to start again, or give each run a path of its own."
        )
    return tensors, description
