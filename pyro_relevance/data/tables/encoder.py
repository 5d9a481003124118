"""From a table to tensors with statistics of the training rows only: ``encode`` and ``Encoder``.

An encoder names the gate of every original column and says which tensor columns share it, as
``find_edges`` wants to know.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_relevance._files import digest_of_json, parse_json
from pyro_relevance.data.tables._text import listed
from pyro_relevance.data.tables.columns import (
    CategoryColumn,
    NumericColumn,
    as_float32,
    as_levels,
    as_numbers,
    fit_column,
    moments,
    ordered,
)
from pyro_relevance.data.tables.table import Table, Task
from pyro_relevance.errors import DataError

__all__ = ["Encoder", "encode"]

MAX_LEVELS = 50
_FORMAT, _VERSION = "pyro_relevance.Encoder", 2


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
                f"Expected the columns {listed(self.input_labels)}, but got a table without "
                f"{listed(absent)}. Pass rows with the columns that the encoder was fitted on."
            )
        parts = [column.transform(features[column.name]) for column in self.columns]
        return as_float32(np.concatenate(parts, axis=1), self.column_labels)

    def transform_target(self, target: pd.Series) -> Tensor:
        """Standardised float32 target, or int64 class numbers, ``(num_rows,)``.

        Args:
            target: ``(num_rows,)`` in original units, or class labels.

        Raises:
            DataError: If a value is missing, not finite or not a number, or a class is unknown.
        """
        if self.task == "regression":
            numbers = as_numbers(target, self.target_name)
            if np.isnan(numbers).any():
                raise DataError(
                    f"Expected a number in every row of target '{self.target_name}', but got "
                    "missing values. Leave rows without target out, or use transform_features."
                )
            scaled = (numbers - self.target_mean) / self.target_scale
            return as_float32(scaled[:, None], (self.target_name,))[:, 0]
        numbers_of = {label: number for number, label in enumerate(self.classes)}
        labels = as_levels(target)
        unknown = sorted(set(labels) - set(self.classes))
        if unknown:
            raise DataError(
                f"Expected classes {listed(self.classes)} in target '{self.target_name}', but got "
                f"{listed(unknown)}. Leave these rows out, or fit the encoder on a table that "
                "has them."
            )
        return torch.tensor([numbers_of[label] for label in labels], dtype=torch.int64)

    def unseen_levels(self, features: pd.DataFrame) -> dict[str, tuple[str, ...]]:
        """Levels without a tensor column, by original column: zero in all columns of the gate.

        Args:
            features: ``(num_rows, ...)`` with the columns in ``input_labels``.
        """
        unseen = {
            column.name: tuple(sorted(set(as_levels(features[column.name])) - set(column.levels)))
            for column in self.columns
            if isinstance(column, CategoryColumn)
        }
        return {name: levels for name, levels in unseen.items() if levels}

    def to_json(self) -> str:
        """The encoder as JSON text; ``from_json`` gives an equal encoder back."""
        content = {"format": _FORMAT, "version": _VERSION, **asdict(self)}
        content["digest"] = digest_of_json(content)
        return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Encoder:
        """Encoder from the text of ``to_json``; its digest is checked first.

        Args:
            text: JSON text, or its bytes in UTF-8. That of an earlier release has no digest.

        Raises:
            DataError: If the text is damaged, or not an encoder of a known version.
        """
        try:
            content = parse_json(text.decode() if isinstance(text, bytes) else text)
            return _checked(_unsealed(content))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"Expected the JSON text of an encoder (version 1 or {_VERSION}), but got "
                f"{text[:60]!r}: {error}. Pass what Encoder.to_json wrote, unchanged."
            ) from error


def _unsealed(content: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an encoder, after a check of format, version and digest."""
    version = content.pop("version")
    digest = content.pop("digest") if version == _VERSION else None
    sealed = {"version": version, **content}
    if content.pop("format") != _FORMAT or type(version) is not int or version not in (1, _VERSION):
        raise ValueError("it has another format or version")
    if version == _VERSION and digest != digest_of_json(sealed):
        raise ValueError("its content does not fit its digest")
    return content


def _checked(content: dict[str, Any]) -> Encoder:
    """Return an encoder of fields that were read from a file, each of its type and range."""
    columns = tuple(_column(column) for column in content.pop("columns"))
    names = [column.name for column in columns]
    if not names or len(set(names)) < len(names) or not all(column.labels for column in columns):
        raise ValueError("its columns are not distinct, or one has no tensor column")
    texts = {key: content.pop(key) for key in ("classes", "notes")}
    for key, values in texts.items():
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise ValueError(f"its {key} are not texts")
    found: dict[str, Any] = {**content, **{key: tuple(v) for key, v in texts.items()}}
    encoder = Encoder(columns, **found)
    classes = encoder.classes
    if (
        encoder.task not in ("regression", "classification")
        or not isinstance(encoder.target_name, str)
        or len(set(classes)) < len(classes)
        or (len(classes) < 2 if encoder.task == "classification" else bool(classes))
        or not all(map(_is_number, (encoder.target_mean, encoder.target_scale)))
        or encoder.target_scale <= 0
    ):
        raise ValueError("its target is not described")
    return encoder


def _column(content: dict[str, Any]) -> NumericColumn | CategoryColumn:
    name = content["name"]
    if not isinstance(name, str):
        raise ValueError("the name of a column is no text")
    if content.keys() == {"name", "levels"}:
        levels = content["levels"]
        if not isinstance(levels, list) or not all(isinstance(level, str) for level in levels):
            raise ValueError(f"the levels of column {name!r} are not texts")
        if len(set(levels)) < len(levels):
            raise ValueError(f"column {name!r} has a level twice")
        return CategoryColumn(name, tuple(levels))
    column = NumericColumn(**content)
    numbers = (column.mean, column.scale, column.fill)
    if not all(map(_is_number, numbers)) or column.scale < 0 or type(column.indicator) is not bool:
        raise ValueError(f"the numbers of column {name!r} are not finite, or of another type")
    return column


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)


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
    rows = _checked_rows(train_rows, table.num_rows)
    notes: list[str] = []
    columns: list[NumericColumn | CategoryColumn] = []
    for name in map(str, table.features.columns):
        column = fit_column(name, table.features[name], rows, max_levels, notes)
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
        classes = ordered(table.target)
    elif target.nunique() > 1:
        mean, scale = moments(target.to_numpy(dtype=np.float64), table.target_name)
    if target.nunique() < 2 or scale == 0:
        raise DataError(
            f"Expected a target '{table.target_name}' that varies over the training rows, but got "
            f"{target.iloc[0]} in all {len(rows)}. Choose other training rows."
        )
    return Encoder(
        tuple(columns), table.task, table.target_name, mean, scale, classes, tuple(notes)
    )


def _checked_rows(train_rows: ArrayLike, num_rows: int) -> NDArray[np.int64]:
    """Training rows as an array; a `DataError` where they are no row numbers of the table."""
    rows = np.asarray(train_rows)
    if (
        rows.ndim != 1
        or not len(rows)
        or rows.dtype.kind not in "iu"
        or rows.min() < 0
        or rows.max() >= num_rows
    ):
        raise DataError(
            f"Expected train_rows as whole numbers from 0 to {num_rows - 1}, but got an "
            f"array of shape {rows.shape} and type {rows.dtype}. Pass the first result of "
            f"split_rows({num_rows})."
        )
    return rows
