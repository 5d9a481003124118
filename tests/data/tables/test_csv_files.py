"""Files: separators, encodings, headers, and what is no table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pyro_relevance.data.tables import (
    read_table,
)
from tests.table_files import SIZE, Write, message


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
    def refuse(self: Path, *mode: str) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = write()
    for name in ("read_bytes", "open"):
        monkeypatch.setattr(Path, name, refuse)
    assert message(path) == (
        f"Expected a readable file, but got 'Permission denied' for {path}. Check its permissions."
    )


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"PK\x03\x04rest", "an Excel workbook or zip archive"),
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


# the header


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
