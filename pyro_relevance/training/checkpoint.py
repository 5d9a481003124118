"""The state of an unfinished run on disk: tensors only, beside the previous state."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pyro_relevance._files import read_tensors, remove_abandoned, replacing, save_tensors
from pyro_relevance._locks import locked
from pyro_relevance.errors import CheckpointError

__all__ = [
    "Checkpoint",
    "alone_with",
    "fingerprint",
    "read_checkpoint",
    "remove_checkpoint",
    "remove_checkpoints",
    "write_checkpoint",
]

FORMAT = "pyro_relevance checkpoint 1"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where and how often ``fit`` writes its state; a run with the same path goes on from it.

    Args:
        path: The file. The previous state is kept beside it, with ``.previous`` added to its name.
        interval: Seconds between two writes, at least; 0 writes at each record of the history.

    Raises:
        ValueError: If ``interval`` is negative.
    """

    path: str | os.PathLike[str]
    interval: float = 60.0

    def __post_init__(self) -> None:
        """Check the interval."""
        if not (math.isfinite(self.interval) and self.interval >= 0):
            raise ValueError(
                f"Expected interval >= 0 seconds between two writes, but got {self.interval}."
            )


def fingerprint(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return a digest of a run's settings and data, by which a checkpoint knows its run.

    Args:
        settings: JSON-able settings.
        tensors: Data and initial state by name.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        if value.numel():
            digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def alone_with(checkpoint: Checkpoint) -> AbstractContextManager[None]:
    """Return a block in which no other run reads or writes a checkpoint.

    Args:
        checkpoint: The checkpoint.

    Raises:
        FileNotFoundError: If its folder does not exist.
        InUseError: If another run has it.
        OSError: If its folder cannot be written.
    """
    path = Path(checkpoint.path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"Expected the folder of the checkpoint {path} to exist, but got none. Create "
            f"{path.parent} first."
        )
    return locked(path.with_name(path.name + ".lock"), f"the checkpoint {path}")


def _previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")


def write_checkpoint(
    path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]
) -> None:
    """Write the state of a run; the previous state is kept beside it.

    There is a complete state at ``path`` at every moment, so that an interrupt, a full disk or a
    loss of power costs at most the state that was being written.

    Args:
        path: The checkpoint.
        tensors: The state.
        description: JSON-able description.

    Raises:
        OSError: As `write_tensors`; the last state stays in place.
    """
    with replacing(path) as temporary:
        save_tensors(path, temporary, tensors, {**description, "format": FORMAT})
        if _is_complete(path):
            _keep_previous(path)


def _is_complete(path: Path) -> bool:
    """Return whether a file is whole, by its header and its length; a damaged one is not kept."""
    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt"):
            return True
    except (SafetensorError, OSError):
        return False


def _keep_previous(path: Path) -> None:
    """Give the last state a second name; where a file system has no links, rename it."""
    link = path.with_name(path.name + ".link")
    link.unlink(missing_ok=True)
    try:
        with contextlib.suppress(OSError):
            os.link(path, link)
        os.replace(link if link.exists() else path, _previous(path))
    finally:
        link.unlink(missing_ok=True)


def remove_checkpoint(path: Path) -> None:
    """Remove the state of a run that is finished, and the state before it.

    Args:
        path: The checkpoint; where there is none, nothing happens.
    """
    for file in (_previous(path), path.with_name(path.name + ".link"), path):
        file.unlink(missing_ok=True)


def remove_checkpoints(folder: Path, suffix: str) -> None:
    """Remove all states in a folder of them, and the folder if nothing else is there.

    Args:
        folder: The folder; where there is none, nothing happens.
        suffix: Of the names of its checkpoints.
    """
    for extra in ("", ".previous"):
        for path in folder.glob(f"*{suffix}{extra}"):
            remove_checkpoint(path.with_name(path.name.removesuffix(extra)))
    remove_abandoned(folder)
    with contextlib.suppress(OSError):
        folder.rmdir()


def read_checkpoint(path: Path, run: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the state of a run, or ``None`` if there is none yet.

    If the file is damaged, the previous one is read instead: the run loses one interval.

    Args:
        path: The checkpoint.
        run: Fingerprint of the run that wants to go on.

    Raises:
        CheckpointError: If both files are damaged, or they belong to another run.
    """
    source, previous = path, _previous(path)
    if not path.exists() and not previous.exists():
        return None
    try:
        tensors, description = read_tensors(path)
    except CheckpointError as error:
        if not previous.exists():
            raise
        source = previous
        try:
            tensors, description = read_tensors(previous)
        except CheckpointError as second:
            raise CheckpointError(
                f"Expected a complete checkpoint at {path} or {previous}, but both are damaged "
                f"({error}; {second}). Delete them to start again."
            ) from error
    if description.get("format") != FORMAT:
        raise CheckpointError(
            f"Expected a checkpoint at {source}, but the file is of another kind. Choose another "
            "path."
        )
    if description.get("run") != run:
        raise CheckpointError(
            f"Expected the checkpoint at {source} to belong to this run, but it was written with "
            "other data, settings or seed. Delete it to start again, or give each run a path of "
            "its own."
        )
    return tensors, description
