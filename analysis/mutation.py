"""Mutation check: which small faults in the mathematics and the decisions do the tests catch?

For each part of the library it draws mutants (see `mutants`), runs the part's own tests on each,
and records the share that was caught, and each fault that was not. The test files are those that
mirror the part, not the whole suite, so that a survivor may still be caught by others. Some
survivors are the same function written differently, which nobody can catch: `equivalent_mutants`
names those that were read, and the score is given with them as survivors and without them.

    python -m analysis.mutation --sample 30

A mutant runs in a process forked from one that has torch and Pyro imported, and not the library.
Each outcome is appended to ``.mutation.jsonl``; a killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import importlib
import json
import math
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from itertools import zip_longest
from multiprocessing import connection
from pathlib import Path
from typing import Any

from analysis.equivalent_mutants import reason_of
from analysis.mutants import Mutant, count_positions, draw_mutants

__all__ = ["PARTS", "Outcome", "Part", "judge", "main"]

ROOT = Path(__file__).parents[1]
_FORK = multiprocessing.get_context("fork")


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the library and its own tests: globs from the top of the repository."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]

    def paths(self, root: Path) -> list[Path]:
        """Return the part's modules in order of their names."""
        return sorted(path for pattern in self.modules for path in root.glob(pattern))


def _part(modules: str, tests: str) -> Part:
    prefixed = tuple(f"pyro_relevance/{name}" for name in modules.split())
    return Part(prefixed, tuple(f"tests/{name}" for name in tests.split()))


PARTS = {
    "masks": _part("masks/*.py", "masks"),
    "relevance": _part("posterior/relevance.py", "posterior/test_relevance.py"),
    "distributions": _part("model/distributions/*.py", "model/distributions"),
    "priors": _part("model/priors/*.py", "model/priors"),
    "elbo": _part("model/elbo.py", "model/test_elbo.py"),
    "size": _part("edges/size.py", "edges/test_size.py"),
    "checkpoint": _part("training/checkpoint.py", "training/test_checkpoint.py"),
    "schedules": _part("training/schedules.py", "training/test_schedules.py"),
    "reports": _part(
        "posterior/rule_path.py commands/table/report.py",
        "posterior/test_rule_path.py commands/table/test_report.py",
    ),
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a mutant: ``killed``, ``timeout`` or ``survived``, and by which test."""

    result: str
    by: str
    seconds: float


def main(arguments: Sequence[str] | None = None) -> Path:
    """Draw, judge and record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=30, help="mutants of each part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=90.0, help="seconds for one mutant")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="record what is there by then"
    )
    parser.add_argument("--again", action="store_true", help="judge survivors once more")
    parser.add_argument("--out", type=Path, default=ROOT / "analysis" / "results")
    settings = parser.parse_args(arguments)

    drawn = {
        name: draw_mutants(PARTS[name].paths(ROOT), settings.sample, settings.seed)
        for name in settings.parts
    }
    log = _Log(settings.out / ".mutation.jsonl")
    deadline = time.monotonic() + 60 * settings.minutes
    warm_up()
    # One of each part in turn, so that a run that ends early has as many of all.
    rounds = zip_longest(*([(name, mutant) for mutant in drawn[name]] for name in drawn))
    waiting = [
        (mutant, PARTS[name].tests)
        for name, mutant in (pair for turn in rounds for pair in turn if pair is not None)
        if mutant not in log or (settings.again and log[mutant].result == "survived")
    ]
    _check_that_all_pass(settings)
    for mutant, outcome in judge(waiting, settings.workers, settings.timeout, deadline):
        assert mutant is not None  # all in `waiting` are mutants
        log.add(mutant, outcome)
        where = f"{mutant.path.relative_to(ROOT)}:{mutant.line}"
        print(f"{outcome.result:8} {outcome.seconds:5.1f} s  {where}  {mutant.after}", flush=True)
    return _record(settings, drawn, log)


def _check_that_all_pass(settings: argparse.Namespace) -> None:
    """Stop if a test fails without a fault: it would catch every mutant."""
    whole = [(None, PARTS[name].tests) for name in settings.parts]
    for _, outcome in judge(whole, settings.workers, settings.timeout):
        if outcome.result != "survived":
            sys.exit(f"Expected tests that pass without a fault, got a failure: {outcome}.")


def warm_up() -> None:
    """Import what all tests need and no mutant changes."""
    for name in ("torch", "torchvision", "pyro", "scipy.stats", "pytest", "hypothesis"):
        importlib.import_module(name)


def judge(
    mutants: Iterable[tuple[Mutant | None, Sequence[str]]],
    workers: int = 2,
    timeout: float = 90.0,
    deadline: float = math.inf,
    root: Path = ROOT,
) -> Iterator[tuple[Mutant | None, Outcome]]:
    """Run tests on mutants, several at once; no mutant stands for the library as it is.

    Args:
        mutants: Pairs of a mutant and its test files, from `root`.
        workers: How many run at once.
        timeout: Seconds after which a mutant is given up; it counts as caught.
        deadline: Time of the monotonic clock after which no mutant is started.
        root: Folder from which modules are imported.
    """
    waiting = iter(mutants)
    running: dict[int, _Run] = {}
    exhausted = False
    while running or not exhausted:
        while not exhausted and len(running) < workers:
            pair = next(waiting, None) if time.monotonic() < deadline else None
            if pair is None:
                exhausted = True
            else:
                run = _Run(*pair, root)
                running[run.process.sentinel] = run
        connection.wait(list(running), timeout=1.0)
        for sentinel, run in list(running.items()):
            outcome = run.outcome(timeout)
            if outcome is not None:
                del running[sentinel]
                yield run.mutant, outcome


class _Run:
    """One mutant in a process of its own, with a temporary file for what it finds."""

    def __init__(self, mutant: Mutant | None, tests: Sequence[str], root: Path) -> None:
        self.mutant = mutant
        self.began = time.monotonic()
        self.receiver, sender = _FORK.Pipe(duplex=False)
        self.process = _FORK.Process(target=_test, args=(mutant, list(tests), root, sender))
        self.process.start()
        sender.close()

    def outcome(self, timeout: float) -> Outcome | None:
        """Return what became of it; none while it runs."""
        seconds = time.monotonic() - self.began
        if self.process.is_alive():
            if seconds < timeout:
                return None
            assert self.process.pid is not None  # it has been started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.join()
            return Outcome("timeout", "", round(seconds, 1))
        self.process.join()
        try:
            result, by = self.receiver.recv()
        except EOFError:  # it died without a word: its fault killed it
            result, by = "killed", "exit"
        return Outcome(result, by, round(seconds, 1))


def _test(mutant: Mutant | None, tests: list[str], root: Path, sender: Any) -> None:
    """Run in the forked process: put the fault in, then the tests until the first that fails."""
    import pytest

    os.setsid()  # so that what the tests start ends with them
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    os.chdir(root)
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    first = _FirstFailure()
    options = ["-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(root)]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # plugins are imported before
    if mutant is not None:
        name = ".".join(mutant.path.relative_to(root).with_suffix("").parts)
        name = name.removesuffix(".__init__")
        sys.meta_path.insert(0, _Finder(name, mutant.source))
        try:
            importlib.import_module(name)
        except Exception as error:
            sender.send(("killed", f"import: {type(error).__name__}"))
            return
    with tempfile.TemporaryDirectory() as folder:
        code = pytest.main([*options, "--basetemp", f"{folder}/tests", *tests], plugins=[first])
    sender.send(("survived" if code == 0 else "killed", first.name))


class _FirstFailure:
    """Plugin of pytest that keeps the name of the first failure."""

    name = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid


class _Finder:
    """Finder of imports that gives one module another source."""

    def __init__(self, name: str, source: str) -> None:
        self.name, self.source = name, source

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == self.name else None
        if spec is not None:
            assert spec.origin is not None
            spec.loader = _Loader(name, spec.origin, self.source)
        return spec


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname: str) -> Any:
        return compile(self.source, self.path, "exec", dont_inherit=True)


class _Log:
    """Outcomes as lines of JSON, one appended for each mutant."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.outcomes = {
            entry["key"]: Outcome(**entry["outcome"]) for entry in map(json.loads, lines)
        }

    def __contains__(self, mutant: Mutant) -> bool:
        return _key(mutant) in self.outcomes

    def __getitem__(self, mutant: Mutant) -> Outcome:
        return self.outcomes[_key(mutant)]

    def add(self, mutant: Mutant, outcome: Outcome) -> None:
        """Keep an outcome."""
        self.outcomes[_key(mutant)] = outcome
        entry = {
            "key": _key(mutant),
            "path": str(mutant.path.relative_to(ROOT)),
            "line": mutant.line,
            "before": mutant.before,
            "after": mutant.after,
            "outcome": dataclasses.asdict(outcome),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def _key(mutant: Mutant) -> str:
    """Return what a mutant is, by its module and source; tests may change in between."""
    return f"{mutant.path.name} {hashlib.sha256(mutant.source.encode()).hexdigest()[:16]}"


def _record(settings: argparse.Namespace, drawn: dict[str, list[Mutant]], log: _Log) -> Path:
    """Write the record of what has an outcome, with a score for each part and one for all."""
    from analysis.records import row, write_record  # here: it imports the library

    rows, seconds = [], 0.0
    shares: dict[str, list[tuple[int, float, float]]] = {
        "score": [],
        "score_without_equivalent": [],
    }
    survivors = []
    for name, mutants in drawn.items():
        judged = [(mutant, log[mutant]) for mutant in mutants if mutant in log]
        if not judged:
            continue
        seconds += sum(outcome.seconds for _, outcome in judged)
        number = sum(count_positions(path) for path in PARTS[name].paths(ROOT))
        results = [outcome.result for _, outcome in judged]
        left = [_survivor(mutant) for mutant, outcome in judged if outcome.result == "survived"]
        survivors += left
        equivalent = sum("equivalent" in survivor for survivor in left)
        metrics: dict[str, Sequence[float]] = {
            "killed": [results.count("killed")],
            "timeout": [results.count("timeout")],
            "survived": [len(left)],
            "equivalent": [equivalent],
            "positions": [number],
        }
        for kind, left_out in (("score", 0), ("score_without_equivalent", equivalent)):
            score, error = _score(len(judged) - len(left), len(judged) - left_out, number)
            shares[kind].append((number, score, error))
            metrics |= {kind: [score], f"{kind}_se": [error]}
        rows.append(row(name, "mutants", [settings.seed], metrics))
        print(
            f"{name:14} {shares['score'][-1][1]:.2f} ± {shares['score'][-1][2]:.2f}, without "
            f"{equivalent} equivalent ones {shares['score_without_equivalent'][-1][1]:.2f}  "
            f"({len(judged)} of {number} positions)"
        )
    (score, error), (lenient, _) = map(_mean, shares.values())
    print(f"{'all':14} {score:.2f} ± {error:.2f}, without equivalent ones {lenient:.2f}")
    return write_record(
        "mutation",
        command=f"python -m analysis.mutation --sample {settings.sample} --seed {settings.seed}",
        settings={"sample": settings.sample, "seed": settings.seed, "timeout": settings.timeout},
        rows=rows,
        wall_seconds=seconds / settings.workers,
        folder=settings.out,
        score=score,
        score_se=error,
        score_without_equivalent=lenient,
        note=(
            "A sample: positions drawn evenly within a part, parts weighted by their positions. "
            "A timeout counts as caught. Only a part's own tests are run. Survivors with a reason "
            "under `equivalent` are the same function written differently; `score` counts them "
            "as survivors, `score_without_equivalent` leaves them out."
        ),
        survivors=survivors,
    )


def _mean(shares: Sequence[tuple[int, float, float]]) -> tuple[float, float]:
    """Return the mean of scores, weighted by the positions of their parts, and its error."""
    total = sum(number for number, _, _ in shares)
    score = sum(number * score for number, score, _ in shares) / total
    return score, math.sqrt(sum((number * error) ** 2 for number, _, error in shares)) / total


def _score(caught: int, judged: int, number: int) -> tuple[float, float]:
    """Return the share that was caught and its standard error, for a sample of `number`.

    The error is that of half a mutant more of either kind, so that it is not zero where all
    were caught.
    """
    share = (caught + 0.5) / (judged + 1)
    left_over = max(0.0, 1 - judged / number)
    return caught / judged, math.sqrt(share * (1 - share) / judged * left_over)


def _survivor(mutant: Mutant) -> dict[str, Any]:
    """Return what a record says of a fault that no test caught."""
    path = str(mutant.path.relative_to(ROOT))
    found = {
        "path": path,
        "line": mutant.line,
        "function": mutant.function,
        "before": mutant.before,
        "after": mutant.after,
        "operator": mutant.operator.split("/")[1],
    }
    reason = reason_of(path, mutant)
    return found if reason is None else {**found, "equivalent": reason}


if __name__ == "__main__":
    main()
