"""Runs of a comparison: plans, results, going on after a stop, shares of several processes."""

from __future__ import annotations

import json

import pytest
import torch

import pyro_relevance as pr
from pyro_relevance.comparison import METHODS, Comparison, finished, make_task, methods_of, run_all
from pyro_relevance.comparison import runs as module
from pyro_relevance.comparison.files import write_comparison
from pyro_relevance.comparison.pace import steps_per_epoch
from pyro_relevance.errors import ArchitectureError
from pyro_relevance.masks import Mask
from tests.image_files import write_mnist
from tests.small_plans import small_plan

TINY = 1e-4
"""Minutes; every number of passes is then one."""


@pytest.fixture
def plans(monkeypatch):
    """Plans without looking at the clock; counts how often one is made."""
    made = []

    def planned(name, method):
        def plan(task, seconds, seed):
            made.append((name, seed))
            return small_plan(name)

        return module.METHODS[name].__class__(method.needs, plan, method.run, method.about)

    monkeypatch.setattr(
        module, "METHODS", {name: planned(name, method) for name, method in METHODS.items()}
    )
    return made


@pytest.mark.contract
@pytest.mark.filterwarnings("ignore::pyro_relevance.errors.CollapseWarning")
def test_all_methods_leave_results_networks_and_plans(tmp_path, plans):
    methods = methods_of(make_task("boston"))
    assert methods == tuple(METHODS)
    comparison = Comparison("boston", methods, TINY, num_seeds=1)
    run_all(comparison, tmp_path / "runs", progress=False)
    found = finished(comparison, tmp_path / "runs")
    assert set(found) == {*METHODS, "random-ticket"}
    task = make_task("boston", seed=0)
    x, y = task.data.test
    for name, by_seed in found.items():
        content = by_seed[0]
        metrics = content["metrics"]
        small = pr.load_pruned(tmp_path / "runs" / f"{name}-0.safetensors")
        assert task.score(small, x, y) == pytest.approx(metrics["rmse"], rel=1e-5), name
        assert metrics["minutes"] > 0
        assert metrics["num_parameters"] == sum(int(p.count_nonzero()) for p in small.parameters())
        assert {"rmse_weight_noise", "rmse_input_noise", "rmse_fgsm", "rmse_pgd"} <= set(metrics)
        assert metrics["rmse_pgd"] >= metrics["rmse"]
        if METHODS.get(name, METHODS["dense"]).needs == "network" and name != "dense":
            assert metrics["num_parameters"] <= 200, name
        if content["choice"] is not None:
            Mask.from_json(content["choice"]["mask"])
    assert found["dense"][0]["choice"] is None
    assert "architecture" in found["darts-first"][0]["choice"]
    text = write_comparison(comparison, tmp_path, command="test")
    assert all(name in text for name in found)
    assert (tmp_path / "table.tex").read_text().count(r"\\") == len(found) + 1
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["command"] == "test"
    assert (tmp_path / "pareto.png").stat().st_size > 10_000


@pytest.mark.contract
def test_a_comparison_goes_on_where_it_was_killed(tmp_path, plans, monkeypatch):
    comparison = Comparison("boston", ("dense", "magnitude"), TINY, num_seeds=2)
    real = module.METHODS["magnitude"].run

    def killed(task, plan, seed):
        if seed == 1:
            raise KeyboardInterrupt
        return real(task, plan, seed)

    method = module.METHODS["magnitude"]
    broken = method.__class__(method.needs, method.plan, killed, method.about)
    monkeypatch.setitem(module.METHODS, "magnitude", broken)
    with pytest.raises(KeyboardInterrupt):
        run_all(comparison, tmp_path, progress=False)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*-?.json")}
    assert len(times) == 3
    assert plans == [("dense", 0), ("magnitude", 0), ("dense", 1), ("magnitude", 1)]
    monkeypatch.setitem(module.METHODS, "magnitude", method)
    run_all(comparison, tmp_path, progress=False)
    assert len(plans) == 4  # the plan of the run that was killed was kept
    assert all(path.stat().st_mtime_ns == before for path, before in times.items())
    found = finished(comparison, tmp_path)
    assert sorted(found["magnitude"]) == [0, 1]
    # Another budget is another comparison.
    other = Comparison("boston", ("dense",), 2 * TINY, num_seeds=1)
    assert finished(other, tmp_path) == {}
    # Fewer methods and seeds are a part of the same.
    part = Comparison("boston", ("dense",), TINY, num_seeds=1)
    assert list(finished(part, tmp_path)) == ["dense"]


@pytest.mark.contract
def test_a_method_that_finds_no_network_is_reported(tmp_path, plans, monkeypatch):
    def fails(task, plan, seed):
        raise ArchitectureError("no path was found")

    method = module.METHODS["darts-first"]
    broken = method.__class__(method.needs, method.plan, fails, method.about)
    monkeypatch.setitem(module.METHODS, "darts-first", broken)
    comparison = Comparison("boston", ("darts-first", "dense"), TINY, num_seeds=1)
    run_all(comparison, tmp_path / "runs", progress=False)
    run_all(comparison, tmp_path / "runs", progress=False)
    assert len(plans) == 2
    text = write_comparison(comparison, tmp_path, command="test")
    assert "failed: darts-first, seed 0: no path was found" in text
    assert list(finished(comparison, tmp_path / "runs")) == ["dense"]


@pytest.mark.contract
def test_processes_of_torchrun_share_the_runs(tmp_path, plans, monkeypatch):
    comparison = Comparison("boston", ("dense", "magnitude"), TINY, num_seeds=2)
    waited = []
    monkeypatch.setattr(module, "_wait_for_all", waited.append)
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank, expected in enumerate([[0, 3], [1], [2]]):
        monkeypatch.setenv("RANK", str(rank))
        before = len(plans)
        run_all(comparison, tmp_path, progress=False)
        runs = list(comparison.runs())
        assert plans[before:] == [runs[number] for number in expected]
    assert waited == [3, 3, 3]
    assert len(finished(comparison, tmp_path)) == 2


@pytest.mark.contract
def test_plans_fit_the_budget():
    task = make_task("boston")
    short = METHODS["dense"].plan(task, 0.5, 0)["num_epochs"]
    long = METHODS["dense"].plan(task, 50.0, 0)["num_epochs"]
    # Timed, so only the order is sure.
    assert 0.2 <= short < long
    steps = steps_per_epoch(task)
    assert METHODS["dense"].plan(task, 1e-9, 0) == {"num_epochs": 1 / steps}


@pytest.mark.slow
def test_runs_in_several_processes(tmp_path):
    comparison = Comparison("boston", ("dense", "filters"), 0.01, num_seeds=2)
    run_all(comparison, tmp_path, num_workers=2, progress=False)
    assert {name: sorted(runs) for name, runs in finished(comparison, tmp_path).items()} == {
        "dense": [0, 1],
        "filters": [0, 1],
    }


@pytest.mark.slow
@pytest.mark.parametrize("method", list(METHODS))
def test_every_plan_can_be_made_and_run(tmp_path, method):
    comparison = Comparison("boston", (method,), 0.02, num_seeds=1)
    run_all(comparison, tmp_path, progress=False)
    assert finished(comparison, tmp_path)


@pytest.mark.contract
def test_images(tmp_path, plans):
    write_mnist(tmp_path, num_train=60, num_test=20)
    comparison = Comparison(
        "mnist", ("relevance-units", "filters", "small"), TINY, num_seeds=1, root=str(tmp_path)
    )
    run_all(comparison, tmp_path / "runs", progress=False)
    found = finished(comparison, tmp_path / "runs")
    for name in comparison.methods:
        metrics = found[name][0]["metrics"]
        assert 0 <= metrics["test_error"] <= 100
        assert metrics["minutes"] > 0
        assert metrics["num_parameters"] <= 20_000


@pytest.mark.contract
def test_what_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a task out of"):
        Comparison("imagenet", ("dense",), 1.0)
    with pytest.raises(ValueError, match=r"methods out of .* but got \['magic'\]"):
        Comparison("boston", ("magic",), 1.0)
    with pytest.raises(ValueError, match="each method once"):
        Comparison("boston", ("dense", "dense"), 1.0)
    with pytest.raises(ValueError, match="a positive budget, but got 0"):
        Comparison("boston", ("dense",), 0)
    with pytest.raises(ValueError, match="at least one seed"):
        Comparison("boston", ("dense",), 1.0, num_seeds=0)
    with pytest.raises(ValueError, match="no table for the task 'boston'"):
        Comparison("boston", ("dense",), 1.0, table="table.csv")
    with pytest.raises(FileNotFoundError, match="Expected root"):
        Comparison("mnist", ("dense",), 1.0, root=str(tmp_path / "no"))
    with pytest.raises(ValueError, match="at least one worker"):
        run_all(Comparison("boston", ("dense",), 1.0), tmp_path, num_workers=0)
    with pytest.raises(ValueError, match="a task out of"):
        make_task("imagenet")
    with pytest.raises(ValueError, match="Expected finished runs"):
        write_comparison(Comparison("boston", ("dense",), 1.0), tmp_path, command="")
    assert torch.get_num_threads() >= 1
