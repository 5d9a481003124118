"""Writes that happen completely or leave the previous file as it was; files of tensors.

Each file carries a digest of its content, which tells accidents, and is read by rules about its
size, depth, numbers and types of tensors, which hold for whatever a file says.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import platform
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_relevance.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "digest_of_json",
    "json_text",
    "parse_json",
    "read_safetensors",
    "read_tensors",
    "remove_abandoned",
    "replacing",
    "save_safetensors",
    "save_tensors",
    "synchronise",
    "tensors_below",
    "write_tensors",
]

SCHEMA = "1"
"""Version of what surrounds the content of a file of tensors: digest and list of exceptions."""
MAX_DEPTH = 150
"""Deepest nesting of a JSON text."""
MAX_ITEMS = 2_000_000
"""Most values of a JSON text; an object counts as four."""
_DTYPES = frozenset(("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", "C64"))
_DIGEST, _SCHEMA, _NON_FINITE = "digest", "schema", "non_finite"
_DISK_FAULTS = frozenset(
    (errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
)
_OPEN: set[Path] = set()  # temporary files that this process is writing


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it becomes ``path`` when the block ends well.

    On an error or an interrupt in the block the temporary file is removed and ``path`` stays what
    it was; a loss of power leaves either the old or the complete new file. The temporary file of a
    process that was killed is removed by the next write to ``path`` on the same machine.

    Args:
        path: The file to write; its folder must exist.

    Yields:
        The temporary path, in the same folder and with the same suffix; no such file exists yet.

    Raises:
        FileNotFoundError: If the folder does not exist.
        OSError: If the disk is full or the folder cannot be written.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"Expected the folder of {target} to exist, but got none. "
            f"Create {target.parent} first or write elsewhere."
        )
    _remove_abandoned(target)
    writer = f"{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = target.with_name(f".{target.stem}-{writer}{target.suffix}")
    _OPEN.add(temporary)
    try:
        yield temporary
        synchronise(temporary)
        os.replace(temporary, target)
        synchronise(target.parent)
    except OSError as error:
        if error.errno not in _DISK_FAULTS:
            raise
        raise OSError(
            error.errno,
            f"Expected to write {target}, but got: {os.strerror(error.errno)}. Free some space, "
            "change the permissions, or write elsewhere",
        ) from error
    finally:
        _OPEN.discard(temporary)
        temporary.unlink(missing_ok=True)


def _machine() -> str:
    """Return a short name of this machine: process numbers of others say nothing here."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def _remove_abandoned(target: Path) -> None:
    """Remove temporary files for ``target`` whose writers are dead."""
    pattern = (
        rf"\.{re.escape(target.stem)}-{_machine()}-(\d+)-[0-9a-f]{{8}}{re.escape(target.suffix)}"
    )
    _remove_matching(target.parent, re.compile(pattern))


def remove_abandoned(folder: Path) -> None:
    """Remove all temporary files of a folder whose writers on this machine are dead.

    Args:
        folder: The folder.
    """
    _remove_matching(folder, re.compile(rf"\..*-{_machine()}-(\d+)-[0-9a-f]{{8}}(\..*)?"))


def _remove_matching(folder: Path, pattern: re.Pattern[str]) -> None:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for name in [entry.name for entry in entries]:
            found = pattern.fullmatch(name)
            if found and not _is_written(folder / name, int(found[1])):
                (folder / name).unlink(missing_ok=True)


def _is_written(temporary: Path, process: int) -> bool:
    """Return whether a temporary file belongs to a process that still runs."""
    if process == os.getpid():
        return temporary in _OPEN  # else the number was a dead process's before
    if os.name == "nt":
        return True  # a signal would end the process there
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


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
        save_safetensors(temporary, tensors, {"description": json_text(description)})
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
        description = parse_json(metadata.get("description", ""))
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

    Beside the texts the file has ``schema``, ``non_finite`` (names of the tensors in which a number
    is not finite) and ``digest`` (SHA-256 of all names, types, shapes, numbers and texts).

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
    non_finite = [name for name, tensor in own.items() if not _is_finite(tensor)]
    texts = {**metadata, _SCHEMA: SCHEMA, _NON_FINITE: json.dumps(sorted(non_finite))}
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    mode = os.fstat(handle).st_mode  # as the user's umask has it; safetensors has one of its own
    os.close(handle)
    save_file(own, path, metadata={**texts, _DIGEST: _digest(own, texts)})
    os.chmod(path, mode)


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the texts of a safetensors file, after a check of its digest.

    Files of earlier releases have no digest; then only what every file must keep is checked.

    Args:
        path: The file.

    Raises:
        SafetensorError: If the file is damaged or of another kind.
        ValueError: If its content does not fit its digest, or it has tensors of a type or with
            numbers that a file of this library does not have.
        OSError: If it cannot be read.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        texts = file.metadata() or {}
        for name in names:
            if (dtype := file.get_slice(name).get_dtype()) not in _DTYPES:
                raise ValueError(f"tensor {name!r} is of the unknown type {dtype}")
        # Copies: those of the file start at any byte, and BLAS rounds by alignment.
        tensors = {name: file.get_tensor(name).clone() for name in names}
    if _SCHEMA not in texts and _DIGEST not in texts and _NON_FINITE not in texts:
        return tensors, texts
    digest, schema = texts.pop(_DIGEST, None), texts.get(_SCHEMA)
    if digest != _digest(tensors, texts):
        raise ValueError("its content does not fit its digest")
    if schema != SCHEMA:
        raise ValueError(
            f"it has version {schema!r} of the layout where {SCHEMA!r} is known; read it with the "
            "release that wrote it"
        )
    allowed = parse_json(texts.pop(_NON_FINITE, ""))
    del texts[_SCHEMA]
    if not isinstance(allowed, list):
        raise ValueError("its list of tensors with infinite numbers is not a list")
    for name, tensor in tensors.items():
        if name not in allowed and not _is_finite(tensor):
            raise ValueError(f"tensor {name!r} has numbers that are not finite")
    return tensors, texts


def _is_finite(tensor: Tensor) -> bool:
    floats = tensor.is_floating_point() or tensor.is_complex()
    return not floats or bool(tensor.isfinite().all())


def _digest(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    """Return the SHA-256 of names, types, shapes, numbers and texts, in the order of the names."""
    import torch

    digest = hashlib.sha256(json.dumps(sorted(texts.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        if tensor.numel():
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"sha256:{digest.hexdigest()}"


def digest_of_json(content: Any) -> str:
    """Return the SHA-256 of a JSON-able value, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def json_text(content: Any) -> str:
    """Return a value as JSON that `parse_json` reads.

    Raises:
        ValueError: If it is too large or too deep, or a text is not Unicode.
    """
    text = json.dumps(content)
    parse_json(text)
    return text


def parse_json(text: str) -> Any:
    """Return the value of a JSON text; how large and deep it is, is checked before it is made.

    Args:
        text: The text, of any origin. Numbers may be infinite or NaN where it says so literally.

    Raises:
        ValueError: If it is no JSON, larger or deeper than any that this library writes, has a name
            twice, an integer beyond 64 bits, or a text that is not Unicode.
    """
    items = text.count(",") + text.count("[") + 4 * text.count("{")
    if items > MAX_ITEMS:
        raise ValueError(f"expected JSON of at most {MAX_ITEMS:,} values, but got {items:,}")
    try:
        content = json.loads(text, object_pairs_hook=_object)
        _check_json(content, MAX_DEPTH)
    except RecursionError as error:
        raise ValueError(f"expected JSON of at most {MAX_DEPTH} levels, but got more") from error
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("expected JSON with each name once in an object")
    return content


def _check_json(value: Any, levels: int) -> None:
    if levels < 0:
        raise ValueError(f"expected JSON of at most {MAX_DEPTH} levels, but got more")
    if isinstance(value, str):
        value.encode()  # half of a surrogate pair is no text
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(
            f"expected whole numbers of 64 bits, but got {math.log10(abs(value)):.0f} digits"
        )
    elif isinstance(value, list):
        for item in value:
            _check_json(item, levels - 1)
    elif isinstance(value, dict):
        for name, item in value.items():
            name.encode()
            _check_json(item, levels - 1)


def tensors_below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names start with ``prefix``, by the remainders of their names.

    Args:
        prefix: Such as ``"history/"``.
        tensors: Tensors by name.
    """
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
