"""New rows of a file for an encoder that exists: ``read_rows``.

``read_table`` decides what the columns are; here they are what the encoder was fitted on. Columns
that it does not know are not looked at, and the target may be absent.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pyro_relevance.data.tables._text import listed
from pyro_relevance.data.tables.columns import NumericColumn
from pyro_relevance.data.tables.csv_files import (
    MISSING_TEXTS,
    check_header,
    convert,
    parse,
    read_text,
)
from pyro_relevance.data.tables.encoder import Encoder
from pyro_relevance.errors import DataError

__all__ = ["read_rows"]


def read_rows(path: str | Path, encoder: Encoder) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Features of every row of a text file with one header line, in the order of the file.

    Args:
        path: File to read; separator, encoding and missing cells as in ``read_table``.
        encoder: What says which columns are needed, and which of them are numbers.

    Returns:
        ``(num_rows, num_features)`` with the columns of the encoder (float64, or text), and a
        sentence for every treatment.

    Raises:
        DataError: If the file is no table, has no rows, lacks a column, or a cell of a numeric
            column is no finite number.
    """
    path = Path(path)
    notes: list[str] = []
    header, rows, lines, separator = parse(read_text(path, notes), None, path)
    needed = encoder.input_labels
    present = [name for name in needed if name in header]
    if present:
        header = check_header(header, present[0], path, notes)
    absent = [name for name in needed if name not in header]
    if absent:
        raise DataError(
            f"Expected the columns {listed(needed)} that the network was trained on, but got "
            f"{path} without {listed(absent)}. Add them, or rename the columns of the file."
        )
    if not rows:
        raise DataError(
            f"Expected rows below the header, but got none in {path}. Add the rows to predict."
        )
    cells = dict(zip(header, zip(*rows, strict=True), strict=True))
    kept = {}
    for column in encoder.columns:
        values = cells[column.name]
        if isinstance(column, NumericColumn):
            kept[column.name] = convert(
                column.name, values, lines, separator != ",", path, notes, codes=False
            )
            _check_numbers(column.name, kept[column.name], lines, path)
        else:
            text = pd.Series(values, dtype=object)
            kept[column.name] = text.mask(text.isin(MISSING_TEXTS), np.nan)
    return pd.DataFrame(kept), tuple(notes)


def _check_numbers(name: str, values: pd.Series, lines: list[int], path: Path) -> None:
    """Raise a `DataError` that names the first cell that is no number."""
    faulty = pd.to_numeric(values, errors="coerce").isna() & values.notna()
    if faulty.any():
        first = int(faulty.argmax())
        raise DataError(
            f"Expected numbers in column '{name}' as in the rows that the network was trained on, "
            f"but got {values[first]!r} in line {lines[first]} of {path}. Correct or empty the "
            "cell."
        )
