"""Arguments that a file gives to a class of the library or of torch: by signature and type.

A file is data from anywhere. What it gives to a class must be an argument of the constructor by
name, and of the type that the constructor states, before the class is called.
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import Tensor

__all__ = ["check_arguments", "fits"]

MAX_NUMBER = 2**40
"""Largest whole number that an argument may be: more than any size of a tensor in memory."""
# Arguments that mean "no bound" or "fill with it" may be infinite.
_MAY_BE_INFINITE = frozenset(("max_val", "min_val", "norm_type", "threshold", "value"))
_WORDS = {
    "mode": {"nearest", "linear", "bilinear", "bicubic", "trilinear", "area", "nearest-exact"},
    "approximate": {"none", "tanh"},
    "padding": {"same", "valid"},
}


def check_arguments(
    make: Callable[..., Any], arguments: Mapping[str, Any], *, omitted: str = ""
) -> None:
    """Check arguments against the signature of what they are for, before it is called.

    Args:
        make: A class or function with annotated parameters.
        arguments: Values by name of parameter.
        omitted: A parameter that is not given, since a subclass fills it.

    Raises:
        ValueError: An argument is unknown or missing, of another type, or a number out of range.
    """
    name = getattr(make, "__name__", str(make))
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = {
        k: p
        for k, p in inspect.signature(make).parameters.items()
        if p.kind in named and k != omitted
    }
    constructor: Any = vars(make).get("__init__", make.__init__) if isinstance(make, type) else make  # type: ignore[misc]
    hints = get_type_hints(constructor)  # of the constructor itself: fields may be computed
    unknown = sorted(arguments.keys() - parameters.keys())
    missing = [
        key
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty and key not in arguments
    ]
    if unknown or missing:
        raise ValueError(
            f"Expected the arguments {sorted(parameters)} of {name}, but got {sorted(arguments)}."
        )
    for key, value in arguments.items():
        if not fits(value, hints.get(key, Any), infinite=key in _MAY_BE_INFINITE):
            raise ValueError(
                f"Expected {key} of {name} as {hints.get(key, Any)}, but got {_shown(value)}."
            )
        if isinstance(value, str) and value not in _WORDS.get(key, {value}):
            raise ValueError(
                f"Expected {key} of {name} in {sorted(_WORDS[key])}, but got {_shown(value)}."
            )


def fits(value: Any, hint: Any, *, infinite: bool = False) -> bool:
    """Return whether a value is of the type that an annotation states.

    Args:
        value: The value.
        hint: The annotation; a whole number is a ``float``, a flag is no number, and every number
            is finite.
        infinite: Whether a number may be infinite.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, part, infinite=infinite) for part in parts)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if hint is None or hint is type(None):
        return value is None
    if hint is bool or hint is str:
        return type(value) is hint
    if hint is int:
        return type(value) is int and abs(value) <= MAX_NUMBER
    if hint is float:
        whole = type(value) is int and abs(value) <= MAX_NUMBER
        return whole or (type(value) is float and (infinite or math.isfinite(value)))
    if hint is Tensor:
        return isinstance(value, Tensor)
    if origin is tuple or origin is list or origin is Sequence:
        return _fits_sequence(value, origin, parts, infinite)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            fits(key, parts[0]) and fits(item, parts[1], infinite=infinite)
            for key, item in value.items()
        )
    return _is_plain(value)


def _fits_sequence(value: Any, origin: Any, parts: tuple[Any, ...], infinite: bool) -> bool:
    if not isinstance(value, tuple | list):
        return False
    if origin is not tuple or parts[1:] == (Ellipsis,):
        return all(fits(item, parts[0], infinite=infinite) for item in value)
    return len(parts) == len(value) and all(
        fits(item, part, infinite=infinite) for item, part in zip(value, parts, strict=True)
    )


def _is_plain(value: Any) -> bool:
    """Return whether a value is a finite number, a text, or a short sequence of such."""
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value if not isinstance(item, tuple | list))
    return value is None or any(fits(value, hint) for hint in (bool, int, float, str))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."
