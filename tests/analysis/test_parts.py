"""Parts of an experiment: what was made with the same settings is not made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.parts import Parts
from analysis.records import runs_row


@pytest.mark.contract
def test_a_part_is_computed_once_for_the_same_settings(tmp_path: Path) -> None:
    calls: list[int] = []

    def compute() -> dict[str, int]:
        calls.append(1)
        return {"found": len(calls)}

    parts = Parts.of("record", tmp_path / "new")
    settings = {"widths": (1, 2)}  # a tuple is a list in JSON
    assert not parts.has("first cut, weights-0", settings)
    assert parts.once("first cut, weights-0", settings, compute)["found"] == 1
    assert parts.path("first cut, weights-0") == (
        tmp_path / "new" / ".record" / "first_cut_weights-0.json"
    )
    again = Parts.of("record", tmp_path / "new")
    assert again.has("first cut, weights-0", settings)
    assert again.once("first cut, weights-0", settings, compute)["found"] == 1
    assert not again.has("first cut, weights-0", {"widths": (1, 3)})
    assert again.once("first cut, weights-0", {"widths": (1, 3)}, compute)["found"] == 2
    assert again.once("another-0", settings, compute)["found"] == 3


@pytest.mark.contract
def test_a_part_that_fails_leaves_nothing(tmp_path: Path) -> None:
    parts = Parts.of("record", tmp_path)
    with pytest.raises(ZeroDivisionError):
        parts.once("part", {}, lambda: {"found": 1 / 0})
    assert not parts.has("part", {})


@pytest.mark.exact
def test_a_row_has_the_values_of_its_runs_in_the_order_of_the_seeds() -> None:
    row = runs_row("m", "t", [{"error": 2.0, "size": 1}, {"error": 4.0, "size": 1}], bound=3)
    assert (row["method"], row["task"], row["seeds"], row["bound"]) == ("m", "t", [0, 1], 3)
    assert row["metrics"]["error"] == {"mean": 3.0, "se": 1.0, "values": [2.0, 4.0]}
    assert row["metrics"]["size"]["se"] == 0.0
