"""Arguments of steps as JSON. A value that JSON lacks is an object with one key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from pyro_relevance.surgery.steps import Result

__all__ = ["ADVICE", "DTYPES", "from_json", "to_json"]

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool,
        torch.complex128, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
    )
}  # fmt: skip
FORMATS = {
    str(memory_format).removeprefix("torch."): memory_format
    for memory_format in (
        torch.contiguous_format, torch.preserve_format, torch.channels_last, torch.channels_last_3d,
    )
}  # fmt: skip
ADVICE = (
    "Write the network from standard modules and functions of torch, or save it with export_torch, "
    "which needs no description."
)


def to_json(value: Any, where: str) -> Any:
    """An argument as JSON. A value that JSON lacks is an object with one key."""
    if value is None or isinstance(value, (bool, str)) or type(value) is int:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, Result):
        return {"result": value.step}
    if type(value) is list:
        return [to_json(item, where) for item in value]
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return {"tuple": [to_json(item, where) for item in value]}
    if type(value) is dict:
        return {"dict": {_key(key, where): to_json(item, where) for key, item in value.items()}}
    if isinstance(value, slice):
        return {"slice": [to_json(part, where) for part in (value.start, value.stop, value.step)]}
    if value is Ellipsis:
        return {"ellipsis": True}
    text = str(value).removeprefix("torch.")
    if isinstance(value, torch.dtype) and text in DTYPES:
        return {"dtype": text}
    if isinstance(value, torch.memory_format) and text in FORMATS:
        return {"memory_format": text}
    if isinstance(value, torch.device):
        return {"device": text}
    if isinstance(value, torch.layout) and value is torch.strided:
        return {"layout": text}
    raise ValueError(
        f"Expected numbers, texts and tensors as arguments, but got {type(value).__name__} in "
        f"{where}. {ADVICE}"
    )


def _key(key: Any, where: str) -> str:
    if isinstance(key, str):
        return key
    raise ValueError(f"Expected texts as keys, but got {key!r} in {where}. {ADVICE}")


def from_json(value: Any) -> Any:
    """Undo :func:`to_json`.

    Raises:
        ValueError: It is nothing that :func:`to_json` wrote.
    """
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise _unknown(value)
    if not isinstance(value, Mapping):
        return value
    if len(value) != 1:
        raise _unknown(value)
    ((kind, content),) = value.items()
    if kind == "result" and type(content) is int:
        return Result(content)
    if kind == "float" and content in ("inf", "-inf", "nan"):
        return float(content)
    if kind == "tuple" and isinstance(content, list):
        return tuple(from_json(item) for item in content)
    if kind == "dict" and isinstance(content, Mapping):
        return {str(key): from_json(item) for key, item in content.items()}
    if kind == "slice" and isinstance(content, list) and len(content) == 3:
        return slice(*map(from_json, content))
    if kind == "ellipsis" and content is True:
        return Ellipsis
    if kind == "layout" and content == "strided":
        return torch.strided
    if kind == "dtype" and isinstance(content, str) and content in DTYPES:
        return DTYPES[content]
    if kind == "memory_format" and isinstance(content, str) and content in FORMATS:
        return FORMATS[content]
    if kind == "device" and isinstance(content, str):
        return _device(content)
    raise _unknown(value)


def _device(text: str) -> torch.device:
    try:
        return torch.device(text)
    except RuntimeError:
        raise _unknown(text) from None


def _unknown(value: Any) -> ValueError:
    return ValueError(f"Expected an argument that describe() wrote, but got {repr(value)[:60]}.")
