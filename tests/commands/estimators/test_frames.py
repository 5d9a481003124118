"""What users of scikit-learn pass, as columns of numbers and text."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pyro_relevance.commands.estimators.frames import as_frame, as_table
from pyro_relevance.errors import DataError


@pytest.mark.exact
def test_columns_become_numbers_or_text() -> None:
    frame = pd.DataFrame(
        {
            "number": [1, 2, 3],
            "truth": [True, False, True],
            "mixed": [1.5, np.nan, "a"],
            "objects": np.array([1, None, 2.5], dtype=object),
            "category": pd.Categorical([1, 2, 1]),
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "text": ["01", None, "b"],
        },
        index=[5, 6, 7],
    )
    made = as_frame(frame, list(frame.columns))
    wanted = pd.DataFrame(
        {
            "number": [1.0, 2.0, 3.0],
            "truth": [1.0, 0.0, 1.0],
            "mixed": pd.Series(["1.5", np.nan, "a"], dtype=object),
            "objects": [1.0, np.nan, 2.5],
            "category": pd.Series(["1", "2", "1"], dtype=object),
            "whole": [1.0, np.nan, 3.0],
            "text": pd.Series(["01", np.nan, "b"], dtype=object),
        }
    )
    pd.testing.assert_frame_equal(made, wanted)


@pytest.mark.exact
def test_an_array_gets_the_names() -> None:
    made = as_frame(np.array([[1, 2], [3, 4]]), ["x0", "x1"])
    pd.testing.assert_frame_equal(made, pd.DataFrame({"x0": [1.0, 3.0], "x1": [2.0, 4.0]}))


@pytest.mark.contract
def test_columns_of_no_use_are_left_out_with_a_note() -> None:
    times = pd.date_range("2020-01-01", periods=4)
    frame = pd.DataFrame({"time": times, "same": 1.0, "id": list("abcd"), "a": [1, 2, 3, 4]})
    names = list(frame.columns)
    target = pd.Series(np.arange(4.0), name="y")
    table = as_table(as_frame(frame, names), target, "regression")
    assert list(table.features.columns) == ["a"]
    assert [note.split(" and was left out")[0] for note in table.notes] == [
        "Column 'time' holds dates (give them as numbers, such as days since a start, to use them)",
        "Column 'same' is constant",
        "Column 'id' is text that differs in every row (an identifier)",
    ]
    with pytest.raises(DataError, match="Expected at least one feature beside the target"):
        as_table(as_frame(frame[["same"]], ["same"]), target, "regression")


@pytest.mark.contract
def test_names_that_occur_twice_are_told() -> None:
    with pytest.raises(DataError, match="different column names in X, but got 'a' more than once"):
        as_frame(np.zeros((3, 3)), ["a", "b", "a"])
