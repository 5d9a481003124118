"""Writes that happen completely or leave the previous file as it was; files of tensors."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_relevance.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "read_safetensors",
    "read_tensors",
    "replacing",
    "save_safetensors",
    "save_tensors",
    "synchronise",
    "tensors_below",
    "write_tensors",
]


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it becomes ``path`` when the block ends well.

    On an error or an interrupt in the block the temporary file is removed and ``path`` stays what
    it was; a loss of power leaves either the old or the complete new file.

    Args:
        path: The file to write; its folder must exist.

    Yields:
        The temporary path, in the same folder and with the same suffix; no such file exists yet.

    Raises:
        FileNotFoundError: If the folder does not exist.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"Expected the folder of {target} to exist, but got none. "
            f"Create {target.parent} first or write elsewhere."
        )
    temporary = target.with_name(f".{target.stem}-{secrets.token_hex(4)}{target.suffix}")
    try:
        yield temporary
        synchronise(temporary)
        os.replace(temporary, target)
        synchronise(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def synchronise(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk.

    File systems that cannot do so for a folder are left alone.

    Args:
        path: The file or folder.

    Raises:
        OSError: If a file cannot be written.
    """
    folder = path.is_dir()
    if folder and os.name == "nt":
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        with contextlib.suppress(OSError) if folder else contextlib.nullcontext():
            os.fsync(handle)
    finally:
        os.close(handle)


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]
) -> None:
    """Write tensors and a description to one safetensors file, completely or not at all.

    Args:
        path: The file.
        tensors: Tensors by name.
        description: JSON-able description.

    Raises:
        OSError: If the disk is full or the folder cannot be written; the previous file stays as it
            was.
    """
    with replacing(path) as temporary:
        save_tensors(path, temporary, tensors, description)


def save_tensors(
    path: Path,
    temporary: Path,
    tensors: Mapping[str, Tensor],
    description: Mapping[str, Any],
) -> None:
    """Write tensors to a temporary name inside a block of `replacing`.

    Args:
        path: The file that it will become, for the message.
        temporary: The name to write to.
        tensors: Tensors by name.
        description: JSON-able description.

    Raises:
        OSError: If the disk is full or the folder cannot be written.
    """
    from safetensors import SafetensorError

    try:
        save_safetensors(temporary, tensors, {"description": json.dumps(description)})
    except SafetensorError as error:  # what the library makes of a full disk
        raise OSError(
            f"Expected to write {path}, but got: {error}. Free some space and try again."
        ) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the description of a file of `write_tensors`.

    Args:
        path: The file.

    Raises:
        CheckpointError: If the file is missing, damaged or of another kind.
    """
    from safetensors import SafetensorError

    if not path.is_file():
        raise CheckpointError(f"Expected a file at {path}, but there is none. Check the path.")
    try:
        tensors, metadata = read_safetensors(path)
        description = json.loads(metadata.get("description", ""))
        if not isinstance(description, dict):
            raise ValueError("its description is not a mapping")
        return tensors, description
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(
            f"Expected a complete file of this library at {path}, but it is damaged or of another "
            f"kind ({error}). Use another copy, or delete it to start again."
        ) from error


def save_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write tensors and texts to a new safetensors file; wrap it in `replacing`.

    Args:
        path: The file.
        tensors: Tensors by name, of any device and memory format.
        metadata: Texts by name.

    Raises:
        SafetensorError: If the disk is full.
        OSError: If the folder cannot be written.
    """
    from safetensors.torch import save_file

    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(own, path, metadata=dict(metadata))


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the texts of a safetensors file.

    Args:
        path: The file.

    Raises:
        SafetensorError: If the file is damaged or of another kind.
        OSError: If it cannot be read.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, file.metadata() or {}


def tensors_below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names start with ``prefix``, by the remainders of their names.

    Args:
        prefix: Such as ``"history/"``.
        tensors: Tensors by name.
    """
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
