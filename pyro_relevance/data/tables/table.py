"""A checked table of a user's file: ``Table`` and ``read_table``.

Decides what the target is and which columns become inputs; ``encoder`` makes tensors of them.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from pyro_relevance.data.tables._text import counted, listed
from pyro_relevance.data.tables.columns import as_levels
from pyro_relevance.data.tables.csv_files import SEPARATORS, check_header, convert, parse, read_text
from pyro_relevance.data.tables.frame_columns import columns_of_frame, is_parquet, read_parquet
from pyro_relevance.data.tables.regular_csv import read_regular
from pyro_relevance.errors import DataError

__all__ = ["Table", "Task", "choose_features", "read_table"]

Task = Literal["regression", "classification"]

MIN_ROWS = 20
MIN_ROWS_PER_CLASS = 2
MAX_CLASSES = 50
MAX_INTEGER_CLASSES = 10  # more distinct whole numbers than this are a quantity, not classes ...
MAX_INTEGER_CLASS_SHARE = 0.05  # ... and so are as many as this share of the rows

_ROW_NUMBER_NAMES = {"id", "index", "idx", "row", "rowid", "row_id", "rownum", "no", "nr", "number"}
_CLOCK = r"([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?\s*(Z|[+-]\d{2}:?\d{2})?)?"
_DATE = r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4})" + _CLOCK


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A checked table: features and target of every usable row.

    Args:
        features: ``(num_rows, num_features)``; numbers are float64 (NaN where missing), everything
            else is text.
        target: ``(num_rows,)`` without missing values: float64 for regression, class labels as text
            for classification.
        task: ``"regression"`` or ``"classification"``.
        target_name: Column name of the target.
        path: File that was read.
        notes: One plain sentence for every treatment that was applied.
    """

    features: pd.DataFrame
    target: pd.Series
    task: Task
    target_name: str
    path: Path
    notes: tuple[str, ...] = ()

    @property
    def num_rows(self) -> int:
        """Number of usable rows."""
        return len(self.target)


def read_table(
    path: str | Path | pd.DataFrame,
    *,
    target: str,
    task: Literal["auto", "regression", "classification"] = "auto",
    separator: str | None = None,
    encoding: str | None = None,
) -> Table:
    """Checked table from a text file with one header line, a Parquet file or a DataFrame.

    Missing cells are empty or one of ``? NA N/A n/a NaN nan NULL null None``. The separator is the
    first of comma, semicolon, tab and whitespace that splits header and rows into the same number
    of fields. With ``task="auto"`` a target of text is classification; so are two distinct numbers,
    and whole numbers with at most 10 distinct values that are at most 5 % of the rows and occur
    twice or more; every other target is regression.

    Read as numbers, with a note, where all cells of a column agree: ``12.3%``, ``1,234.5``,
    ``1.234,5``, ``$1.20``, ``3.2 kg``. Whole numbers with leading zeros are codes, that is, text.

    Left out, with a note: rows without target, constant and empty columns, dates, row numbers, text
    that differs in more than half of the rows (identifiers).

    Args:
        path: File to read (UTF-8, UTF-16, UTF-32 with mark, or Windows-1252; perhaps compressed
            by gzip, bzip2 or xz), or a table in memory.
        target: Name of the column to predict.
        task: What the target is; ``"auto"`` recognises it.
        separator: One character, ``"tab"`` or ``"whitespace"``; ``None`` recognises it.
        encoding: Name of the encoding; ``None`` recognises it.

    Returns:
        The table, with a note for every treatment.

    Raises:
        DataError: If the file is no table, the target is unknown, missing, constant or unfit for
            the task, a value is not finite, or fewer than 20 rows, 2 per class or 1 feature remain.
        ValueError: If ``task``, ``separator`` or ``encoding`` is not one of the allowed values.
    """
    if task not in ("auto", "regression", "classification"):
        raise ValueError(
            f"Expected task 'auto', 'regression' or 'classification', but got {task!r}. Choose one."
        )
    given, path = path, Path("DataFrame") if isinstance(path, pd.DataFrame) else Path(path)
    notes: list[str] = []
    columns = _columns_of(given, path, target, (separator, encoding), notes)
    values, row_numbers = _present_target(columns, target, path, notes)
    values, recognised = _check_target(values, target, task, path, notes)
    features = choose_features(columns, row_numbers, path, notes)
    return Table(features, values, recognised, target, path, tuple(notes))


def _columns_of(
    given: str | Path | pd.DataFrame,
    path: Path,
    target: str,
    texts: tuple[str | None, str | None],
    notes: list[str],
) -> dict[str, pd.Series]:
    """Columns of a frame or a file; separator and encoding are those of a file of text."""
    separator, encoding = _checked_separator(texts[0]), _checked_encoding(texts[1])
    if isinstance(given, pd.DataFrame):
        return columns_of_frame(given, target, path, notes)
    if is_parquet(path):
        return columns_of_frame(read_parquet(path), target, path, notes)
    return _read_columns(path, target, separator, encoding, notes)


def _present_target(
    columns: dict[str, pd.Series], target: str, path: Path, notes: list[str]
) -> tuple[pd.Series, list[str]]:
    """Take the target out of the columns, and the rows without it; names of row numbers, too."""
    values = columns.pop(target)
    present = values.notna()
    if not present.any() and len(values):
        raise DataError(
            f"Expected values in target '{target}', but got none in the {len(values)} rows of "
            f"{path}. Fill the column, or name another target."
        )
    row_numbers = [name for name, column in columns.items() if _counts_rows(name, column)]
    if not present.all():
        notes.append(f"{counted(int((~present).sum()), 'row')} without target left out.")
    if present.sum() < MIN_ROWS:
        raise DataError(
            f"Expected at least {MIN_ROWS} rows with a target, but got {present.sum()} in {path}. "
            "Add rows."
        )
    if not present.all():
        for name, column in columns.items():
            columns[name] = column[present].reset_index(drop=True)
        values = values[present].reset_index(drop=True)
    return values, row_numbers


def _check_target(
    values: pd.Series, target: str, task: str, path: Path, notes: list[str]
) -> tuple[pd.Series, Task]:
    """Target as numbers or class labels, and the task."""
    numeric = pd.api.types.is_numeric_dtype(values)
    num_rows, num_values = len(values), _num_values(values)
    if num_values < 2:
        raise DataError(
            f"Expected a target that varies, but got {as_levels(values)[0]!r} in all {num_rows} "
            f"rows of '{target}' in {path}. Name another target."
        )
    if not numeric and values.str.fullmatch(_DATE).all():
        raise DataError(
            f"Expected numbers or classes in target '{target}', but got dates such as "
            f"'{values.iloc[0]}' in {path}. Give them as a number, such as days since a start."
        )
    if task == "regression" and not numeric:
        raise DataError(
            f"Expected numbers in target '{target}' for regression, but got text such as "
            f"'{values.iloc[0]}' in {path}. Use task 'classification', or correct the column."
        )
    if task == "auto" and numeric:
        few = num_values <= min(MAX_INTEGER_CLASSES, MAX_INTEGER_CLASS_SHARE * num_rows)
        if num_values == 2 or (few and _are_repeated_integers(values)):
            notes.append(
                f"Target '{target}' has {num_values} distinct values and was taken as classes; "
                "use task 'regression' to take it as a quantity."
            )
            task = "classification"
    if task == "regression" or (task == "auto" and numeric):
        return values.rename(target), "regression"
    labels = pd.Series(as_levels(values), name=target, dtype=object)
    counts = labels.value_counts()
    if len(counts) > MAX_CLASSES:
        raise DataError(
            f"Expected at most {MAX_CLASSES} classes in target '{target}', but got {len(counts)} "
            f"in {num_rows} rows of {path}. Merge rare classes, or name another target."
        )
    if counts.min() < MIN_ROWS_PER_CLASS:
        raise DataError(
            f"Expected at least {MIN_ROWS_PER_CLASS} rows of every class of target '{target}', but "
            f"got 1 of {listed(sorted(counts.index[counts == 1]))} in {path}. Add rows, or remove "
            "these."
        )
    return labels, "classification"


def _checked_separator(separator: str | None) -> str | None:
    """The character that a name of a separator stands for; None stays None."""
    if separator is None:
        return None
    separator = SEPARATORS.get(separator, separator)
    if len(separator) != 1 or separator in '"\r\n':
        raise ValueError(
            "Expected separator of one character, 'tab' or 'whitespace', but got "
            f"{separator!r}. Choose one."
        )
    return separator


def _checked_encoding(encoding: str | None) -> str | None:
    """Name of an encoding that Python knows; None stays None, and so does UTF-8, which is tried."""
    if encoding is None:
        return None
    try:
        name = codecs.lookup(encoding).name
    except (LookupError, TypeError) as error:
        raise ValueError(
            f"Expected the name of an encoding, such as 'utf-8' or 'latin-1', but got {encoding!r}."
        ) from error
    return "utf-8-sig" if name == "utf-8" else name


def _read_columns(
    path: Path, target: str, separator: str | None, encoding: str | None, notes: list[str]
) -> dict[str, pd.Series]:
    """Column name -> values of all rows of the file, the target among them."""
    columns = None
    if encoding in (None, "utf-8-sig"):
        columns = read_regular(path, target, separator, notes)
    if columns is not None:
        return columns
    text = read_text(path, notes, encoding)
    header, rows, lines, separator = parse(text, separator, path)
    header = check_header(header, target, path, notes)
    cells = dict(zip(header, zip(*rows, strict=True) if rows else [()] * len(header), strict=True))
    return {
        name: convert(name, values, lines, separator != ",", path, notes)
        for name, values in cells.items()
    }


def choose_features(
    columns: dict[str, pd.Series], row_numbers: Sequence[str], path: Path, notes: list[str]
) -> pd.DataFrame:
    """Columns that become inputs; a note for each of the others."""
    kept: dict[str, pd.Series] = {}
    for name, values in columns.items():
        present = values.dropna()
        text = not pd.api.types.is_numeric_dtype(values)
        # Counting distinct numbers takes longer than reading them, and only one matters.
        varies = len(present) and bool((present != present.iloc[0]).any())
        num_values = present.nunique() if text else 1 + varies
        if not len(present):
            reason = "is empty"
        elif num_values == 1 and len(present) == len(values):
            reason = "is constant"
        elif name in row_numbers:
            reason = "only numbers the rows"
        elif text and present.str.fullmatch(_DATE).all():
            reason = "holds dates (give them as numbers, such as days since a start, to use them)"
        elif text and num_values == len(present):
            reason = "is text that differs in every row (an identifier)"
        elif text and num_values > 0.5 * len(present):
            reason = f"is text with {num_values} levels in {len(present)} rows (an identifier)"
        else:
            kept[name] = values
            continue
        notes.append(f"Column '{name}' {reason} and was left out.")
    if not kept:
        raise DataError(
            f"Expected at least one feature beside the target, but got none in {path}. "
            + (" ".join(notes) or "Add columns, or pass separator= if there are more.")
        )
    return pd.DataFrame(kept, copy=False)


def _num_values(values: pd.Series) -> int:
    """Number of distinct values, as far as it matters: if it is large, that of the first rows."""
    first = values.iloc[:10_000].nunique()
    return int(first if first > MAX_INTEGER_CLASSES else values.nunique())


def _are_repeated_integers(values: pd.Series) -> bool:
    whole = bool((values == values.round()).all())
    return whole and bool(values.value_counts().min() >= MIN_ROWS_PER_CLASS)


def _counts_rows(name: str, values: pd.Series) -> bool:
    """Whether a column of an index-like name is 0, 1, 2, ... or 1, 2, 3, ... in file order."""
    plain = name.casefold().replace(" ", "_")
    if plain not in _ROW_NUMBER_NAMES and not plain.startswith("unnamed"):
        return False
    if not len(values) or not pd.api.types.is_numeric_dtype(values):
        return False
    return values.iloc[0] in (0, 1) and bool((values.diff().iloc[1:] == 1).all())
