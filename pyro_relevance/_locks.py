"""One process at a time in a run folder or on a checkpoint: a lock that says who holds it.

The lock is the operating system's (``flock``), so that it ends with its process, however that ends:
a file that a killed process left behind holds nobody up, and is removed by the next holder. The
file has a line about the holder, for the message to others.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pyro_relevance._files import parse_json, remove_abandoned
from pyro_relevance.errors import InUseError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["RUN_LOCK", "locked", "locked_folder"]

RUN_LOCK = "run.lock"
"""Name of the lock of a run folder."""
_TRIES = 100
_MOST_BYTES = 1000


@contextlib.contextmanager
def locked_folder(folder: Path, name: str = RUN_LOCK) -> Iterator[None]:
    """Keep other processes out of a run folder inside the block.

    Args:
        folder: The folder; made where it is missing.
        name: Name of the lock in it.

    Raises:
        InUseError: If another process, or another thread of this one, holds the lock.
        OSError: If the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(
            f"Expected a run folder {folder}, but it cannot be made: {error.strerror or error}. "
            "Choose another folder."
        ) from error
    with locked(folder / name, f"the run folder {folder}"):
        remove_abandoned(folder)
        try:
            yield
        finally:
            remove_abandoned(folder)  # of workers that were killed


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock inside the block; its file is removed at the end.

    On Windows, and on file systems without ``flock``, nothing is locked.

    Args:
        path: The lock's file; its folder must exist.
        what: What is locked, for the message.

    Raises:
        InUseError: If another process, or another thread of this one, holds the lock.
        OSError: If the folder cannot be written.
    """
    if fcntl is None:
        yield
        return
    handle = _acquire(path, what)
    try:
        yield
    finally:
        # Removed while it is held: who opened it meanwhile sees that it has no name any more.
        if _is_file_of(handle, path):
            path.unlink(missing_ok=True)
        os.close(handle)


def _acquire(path: Path, what: str) -> int:
    """Return the open file of a lock that is held."""
    for _ in range(_TRIES):
        handle = _open(path, what)
        try:
            if not _lock(handle):
                raise InUseError(
                    f"Expected {what} for this run alone, but {_holder(path)} works there. Wait "
                    "until it has ended, end it, or choose another path."
                )
            if _is_file_of(handle, path):
                _sign(handle)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder removed it at this moment
    raise InUseError(f"Expected {what} for this run alone, but others take and leave {path}.")


def _open(path: Path, what: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise type(error)(
            error.errno,
            f"Expected to write in {what}, but got: {error.strerror}. Choose another folder, or "
            "change its permissions",
            str(path),
        ) from error


def _lock(handle: int) -> bool:
    """Take the lock and return whether nobody else has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # the file system has no locks
    return True


def _is_file_of(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except OSError:
        return False


def _sign(handle: int) -> None:
    """Say in the file who holds it; on a full disk it stays empty."""
    signed = {
        "process": os.getpid(),
        "host": platform.node(),
        "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    }
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, (json.dumps(signed) + "\n").encode(), 0)


def _holder(path: Path) -> str:
    """Return who holds a lock, in words, as far as its file says so."""
    try:
        with path.open("rb") as file:
            signed = parse_json(file.read(_MOST_BYTES).decode())
        process, host, since = (signed[name] for name in ("process", "host", "since"))
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
    me = " (this one)" if process == os.getpid() and host == platform.node() else ""
    return f"process {process}{me} on {host}, since {since},"
