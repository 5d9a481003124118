"""The experiments run from end to end in seconds with ``--smoke``, and write valid records."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.image_files import write_mnist

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
        ("analysis.run_coverage", "coverage", {"table job"}),
        (
            "analysis.run_prior_odds",
            "prior_odds",
            {"linear, exact, correlation 0.9", "table recipe, inputs", "table recipe, weights"},
        ),
        (
            "analysis.run_holdout",
            "holdout_test",
            {
                "holdout test, networks of the recipe, rate 0.1",
                "holdout test, boosted trees, rate 0.1",
                "knockoffs with the lasso, rate 0.1",
                "lasso, non-zero",
            },
        ),
        ("analysis.run_boston_noise", "boston_noise", {"holdout test of the command"}),
        (
            "analysis.run_enumeration",
            "enumeration",
            {"exact", "optimum of the spike-and-slab family", "spike and slab", "low rank"},
        ),
        (
            "analysis.bench_latency",
            "latency",
            {"50% of the channels, batch 128", "50% of the channels, batch 1"},
        ),
        ("analysis.bench_fit", "fit_time", {"fit"}),
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
    from analysis.run_uci import Settings, relevance
    from analysis.splits import Split
    from pyro_relevance import datasets

    settings = Settings(
        num_splits=2, num_steps=40, num_folds=2, num_restarts=2, prior_log_odds=(-1.5,)
    )
    x, y = datasets.uci("boston", None)
    rows = datasets.standard_splits(len(x), 2)
    splits = [Split.of((x[a], y[a], x[b], y[b])) for a, b in rows]
    found = relevance(splits, settings, gated=True)
    assert all(size <= settings.max_parameters for size in found["metrics"]["num_parameters"])
    assert len(found["settings"]["chosen"]) == 2
    assert all(value > 0 for value in found["metrics"]["rmse"])


@pytest.mark.contract
def test_the_structure_experiment_goes_on_and_respects_the_budget(tmp_path: Path) -> None:
    from analysis import run_structure

    settings = run_structure.Settings(
        recipe=dataclasses.replace(run_structure.Settings().recipe, num_steps=12),
        num_splits=1,
        num_restarts=2,
        num_folds=2,
        num_steps_after=5,
    )
    first = json.loads(run_structure.run(settings, tmp_path, command="first").read_text())
    assert [entry["method"] for entry in first["rows"]] == [
        run_structure.CUT,
        run_structure.FURTHER,
    ]
    for entry in first["rows"]:
        assert max(entry["metrics"]["num_parameters"]["values"]) <= run_structure.MAX_PARAMETERS
    states = sorted((tmp_path / ".structure_boston").glob("*.state"))
    assert [path.name for path in states] == ["fold-0.state", "fold-1.state", "splits-2.state"]
    # Without one of its three fits, that one is made anew, and all comes out the same.
    states[0].unlink()
    again = json.loads(run_structure.run(settings, tmp_path, command="again").read_text())
    assert again["rows"] == first["rows"]


@pytest.mark.contract
def test_the_coverage_experiment_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    """A split that is there stays; one that is missing, or of other settings, is made anew."""
    from analysis import run_coverage

    settings = run_coverage.smoke(run_coverage.Settings())
    first = json.loads(run_coverage.run(settings, tmp_path, command="first").read_text())
    parts = [tmp_path / ".coverage" / f"{split}.json" for split in range(2)]
    before = [part.stat().st_mtime_ns for part in parts]
    parts[1].unlink()
    again = json.loads(run_coverage.run(settings, tmp_path, command="again").read_text())
    assert parts[0].stat().st_mtime_ns == before[0]
    metrics = [record["rows"][0]["metrics"] for record in (first, again)]
    for name in set(metrics[0]) - {"seconds"}:
        assert metrics[0][name]["values"] == metrics[1][name]["values"], name
    other = dataclasses.replace(settings, table=dataclasses.replace(settings.table, seed=5))
    run_coverage.run(other, tmp_path, command="other")
    assert parts[0].stat().st_mtime_ns != before[0]


@pytest.mark.contract
def test_the_mnist_experiment_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    """Parts that are there stay; the record needs all of them."""
    from analysis import run_mnist
    from analysis.mnist_points import EXPERIMENTS

    write_mnist(tmp_path / "data", num_train=60, num_test=20)
    experiment = EXPERIMENTS["lenet5"]
    settings = run_mnist.smoke(experiment.settings)
    chain = [p for p in settings.points if p.method in ("units, first cut", "units, accurate")]
    settings = dataclasses.replace(settings, points=tuple(chain), num_seeds=1)
    experiment = dataclasses.replace(experiment, settings=settings)
    arguments: dict[str, Any] = {"command": "run", "validate": False}
    root, out = str(tmp_path / "data"), tmp_path / "out"
    first = chain[0].method
    assert run_mnist.run(root, experiment, out, only=first, **arguments) is None
    part = out / ".mnist_lenet5" / "units_first_cut-0.json"
    before = part.stat().st_mtime_ns
    path = run_mnist.run(root, experiment, out, **arguments)
    assert path == out / "mnist_lenet5.json"
    assert part.stat().st_mtime_ns == before
    rows = {entry["method"]: entry for entry in json.loads(path.read_text())["rows"]}
    metrics = rows["units, accurate"]["metrics"]
    assert metrics["num_parameters"]["values"][0] <= chain[1].limit
    assert metrics["total_seconds"]["values"] > metrics["seconds"]["values"]
    assert {"test_error", "num_conv1", "num_conv2", "num_hidden1"} <= set(metrics)


@pytest.mark.contract
def test_the_budget_experiment_meets_its_limits_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from analysis import run_budget

    some = {name: run_budget.HITS[name] for name in ("inputs and units, MACs", "weights, bytes")}
    monkeypatch.setattr(run_budget, "HITS", some)
    write_mnist(tmp_path / "data", num_train=60, num_test=20)
    settings = run_budget.Settings(
        1, 0.3, sizes=(20_000, 5_000), num_epochs=1.0, num_splits=2, num_epochs_boston=3.0
    )
    root, out = str(tmp_path / "data"), tmp_path / "out"
    path = run_budget.run(root, settings, out, command="run")
    rows = {entry["method"]: entry["metrics"] for entry in json.loads(path.read_text())["rows"]}
    assert len(rows) == len(run_budget.HITS) + 4
    assert rows["coverage"]["loss_covered"]["mean"] in (0.0, 0.5, 1.0)
    for name in run_budget.HITS:
        assert rows[f"hit: {name}"]["share_of_limit"]["values"][0] <= 1
    for name in ("one training", "separate trainings", "gradual magnitude"):
        assert rows[f"front: {name}"]["size_5000"]["values"][0] <= 5_000
    parts = {p: p.stat().st_mtime_ns for p in (out / ".budget").iterdir()}
    run_budget.run(root, settings, out, command="again")
    assert parts == {p: p.stat().st_mtime_ns for p in (out / ".budget").iterdir()}


@pytest.mark.exact
def test_the_hypervolume_is_the_area_below_the_front() -> None:
    from analysis.run_budget import hypervolume

    points = [{"size": 10_000, "error": 2.0}, {"size": 1_000, "error": 4.0}]
    assert hypervolume(points, 10.0, 100_000) == pytest.approx(6 + 8)
    # A point that is dominated adds nothing.
    assert hypervolume([*points, {"size": 20_000, "error": 3.0}], 10.0, 1e5) == pytest.approx(14)
    assert hypervolume([{"size": 100, "error": 50.0}], 10.0, 1e5) == 0.0
