"""From columns to tensors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_relevance.data.tables import (
    CategoryColumn,
    Encoder,
    NumericColumn,
    encode,
    read_table,
    split_rows,
)
from pyro_relevance.errors import DataError
from tests.table_files import SIZE, Write


@pytest.fixture
def mixed(write: Write) -> Path:
    return write(
        age=["" if i in (3, 5, 39) else i * 1.5 for i in range(SIZE)],
        town=["" if i == 7 else f"t{i % 3}" for i in range(SIZE)],
        late=[i if i < 35 else "" for i in range(SIZE)],
        colour=[("red", "blue")[i % 2] if i < 35 else "green" for i in range(SIZE)],
    )


def test_columns_share_the_gate_of_their_original(mixed: Path) -> None:
    encoder = encode(read_table(mixed, target="y"), range(30))
    assert encoder.input_labels == ("a", "age", "town", "late", "colour")
    assert encoder.input_index == (0, 1, 1, 2, 2, 2, 2, 3, 4, 4)
    assert encoder.num_columns == len(encoder.column_labels) == 10
    assert encoder.column_labels == (
        "a", "age", "age (missing)", "town=(missing)", "town=t0", "town=t1", "town=t2", "late",
        "colour=blue", "colour=red",
    )  # fmt: skip
    assert encoder.num_outputs == 1


def test_treatments_are_noted(mixed: Path) -> None:
    assert encode(read_table(mixed, target="y"), range(30)).notes == (
        "2 missing values of 'age' in the training rows filled with their median 23.25; "
        "a missing-indicator column shares the gate of 'age'.",
        "1 missing value of 'town' made a level of its own.",
        "Column 'late' has missing values outside the training rows only: filled with the training "
        "median 14.5.",
        "'green' of 'colour' never occurs in the training rows: zero in all columns of its gate.",
    )


def test_values_of_the_tensors(mixed: Path) -> None:
    table = read_table(mixed, target="y")
    encoder = encode(table, range(30))
    x, y = encoder.transform(table.features, table.target)
    assert x.shape == (SIZE, 10)
    assert y.shape == (SIZE,)
    assert x.dtype == y.dtype == torch.float32
    age = table.features["age"][:30].dropna()
    filled = (age.median() - age.mean()) / age.std(ddof=0)
    assert x[3, 1:3].tolist() == pytest.approx([filled, 1.0])
    assert x[39, 1:3].tolist() == pytest.approx([filled, 1.0])
    assert x[4, 1:3].tolist() == pytest.approx([(6.0 - age.mean()) / age.std(ddof=0), 0.0])
    assert x[7, 3:7].tolist() == [1, 0, 0, 0]
    assert x[8, 3:7].tolist() == [0, 0, 0, 1]
    assert x[36, 8:].tolist() == [0, 0]
    train = table.target[:30]
    assert encoder.target_mean == pytest.approx(train.mean())
    assert encoder.target_scale == pytest.approx(train.std(ddof=0))
    back = encoder.target_mean + encoder.target_scale * y.numpy()
    np.testing.assert_allclose(back, table.target, atol=1e-6)


def test_statistics_come_from_training_rows_only(mixed: Path) -> None:
    table = read_table(mixed, target="y")
    rows, _ = split_rows(table.num_rows, test_fraction=0.3, seed=3)
    others = np.setdiff1d(np.arange(table.num_rows), rows)
    features, target = table.features.copy(), table.target.copy()
    features.loc[others, ["a", "age", "late"]] = 1e6
    features.loc[others, ["town", "colour"]] = "elsewhere"
    target[others] = -1e6
    changed = dataclasses.replace(table, features=features, target=target)
    first, second = encode(table, rows), encode(changed, rows)
    assert dataclasses.replace(first, notes=()) == dataclasses.replace(second, notes=())
    x, y = first.transform(table.features.iloc[rows], table.target.iloc[rows])
    assert x[:, 0].mean().item() == pytest.approx(0, abs=1e-6)
    assert x[:, 0].std(correction=0).item() == pytest.approx(1, abs=1e-6)
    assert y.std(correction=0).item() == pytest.approx(1, abs=1e-6)


def test_many_levels_keep_the_most_frequent(write: Write) -> None:
    towns = [f"t{i % 6}" if i % 6 < 3 or i < 12 else "t0" for i in range(SIZE)]
    table = read_table(write(town=towns), target="y")
    encoder = encode(table, range(SIZE), max_levels=3)
    assert encoder.columns[1] == CategoryColumn("town", ("t0", "t1", "t2"))
    assert encoder.notes == (
        "Column 'town' has 6 levels: all but the 3 most frequent are zero in all columns of its "
        "gate.",
    )
    assert encoder.transform_features(table.features)[3, 1:].tolist() == [0, 0, 0]
    assert encoder.unseen_levels(table.features) == {"town": ("t3", "t4", "t5")}


def test_columns_constant_in_the_training_rows_are_left_out(write: Write) -> None:
    path = write(
        x=[0.1] * 30 + [5] * 10,
        town=["t"] * 30 + ["u"] * 10,
        none=[""] * 30 + [1, 2] * 5,
        gaps=[4, ""] * 15 + [5] * 10,
    )
    table = read_table(path, target="y")
    encoder = encode(table, range(30))
    assert encoder.notes[:3] == (
        "Column 'x' is constant in the training rows and was left out.",
        "Column 'town' is constant in the training rows and was left out.",
        "Column 'none' is constant in the training rows and was left out.",
    )
    assert encoder.input_labels == ("a", "gaps")
    assert encoder.columns[1] == NumericColumn("gaps", 4.0, 0.0, 4.0, indicator=True)
    assert encoder.column_labels == ("a", "gaps (missing)")
    assert encoder.transform_features(table.features)[[0, 1, 39], 1].tolist() == [0, 1, 0]


def test_training_rows_without_variation(write: Write) -> None:
    path = write(a=[1] * 30 + [2] * 10, y=[*range(30), *range(10)])
    text = f"Expected a feature that varies over the 30 training rows of {path}, but got none."
    with pytest.raises(DataError) as caught:
        encode(read_table(path, target="y"), range(30))
    assert str(caught.value).startswith(text)
    for target in ([0.1] * 30 + [*range(10)], ["u"] * 30 + ["v"] * 10):
        table = read_table(write(y=target), target="y")
        with pytest.raises(
            DataError, match="that varies over the training rows, but got"
        ) as caught:
            encode(table, range(30))
        assert str(caught.value).endswith("in all 30. Choose other training rows.")


def test_variance_beyond_float64(write: Write) -> None:
    table = read_table(write(b=[i * 1e300 for i in range(SIZE)]), target="y")
    with pytest.raises(DataError, match="Use another unit, or the logarithm."):
        encode(table, range(30))


def test_values_beyond_float32(write: Write) -> None:
    table = read_table(write(b=[*range(SIZE - 1), 1e45]), target="y")
    encoder = encode(table, range(30))
    with pytest.raises(DataError, match=f"training standard deviations in 'b' in row {SIZE - 1}"):
        encoder.transform(table.features, table.target)
    with pytest.raises(DataError, match="training standard deviations in 'y' in row 1"):
        encoder.transform_target(pd.Series([1.0, 1e45]))


@pytest.mark.parametrize("rows", [[], [-1, 2], [0, SIZE], [0.5, 1.5], [[1, 2]], [True, False]])
def test_wrong_training_rows(write: Write, rows: list[object]) -> None:
    with pytest.raises(
        DataError, match=f"Expected train_rows as whole numbers from 0 to {SIZE - 1}"
    ):
        encode(read_table(write(), target="y"), rows)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["y", "town"])
def test_round_trip_through_json(mixed: Path, target: str) -> None:
    table = read_table(mixed, target=target)
    encoder = encode(table, range(30))
    again = Encoder.from_json(encoder.to_json())
    assert again == encoder
    for first, second in zip(
        encoder.transform(table.features, table.target),
        again.transform(table.features, table.target),
        strict=True,
    ):
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    "text", ["", "[1]", "{}", '{"format": "pyro_relevance.Encoder", "version": 2}', "3"]
)
def test_json_of_something_else(text: str) -> None:
    with pytest.raises(DataError, match="Expected the JSON text of an encoder"):
        Encoder.from_json(text)


def test_new_rows_from_a_plain_frame(mixed: Path) -> None:
    table = read_table(mixed, target="y")
    encoder = encode(table, range(30))
    frame = pd.read_csv(mixed)
    assert torch.equal(
        encoder.transform_features(frame), encoder.transform_features(table.features)
    )
    with pytest.raises(DataError, match="but got a table without 'age', 'late'"):
        encoder.transform_features(frame.drop(columns=["age", "late"]))
    with pytest.raises(
        DataError, match="Expected finite numbers in column 'a', but got 'x' in row 2"
    ):
        encoder.transform_features(frame.assign(a=["1", "2", *["x"] * (SIZE - 2)]))
    with pytest.raises(
        DataError, match="Expected finite numbers in column 'a', but got 'inf' in row 0"
    ):
        encoder.transform_features(frame.assign(a=np.inf))


def test_whole_numbers_are_the_same_level_in_any_type(write: Write) -> None:
    table = read_table(write(size=[("1", "2", "3+")[i % 3] for i in range(SIZE)]), target="y")
    encoder = encode(table, range(SIZE))
    frame = pd.DataFrame({"a": [0.0, 0.0], "size": [1.0, 2.0]})
    for dtype in (float, int, str):
        sizes = frame.astype({"size": int}).astype({"size": dtype})
        assert encoder.transform_features(sizes)[:, 1:].tolist() == [[1, 0, 0], [0, 1, 0]]


def test_wrong_targets(write: Write) -> None:
    table = read_table(write(), target="y")
    encoder = encode(table, range(SIZE))
    with pytest.raises(DataError, match="Expected as many targets as rows of features, but got 3"):
        encoder.transform(table.features, table.target[:3])
    with pytest.raises(DataError, match="Expected a number in every row of target 'y'"):
        encoder.transform_target(pd.Series([1.0, np.nan]))
    classes = read_table(write(y=["u", "v"] * (SIZE // 2)), target="y")
    with pytest.raises(DataError, match="Expected classes 'u', 'v' in target 'y', but got 'w'"):
        encode(classes, range(SIZE)).transform_target(pd.Series(["u", "w"]))
