"""Words of notes and errors of tables, and what counts as a number in them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

__all__ = ["counted", "is_number", "listed"]


def counted(number: int, noun: str) -> str:
    """The number before the noun, which is plural unless there is one."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(names: Iterable[str], most: int = 10) -> str:
    """Quoted names with commas between, and how many more there are."""
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"'{name}'" for name in names[:most]) + rest


def is_number(text: str) -> bool:
    """Whether a text is a finite number."""
    return bool(np.isfinite(pd.to_numeric(pd.Series([text], dtype=object), errors="coerce")[0]))
