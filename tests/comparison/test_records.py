"""Records of results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pyro_relevance.comparison.records import make_record, metric, row, write_json


@pytest.mark.exact
def test_mean_and_standard_error() -> None:
    found = metric([1.0, 2.0, 4.0])
    assert found["mean"] == pytest.approx(7 / 3)
    assert found["se"] == pytest.approx(((16 / 9 + 1 / 9 + 25 / 9) / 2 / 3) ** 0.5)
    assert found["values"] == [1.0, 2.0, 4.0]
    assert metric([3.0])["se"] == 0.0


@pytest.mark.contract
def test_a_record_says_what_is_needed_to_repeat_it(tmp_path: Path) -> None:
    rows = [row("ours", "task", [0, 1], {"rmse": [1.0, 2.0]}, total_seconds=3.0)]
    record = make_record("name", command="do it", settings={"a": 1}, rows=rows, wall_seconds=1.23)
    write_json(tmp_path / "record.json", record)
    read = json.loads((tmp_path / "record.json").read_text())
    assert {"name", "command", "settings", "versions", "device", "wall_seconds", "rows"} <= set(
        read
    )
    assert {"python", "torch", "pyro-ppl", "arviz"} <= set(read["versions"])
    assert read["rows"][0]["metrics"]["rmse"]["mean"] == 1.5
