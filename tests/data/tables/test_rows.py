"""New rows of a file, read as the encoder needs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pyro_relevance.data.tables import CategoryColumn, Encoder, NumericColumn, read_rows
from pyro_relevance.errors import DataError

ENCODER = Encoder(
    (NumericColumn("size", 0.0, 1.0, 0.0, True), CategoryColumn("code", ("01", "1.50"))),
    "regression",
    "y",
)


def written(folder: Path, text: str) -> Path:
    path = folder / "new.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.exact
def test_numbers_are_numbers_and_levels_stay_text(tmp_path: Path) -> None:
    path = written(tmp_path, "other,code,size\nx,01,1.5\ny,1.50,NA\nz,,2\n")
    frame, notes = read_rows(path, ENCODER)
    wanted = pd.DataFrame(
        {"size": [1.5, np.nan, 2.0], "code": ["01", "1.50", np.nan]}, dtype=object
    )
    pd.testing.assert_frame_equal(frame, wanted.astype({"size": float}))
    assert notes == ()
    assert ENCODER.transform_features(frame)[:, 2:].tolist() == [[1, 0], [0, 1], [0, 0]]


@pytest.mark.exact
def test_decimal_commas_are_read_with_a_note(tmp_path: Path) -> None:
    frame, notes = read_rows(written(tmp_path, "size;code\n1,5;01\n2,5;01\n"), ENCODER)
    assert frame["size"].tolist() == [1.5, 2.5]
    assert notes == ("Decimal commas of column 'size' read as decimal points.",)


@pytest.mark.contract
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size,other\n1,2\n", r"Expected the columns 'size', 'code' .* without 'code'"),
        ("a,b\n1,2\n", r"without 'size', 'code'\. Add them"),
        ("size,code\n", "Expected rows below the header, but got none"),
        ("size,code\n1,a\nlarge,b\n", "but got 'large' in line 3 of"),
        ("size,code,size\n1,a,2\n", "Expected different column names, but got 'size'"),
        ("size,code\ninf,a\n", "Expected finite numbers in column 'size'"),
    ],
)
def test_what_is_wrong_is_told(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_rows(written(tmp_path, text), ENCODER)
