"""Numbers as people write them, codes, encodings, compressed files and DataFrames."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pyro_relevance.data.tables import read_table, regular_csv
from pyro_relevance.data.tables.number_texts import numbers_in_words
from pyro_relevance.errors import DataError
from tests.table_files import SIZE, Write, message


def _series(*texts: str) -> pd.Series:
    return pd.Series(texts, dtype=object)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("texts", "numbers", "said"),
    [
        (["12.3%", "-4 %", "0.5%"], [12.3, -4, 0.5], "in percent"),
        (["1,234.5", "12", "-1,234,567"], [1234.5, 12, -1234567], "with thousands in groups"),
        (["1.234,5", "12", "-7,25"], [1234.5, 12, -7.25], "decimal commas with thousands"),
        (["1 234,5", "2 000,0"], [1234.5, 2000], "with decimal commas with thousands"),
        (["1'234.5", "7"], [1234.5, 7], "thousands in groups"),
        (["$1.20", "-$3", "$-4.5", "$1,000"], [1.2, -3, -4.5, 1000], "in \\$"),
        (["3,50 €", "1.000,00 €"], [3.5, 1000], "in €"),
        (["3.2 kg", "10 kg", "1e3 kg"], [3.2, 10, 1000], "in kg"),
        (["3.2kg", "10kg"], [3.2, 10], "in kg"),
        (["−2 °C", "+3.5 °C"], [-2, 3.5], "in °C"),
    ],
)
def test_numbers(texts: list[str], numbers: list[float], said: str) -> None:
    found, words = numbers_in_words(_series(*texts), decimal_comma=False)
    assert found is not None
    assert words is not None
    assert found.tolist() == numbers
    assert pd.Series([words]).str.contains(said).all(), words
    assert f"{texts[0]!r} is {numbers[0]:.12g}" in words


@pytest.mark.exact
@pytest.mark.parametrize(
    "texts",
    [
        ["3 kg", "200 g"],
        ["3 kg", "4"],
        ["12a", "13a"],
        ["1,2", "3,4"],
        ["192.168.100.200", "10.100.200.300"],
        ["2020-01-31", "2020-02-01"],
        ["31.12.2020", "01.01.2021"],
        ["1.2.3", "1.2.4"],
        ["1,23,456.0", "1"],
        ["030 123 456", "040 123 456"],
        ["10:30", "11:00"],
        ["x", "y"],
        ["%", "$"],
        ["5", "--5"],
        ["$5%", "$6%"],
        [],
    ],
)
def test_what_is_no_number(texts: list[str]) -> None:
    assert numbers_in_words(_series(*texts), decimal_comma=False) == (None, None)


@pytest.mark.contract
def test_a_lone_comma_is_read_by_the_separator_of_the_file() -> None:
    texts = _series("1,234 kg", "2,500 kg")
    for decimal_comma, first in ((False, 1234.0), (True, 1.234)):
        found, _ = numbers_in_words(texts, decimal_comma)
        assert found is not None
        assert found[0] == first


@pytest.mark.contract
def test_columns_of_written_numbers_become_numbers_with_a_note(write: Write) -> None:
    price = [f"${i}.20" if i % 5 else "" for i in range(SIZE)]
    table = read_table(write(price=price, y=[f"{i}.5%" for i in range(SIZE)]), target="y")
    assert table.task == "regression"
    assert table.target.tolist() == [i + 0.5 for i in range(SIZE)]
    assert table.features["price"].isna().sum() == SIZE / 5
    assert table.features["price"][1] == 1.2
    assert "Column 'price' read as numbers in $: '$1.20' is 1.2." in table.notes
    assert "Column 'y' read as numbers in percent: '0.5%' is 0.5." in table.notes


@pytest.mark.contract
@pytest.mark.parametrize("fast", [False, True])
def test_leading_zeros_are_text(write: Write, monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    path = write(code=[f"{i % 4:03d}" for i in range(SIZE)], plain=[i % 4 for i in range(SIZE)])
    if fast:
        monkeypatch.setattr(regular_csv, "MIN_BYTES", 1)
        monkeypatch.setattr(regular_csv, "HEAD_LINES", 1)
        assert regular_csv.read_regular(path, "y", None, []) is not None
    table = read_table(path, target="y")
    assert table.features["code"].tolist()[:5] == ["000", "001", "002", "003", "000"]
    assert table.features["plain"].dtype == np.float64
    assert table.notes == ("Column 'code' has numbers with leading zeros and was taken as text.",)


@pytest.mark.exact
@pytest.mark.parametrize("size", [3, 4, 5, 7, 64])
def test_leading_zeros_are_seen_across_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(regular_csv, "_BLOCK_BYTES", size)
    for cells, expected in (
        ("1,05\n2,3\n", True),
        ("05,1\n2,3\n", True),
        ("1,2\n3, 07", True),
        ("10,0.5\n0,100\n-07,1\n0,0", False),
    ):
        (tmp_path / "t.csv").write_text("a,b\n" + cells)
        counts = regular_csv._counts(tmp_path / "t.csv", ",")
        assert counts is not None
        assert counts[2] is expected, cells


@pytest.mark.contract
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
)
def test_encodings_are_recognised(write: Write, encoding: str) -> None:
    path = write(größe=range(SIZE))
    text = path.read_text(encoding="utf-8")
    path.write_bytes(text.encode(encoding))
    table = read_table(path, target="y")
    assert list(table.features.columns) == ["a", "größe"]
    noted = "table.csv is not UTF-8 and was read as Windows-1252."
    assert (noted in table.notes) == (encoding == "cp1252")


@pytest.mark.contract
def test_encodings_can_be_given(write: Write) -> None:
    path = write(größe=range(SIZE))
    path.write_bytes(path.read_text(encoding="utf-8").encode("cp850"))
    table = read_table(path, target="y", encoding="cp850")
    assert list(table.features.columns) == ["a", "größe"]
    assert table.notes == ()
    assert "Expected text in the encoding utf-8-sig, but byte" in message(path, encoding="utf-8")
    with pytest.raises(ValueError, match="Expected the name of an encoding, .* but got 'klingon'"):
        read_table(path, target="y", encoding="klingon")


@pytest.mark.contract
@pytest.mark.parametrize("module", [gzip, bz2, lzma])
def test_compressed_files(write: Write, module: object) -> None:
    path = write()
    packed = path.with_name("table.csv.packed")
    packed.write_bytes(module.compress(path.read_bytes()))  # type: ignore[attr-defined]
    expected = read_table(path, target="y")
    pd.testing.assert_frame_equal(read_table(packed, target="y").features, expected.features)
    packed.write_bytes(packed.read_bytes()[:-20])
    assert "Expected a complete compressed file, but got" in message(packed)


@pytest.mark.contract
def test_a_file_that_unpacks_to_more_than_the_bound_is_refused(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write()
    path.write_bytes(gzip.compress(path.read_bytes()))
    monkeypatch.setattr("pyro_relevance.data.tables.csv_files.MOST_BYTES", 100)
    assert "Expected at most 100 bytes of text" in message(path)


@pytest.mark.exact
def test_a_frame_is_the_table_of_its_file(write: Write) -> None:
    colours = ["red", "green"] * (SIZE // 2)
    path = write(colour=colours, price=[f"{i} €" for i in range(SIZE)])
    frame = pd.read_csv(path)
    frame.loc[3, "a"] = np.nan
    frame["yes"] = [i % 3 == 0 for i in range(SIZE)]
    frame["when"] = pd.date_range("2020-01-01", periods=SIZE)
    frame["kind"] = pd.Categorical(colours)
    frame.index = frame.index[::-1]
    table, file = read_table(frame, target="y"), read_table(path, target="y")
    assert table.target.equals(file.target)
    for name in ("colour", "price"):
        assert table.features[name].equals(file.features[name])
    assert table.features["a"].isna().tolist() == [i == 3 for i in range(SIZE)]
    assert table.features["yes"].tolist()[:4] == [1.0, 0.0, 0.0, 1.0]
    assert table.features["kind"].tolist() == colours
    assert any("'when' holds dates" in note for note in table.notes)
    frame.loc[frame.index[2], "a"] = np.inf
    with pytest.raises(DataError, match="Expected finite numbers in column 'a', but got inf"):
        read_table(frame, target="y")
    with pytest.raises(DataError, match="Expected a target among the columns"):
        read_table(frame, target="z")


@pytest.mark.contract
def test_parquet(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.parquet"
    path.write_bytes(b"PAR1" + b"x" * 100)
    if "pyarrow" not in sys.modules:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        monkeypatch.setitem(sys.modules, "fastparquet", None)
        assert "Install one (pip install pyarrow)" in message(path)
    frame = pd.read_csv(write())
    monkeypatch.setattr(pd, "read_parquet", lambda given: frame)
    assert read_table(path, target="y").num_rows == SIZE
