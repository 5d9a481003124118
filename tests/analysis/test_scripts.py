"""The experiments run from end to end in seconds with ``--smoke``, and write valid records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.contract
@pytest.mark.parametrize(
    ("module", "name", "methods"),
    [
        (
            "analysis.run_synthetic",
            "synthetic_truth",
            {"lasso", "boosting, best 10", "relevance, false discovery rate 0.1"},
        ),
        (
            "analysis.bench_latency",
            "latency",
            {"50% of the channels, batch 128", "50% of the channels, batch 1"},
        ),
    ],
)
def test_a_smoke_run_writes_a_record(
    module: str, name: str, methods: set[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--smoke", "--out", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / f"{name}.json").read_text())
    assert {"command", "commit", "versions", "settings", "wall_seconds"} <= set(record)
    assert methods <= {entry["method"] for entry in record["rows"]}
    for entry in record["rows"]:
        for metric in entry["metrics"].values():
            assert len(metric["values"]) == len(entry["seeds"])


@pytest.mark.contract
def test_the_uci_experiment_chooses_on_held_out_rows_and_respects_the_budget() -> None:
    from analysis.run_uci import Settings, Split, relevance
    from pyro_relevance import datasets

    settings = Settings(
        num_splits=2, num_steps=40, num_folds=2, num_restarts=2, prior_log_odds=(-1.5,)
    )
    x, y = datasets.uci("boston", None)
    splits = [Split.of(x, y, *rows) for rows in datasets.standard_splits(len(x), 2)]
    found = relevance(splits, settings, gated=True)
    assert all(size <= settings.max_parameters for size in found["metrics"]["num_parameters"])
    assert len(found["settings"]["chosen"]) == 2
    assert all(value > 0 for value in found["metrics"]["rmse"])
