from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
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

Write = Callable[..., Path]
SIZE = 40


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes columns a (random numbers), then the given ones, then y (random numbers)."""

    def write_columns(
        separator: str = ",", name: str = "table.csv", rows: int = SIZE, **columns: Sequence[object]
    ) -> Path:
        generator = np.random.default_rng(0)
        content: dict[str, Sequence[object]] = {"a": generator.normal(size=rows).round(4).tolist()}
        content["y"] = generator.normal(size=rows).round(4).tolist()
        content |= columns
        lines = [separator.join(content)]
        lines += [separator.join(map(str, row)) for row in zip(*content.values(), strict=True)]
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write_columns


def message(path: str | Path, target: str = "y", **options: object) -> str:
    with pytest.raises(DataError) as caught:
        read_table(path, target=target, **options)  # type: ignore[arg-type]
    return str(caught.value)


# --- the file ---------------------------------------------------------------------------------


def test_missing_file_suggests_the_nearest_names(write: Write) -> None:
    path = write(name="houses.csv")
    text = message(path.with_name("house.csv"))
    assert text == (
        f"Expected a file, but found none at {path.with_name('house.csv')}. "
        "Did you mean 'houses.csv'?"
    )
    assert "Did you mean 'houses.csv'?" in message(path.with_name("zzz.csv"))
    assert "Check the path." in message(path.with_name("zzz.txt"))


def test_missing_folder(tmp_path: Path) -> None:
    text = message(tmp_path / "nowhere" / "a.csv")
    assert f"There is no folder {tmp_path / 'nowhere'} either; check the path." in text


def test_folder(tmp_path: Path) -> None:
    assert message(tmp_path) == (
        f"Expected a file, but got the folder {tmp_path}. Name a file in it."
    )


def test_unreadable_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = write()
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert message(path) == (
        f"Expected a readable file, but got 'Permission denied' for {path}. Check its permissions."
    )


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"PK\x03\x04rest", "an Excel workbook or zip archive"),
        (b"\x1f\x8b\x08rest", "a gzip archive"),
        (b"\x89PNG\r\n\x1a\n", "an image"),
        (bytes(range(256)) * 8, "a binary file"),
        (b"\xff\xfe\x00", "a binary file"),
    ],
)
def test_binary_file(tmp_path: Path, data: bytes, kind: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(data)
    assert message(path) == (
        f"Expected a text file with separated columns, but got {kind}: {path}. "
        "Save the table as CSV."
    )


@pytest.mark.parametrize("content", ["", " \n\n  \n"])
def test_empty_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(content)
    assert message(path) == (
        f"Expected a header line and rows, but got an empty file: {path}. "
        "Check that it was written completely."
    )


def test_ragged_line_is_named(write: Write) -> None:
    path = write()
    path.write_text(path.read_text() + "\n1,2,3\n")
    assert message(path) == (
        f"Expected 2 fields in every line as in the header, but got 3 in line {SIZE + 3} of {path} "
        "(separator ','). Correct the line, or pass separator=."
    )


def test_prose_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "letter.csv"
    path.write_text("Dear reader, this is\nno table at all.\n\nIt is, as one sees, a letter.\n")
    text = message(path)
    assert "Expected 4 fields in every line as in the header, but got 7 in line 4" in text
    assert "(separator ' ')" in text


def test_unclosed_quotation_mark(write: Write) -> None:
    path = write()
    path.write_text(path.read_text() + '"' + "1,2\n" * 50000)
    assert "Look for a quotation mark that is never closed." in message(path)


@pytest.mark.parametrize("separator", [",", ";", "\t", " ", "  "])
def test_separator_is_recognised(write: Write, separator: str) -> None:
    table = read_table(write(separator), target="y")
    assert list(table.features.columns) == ["a"]
    expected = read_table(write(","), target="y")
    pd.testing.assert_frame_equal(table.features, expected.features)
    assert table.notes == ()


@pytest.mark.parametrize(
    ("separator", "name"), [("|", "|"), ("\t", "tab"), ("\t", "\\t"), (" ", "whitespace")]
)
def test_separator_can_be_given(write: Write, separator: str, name: str) -> None:
    assert read_table(write(separator), target="y", separator=name).num_rows == SIZE


def test_wrong_options_are_value_errors(write: Write) -> None:
    path = write()
    with pytest.raises(ValueError, match="Expected task 'auto', 'regression' or 'classification'"):
        read_table(path, target="y", task="ranking")  # type: ignore[arg-type]
    for separator in ("comma", "", '"', "\n"):
        with pytest.raises(ValueError, match="Expected separator of one character"):
            read_table(path, target="y", separator=separator)


def test_quoted_fields_byte_order_mark_and_line_ends(tmp_path: Path) -> None:
    rows = "".join(f'{i % 7}.5, "{i},{i}"\r\n' for i in [*range(10)] * 3)
    path = tmp_path / "table.csv"
    path.write_bytes(("\ufeffy, name\r\n" + rows).encode())
    table = read_table(path, target="y")
    assert list(table.features["name"][:2]) == ["0,0", "1,1"]


@pytest.mark.parametrize(("encoding", "noted"), [("cp1252", True), ("utf-16", False)])
def test_other_encodings(tmp_path: Path, encoding: str, noted: bool) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(("größe,y\n" + "1,2\n2,3.5\n3,1.5\n" * 10).encode(encoding))
    table = read_table(path, target="y")
    assert list(table.features.columns) == ["größe"]
    assert table.notes == (
        ("table.csv is not UTF-8 and was read as Windows-1252.",) if noted else ()
    )


def test_decimal_comma(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a;y\n" + "1,5;2\n2;3,5\n-,5e1;4,25\n" * 10)
    table = read_table(path, target="y")
    assert table.features["a"].tolist()[:3] == [1.5, 2.0, -5.0]
    assert table.target.tolist()[:3] == [2.0, 3.5, 4.25]
    assert "Decimal commas of column 'a' read as decimal points." in table.notes


# --- the header -------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["1.5,2.5,3", "1,2,3", "0,1,2", "5.1,3.5,setosa"])
def test_headerless_file(tmp_path: Path, first: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\n".join([first] * 30))
    text = message(path)
    assert "Expected a header line with column names, but got numbers ('" in text
    assert text.endswith(
        f"in the first line of {path}. Add a first line with a name for every column."
    )


def test_counting_header_is_accepted_where_it_is_meant(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("0,1,2\n" + "1,2,3\n2,5,3.5\n1,1,7\n" * 10)
    assert list(read_table(path, target="2").features.columns) == ["0", "1"]


def test_years_in_the_header_are_names(write: Write) -> None:
    table = read_table(write(**{"2001": range(SIZE)}), target="y")
    assert list(table.features.columns) == ["a", "2001"]


def test_unknown_target_suggests_the_closest(write: Write) -> None:
    path = write(MEDV=range(SIZE))
    assert message(path, target="medw") == (
        f"Expected a target among the columns of {path}, but got 'medw'. "
        "Did you mean 'MEDV'? Choose one of 'a', 'y', 'MEDV'."
    )
    assert "but got 'price'. Choose one of" in message(path, target="price")
    many = write(**{f"c{i}": range(SIZE) for i in range(60)})
    assert message(many, target="price").endswith("'c36', 'c37' and 22 more.")


def test_duplicate_names(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,b,a ,y\n" + "1,2,3,4\n" * 30)
    assert message(path) == (
        f"Expected different column names, but got 'a' more than once in {path}. "
        "Rename or remove the copies."
    )


def test_unnamed_column_with_row_numbers_is_left_out(write: Write) -> None:
    table = read_table(write(**{"": range(SIZE)}), target="y")
    assert list(table.features.columns) == ["a"]
    assert table.notes == (
        "1 column without a name numbered by position.",
        "Column 'unnamed_3' only numbers the rows and was left out.",
    )


def test_only_names_of_an_index_are_row_numbers(write: Write) -> None:
    columns = {"ID": range(1, SIZE + 1), "year": range(SIZE), "index": [*range(1, SIZE), 0]}
    table = read_table(write(**columns), target="y")
    assert list(table.features.columns) == ["a", "year", "index"]


# --- the target -------------------------------------------------------------------------------


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


# --- the features -----------------------------------------------------------------------------


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


# --- the encoder ------------------------------------------------------------------------------


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


# --- training and test rows -------------------------------------------------------------------


def test_split_rows() -> None:
    train, test = split_rows(506, seed=4)
    assert len(test) == 51
    assert sorted([*train, *test]) == list(range(506))
    again = split_rows(506, seed=4)
    assert (again[0] == train).all()
    assert (split_rows(506, seed=5)[1] != test).any()
    assert [len(part) for part in split_rows(3, test_fraction=0.01)] == [2, 1]
    assert [len(part) for part in split_rows(3, test_fraction=0.99)] == [1, 2]


def test_split_rows_keeps_the_shares_of_classes() -> None:
    labels = np.array(["a"] * 70 + ["b"] * 28 + ["c"] * 2)
    for seed in range(5):
        train, test = split_rows(100, test_fraction=0.2, seed=seed, labels=labels)
        assert sorted([*train, *test]) == list(range(100))
        assert len(test) == 20
        assert (labels[test] == "a").sum() == 14
        assert (labels[test] == "b").sum() in (5, 6)
        assert "c" in labels[train]
    _, test = split_rows(100, test_fraction=0.95, labels=labels)
    assert len(test) == 95
    assert set(labels[np.setdiff1d(np.arange(100), test)]) == {"a", "b", "c"}


def test_split_rows_leaves_global_generators_alone() -> None:
    before = np.random.get_state(legacy=False)["state"]["key"].tolist()  # noqa: NPY002
    split_rows(10)
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == before  # noqa: NPY002


def test_split_rows_refuses() -> None:
    with pytest.raises(ValueError, match="Expected at least 2 rows and a test_fraction between"):
        split_rows(1)
    with pytest.raises(ValueError, match="but got 10 rows and 1.0"):
        split_rows(10, test_fraction=1.0)
    with pytest.raises(ValueError, match=r"Expected labels of shape \(10,\), but got \(3,\)"):
        split_rows(10, labels=["a", "b", "c"])
