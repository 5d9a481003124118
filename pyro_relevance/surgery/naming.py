"""Names of modules and tensors that a file may use: never a path, never one of Python's own."""

from __future__ import annotations

__all__ = ["check_name"]

MAX_LENGTH = 1000
MAX_PARTS = 70


def check_name(name: object) -> None:
    """Check a qualified name of a module or a tensor.

    Args:
        name: Such as ``"features.0.weight"``.

    Raises:
        ValueError: It is no text, empty or very long, has an empty part, a separator of paths, a
            character that cannot be printed, or a part between double underscores.
    """
    allowed = isinstance(name, str) and 0 < len(name) <= MAX_LENGTH and name.isprintable()
    if allowed and isinstance(name, str):
        parts = name.split(".")
        allowed = len(parts) <= MAX_PARTS and not any(
            not part or "/" in part or "\\" in part or (part[:2] == part[-2:] == "__")
            for part in parts
        )
    if not allowed:
        shown = repr(name)
        raise ValueError(
            "Expected the name of a module or tensor, such as 'features.0.weight', but got "
            f"{shown[:60]}."
        )
