"""Large, regular CSV files at the speed of pandas.

A file is regular if each line has as many fields as the header, and there are no quotation marks,
blank lines or infinite numbers. What is read is then what ``csv_files`` reads cell by cell; any
other file is left to it, with its notes and its errors that name the line.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pyro_relevance.data.tables.csv_files import (
    MISSING_TEXTS,
    check_header,
    check_text,
    convert,
    recognised_separator,
)
from pyro_relevance.data.tables.number_texts import are_codes

__all__ = ["read_regular"]

MIN_BYTES = 1 << 18
"""Smaller files are read cell by cell: that takes less than a tenth of a second."""
HEAD_BYTES, HEAD_LINES = 1 << 18, 200
"""Start of the file by which the separator is recognised, and the lines that this takes."""

_BLOCK_BYTES = 1 << 18


def read_regular(
    path: Path, target: str, separator: str | None, notes: list[str]
) -> dict[str, pd.Series] | None:
    """Column name -> values of all rows, as by ``csv_files``; None where the file is not regular.

    Args:
        path: The file.
        target: Name of the target, which must be a column.
        separator: One character, or None to recognise it.
        notes: What is to be said of the file is added.

    Raises:
        DataError: If the header or a column is faulty.
    """
    found = _lines(path, separator)
    if found is None:
        return None
    header, num_rows, separator, has_codes = found
    frame = _read(path, separator, names=range(len(header)))
    if frame is None or len(frame) != num_rows or not isinstance(frame.index, pd.RangeIndex):
        return None  # with a first row that is too long, pandas takes a column for an index
    is_number = [frame[i].dtype.kind in "iuf" for i in range(len(header))]
    if any(np.isinf(frame[i].to_numpy()).any() for i, number in enumerate(is_number) if number):
        return None
    if has_codes:
        codes = _columns_of_codes(path, separator, [i for i, n in enumerate(is_number) if n])
        is_number = [number and i not in codes for i, number in enumerate(is_number)]
    texts = [i for i, number in enumerate(is_number) if not number]
    cells = _read(path, separator, usecols=texts, dtype=str) if texts else pd.DataFrame()
    if cells is None:
        return None
    said: list[str] = []
    names = check_header(header, target, path, said)
    columns: dict[str, pd.Series] = {}
    for index, name in enumerate(names):
        if is_number[index]:
            columns[name] = frame.pop(index).astype(np.float64).rename(None)
        else:
            values = [text.strip() for text in cells.pop(index)]
            lines = range(2, num_rows + 2)
            columns[name] = convert(name, values, lines, separator != ",", path, said)
    notes += said
    return columns


def _columns_of_codes(path: Path, separator: str, numbers: list[int]) -> set[int]:
    """Columns of numbers in which some have leading zeros, as ``csv_files`` takes for text."""
    cells = _read(path, separator, usecols=numbers, dtype=str)
    return set() if cells is None else {i for i in numbers if are_codes(cells[i].str.strip())}


def _lines(path: Path, separator: str | None) -> tuple[list[str], int, str, bool] | None:
    """Header, number of rows, separator, and whether there are leading zeros.

    None unless all lines together have the right number of fields.

    A longer line is an error to pandas; so there is no shorter one either.
    """
    try:
        if path.stat().st_size < MIN_BYTES:
            return None
        with path.open("rb") as file:
            start = file.read(HEAD_BYTES)
        head = start[: start.rindex(b"\n") + 1].decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, ValueError):  # no such file, no line, or no UTF-8: csv_files says so
        return None
    if not head.strip() or not check_text(start[:8], head):
        return None
    if separator is None:
        separator = recognised_separator(head, path)
    if separator not in (",", ";", "\t") or head.count("\n") <= HEAD_LINES:
        return None
    header = next(csv.reader(io.StringIO(head), delimiter=separator, skipinitialspace=True))
    counts = _counts(path, separator)
    if counts is None or counts[1] != (len(header) - 1) * counts[0]:
        return None
    return [name.strip() for name in header], counts[0] - 1, separator, counts[2]


def _counts(path: Path, separator: str) -> tuple[int, int, bool] | None:
    """Numbers of lines and separators, and whether a field starts with a zero before a digit.

    None where a field may hold a separator, or a byte is no text.
    """
    num_lines, num_separators, last, has_codes = 0, 0, b"\n", False
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            if b'"' in block or b"\0" in block:
                return None
            codes = np.frombuffer(block, np.uint8)  # several times as fast as bytes.count
            num_lines += int(np.count_nonzero(codes == ord("\n")))
            num_separators += int(np.count_nonzero(codes == ord(separator)))
            if not has_codes:
                around = np.frombuffer(last + block, np.uint8)
                # Unsigned: what is smaller than a zero becomes large.
                leading = (around[1:-1] == ord("0")) & (around[2:] - ord("0") <= 9)
                before = around[:-2]
                leading &= (before == ord(separator)) | (before == ord("\n")) | (before == ord(" "))
                has_codes = bool(leading.any())
            last = block[-2:]
    return num_lines + (last[-1:] != b"\n"), num_separators, has_codes


def _read(path: Path, separator: str, **options: Any) -> pd.DataFrame | None:
    """Columns named by their position; with ``dtype=str``, every cell as it stands."""
    try:
        frame: pd.DataFrame = pd.read_csv(
            path,
            sep=separator,
            header=None,
            skiprows=1,
            na_values=MISSING_TEXTS,
            keep_default_na=False,
            na_filter="dtype" not in options,
            skipinitialspace=True,
            quoting=csv.QUOTE_NONE,
            low_memory=False,
            engine="c",
            **options,
        )
    except (ValueError, pd.errors.ParserError, OSError):
        return None
    return frame
