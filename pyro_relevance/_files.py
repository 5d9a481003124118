"""Writes that either happen completely or leave the previous file as it was.

The standard library only, so that every layer may use it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

__all__ = ["replacing", "synchronise"]


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
