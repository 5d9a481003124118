"""A regular file is read by pandas as it is cell by cell; any other file is left alone."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from pyro_relevance.data.tables import Table, csv_files, read_table, regular_csv, table
from pyro_relevance.errors import DataError


@pytest.fixture(autouse=True)
def _of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regular_csv, "MIN_BYTES", 0)
    monkeypatch.setattr(regular_csv, "HEAD_LINES", 0)


def slowly(path: Path, separator: str | None = None) -> dict[str, pd.Series] | str:
    """Return the columns as they are read cell by cell, or the error."""
    notes: list[str] = []
    try:
        text = csv_files.read_text(path, notes)
        header, rows, lines, found = csv_files.parse(text, separator, path)
        header = csv_files.check_header(header, "y", path, notes)
        cells = dict(zip(header, zip(*rows, strict=True), strict=True))
        return {
            name: csv_files.convert(name, values, lines, found != ",", path, notes)
            for name, values in cells.items()
        } | {"notes": pd.Series(notes, dtype=object)}
    except DataError as error:
        return str(error)


def quickly(path: Path, separator: str | None = None) -> dict[str, pd.Series] | str | None:
    notes: list[str] = []
    try:
        columns = regular_csv.read_regular(path, "y", separator, notes)
    except DataError as error:
        return str(error)
    if columns is not None:
        columns["notes"] = pd.Series(notes, dtype=object)
    return columns


def assert_same(path: Path, separator: str | None = None) -> None:
    """Require the same bits, texts, notes or error of both ways."""
    one, other = slowly(path, separator), quickly(path, separator)
    if isinstance(one, str) or isinstance(other, str):
        assert one == other
        return
    assert other is not None
    assert list(one) == list(other)
    for name, values in one.items():
        pd.testing.assert_series_equal(values, other[name], check_exact=True)


def written(folder: Path, lines: list[str], end: str = "\n") -> Path:
    path = folder / "table.csv"
    path.write_bytes((end.join(lines) + end).encode())
    return path


NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(-1e6, 1e6).map(lambda value: f"{value:.5f}"),
    st.integers(-(10**6), 10**6).map(str),
    st.sampled_from(["1e5", "-.5", "5.", "+3", " 7", "8 ", "007", "1E-3", "0", "-0.0"]),
)
MISSING = st.sampled_from(["", "NA", "?", " ", "nan", "null", " NA", "None"])
WORDS = st.sampled_from(
    ["red", " blue", "green ", "True", "false", "x y", "1,5", "2020-01-02", "é"]
)


@pytest.mark.property
@settings(max_examples=150)
@given(data=st.data())
def test_columns_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    separator = data.draw(st.sampled_from([",", ";", "\t"]))
    num_rows = data.draw(st.integers(20, 40))
    columns = [[str(index) for index in range(num_rows)]]
    for _ in range(data.draw(st.integers(1, 4))):
        kinds = data.draw(
            st.sampled_from([NUMBERS, NUMBERS | MISSING, WORDS | MISSING, NUMBERS | WORDS, MISSING])
        )
        if separator == ",":
            kinds = kinds.filter(lambda cell: "," not in cell)
        columns.append(data.draw(st.lists(kinds, min_size=num_rows, max_size=num_rows)))
    names = ["y", "a", "b ", " c", "d"][: len(columns)]
    lines = [separator.join(names), *(separator.join(row) for row in zip(*columns, strict=True))]
    path = written(
        tmp_path_factory.mktemp("tables"), lines, data.draw(st.sampled_from(["\n", "\r\n"]))
    )
    assert_same(path, separator)


@pytest.mark.exact
def test_many_digits_are_the_same_numbers(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(4000, 2)) * 10.0 ** np.arange(-8, 8, 8)
    lines = ["y,a", *(f"{a!r},{b:.17g}" for a, b in values.tolist())]
    path = written(tmp_path, lines)
    assert_same(path)
    columns = quickly(path)
    assert isinstance(columns, dict)
    assert columns["a"].dtype == np.float64


REGULAR = ["y,a,b", *(f"{i},{i % 7}.5,w{i % 3}" for i in range(40))]


@pytest.mark.exact
@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [*lines[:5], "1,2", *lines[5:]],
        lambda lines: [*lines[:5], "1,2,3,4", *lines[5:]],
        lambda lines: [*lines[:5], "1,2", "1,2,3,4", *lines[5:]],
        lambda lines: [*lines[:5], "", *lines[5:]],
        lambda lines: [*lines[:5], "  ", *lines[5:]],
        lambda lines: [*lines[:5], '1,2,"a,b"', *lines[5:]],
        lambda lines: [*lines[:5], "1,inf,x", *lines[5:]],
        lambda lines: [*lines[:5], "1,2,x\0y", *lines[5:]],
        lambda lines: ["", *lines],
        lambda lines: [line.replace(",", " ") for line in lines],
    ],
)
def test_what_is_not_regular_is_left_alone(tmp_path: Path, change: object) -> None:
    assert quickly(written(tmp_path, REGULAR)) is not None
    assert quickly(written(tmp_path, change(REGULAR))) is None  # type: ignore[operator]


@pytest.mark.exact
def test_other_encodings_and_files_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    assert quickly(path) is None
    assert quickly(tmp_path) is None
    for content in (b"", b"PK\x03\x04" + b"a,y\n" * 40):
        path.write_bytes(content)
        assert quickly(path) is None
    for encoding in ("utf-16", "cp1252"):
        path.write_bytes("\n".join([*REGULAR, "1,2,ü"]).encode(encoding))
        assert quickly(path) is None


@pytest.mark.exact
@pytest.mark.parametrize(
    "lines",
    [
        ["y,a,a", *REGULAR[1:]],
        ["1,2,3", *REGULAR[1:]],
        ["z,a,b", *REGULAR[1:]],
        ["y,,b", *REGULAR[1:]],
        [*REGULAR, "1,oops,w1"],
    ],
)
def test_errors_and_notes_are_the_same(tmp_path: Path, lines: list[str]) -> None:
    numbers = [f"{i},{i}.25,w{i % 3}" for i in range(40, 120)]
    assert_same(written(tmp_path, [*lines, *numbers]))


@pytest.mark.exact
def test_a_file_without_a_last_line_end(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\n".join(REGULAR))
    assert_same(path)


@pytest.mark.contract
def test_read_table_takes_the_short_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, REGULAR)

    def read(quick: bool) -> Table:
        with monkeypatch.context() as patch:
            if quick:
                patch.setattr(table, "read_text", lambda *_: pytest.fail("read cell by cell"))
            else:
                patch.setattr(regular_csv, "MIN_BYTES", 1 << 30)
            return read_table(path, target="y")

    one, other = read(quick=True), read(quick=False)
    pd.testing.assert_frame_equal(one.features, other.features)
    pd.testing.assert_series_equal(one.target, other.target)
    assert one.notes == other.notes
    assert one.task == other.task
