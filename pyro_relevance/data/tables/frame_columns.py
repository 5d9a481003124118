"""From a DataFrame, or a Parquet file, to named columns, as ``csv_files`` makes them of text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pyro_relevance.data.tables.csv_files import check_header, convert
from pyro_relevance.errors import DataError

__all__ = ["columns_of_frame", "is_parquet", "read_parquet"]


def is_parquet(path: Path) -> bool:
    """Whether a file is a Parquet file, by how it starts.

    Args:
        path: The file; it need not exist.
    """
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        return False


def read_parquet(path: Path) -> pd.DataFrame:
    """Return the table of a Parquet file.

    Args:
        path: The file.

    Raises:
        DataError: If it is damaged, or there is no package to read it with.
    """
    try:
        frame: pd.DataFrame = pd.read_parquet(path)
    except ImportError as error:
        raise DataError(
            f"Expected a package that reads Parquet for {path}, but there is none. Install one "
            "(pip install pyarrow), or save the table as CSV."
        ) from error
    except Exception as error:  # each package has errors of its own
        raise DataError(
            f"Expected a complete Parquet file, but {path} cannot be read: "
            f"{str(error).splitlines()[0]}. Save the table again."
        ) from error
    return frame


def columns_of_frame(
    frame: pd.DataFrame, target: str, path: Path, notes: list[str]
) -> dict[str, pd.Series]:
    """Column name -> values of all rows: float64 where all are numbers, else text; missing NaN.

    Truth values are 0 and 1, times are text, and text is treated as that of a file.

    Args:
        frame: The table; its index is not looked at.
        target: Name of a column.
        path: Where it comes from, for messages.
        notes: What is to be said of it is added.

    Raises:
        DataError: If names are repeated, the target is none, or a number is not finite.
    """
    names = check_header([str(name).strip() for name in frame.columns], target, path, notes)
    return {
        name: _column(name, frame.iloc[:, place].reset_index(drop=True), path, notes)
        for place, name in enumerate(names)
    }


def _column(name: str, values: pd.Series, path: Path, notes: list[str]) -> pd.Series:
    kind = values.dtype
    if pd.api.types.is_complex_dtype(kind):
        raise DataError(
            f"Expected numbers or text in column '{name}' of {path}, but got complex numbers. Give "
            "their parts as two columns."
        )
    if pd.api.types.is_numeric_dtype(kind) and not isinstance(kind, pd.CategoricalDtype):
        numbers = pd.Series(values.to_numpy(dtype=np.float64, na_value=np.nan))
        infinite = np.isinf(numbers)
        if infinite.any():
            raise DataError(
                f"Expected finite numbers in column '{name}', but got {numbers[infinite].iloc[0]} "
                f"in row {int(infinite.idxmax())} of {path}. Correct or empty these cells."
            )
        return numbers
    missing = values.isna()
    texts = ["" if none else _text(v) for v, none in zip(values, missing, strict=True)]
    return convert(name, texts, range(len(texts)), False, path, notes)


def _text(value: object) -> str:
    if isinstance(value, pd.Timestamp):
        whole = value == value.normalize() and value.tzinfo is None
        return str(value.date() if whole else value.isoformat(sep=" ", timespec="seconds"))
    return str(value).strip()
