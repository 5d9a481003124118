"""From a text file to named columns: encoding, separator, header and the type of every column.

The first half of ``read_table``; ``table`` decides which columns become inputs.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import difflib
import gzip
import io
import itertools
import lzma
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pyro_relevance.data.tables._text import counted, is_number, listed
from pyro_relevance.data.tables.number_texts import are_codes, numbers_in_words
from pyro_relevance.errors import DataError

__all__ = [
    "MISSING_TEXTS",
    "SEPARATORS",
    "check_header",
    "check_text",
    "convert",
    "parse",
    "read_text",
    "recognised_separator",
]

SEPARATORS = {"tab": "\t", "\\t": "\t", "whitespace": " "}

MISSING_TEXTS = ["", "?", "NA", "N/A", "#N/A", "n/a", "NaN", "nan", "-nan", "NULL", "null"]
MISSING_TEXTS += ["None", "<NA>"]
_LINE_ENDS_AND_TABS = dict.fromkeys(map(ord, "\r\n\t"), " ")
_DECIMAL_COMMA = r"[+-]?\d*,?\d+([eE][+-]?\d+)?"
MOST_BYTES = 1 << 32
"""Most bytes that a compressed file may hold."""
_PACKED: dict[bytes, Any] = {b"\x1f\x8b": gzip, b"BZh": bz2, b"\xfd7zXZ\x00": lzma}
_BINARY_STARTS = {
    b"PK\x03\x04": "an Excel workbook or zip archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"%PDF": "a PDF",
    b"PAR1": "a Parquet file",
    b"\x89HDF": "an HDF5 file",
    b"\x89PNG": "an image",
}


def read_text(path: Path, notes: list[str], encoding: str | None = None) -> str:
    """Text of a file, perhaps compressed, or the reason why it is none.

    Args:
        path: The file.
        notes: What is to be said of it is added.
        encoding: Its encoding; ``None`` recognises UTF-8, UTF-16 and UTF-32 with their marks, and
            takes all else as Windows-1252.
    """
    if path.is_dir():
        raise DataError(f"Expected a file, but got the folder {path}. Name a file in it.")
    if not path.exists():
        raise DataError(f"Expected a file, but found none at {path}. {_nearest_files(path)}")
    try:
        data = _unpacked(path.read_bytes(), path)
    except OSError as error:
        raise DataError(
            f"Expected a readable file, but got '{error.strerror}' for {path}. "
            "Check its permissions."
        ) from error
    kind = next((kind for start, kind in _BINARY_STARTS.items() if data.startswith(start)), "")
    text = ""
    if not kind:
        try:
            text = data.decode(encoding or _recognised_encoding(data))
        except UnicodeDecodeError as error:
            if encoding is not None:
                raise DataError(
                    f"Expected text in the encoding {encoding}, but byte {error.start} of {path} "
                    "is none. Leave the encoding out to have it recognised, or name another."
                ) from error
            text = data.decode("cp1252", errors="replace")
            notes.append(f"{path.name} is not UTF-8 and was read as Windows-1252.")
        if not check_text(b"", text):
            kind = "a binary file"
    if kind:
        raise DataError(
            f"Expected a text file with separated columns, but got {kind}: {path}. "
            "Save the table as CSV."
        )
    if not text.strip():
        raise DataError(
            f"Expected a header line and rows, but got an empty file: {path}. "
            "Check that it was written completely."
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _recognised_encoding(data: bytes) -> str:
    """Encoding by the mark at the start, or by the zero bytes of plain letters in UTF-16."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    head = data[:2000]
    for zeros, name in ((head[1::2], "utf-16-le"), (head[::2], "utf-16-be")):
        if len(zeros) > 10 and zeros.count(0) > 0.8 * len(zeros):
            return name
    return "utf-8-sig"


def _unpacked(data: bytes, path: Path) -> bytes:
    """Content of a file that is compressed with gzip, bzip2 or xz; that of others as it is."""
    opener = next((module for start, module in _PACKED.items() if data.startswith(start)), None)
    if opener is None:
        return data
    try:
        with opener.open(io.BytesIO(data)) as file:
            content: bytes = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise DataError(
            f"Expected a complete compressed file, but got '{error}' for {path}. Compress the "
            "table again."
        ) from error
    if len(content) > MOST_BYTES:
        raise DataError(
            f"Expected at most {MOST_BYTES:,} bytes of text, but {path} holds more. Unpack it, and "
            "read a part."
        )
    return content


def check_text(start: bytes, text: str) -> bool:
    """Whether what a file starts with is text.

    Args:
        start: Its first bytes.
        text: Its first characters.
    """
    head = text[:65536]
    plain = head.translate(_LINE_ENDS_AND_TABS)
    strange = 0 if plain.isprintable() else sum(not char.isprintable() for char in plain)
    binary = "\0" in head or strange > 0.01 * len(head)
    return not binary and not start.startswith(tuple(_BINARY_STARTS))


def recognised_separator(text: str, path: Path) -> str:
    """The first separator by which most lines have as many fields as the header."""
    candidates = (",", ";", "\t", " ")
    return max(candidates, key=lambda candidate: _regularity(text, candidate, path))


def parse(
    text: str, separator: str | None, path: Path
) -> tuple[list[str], list[list[str]], list[int], str]:
    """Header, rows of equal length, their line numbers, and the separator."""
    if separator is None:
        separator = recognised_separator(text, path)
    numbered = list(_rows(text, separator, path))
    header = numbered.pop(0)[0]
    for row, line in numbered:
        if len(row) != len(header):
            raise DataError(
                f"Expected {counted(len(header), 'field')} in every line as in the header, but got "
                f"{len(row)} in line {line} of {path} (separator {separator!r}). Correct the line, "
                "or pass separator=."
            )
    return header, [row for row, _ in numbered], [line for _, line in numbered], separator


def check_header(header: list[str], target: str, path: Path, notes: list[str]) -> list[str]:
    """Column names, those without a name numbered."""
    numbers = [name for name in header if is_number(name)]
    # Frames without column names are written with the header 0,1,2,...: accepted where it is meant.
    counting = header == [str(number) for number in range(len(header))] and target in header
    decimals = [name for name in numbers if not name.isdecimal()]
    if (numbers == header and not counting) or decimals:
        raise DataError(
            f"Expected a header line with column names, but got numbers ({listed(numbers, 3)}) in "
            f"the first line of {path}. Add a first line with a name for every column."
        )
    named = [name or f"unnamed_{position}" for position, name in enumerate(header, 1)]
    if named != header:
        notes.append(f"{counted(header.count(''), 'column')} without a name numbered by position.")
    repeated = [name for name, count in Counter(named).items() if count > 1]
    if repeated:
        raise DataError(
            f"Expected different column names, but got {listed(repeated)} more than once in "
            f"{path}. Rename or remove the copies."
        )
    if target not in named:
        folded = {name.casefold(): name for name in named}
        close = difflib.get_close_matches(target.strip().casefold(), folded, n=1)
        hint = f"Did you mean '{folded[close[0]]}'? " if close else ""
        raise DataError(
            f"Expected a target among the columns of {path}, but got '{target}'. {hint}"
            f"Choose one of {listed(named, 40)}."
        )
    return named


def convert(
    name: str,
    values: Sequence[str],
    lines: Sequence[int],
    decimal_comma: bool,
    path: Path,
    notes: list[str],
    *,
    codes: bool = True,
) -> pd.Series:
    """A float64 column where all cells are numbers, else a column of text; missing cells NaN.

    With ``codes``, numbers of which some have leading zeros are text.
    """
    text = pd.Series(values, dtype=object)
    text = text.mask(text.isin(MISSING_TEXTS), np.nan)
    present = text.dropna()
    if (
        decimal_comma
        and present.str.contains(",", regex=False).any()
        and present.str.fullmatch(_DECIMAL_COMMA).all()
    ):
        present = present.str.replace(",", ".", regex=False)
        notes.append(f"Decimal commas of column '{name}' read as decimal points.")
    numbers = pd.to_numeric(present, errors="coerce").astype(np.float64)
    faulty = numbers.isna()
    if faulty.any():
        words, said = numbers_in_words(text.dropna(), decimal_comma)
        if words is not None:
            notes.append(f"Column '{name}' {said}")
            numbers, faulty = words, words.isna()
    elif codes and are_codes(present):
        notes.append(f"Column '{name}' has numbers with leading zeros and was taken as text.")
        return text
    if faulty.any():
        if faulty.mean() > 0.2 or numbers.nunique() <= 10:
            return text
        first = int(faulty.idxmax())
        raise DataError(
            f"Expected numbers in column '{name}' as in most of its rows, but got "
            f"{present[first]!r} in line {lines[first]} of {path} ({int(faulty.sum())} such "
            "cells). "
            "Correct these cells, empty them, or start every code with a letter."
        )
    infinite = ~np.isfinite(numbers)
    if infinite.any():
        first = int(infinite.idxmax())
        raise DataError(
            f"Expected finite numbers in column '{name}', but got {present[first]!r} in line "
            f"{lines[first]} of {path} ({int(infinite.sum())} such cells). Correct or empty them."
        )
    return numbers.reindex(text.index)


def _nearest_files(path: Path) -> str:
    if not path.parent.is_dir():
        return f"There is no folder {path.parent} either; check the path."
    names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    close = close or sorted(name for name in names if Path(name).suffix == path.suffix)[:3]
    return f"Did you mean {listed(close)}?" if close else "Check the path."


def _regularity(text: str, separator: str, path: Path) -> float:
    """Share of the first lines with as many fields as the header; 0 where it has one field."""
    try:
        sample = [len(row) for row, _ in itertools.islice(_rows(text, separator, path), 200)]
    except DataError:
        return 0.0
    return sample.count(sample[0]) / len(sample) if sample[0] > 1 else 0.0


def _rows(text: str, separator: str, path: Path) -> Iterator[tuple[list[str], int]]:
    """Fields and line number of every line that is not blank."""
    lines: Iterable[str] = io.StringIO(text)
    if separator == " ":
        lines = (" ".join(line.split()) for line in lines)
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=separator != " ")
    try:
        for row in reader:
            if row:
                yield [field.strip() for field in row], reader.line_num
    except csv.Error as error:
        raise DataError(
            f"Expected separated columns, but got '{error}' in line {reader.line_num} of {path}. "
            "Look for a quotation mark that is never closed."
        ) from error
