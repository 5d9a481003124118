"""The runs of a comparison: each a method and a seed, spread over processes, kept one by one."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from pyro_relevance._locks import RUN_LOCK, locked_folder
from pyro_relevance.comparison.baselines import BaselineResult
from pyro_relevance.comparison.methods import METHODS, methods_of
from pyro_relevance.comparison.processes import worker_processes
from pyro_relevance.comparison.records import write_json
from pyro_relevance.comparison.robustness import robustness
from pyro_relevance.comparison.tasks import TASKS, Task, make_task
from pyro_relevance.data.images import some
from pyro_relevance.edges.find import find_edges
from pyro_relevance.errors import ArchitectureError, DivergenceError
from pyro_relevance.graphs import Architecture
from pyro_relevance.masks import Mask
from pyro_relevance.posterior.evaluation import mean_log_likelihood
from pyro_relevance.surgery.pruned_network import PrunedNetwork
from pyro_relevance.surgery.receipt import Receipt
from pyro_relevance.training.callbacks import watched

__all__ = ["Comparison", "failures", "finished", "run_all", "run_one"]

NUM_ROBUST = 1000
"""Test examples on which robustness is measured."""


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Args:
        task: Name of the task.
        methods: Names of the methods.
        budget_minutes: Wall time of one run, design, training and retraining together.
        num_seeds: Runs of each method.
        root: Folder of the images, where the task needs some.
        num_data: Training images, at most.
        table: CSV file of NAS-Bench-201, with which found cells are reported (and nothing else).
        device: Where networks are trained.
        num_parameters: Another limit on parameters than that of the task.

    Raises:
        ValueError: If a name is unknown or a number is not positive.
    """

    task: str
    methods: tuple[str, ...]
    budget_minutes: float
    num_seeds: int = 5
    root: str | None = None
    num_data: int | None = None
    table: str | None = None
    device: str = "cpu"
    num_parameters: int | None = None

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"Expected a task out of {list(TASKS)}, but got {self.task!r}.")
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods:
            raise ValueError(
                f"Expected methods out of {list(METHODS)}, but got {unknown or 'none'}."
            )
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"Expected each method once, but got {list(self.methods)}.")
        if not 0 < self.budget_minutes < float("inf"):
            raise ValueError(f"Expected a positive budget, but got {self.budget_minutes} minutes.")
        if self.num_seeds < 1:
            raise ValueError(f"Expected at least one seed, but got {self.num_seeds}.")
        if self.table is not None and self.task != "nasbench201":
            raise ValueError(f"Expected no table for the task {self.task!r}, got {self.table!r}.")
        for name, file in {"table": self.table, "root": self.root}.items():
            if file is not None and not Path(file).exists():
                raise FileNotFoundError(f"Expected {name} {file}, but there is no such file.")

    def make_task(self, *, seed: int = 0, progress: bool = False) -> Task:
        """Return the task with a seed."""
        return make_task(
            self.task,
            root=self.root,
            num_data=self.num_data,
            num_parameters=self.num_parameters,
            progress=progress,
            seed=seed,
            device=self.device,
        )

    def runs(self) -> Iterator[tuple[str, int]]:
        """Yield the method and the seed of each run, seed by seed."""
        for seed in range(self.num_seeds):
            for method in self.methods:
                yield method, seed

    def check(self, task: Task) -> None:
        """Check that the task allows the methods.

        Raises:
            ValueError: If it does not.
        """
        allowed = methods_of(task)
        refused = [name for name in self.methods if name not in allowed]
        if refused:
            raise ValueError(
                f"Expected methods that search a space for {self.task!r}, which has no network to "
                f"prune, but got {refused}. It allows {list(allowed)}."
            )

    def about(self) -> dict[str, Any]:
        """Return what the result of a single run depends on."""
        content = dataclasses.asdict(self)
        for name in ("methods", "num_seeds", "root", "table"):
            del content[name]
        content["trainings"] = "end with their time"  # unlike those of earlier comparisons
        if self.device == "cpu":  # as in the folders of comparisons before devices had a name
            del content["device"]
        if self.num_parameters is None:  # the same
            del content["num_parameters"]
        return content


def run_one(
    comparison: Comparison, method: str, seed: int, folder: Path, *, progress: bool = False
) -> dict[str, Any]:
    """Run a method with one seed, or read the results of an earlier run of it.

    Files in the folder: ``<method>-<seed>.plan.json``, written before the work, ``<row>-<seed>
    .safetensors``, the network of each row, and ``<method>-<seed>.json``, with the results.

    Args:
        comparison: What is compared.
        method: Name of the method.
        seed: The seed.
        folder: Where results are kept.
        progress: Whether trainings show a progress bar.

    Returns:
        Name of the row -> its metrics, choice and stages; empty where no network was found.
    """
    path = folder / f"{method}-{seed}.json"
    if (known := _read(path, comparison)) is not None:
        return known
    task = comparison.make_task(seed=seed, progress=progress)
    comparison.check(task)
    plan_path = folder / f"{method}-{seed}.plan.json"
    planned = _read(plan_path, comparison)
    if planned is None:
        started = time.perf_counter()
        plan = METHODS[method].plan(task, 60 * comparison.budget_minutes, seed)
        planned = {"plan": plan, "seconds": time.perf_counter() - started}
        write_json(plan_path, {"about": comparison.about(), "results": planned})
    started = time.perf_counter()
    deadline = started + 60 * comparison.budget_minutes
    try:
        results = METHODS[method].run(task.until(deadline), planned["plan"], seed)
    except (ArchitectureError, DivergenceError) as error:
        # A method that finds no network has failed; the others go on.
        write_json(path, {"about": comparison.about(), "results": {}, "failure": str(error)})
        return {}
    spent = time.perf_counter() - started
    rows = {}
    for name, result in results.items():
        seconds = _seconds(result, spent, len(results))
        times = {"planning": planned["seconds"], "running": seconds, **result.seconds}
        content = _evaluated(task, result, seed)
        content["metrics"] |= {
            "minutes": (planned["seconds"] + seconds) / 60,
            **{f"minutes_{kind}": value / 60 for kind, value in times.items()},
        }
        rows[name] = {"plan": planned["plan"], **content}
        _network(task, result, name).save(folder / f"{name}-{seed}.safetensors")
    write_json(path, {"about": comparison.about(), "results": rows})
    return rows


def _seconds(result: BaselineResult, spent: float, num_rows: int) -> float:
    """Return the seconds of a row, of those of all rows."""
    if num_rows > 1:
        # A control that comes with a method has the time of its own stages, not that of both.
        return sum(result.seconds.values())
    return spent - sum(stage.seconds for stage in result.history if stage.kind == "given")


def run_all(
    comparison: Comparison, folder: Path, *, num_workers: int = 1, progress: bool = True
) -> None:
    """Do all runs that are not finished yet.

    Under ``torchrun`` each process does its share of the runs, and all of them wait for each other
    at the end; the folder must be one that all machines share.

    Args:
        comparison: What is compared.
        folder: Where results are kept; made where it is missing.
        num_workers: Processes on this machine; the cores are shared out among them.
        progress: Whether a progress bar is shown.

    Raises:
        ValueError: If ``num_workers`` is not positive, or the task does not allow a method.
        InUseError: If another process works in the folder.
    """
    if num_workers < 1:
        raise ValueError(f"Expected at least one worker, but got {num_workers}.")
    comparison.check(comparison.make_task())
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    # Processes of torchrun share the folder, each with runs of its own.
    name = RUN_LOCK if size == 1 else f"run-{rank}-of-{size}.lock"
    with locked_folder(folder, name):
        _do_runs(comparison, folder, num_workers, rank, size, progress)
    if size > 1:
        _wait_for_all(size)


def _do_runs(
    comparison: Comparison, folder: Path, num_workers: int, rank: int, size: int, progress: bool
) -> None:
    """Do the unfinished runs of one of several processes, by its number."""
    todo = [
        (method, seed)
        for number, (method, seed) in enumerate(comparison.runs())
        if number % size == rank and _read(folder / f"{method}-{seed}.json", comparison) is None
    ]
    total = len(list(comparison.runs()))
    bar = tqdm(
        total=total,
        initial=total - len(todo) if size == 1 else 0,
        unit="run",
        desc=comparison.task,
        disable=not progress or rank > 0 or not watched(),
    )
    with bar:
        if num_workers == 1:
            for method, seed in todo:
                bar.set_postfix_str(f"{method}, seed {seed}")
                run_one(comparison, method, seed, folder)
                bar.update()
        else:
            _in_processes(comparison, todo, folder, num_workers, bar)


def _in_processes(
    comparison: Comparison,
    todo: Sequence[tuple[str, int]],
    folder: Path,
    num_workers: int,
    bar: Any,
) -> None:
    threads = max(1, (os.cpu_count() or 1) // num_workers)
    with worker_processes(num_workers, threads) as submit:
        waiting: set[Future[Any]] = {
            submit(run_one, comparison, method, seed, folder) for method, seed in todo
        }
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                bar.update()


def _wait_for_all(size: int) -> None:
    from datetime import timedelta

    import torch.distributed as distributed

    distributed.init_process_group("gloo", timeout=timedelta(days=30))
    try:
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def finished(comparison: Comparison, folder: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Return the results of finished runs: row -> seed -> metrics, choice and stages.

    Args:
        comparison: What is compared.
        folder: Where results are kept.
    """
    rows: dict[str, dict[int, dict[str, Any]]] = {}
    for method in comparison.methods:
        for seed in range(comparison.num_seeds):
            known = _read(folder / f"{method}-{seed}.json", comparison)
            for name, content in (known or {}).items():
                rows.setdefault(name, {})[seed] = content
    return rows


def failures(comparison: Comparison, folder: Path) -> dict[str, str]:
    """Return why runs have found no network, by method and seed.

    Args:
        comparison: What is compared.
        folder: Where results are kept.
    """
    found = {}
    for method, seed in comparison.runs():
        path = folder / f"{method}-{seed}.json"
        if _read(path, comparison) == {}:
            content = json.loads(path.read_text(encoding="utf-8"))
            found[f"{method}, seed {seed}"] = str(content["failure"])
    return found


def _read(path: Path, comparison: Comparison) -> dict[str, Any] | None:
    """Return the results in a file of this comparison, or nothing."""
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("about") != comparison.about():
        return None
    results: dict[str, Any] = content["results"]
    return results


def _evaluated(task: Task, result: BaselineResult, seed: int) -> dict[str, Any]:
    """Return the metrics of a result on the test examples, what it chose and how."""
    (x, y), network = task.data.test, result.network.eval()
    density = task.log_likelihood(mean_log_likelihood(network, result.likelihood, (x, y)))
    changed = robustness(
        network,
        result.likelihood,
        some(x, y, NUM_ROBUST),
        task.score,
        input_scale=task.input_unit,
        epsilon=task.input_unit,
        seed=seed,
    )
    metrics = {
        task.score_name: task.score(network, x, y),
        "test_log_likelihood": density,
        "num_parameters": result.cost.num_nonzero,
        "num_stored": result.cost.num_parameters,
        "num_macs": result.cost.num_macs,
        "num_bytes": result.cost.num_bytes,
        **{f"{task.score_name}_{name}": value for name, value in changed.items()},
    }
    choice = result.choice
    content: dict[str, Any] = {"metrics": metrics, "choice": None}
    if isinstance(choice, Mask):
        content["choice"] = {"mask": choice.to_json()}
    elif isinstance(choice, Architecture):
        content["choice"] = {
            "architecture": dict(choice.operations),
            "mask": _as_mask(task, choice).to_json(),
        }
    content["stages"] = [dataclasses.asdict(stage) for stage in result.history]
    return content


def _as_mask(task: Task, architecture: Architecture) -> Mask:
    """Return an architecture as a mask of the candidates of all edges."""
    edges = find_edges(task.make_space(False), granularity="operation")
    kept = {
        group.name: torch.tensor([a == architecture.operations[group.name] for a in group.labels])
        for group in edges.operations
    }
    return Mask(kept, rule="keep the operations that were chosen")


def _network(task: Task, result: BaselineResult, name: str) -> PrunedNetwork:
    reference = result.network if task.make_network is None else task.make_network()
    receipt = Receipt.measured(
        reference.eval(),
        result.network,
        task.data.train[0][:100],
        max_difference=float("nan"),
        notes=(f"Trained by {name} in a comparison; compared with the network built by people.",),
    )
    return PrunedNetwork(result.network, receipt)
