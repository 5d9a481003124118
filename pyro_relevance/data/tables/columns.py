"""How one column of a table becomes tensor columns: ``NumericColumn`` and ``CategoryColumn``.

Both are fitted on the training rows by ``fit_column`` and put together by an ``Encoder``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_relevance.data.tables._text import counted, is_number, listed
from pyro_relevance.errors import DataError

__all__ = [
    "MISSING_LEVEL",
    "CategoryColumn",
    "NumericColumn",
    "as_float32",
    "as_levels",
    "as_numbers",
    "fit_column",
    "moments",
    "ordered",
]

MISSING_LEVEL = "(missing)"


@dataclass(frozen=True, slots=True)
class NumericColumn:
    """How one numeric column becomes ``(value - mean) / scale``, beside a 0/1 column for missing.

    Args:
        name: Name of the column.
        mean: Mean of the training rows.
        scale: Standard deviation of the training rows; 0 where they are constant (then only the
            indicator is made).
        fill: Median of the training rows, put in place of a missing value.
        indicator: Whether a missing-indicator column is made.
    """

    name: str
    mean: float
    scale: float
    fill: float
    indicator: bool

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the tensor columns."""
        value = (self.name,) if self.scale > 0 else ()
        return (*value, f"{self.name} {MISSING_LEVEL}") if self.indicator else value

    def transform(self, values: pd.Series) -> NDArray[np.float64]:
        """Tensor columns of one table column, ``(num_rows, len(labels))``."""
        numbers = as_numbers(values, self.name)
        missing = np.isnan(numbers)
        parts = []
        if self.scale > 0:
            parts.append((np.where(missing, self.fill, numbers) - self.mean) / self.scale)
        if self.indicator:
            parts.append(missing.astype(np.float64))
        return np.stack(parts, axis=1)


@dataclass(frozen=True, slots=True)
class CategoryColumn:
    """How one column of text becomes one 0/1 column per level; other levels are zero in all.

    Args:
        name: Name of the column.
        levels: Levels of the training rows; ``"(missing)"`` is one of them where values were
            missing.
    """

    name: str
    levels: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the tensor columns."""
        return tuple(f"{self.name}={level}" for level in self.levels)

    def transform(self, values: pd.Series) -> NDArray[np.float64]:
        """Tensor columns of one table column, ``(num_rows, len(levels))``."""
        texts = as_levels(values)
        return np.stack([texts == level for level in self.levels], axis=1).astype(np.float64)


def fit_column(
    name: str, values: pd.Series, rows: NDArray[np.int64], max_levels: int, notes: list[str]
) -> NumericColumn | CategoryColumn:
    """Column fitted on the training rows; without labels where they are constant."""
    train = values.iloc[rows]
    num_missing = int(train.isna().sum())
    if pd.api.types.is_numeric_dtype(values):
        present = train.dropna().to_numpy(dtype=np.float64)
        if not len(present):
            return NumericColumn(name, 0.0, 0.0, 0.0, indicator=False)
        mean, scale = moments(present, name)
        fill = float(np.median(present))
        if num_missing:
            notes.append(
                f"{counted(num_missing, 'missing value')} of '{name}' in the training rows filled "
                f"with their median {fill:g}; a missing-indicator column shares the gate of "
                f"'{name}'."
            )
        elif values.isna().any():
            notes.append(
                f"Column '{name}' has missing values outside the training rows only: filled with "
                f"the training median {fill:g}."
            )
        return NumericColumn(name, mean, scale, fill, indicator=num_missing > 0)
    counts = Counter(as_levels(train))
    unseen = sorted(set(as_levels(values)) - set(counts))
    if len(counts) < 2:
        return CategoryColumn(name, ())
    if num_missing:
        notes.append(
            f"{counted(num_missing, 'missing value')} of '{name}' made a level of its own."
        )
    if unseen:
        notes.append(
            f"{listed(unseen)} of '{name}' never occurs in the training rows: zero in all columns "
            "of its gate."
        )
    if len(counts) > max_levels:
        notes.append(
            f"Column '{name}' has {len(counts)} levels: all but the {max_levels} most frequent are "
            "zero in all columns of its gate."
        )
    frequent = sorted(counts, key=lambda level: (-counts[level], level))[:max_levels]
    return CategoryColumn(name, ordered(frequent))


def moments(values: NDArray[np.float64], name: str) -> tuple[float, float]:
    """Mean and standard deviation; exactly 0 where the spread is rounding error."""
    with np.errstate(over="ignore"):
        mean, scale = float(values.mean()), float(values.std())
    if not np.isfinite(mean) or not np.isfinite(scale):
        raise DataError(
            f"Expected numbers in column '{name}' whose variance is a float64, but got up to "
            f"{np.abs(values).max():g}. Use another unit, or the logarithm."
        )
    return mean, scale if scale > 1e-12 * float(np.abs(values).max()) else 0.0


def as_float32(values: NDArray[np.float64], labels: Sequence[str]) -> Tensor:
    """Float32 tensor of the same shape, ``(num_rows, len(labels))``."""
    beyond = np.abs(values) > np.finfo(np.float32).max
    if beyond.any():
        row, column = np.argwhere(beyond)[0]
        raise DataError(
            f"Expected values within the range of float32, but got {values[row, column]:.1e} "
            f"training standard deviations in '{labels[column]}' in row {row}. Correct the value."
        )
    return torch.from_numpy(values.astype(np.float32))


def as_numbers(values: pd.Series, name: str) -> NDArray[np.float64]:
    """Float64 values, NaN where missing."""
    numbers: NDArray[np.float64] = pd.to_numeric(values, errors="coerce").to_numpy(
        dtype=np.float64, na_value=np.nan
    )
    faulty = np.isinf(numbers) | (np.isnan(numbers) & values.notna().to_numpy())
    if faulty.any():
        row = int(faulty.argmax())
        raise DataError(
            f"Expected finite numbers in column '{name}', but got '{values.iloc[row]}' in row "
            f"{row}. Correct it, or leave it missing."
        )
    return numbers


def as_levels(values: pd.Series) -> NDArray[np.object_]:
    """Text of every value: whole numbers without decimals, missing as a level."""

    def level(value: object) -> str:
        if isinstance(value, float | np.floating) and float(value).is_integer():
            return str(int(value))
        return str(value)

    missing = values.isna()
    return np.array(
        [
            MISSING_LEVEL if gone else level(value)
            for value, gone in zip(values, missing, strict=True)
        ],
        dtype=object,
    )


def ordered(levels: Iterable[str]) -> tuple[str, ...]:
    """Distinct levels in ascending order, as numbers where all are numbers."""
    distinct = sorted(set(levels))
    return tuple(sorted(distinct, key=float) if all(map(is_number, distinct)) else distinct)
