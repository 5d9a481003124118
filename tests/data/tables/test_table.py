"""Tables: what the target is, and which columns become inputs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_relevance.data.tables import (
    encode,
    read_table,
)
from tests.table_files import SIZE, Write, message


def test_too_few_rows(write: Write, tmp_path: Path) -> None:
    path = write(rows=19)
    assert message(path) == (
        f"Expected at least 20 rows with a target, but got 19 in {path}. Add rows."
    )
    assert read_table(write(rows=20), target="y").num_rows == 20
    header = tmp_path / "header.csv"
    header.write_text("a,y\n")
    assert "but got 0 in" in message(header)


def test_target_missing_everywhere(write: Write) -> None:
    path = write(y=["NA"] * SIZE)
    assert message(path) == (
        f"Expected values in target 'y', but got none in the {SIZE} rows of {path}. "
        "Fill the column, or name another target."
    )


def test_rows_without_target_are_left_out(write: Write) -> None:
    target = [*(i + 0.5 for i in range(SIZE - 3)), "", "?", "nan"]
    table = read_table(write(y=target, b=range(SIZE)), target="y")
    assert table.notes == ("3 rows without target left out.",)
    assert table.num_rows == len(table.features) == SIZE - 3
    assert list(table.features.index) == list(table.target.index) == list(range(SIZE - 3))


def test_constant_target(write: Write) -> None:
    path = write(y=[3] * SIZE)
    assert message(path) == (
        f"Expected a target that varies, but got '3' in all {SIZE} rows of 'y' in {path}. "
        "Name another target."
    )


@pytest.mark.parametrize(
    ("target", "task"),
    [
        ([f"c{i % 3}" for i in range(400)], "classification"),
        ([i % 2 == 0 for i in range(400)], "classification"),
        ([i % 2 for i in range(400)], "classification"),
        ([1 + i % 2 for i in range(22)], "classification"),
        ([3 + i % 6 for i in range(400)], "classification"),
        ([1.0 + i % 3 for i in range(400)], "classification"),
        ([i % 11 for i in range(400)], "regression"),
        ([i % 6 for i in range(100)], "regression"),
        ([i % 3 + 0.5 for i in range(400)], "regression"),
        ([1, 1, 1, 9, *([2, 3] * 198)], "regression"),
        ([i * 0.1 for i in range(400)], "regression"),
    ],
)
def test_task_is_recognised(write: Write, target: list[object], task: str) -> None:
    assert read_table(write(y=target, rows=len(target)), target="y").task == task


def test_integer_target_like_wine_quality(write: Write) -> None:
    quality = np.random.default_rng(1).choice(
        [3, 4, 5, 6, 7, 8], p=[0.01, 0.03, 0.43, 0.4, 0.11, 0.02], size=1599
    )
    path = write(quality=quality, rows=1599)
    table = read_table(path, target="quality")
    assert table.task == "classification"
    assert set(table.target) == set("345678")
    assert table.notes == (
        "Target 'quality' has 6 distinct values and was taken as classes; "
        "use task 'regression' to take it as a quantity.",
    )
    encoder = encode(table, np.arange(1000))
    assert encoder.classes == ("3", "4", "5", "6", "7", "8")
    x, y = encoder.transform(table.features, table.target)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert (y.numpy() + 3 == quality).all()
    as_quantity = read_table(path, target="quality", task="regression")
    assert as_quantity.task == "regression"
    assert as_quantity.target.tolist() == quality.tolist()


def test_numeric_classes_are_ordered_as_numbers(write: Write) -> None:
    table = read_table(write(y=[(9, 10, -1)[i % 3] for i in range(90)], rows=90), target="y")
    assert encode(table, range(90)).classes == ("-1", "9", "10")


def test_target_unfit_for_the_task(write: Write) -> None:
    text = ["low", "high"] * (SIZE // 2)
    assert message(write(y=text), task="regression").startswith(
        "Expected numbers in target 'y' for regression, but got text such as 'low' in"
    )
    path = write(y=range(60), rows=60)
    assert message(path, task="classification") == (
        f"Expected at most 50 classes in target 'y', but got 60 in 60 rows of {path}. "
        "Merge rare classes, or name another target."
    )
    path = write(y=[*text[:-2], "odd", "rare"])
    assert message(path) == (
        f"Expected at least 2 rows of every class of target 'y', but got 1 of 'odd', 'rare' in "
        f"{path}. Add rows, or remove these."
    )
    dates = [f"2020-01-{1 + i % 20:02d}" for i in range(SIZE)]
    assert "but got dates such as '2020-01-01'" in message(write(y=dates))


# the features


def test_constant_and_empty_columns_are_left_out(write: Write) -> None:
    path = write(x=[7] * SIZE, w=["same"] * SIZE, e=[""] * SIZE)
    table = read_table(path, target="y")
    assert list(table.features.columns) == ["a"]
    assert table.notes == (
        "Column 'x' is constant and was left out.",
        "Column 'w' is constant and was left out.",
        "Column 'e' is empty and was left out.",
    )


@pytest.mark.parametrize(
    "dates",
    [
        [f"2020-01-{1 + i % 28:02d}" for i in range(SIZE)],
        [f"{1 + i % 28}/12/2020" for i in range(SIZE)],
        [f"2020-01-01T{i % 24:02d}:30:00.5Z" for i in range(SIZE)],
        [*(f"2020-01-{1 + i % 28:02d} 10:00" for i in range(SIZE - 1)), ""],
    ],
)
def test_dates_are_left_out(write: Write, dates: list[str]) -> None:
    table = read_table(write(when=dates), target="y")
    assert list(table.features.columns) == ["a"]
    assert table.notes == (
        "Column 'when' holds dates (give them as numbers, such as days since a start, to use them) "
        "and was left out.",
    )


def test_identifiers_are_left_out(write: Write) -> None:
    path = write(
        who=[f"person {i}" for i in range(SIZE)],
        street=[f"street {i % 30}" for i in range(SIZE)],
        town=[f"town {i % 20}" for i in range(SIZE)],
    )
    table = read_table(path, target="y")
    assert list(table.features.columns) == ["a", "town"]
    assert table.notes == (
        "Column 'who' is text that differs in every row (an identifier) and was left out.",
        "Column 'street' is text with 30 levels in 40 rows (an identifier) and was left out.",
    )


def test_no_feature_left(write: Write, tmp_path: Path) -> None:
    path = write(a=[1] * SIZE)
    assert message(path) == (
        f"Expected at least one feature beside the target, but got none in {path}. "
        "Column 'a' is constant and was left out."
    )
    single = tmp_path / "single.csv"
    single.write_text("y\n" + "\n".join(map(str, range(30))))
    assert message(single).endswith("Add columns, or pass separator= if there are more.")


@pytest.mark.parametrize("bad", ["inf", "-Infinity"])
@pytest.mark.parametrize("column", ["b", "y"])
def test_non_finite_values(write: Write, bad: str, column: str) -> None:
    path = write(**{column: [*range(SIZE - 2), bad, bad]})
    assert message(path) == (
        f"Expected finite numbers in column '{column}', but got '{bad}' in line {SIZE} of {path} "
        "(2 such cells). Correct or empty them."
    )


def test_numbers_beyond_float64_are_refused(write: Write) -> None:
    assert "but got '1e999' in line 2 of" in message(write(b=["1e999", *range(1, SIZE)]))


def test_inch_marks_do_not_hide_the_separator(write: Write) -> None:
    path = write(b=[f'size {i % 3} "wide' for i in range(SIZE)])
    assert set(read_table(path, target="y").features["b"]) == {f'size {i} "wide' for i in range(3)}


def test_stray_text_among_numbers(write: Write) -> None:
    path = write(b=[*range(SIZE - 1), "12 kg"])
    assert message(path) == (
        f"Expected numbers in column 'b' as in most of its rows, but got '12 kg' in line "
        f"{SIZE + 1} of {path} (1 such cells). Correct these cells, empty them, or start every "
        "code with a letter."
    )
    table = read_table(write(b=[("1", "2", "3+", "0")[i % 4] for i in range(SIZE)]), target="y")
    assert set(table.features["b"]) == {"0", "1", "2", "3+"}


def test_table_is_frozen(write: Write) -> None:
    table = read_table(str(write()), target="y")
    assert isinstance(table.path, Path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.task = "classification"  # type: ignore[misc]
