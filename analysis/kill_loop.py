"""Kills commands and fits with SIGKILL at random moments, again and again, and lets them go on.

What a run ends with after any number of kills must be, number by number, what an undisturbed run
ends with, and nothing else may be left in its folder. A comparison measures speed before it plans;
there the tensors are compared where the plan was written before the kill, as wall-clock budgets
allow, and the folder always.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from analysis.command import Command
from analysis.records import runs_row, write_record
from pyro_relevance._files import read_safetensors

TABLE = ["--chains", "2", "--folds", "2", "--hidden", "4", "--steps", "300", "--workers", "1"]
SEARCH = ["search", "--space", "mlp", "--epochs", "3", "--epochs-after", "2"]
COMPARE = ["compare", "--task", "boston", "--methods", "dense", "magnitude", "--seeds", "1"]
COMPARE += ["--budget-minutes", "0.03"]
MODULES = ("pyro_relevance.training", "pyro_relevance.commands.table.files", "tests.small_fits")
MODULES += ("pyro_relevance.commands.search", "pyro_relevance.comparison.files", "sklearn.ensemble")
MODULES += ("arviz", "matplotlib.pyplot", "matplotlib.backends.backend_pdf", "torch.export")
LONGEST = 600.0
"""Seconds after which a run is said to hang."""


@dataclass(frozen=True)
class Job:
    """Something that is killed.

    Args:
        name: What it is.
        run: Does it in a folder and returns an exit status.
        good: Exit statuses of a run that went well.
        exact: Whether results must be equal bit by bit.
    """

    name: str
    run: Callable[[Path], int]
    good: tuple[int, ...] = (0,)
    exact: bool = True


def in_child(job: Job, folder: Path, kill_after: float = LONGEST) -> tuple[str, float]:
    """Run a job in a forked process; kill it after some seconds if it still runs then.

    Returns:
        ``"done"``, ``"killed"``, ``"hung"`` or ``"exit status N"``, and the seconds that it took.
    """
    started = time.perf_counter()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setpgid(0, 0)
            warnings.simplefilter("ignore")
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                status = job.run(folder)
            if status not in job.good:
                print(f"{job.name}: {said.getvalue()[-2000:]}", flush=True)
        except BaseException as error:
            print(f"{job.name}: {error!r}", flush=True)
        os._exit(status)
    while time.perf_counter() - started < kill_after:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            number = os.waitstatus_to_exitcode(status)
            seconds = time.perf_counter() - started
            return ("done" if number in job.good else f"exit status {number}"), seconds
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    seconds = time.perf_counter() - started
    return ("hung" if kill_after >= LONGEST else "killed"), seconds


def names_in(folder: Path) -> list[str]:
    """Return the paths of all files below a folder, relative to it."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def result_of(folder: Path) -> dict[str, str]:
    """Return a digest of all that must be equal in a folder, by file."""
    found = {}
    for name in names_in(folder):
        digest = hashlib.sha256()
        if name.endswith((".safetensors", ".state")):
            tensors, _ = read_safetensors(folder / name)
            for key in sorted(tensors):
                if key != "run/seconds":
                    digest.update(key.encode() + tensors[key].numpy().tobytes())
        elif name == "encoder.json":
            digest.update((folder / name).read_bytes())
        elif name == "record.json":
            content = json.loads((folder / name).read_text(encoding="utf-8"))
            kept = {k: content.get(k) for k in ("rows", "inclusion_probability", "holdout_test")}
            digest.update(json.dumps(kept, sort_keys=True).encode())
        else:
            continue  # figures and texts with times in them
        found[name] = digest.hexdigest()
    return found


def kill_and_resume(job: Job, kills: int, seed: int, place: Path, ends: float) -> dict[str, float]:
    """Run a job again and again under random kills; return how often what happened.

    Args:
        job: The job.
        kills: Number of kills.
        seed: Of the moments.
        place: A folder for the run folders.
        ends: Time of ``perf_counter`` after which no further run is begun.
    """
    chance = random.Random(f"{seed}/{job.name}")
    reference = place / f"{job.name}-undisturbed"
    how, seconds = in_child(job, reference)
    if how != "done":
        sys.exit(f"Expected an undisturbed {job.name} to end well, but got {how}.")
    expected, names = result_of(reference), names_in(reference)
    counts = {"kills": 0, "runs": 0, "equal": 0, "left_behind": 0, "failed": 0}
    while counts["kills"] < kills and time.perf_counter() < ends:
        folder = place / f"{job.name}-{counts['runs']}"
        counts["runs"] += 1
        how = "killed"
        while how == "killed":
            last = counts["kills"] >= kills or time.perf_counter() >= ends
            after = LONGEST if last else chance.uniform(0.0, 1.1 * seconds)
            how, _ = in_child(job, folder, after)
            counts["kills"] += how == "killed"
        counts["failed"] += how != "done"
        found, left = result_of(folder), names_in(folder)
        counts["equal"] += found == expected
        counts["left_behind"] += left != names
        if how != "done" or left != names or (job.exact and found != expected):
            changed = sorted(set(left) ^ set(names))
            different = [name for name in expected if found.get(name) != expected[name]]
            print(f"{job.name}, run {counts['runs']}: {how}, {changed}, {different}", flush=True)
    return {**counts, "seconds_of_a_run": seconds}


def fit_job(folder: Path) -> int:
    """Fit a small model with a checkpoint, and save its posterior."""
    import pyro_relevance as pr
    from tests.small_fits import quick_fit

    folder.mkdir(parents=True, exist_ok=True)
    where = pr.Checkpoint(folder / "fit.state", interval=0.0)
    fit = quick_fit(num_epochs=100, num_chains=2, checkpoint=where)
    pr.save_posterior(fit.posterior, folder / "posterior.safetensors")
    return 0


def command_job(*arguments: str) -> Callable[[Path], int]:
    """Return what runs a command into a folder."""
    from pyro_relevance.commands.main import main as command

    return lambda folder: command([*arguments, "--quiet", "--out", str(folder)])


def main() -> None:
    """Kill all kinds of runs and write the record."""
    # Once, not in each child; torch has one thread here, so that a fork is safe.
    torch.set_num_threads(1)
    for module in MODULES:
        importlib.import_module(module)
    command = Command("kill_loop", __doc__, smoke="two kills of each")
    for name, number in (("fits", 100), ("tables", 100), ("searches", 20), ("compares", 10)):
        command.add_argument(f"--{name}", type=int, default=number, help=f"kills of {name}")
    command.add_argument("--first", type=int, default=0, help="seed of the moments of the kills")
    command.add_argument("--minutes", type=float, default=600.0, help="for each kind, at most")
    given = command.parse_args()
    started = time.perf_counter()
    numbers = [given.fits, given.tables, given.searches, given.compares]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        table = write_small_table(place / "table.csv")
        fit_job(place / "first")  # what is slow the first time is done once, not in each child
        jobs = [
            Job("fit", fit_job),
            Job("table", command_job("table", str(table), "--target", "y", *TABLE), (0, 3)),
            Job("search", command_job(*SEARCH)),
            Job("compare", command_job(*COMPARE), exact=False),
        ]
        for job, number in zip(jobs, numbers, strict=True):
            if not number:
                continue
            ends = time.perf_counter() + 60 * given.minutes
            kills = min(number, 2) if given.smoke else number
            metrics = kill_and_resume(job, kills, given.first, place, ends)
            print(job.name, metrics, flush=True)
            rows.append(runs_row(job.name, "kill -9", [metrics]))
            write_record(
                "kill_loop",
                command=command.line(),
                settings={"table": TABLE, "search": SEARCH, "compare": COMPARE},
                rows=rows,
                wall_seconds=time.perf_counter() - started,
                folder=given.out,
            )


def write_small_table(path: Path) -> Path:
    """Write a table of 60 rows, two numbers, a category and a target."""
    chance = random.Random(0)
    lines = ["size,colour,weight,y"]
    for _ in range(60):
        size, weight = chance.gauss(0, 1), chance.gauss(0, 1)
        colour = chance.choice(["red", "green", "blue"])
        target = 2 * size + (colour == "red") + 0.1 * chance.gauss(0, 1)
        lines.append(f"{size:.4f},{colour},{weight:.4f},{target:.4f}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
