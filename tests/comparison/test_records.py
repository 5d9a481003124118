"""Records of results."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pyro_relevance.comparison import records
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


@pytest.mark.contract
def test_a_record_says_where_it_was_made(monkeypatch) -> None:
    record = make_record("name", command="do it", settings={}, rows=[], wall_seconds=1.0)
    assert record["machine"]["cores"] >= 1
    assert len(record["machine"]["load"]) in (0, 3)
    monkeypatch.setattr(records.shutil, "which", lambda _: None)
    assert records.commit() is None


@pytest.mark.contract
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_that_of_the_source(tmp_path, monkeypatch) -> None:
    """In a repository that holds the file, and in one that does not."""

    def git(*arguments: str) -> str:
        settings = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *settings, *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    file = tmp_path / "records.py"
    file.write_text("")
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    monkeypatch.setattr(records, "__file__", str(file))
    assert records.commit() is None
    git("add", "records.py")
    git("commit", "-q", "-m", "second")
    assert records.commit() == git("rev-parse", "HEAD")[:12]
    file.write_text("# changed")
    assert records.commit() == git("rev-parse", "HEAD")[:12] + "+"
