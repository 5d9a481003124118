"""From what scikit-learn's users pass to ``fit`` to a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pyro_relevance.data.tables import Table
from pyro_relevance.data.tables._text import listed
from pyro_relevance.data.tables.columns import as_levels
from pyro_relevance.data.tables.table import Task, choose_features
from pyro_relevance.errors import DataError

__all__ = ["as_frame", "as_table"]


def as_frame(X: Any, names: Sequence[str]) -> pd.DataFrame:
    """Return columns of numbers (float64) or text, missing values as NaN.

    A column that holds a text is text as a whole; truth values are 0 and 1, times are text.

    Args:
        X: ``(num_rows, num_features)`` frame or array.
        names: ``(num_features,)`` names that the columns get.

    Raises:
        DataError: If names occur twice.
    """
    repeated = sorted({name for name in names if list(names).count(name) > 1})
    if repeated:
        raise DataError(
            f"Expected different column names in X, but got {listed(repeated)} more than once. "
            "Rename or remove the copies."
        )
    frame = X if isinstance(X, pd.DataFrame) else pd.DataFrame(np.asarray(X))
    columns = [_as_column(frame.iloc[:, place]) for place in range(frame.shape[1])]
    return pd.DataFrame(dict(zip(names, columns, strict=True)))


def as_table(frame: pd.DataFrame, target: pd.Series, task: Task) -> Table:
    """Return the table of a frame of `as_frame`; columns of no use are left out with a note.

    Args:
        frame: ``(num_rows, num_features)``.
        target: ``(num_rows,)`` float64 numbers, or class labels as text.
        task: What the target is.

    Raises:
        DataError: If no column is left.
    """
    notes: list[str] = []
    columns = {str(name): frame[name] for name in frame.columns}
    features = choose_features(columns, (), Path("X"), notes)
    return Table(features, target, task, str(target.name), Path("X"), tuple(notes))


def _as_column(values: pd.Series) -> pd.Series:
    values = values.reset_index(drop=True)
    kind = values.dtype
    if pd.api.types.is_complex_dtype(kind):
        raise DataError("Expected real numbers or text in X, but got complex numbers.")
    missing = values.isna()
    if not pd.api.types.is_numeric_dtype(kind):
        present = values[~missing]
        if not pd.api.types.is_object_dtype(kind) or not all(
            isinstance(v, int | float | np.number) for v in present
        ):
            return pd.Series(as_levels(values), dtype=object).mask(missing, np.nan)
    return pd.Series(values.to_numpy(dtype=np.float64, na_value=np.nan))
