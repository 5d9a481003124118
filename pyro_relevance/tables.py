"""From a CSV file of a user to tensors: ``read_table``, ``Table``, ``encode``, ``Encoder``.

Stands in front of ``find_edges``: an encoder names the gate of every original column
(``input_labels``) and says which tensor columns share it (``input_index``). Nothing is repaired in
silence: each treatment is a sentence in ``notes``, everything else is a ``DataError`` that says
what was expected, what came, where, and what to do.
"""

from __future__ import annotations

import csv
import difflib
import io
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_relevance.errors import DataError

__all__ = [
    "CategoryColumn",
    "Encoder",
    "NumericColumn",
    "Table",
    "encode",
    "read_table",
    "split_rows",
]

Task = Literal["regression", "classification"]

MIN_ROWS = 20
MIN_ROWS_PER_CLASS = 2
MAX_CLASSES = 50
MAX_INTEGER_CLASSES = 10  # more distinct whole numbers than this are a quantity, not classes ...
MAX_INTEGER_CLASS_SHARE = 0.05  # ... and so are as many as this share of the rows
MAX_LEVELS = 50
MISSING_LEVEL = "(missing)"

_MISSING_TEXTS = ["", "?", "NA", "N/A", "#N/A", "n/a", "NaN", "nan", "-nan", "NULL", "null"]
_MISSING_TEXTS += ["None", "<NA>"]
_SEPARATORS = {"tab": "\t", "\\t": "\t", "whitespace": " "}
_ROW_NUMBER_NAMES = {"id", "index", "idx", "row", "rowid", "row_id", "rownum", "no", "nr", "number"}
_CLOCK = r"([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?\s*(Z|[+-]\d{2}:?\d{2})?)?"
_DATE = r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4})" + _CLOCK
_DECIMAL_COMMA = r"[+-]?\d*,?\d+([eE][+-]?\d+)?"
_BINARY_STARTS = {
    b"PK\x03\x04": "an Excel workbook or zip archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF",
    b"PAR1": "a Parquet file",
    b"\x89HDF": "an HDF5 file",
    b"\x89PNG": "an image",
}


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
        numbers = _as_numbers(values, self.name)
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
        texts = _as_levels(values)
        return np.stack([texts == level for level in self.levels], axis=1).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Encoder:
    """Turns rows of a table into tensors with statistics of the training rows only.

    In original units: ``value = target_mean + target_scale * output``, an RMSE is multiplied by
    ``target_scale`` and ``log(target_scale)`` is subtracted from the log likelihood (nats) of each
    row.

    Args:
        columns: One entry per original column that has a gate, in the order of the table.
        task: ``"regression"`` or ``"classification"``.
        target_name: Column name of the target.
        target_mean: Mean of the target over the training rows; 0 for classification.
        target_scale: Standard deviation of the target over the training rows; 1 for classification.
        classes: Class labels in the order of the network's outputs; empty for regression.
        notes: One plain sentence for every treatment that was applied.
    """

    columns: tuple[NumericColumn | CategoryColumn, ...]
    task: Task
    target_name: str
    target_mean: float = 0.0
    target_scale: float = 1.0
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def input_labels(self) -> tuple[str, ...]:
        """Name of each gate, an original column; ``input_labels`` of ``find_edges``."""
        return tuple(column.name for column in self.columns)

    @property
    def input_index(self) -> tuple[int, ...]:
        """Gate of each tensor column, ``(num_columns,)``; ``input_index`` of ``find_edges``."""
        return tuple(gate for gate, column in enumerate(self.columns) for _ in column.labels)

    @property
    def column_labels(self) -> tuple[str, ...]:
        """Name of each tensor column, ``(num_columns,)``."""
        return tuple(label for column in self.columns for label in column.labels)

    @property
    def num_columns(self) -> int:
        """Number of tensor columns: the number of inputs of the network."""
        return len(self.column_labels)

    @property
    def num_outputs(self) -> int:
        """Number of classes, or 1 for regression."""
        return max(1, len(self.classes))

    def transform(self, features: pd.DataFrame, target: pd.Series) -> tuple[Tensor, Tensor]:
        """Tensors of rows with a target.

        Args:
            features: ``(num_rows, ...)`` with at least the columns in ``input_labels``; others are
                not looked at.
            target: ``(num_rows,)`` in original units, or class labels.

        Returns:
            ``x``: float32 ``(num_rows, num_columns)``; ``y``: float32 ``(num_rows,)`` standardised
            target, or int64 ``(num_rows,)`` class numbers.

        Raises:
            DataError: If a column is absent, a number is not finite or not a number, or a class is
                unknown.
        """
        if len(features) != len(target):
            raise DataError(
                f"Expected as many targets as rows of features, but got {len(target)} and "
                f"{len(features)}. Pass features and target of the same rows."
            )
        return self.transform_features(features), self.transform_target(target)

    def transform_features(self, features: pd.DataFrame) -> Tensor:
        """Inputs of the network, float32 ``(num_rows, num_columns)``; no target is needed.

        Args:
            features: ``(num_rows, ...)`` with at least the columns in ``input_labels``; others are
                not looked at.

        Raises:
            DataError: If a column is absent, or a number is not finite or not a number.
        """
        absent = [name for name in self.input_labels if name not in features.columns]
        if absent:
            raise DataError(
                f"Expected the columns {_listed(self.input_labels)}, but got a table without "
                f"{_listed(absent)}. Pass rows with the columns that the encoder was fitted on."
            )
        parts = [column.transform(features[column.name]) for column in self.columns]
        return _as_float32(np.concatenate(parts, axis=1), self.column_labels)

    def transform_target(self, target: pd.Series) -> Tensor:
        """Standardised float32 target, or int64 class numbers, ``(num_rows,)``.

        Args:
            target: ``(num_rows,)`` in original units, or class labels.

        Raises:
            DataError: If a value is missing, not finite or not a number, or a class is unknown.
        """
        if self.task == "regression":
            numbers = _as_numbers(target, self.target_name)
            if np.isnan(numbers).any():
                raise DataError(
                    f"Expected a number in every row of target '{self.target_name}', but got "
                    "missing values. Leave rows without target out, or use transform_features."
                )
            scaled = (numbers - self.target_mean) / self.target_scale
            return _as_float32(scaled[:, None], (self.target_name,))[:, 0]
        numbers_of = {label: number for number, label in enumerate(self.classes)}
        labels = _as_levels(target)
        unknown = sorted(set(labels) - set(self.classes))
        if unknown:
            raise DataError(
                f"Expected classes {_listed(self.classes)} in target '{self.target_name}', but got "
                f"{_listed(unknown)}. Leave these rows out, or fit the encoder on a table that "
                "has them."
            )
        return torch.tensor([numbers_of[label] for label in labels], dtype=torch.int64)

    def unseen_levels(self, features: pd.DataFrame) -> dict[str, tuple[str, ...]]:
        """Levels without a tensor column, by original column: zero in all columns of the gate.

        Args:
            features: ``(num_rows, ...)`` with the columns in ``input_labels``.
        """
        unseen = {
            column.name: tuple(sorted(set(_as_levels(features[column.name])) - set(column.levels)))
            for column in self.columns
            if isinstance(column, CategoryColumn)
        }
        return {name: levels for name, levels in unseen.items() if levels}

    def to_json(self) -> str:
        """The encoder as JSON text; ``from_json`` gives an equal encoder back."""
        content = {"format": "pyro_relevance.Encoder", "version": 1, **asdict(self)}
        return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Encoder:
        """Encoder from the text of ``to_json``.

        Args:
            text: JSON text.

        Raises:
            DataError: If the text is not an encoder of this version.
        """
        try:
            content: dict[str, Any] = json.loads(text)
            if (content.pop("format"), content.pop("version")) != ("pyro_relevance.Encoder", 1):
                raise KeyError("format")
            columns = tuple(
                CategoryColumn(column["name"], tuple(column["levels"]))
                if "levels" in column
                else NumericColumn(**column)
                for column in content.pop("columns")
            )
            classes, notes = tuple(content.pop("classes")), tuple(content.pop("notes"))
            return cls(columns, classes=classes, notes=notes, **content)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"Expected the JSON text of an encoder (version 1), but got {text[:60]!r}. "
                "Pass what Encoder.to_json wrote, unchanged."
            ) from error


def read_table(
    path: str | Path,
    *,
    target: str,
    task: Literal["auto", "regression", "classification"] = "auto",
    separator: str | None = None,
) -> Table:
    """Checked table from a text file with one header line.

    Missing cells are empty or one of ``? NA N/A n/a NaN nan NULL null None``. The separator is the
    first of comma, semicolon, tab and whitespace that splits header and rows into the same number
    of fields. With ``task="auto"`` a target of text is classification; so are two distinct numbers,
    and whole numbers with at most 10 distinct values that are at most 5 % of the rows and occur
    twice or more; every other target is regression.

    Left out, with a note: rows without target, constant and empty columns, dates, row numbers, text
    that differs in more than half of the rows (identifiers).

    Args:
        path: File to read (UTF-8, UTF-16 with mark, or Windows-1252).
        target: Name of the column to predict.
        task: What the target is; ``"auto"`` recognises it.
        separator: One character, ``"tab"`` or ``"whitespace"``; ``None`` recognises it.

    Returns:
        The table, with a note for every treatment.

    Raises:
        DataError: If the file cannot be read as a table, the target is unknown, missing, constant
            or unfit for the task, a value is not finite, or fewer than 20 rows, 2 rows per class or
            1 feature are left.
        ValueError: If ``task`` or ``separator`` is not one of the allowed values.
    """
    if task not in ("auto", "regression", "classification"):
        raise ValueError(
            f"Expected task 'auto', 'regression' or 'classification', but got {task!r}. Choose one."
        )
    if separator is not None:
        separator = _SEPARATORS.get(separator, separator)
        if len(separator) != 1 or separator in '"\r\n':
            raise ValueError(
                "Expected separator of one character, 'tab' or 'whitespace', but got "
                f"{separator!r}. Choose one."
            )
    path = Path(path)
    notes: list[str] = []
    text = _read_text(path, notes)
    header, rows, lines, separator = _parse(text, separator, path)
    header = _check_header(header, target, path, notes)
    cells = dict(zip(header, zip(*rows, strict=True) if rows else [()] * len(header), strict=True))
    columns = {
        name: _convert(name, values, lines, separator != ",", path, notes)
        for name, values in cells.items()
    }
    values = columns.pop(target)
    present = values.notna()
    if not present.any() and len(values):
        raise DataError(
            f"Expected values in target '{target}', but got none in the {len(values)} rows of "
            f"{path}. Fill the column, or name another target."
        )
    row_numbers = [name for name, column in columns.items() if _counts_rows(name, column)]
    if not present.all():
        notes.append(f"{_count(int((~present).sum()), 'row')} without target left out.")
    if present.sum() < MIN_ROWS:
        raise DataError(
            f"Expected at least {MIN_ROWS} rows with a target, but got {present.sum()} in {path}. "
            "Add rows."
        )
    kept = {name: column[present].reset_index(drop=True) for name, column in columns.items()}
    values, recognised = _check_target(
        values[present].reset_index(drop=True), target, task, path, notes
    )
    features = _choose_features(kept, row_numbers, path, notes)
    return Table(features, values, recognised, target, path, tuple(notes))


def encode(table: Table, train_rows: ArrayLike, *, max_levels: int = MAX_LEVELS) -> Encoder:
    """Encoder fitted on the training rows; other rows have no influence on any statistic.

    Numbers are standardised with mean and standard deviation; missing ones are filled with the
    median, and a missing-indicator column shares the gate. Text is one-hot with one gate per
    original column; missing is a level of its own, and levels beyond the ``max_levels`` most
    frequent, like unseen ones, are zero in all columns.

    Args:
        table: Table from ``read_table``.
        train_rows: ``(num_train,)`` row numbers, counted from 0.
        max_levels: Most levels of a text column that get a tensor column.

    Returns:
        The encoder; its classes are those of the whole table, so that the classes of every row are
        known.

    Raises:
        DataError: If ``train_rows`` is empty or out of range, the target is constant there, or no
            column varies there.
    """
    rows = np.asarray(train_rows)
    if (
        rows.ndim != 1
        or not len(rows)
        or rows.dtype.kind not in "iu"
        or rows.min() < 0
        or rows.max() >= table.num_rows
    ):
        raise DataError(
            f"Expected train_rows as whole numbers from 0 to {table.num_rows - 1}, but got an "
            f"array of shape {rows.shape} and type {rows.dtype}. Pass the first result of "
            f"split_rows({table.num_rows})."
        )
    notes: list[str] = []
    columns: list[NumericColumn | CategoryColumn] = []
    for name in map(str, table.features.columns):
        column = _fit_column(name, table.features[name], rows, max_levels, notes)
        if column.labels:
            columns.append(column)
        else:
            notes.append(f"Column '{name}' is constant in the training rows and was left out.")
    if not columns:
        raise DataError(
            f"Expected a feature that varies over the {len(rows)} training rows of {table.path}, "
            "but got none. Choose more training rows."
        )
    target = table.target.iloc[rows]
    mean, scale = 0.0, 1.0
    classes: tuple[str, ...] = ()
    if table.task == "classification":
        classes = _ordered(table.target)
    elif target.nunique() > 1:
        mean, scale = _moments(target.to_numpy(dtype=np.float64), table.target_name)
    if target.nunique() < 2 or scale == 0:
        raise DataError(
            f"Expected a target '{table.target_name}' that varies over the training rows, but got "
            f"{target.iloc[0]} in all {len(rows)}. Choose other training rows."
        )
    return Encoder(
        tuple(columns), table.task, table.target_name, mean, scale, classes, tuple(notes)
    )


def split_rows(
    num_rows: int,
    *,
    test_fraction: float = 0.1,
    seed: int = 0,
    labels: ArrayLike | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Random training and test rows, each in ascending order; together they are all rows, once.

    Args:
        num_rows: Number of rows, 2 or more.
        test_fraction: Share of test rows, between 0 and 1; at least one row is on either side.
        seed: Seed of a generator of its own; the global ones are not touched.
        labels: ``(num_rows,)`` classes whose shares are kept on both sides (each class stays in
            the training rows); ``None`` for a plain split.

    Returns:
        ``(train_rows, test_rows)``, int64 row numbers counted from 0.

    Raises:
        ValueError: If an argument is out of range, or ``labels`` has another length.
    """
    if num_rows < 2 or not 0 < test_fraction < 1:
        raise ValueError(
            "Expected at least 2 rows and a test_fraction between 0 and 1, but got "
            f"{num_rows} rows and {test_fraction}. Pass a table with more rows, or 0.1."
        )
    generator = np.random.default_rng(seed)
    num_test = min(max(1, round(test_fraction * num_rows)), num_rows - 1)
    order = generator.permutation(num_rows)
    if labels is None:
        return np.sort(order[num_test:]), np.sort(order[:num_test])
    groups, group_of = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    if group_of.shape != (num_rows,):
        raise ValueError(
            f"Expected labels of shape ({num_rows},), but got {np.shape(labels)}. "
            "Pass one class for each row."
        )
    sizes = np.bincount(group_of)
    exact = sizes * (num_test / num_rows)
    takes = np.minimum(np.floor(exact).astype(np.int64), sizes - 1)
    # Largest remainders get the rows that rounding down left over; no class loses its last row.
    for group in np.argsort(takes - exact, kind="stable"):
        takes[group] += int(takes.sum() < num_test and takes[group] < sizes[group] - 1)
    chosen = [order[group_of[order] == group][: takes[group]] for group in range(len(groups))]
    test = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(num_rows), test), test


def _read_text(path: Path, notes: list[str]) -> str:
    """Text of a file, or the reason why it is none."""
    if path.is_dir():
        raise DataError(f"Expected a file, but got the folder {path}. Name a file in it.")
    if not path.exists():
        raise DataError(f"Expected a file, but found none at {path}. {_nearest_files(path)}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"Expected a readable file, but got '{error.strerror}' for {path}. "
            "Check its permissions."
        ) from error
    kind = next((kind for start, kind in _BINARY_STARTS.items() if data.startswith(start)), "")
    text = ""
    if not kind:
        try:
            if data.startswith((b"\xff\xfe", b"\xfe\xff")):
                text = data.decode("utf-16")
            else:
                text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("cp1252", errors="replace")
            notes.append(f"{path.name} is not UTF-8 and was read as Windows-1252.")
        head = text[:65536]
        strange = sum(not char.isprintable() and char not in "\r\n\t" for char in head)
        if "\0" in head or strange > 0.01 * len(head):
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


def _nearest_files(path: Path) -> str:
    if not path.parent.is_dir():
        return f"There is no folder {path.parent} either; check the path."
    names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    close = close or sorted(name for name in names if Path(name).suffix == path.suffix)[:3]
    return f"Did you mean {_listed(close)}?" if close else "Check the path."


def _parse(
    text: str, separator: str | None, path: Path
) -> tuple[list[str], list[list[str]], list[int], str]:
    """Header, rows of equal length, their line numbers, and the separator."""
    if separator is None:
        candidates = (",", ";", "\t", " ")
        separator = max(candidates, key=lambda candidate: _regularity(text, candidate, path))
    numbered = list(_rows(text, separator, path))
    header = numbered.pop(0)[0]
    for row, line in numbered:
        if len(row) != len(header):
            raise DataError(
                f"Expected {_count(len(header), 'field')} in every line as in the header, but got "
                f"{len(row)} in line {line} of {path} (separator {separator!r}). Correct the line, "
                "or pass separator=."
            )
    return header, [row for row, _ in numbered], [line for _, line in numbered], separator


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


def _check_header(header: list[str], target: str, path: Path, notes: list[str]) -> list[str]:
    """Column names, those without a name numbered."""
    numbers = [name for name in header if _is_number(name)]
    # Frames without column names are written with the header 0,1,2,...: accepted where it is meant.
    counting = header == [str(number) for number in range(len(header))] and target in header
    decimals = [name for name in numbers if not name.isdecimal()]
    if (numbers == header and not counting) or decimals:
        raise DataError(
            f"Expected a header line with column names, but got numbers ({_listed(numbers, 3)}) in "
            f"the first line of {path}. Add a first line with a name for every column."
        )
    named = [name or f"unnamed_{position}" for position, name in enumerate(header, 1)]
    if named != header:
        notes.append(f"{_count(header.count(''), 'column')} without a name numbered by position.")
    repeated = [name for name, count in Counter(named).items() if count > 1]
    if repeated:
        raise DataError(
            f"Expected different column names, but got {_listed(repeated)} more than once in "
            f"{path}. Rename or remove the copies."
        )
    if target not in named:
        folded = {name.casefold(): name for name in named}
        close = difflib.get_close_matches(target.strip().casefold(), folded, n=1)
        hint = f"Did you mean '{folded[close[0]]}'? " if close else ""
        raise DataError(
            f"Expected a target among the columns of {path}, but got '{target}'. {hint}"
            f"Choose one of {_listed(named, 40)}."
        )
    return named


def _convert(
    name: str,
    values: Sequence[str],
    lines: Sequence[int],
    decimal_comma: bool,
    path: Path,
    notes: list[str],
) -> pd.Series:
    """A float64 column where all cells are numbers, else a column of text; missing cells NaN."""
    text = pd.Series(values, dtype=object)
    text = text.mask(text.isin(_MISSING_TEXTS), np.nan)
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


def _check_target(
    values: pd.Series, target: str, task: str, path: Path, notes: list[str]
) -> tuple[pd.Series, Task]:
    """Target as numbers or class labels, and the task."""
    numeric = pd.api.types.is_numeric_dtype(values)
    num_rows, num_values = len(values), values.nunique()
    if num_values < 2:
        raise DataError(
            f"Expected a target that varies, but got {_as_levels(values)[0]!r} in all {num_rows} "
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
        whole = bool((values == values.round()).all())
        repeated = bool(values.value_counts().min() >= MIN_ROWS_PER_CLASS)
        if num_values == 2 or (few and whole and repeated):
            notes.append(
                f"Target '{target}' has {num_values} distinct values and was taken as classes; "
                "use task 'regression' to take it as a quantity."
            )
            task = "classification"
    if task == "regression" or (task == "auto" and numeric):
        return values.rename(target), "regression"
    labels = pd.Series(_as_levels(values), name=target, dtype=object)
    counts = labels.value_counts()
    if len(counts) > MAX_CLASSES:
        raise DataError(
            f"Expected at most {MAX_CLASSES} classes in target '{target}', but got {len(counts)} "
            f"in {num_rows} rows of {path}. Merge rare classes, or name another target."
        )
    if counts.min() < MIN_ROWS_PER_CLASS:
        raise DataError(
            f"Expected at least {MIN_ROWS_PER_CLASS} rows of every class of target '{target}', but "
            f"got 1 of {_listed(sorted(counts.index[counts == 1]))} in {path}. Add rows, or remove "
            "these."
        )
    return labels, "classification"


def _choose_features(
    columns: dict[str, pd.Series], row_numbers: Sequence[str], path: Path, notes: list[str]
) -> pd.DataFrame:
    """Columns that can be judged; a note for each of the others."""
    kept: dict[str, pd.Series] = {}
    for name, values in columns.items():
        present = values.dropna()
        num_values, text = present.nunique(), not pd.api.types.is_numeric_dtype(values)
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
    return pd.DataFrame(kept)


def _fit_column(
    name: str, values: pd.Series, rows: NDArray[np.int64], max_levels: int, notes: list[str]
) -> NumericColumn | CategoryColumn:
    """Column fitted on the training rows; without labels where they are constant."""
    train = values.iloc[rows]
    num_missing = int(train.isna().sum())
    if pd.api.types.is_numeric_dtype(values):
        present = train.dropna().to_numpy(dtype=np.float64)
        if not len(present):
            return NumericColumn(name, 0.0, 0.0, 0.0, indicator=False)
        mean, scale = _moments(present, name)
        fill = float(np.median(present))
        if num_missing:
            notes.append(
                f"{_count(num_missing, 'missing value')} of '{name}' in the training rows filled "
                f"with their median {fill:g}; a missing-indicator column shares the gate of "
                f"'{name}'."
            )
        elif values.isna().any():
            notes.append(
                f"Column '{name}' has missing values outside the training rows only: filled with "
                f"the training median {fill:g}."
            )
        return NumericColumn(name, mean, scale, fill, indicator=num_missing > 0)
    counts = Counter(_as_levels(train))
    unseen = sorted(set(_as_levels(values)) - set(counts))
    if len(counts) < 2:
        return CategoryColumn(name, ())
    if num_missing:
        notes.append(f"{_count(num_missing, 'missing value')} of '{name}' made a level of its own.")
    if unseen:
        notes.append(
            f"{_listed(unseen)} of '{name}' never occurs in the training rows: zero in all columns "
            "of its gate."
        )
    if len(counts) > max_levels:
        notes.append(
            f"Column '{name}' has {len(counts)} levels: all but the {max_levels} most frequent are "
            "zero in all columns of its gate."
        )
    frequent = sorted(counts, key=lambda level: (-counts[level], level))[:max_levels]
    return CategoryColumn(name, _ordered(frequent))


def _moments(values: NDArray[np.float64], name: str) -> tuple[float, float]:
    """Mean and standard deviation; exactly 0 where the spread is rounding error."""
    with np.errstate(over="ignore"):
        mean, scale = float(values.mean()), float(values.std())
    if not np.isfinite(mean) or not np.isfinite(scale):
        raise DataError(
            f"Expected numbers in column '{name}' whose variance is a float64, but got up to "
            f"{np.abs(values).max():g}. Use another unit, or the logarithm."
        )
    return mean, scale if scale > 1e-12 * float(np.abs(values).max()) else 0.0


def _as_float32(values: NDArray[np.float64], labels: Sequence[str]) -> Tensor:
    """Float32 tensor of the same shape, ``(num_rows, len(labels))``."""
    beyond = np.abs(values) > np.finfo(np.float32).max
    if beyond.any():
        row, column = np.argwhere(beyond)[0]
        raise DataError(
            f"Expected values within the range of float32, but got {values[row, column]:.1e} "
            f"training standard deviations in '{labels[column]}' in row {row}. Correct the value."
        )
    return torch.from_numpy(values.astype(np.float32))


def _as_numbers(values: pd.Series, name: str) -> NDArray[np.float64]:
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


def _as_levels(values: pd.Series) -> NDArray[np.object_]:
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


def _ordered(levels: Iterable[str]) -> tuple[str, ...]:
    """Distinct levels in ascending order, as numbers where all are numbers."""
    distinct = sorted(set(levels))
    return tuple(sorted(distinct, key=float) if all(map(_is_number, distinct)) else distinct)


def _is_number(text: str) -> bool:
    return bool(np.isfinite(pd.to_numeric(pd.Series([text], dtype=object), errors="coerce")[0]))


def _counts_rows(name: str, values: pd.Series) -> bool:
    """Whether a column of an index-like name is 0, 1, 2, ... or 1, 2, 3, ... in file order."""
    plain = name.casefold().replace(" ", "_")
    if plain not in _ROW_NUMBER_NAMES and not plain.startswith("unnamed"):
        return False
    if not len(values) or not pd.api.types.is_numeric_dtype(values):
        return False
    return values.iloc[0] in (0, 1) and bool((values.diff().iloc[1:] == 1).all())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _listed(names: Iterable[str], most: int = 10) -> str:
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"'{name}'" for name in names[:most]) + rest
