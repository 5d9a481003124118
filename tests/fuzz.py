"""Damaged files, odd tables and random networks, by the thousand: ``python -m tests.fuzz``.

Each case is one of: refused in words; the same numbers as before; or a fault. Faults are a raw
error, other numbers, numbers that are not finite, five seconds or more, a crash, or more memory
than the bound. Cases are seeded by kind and number, and run in a forked process, so that a crash is
counted and can be repeated: ``python -m tests.fuzz --only posterior --first 1234 --cases 1``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fuzz_cases import FORMS, Form

MEMORY = 300 * 2**20
"""Bytes by which a process may grow over all of its cases."""
SLOW, STUCK = 5.0, 60.0
"""Processor seconds of a case that hangs, and seconds after which nobody waits for it."""


def outcome(form: Form, place: Path, number: int, seed: int) -> str:
    """Return what became of one case; a fault starts with ``fault``."""
    chance = random.Random(f"{seed}/{form.name}/{number}")
    started = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = form.case(place, chance)
    except form.refusals as error:
        found = "refused" if "xpected" in str(error) else f"fault: no words: {error!r}"
    except MemoryError:
        found = "fault: memory"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        found = f"fault: {type(error).__name__} in {Path(where.filename).name}: {error}"[:300]
    if time.process_time() - started > SLOW:
        found = f"fault: {time.process_time() - started:.0f} seconds"
    return found


def _in_child(form: Form, place: Path, numbers: range, seed: int, ends: float) -> Iterator[str]:
    """Yield the outcome of each case, from a forked process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with os.fdopen(writer, "w") as out:
            for number in numbers:
                if time.monotonic() > ends:
                    break
                found = outcome(form, place, number, seed)
                grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
                if 1024 * grown > MEMORY:
                    found = f"fault: {grown // 1024} MiB"
                    before += grown
                print(json.dumps(found), file=out, flush=True)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as lines:
        for line in lines:
            yield json.loads(line)
    _, status = os.waitpid(child, 0)
    if status:
        yield f"fault: crash, status {os.waitstatus_to_exitcode(status)}"


def run_form(
    name: str, cases: int, *, first: int = 0, seed: int = 0, seconds: float = 1e9
) -> tuple[Counter[str], list[str]]:
    """Run cases of a form.

    Args:
        name: Of the form.
        cases: How many.
        first: Number of the first one.
        seed: Of all of them.
        seconds: Time after which no case is begun.

    Returns:
        How often which outcome came, and the faults with their numbers.
    """
    counts: Counter[str] = Counter()
    faults: list[str] = []
    ends = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        form = FORMS[name](Path(folder))
        place, number, last = Path(folder) / "case", first, first + cases
        while number < last and time.monotonic() < ends:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            before = number
            for found in _in_child(form, place, range(number, last), seed, ends):
                counts[found.partition(":")[0]] += 1
                if found.startswith("fault"):
                    faults.append(f"{name} {number}: {found}")
                number += 1
            if number == before:
                break
    return counts, faults


def main() -> int:
    """Run all forms; the exit status is 1 if there is a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=300, help="cases of each form (default: 300)")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all of it (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all cases")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", choices=FORMS, nargs="+", help="only these forms")
    parser.add_argument("--record", action="store_true", help="write analysis/results/fuzz.json")
    given = parser.parse_args()
    started, all_faults = time.perf_counter(), []
    names = list(given.only or FORMS)
    results: dict[str, dict[str, float]] = {}
    for index, name in enumerate(names):
        left = given.seconds - (time.perf_counter() - started)
        counts, faults = run_form(
            name,
            given.cases,
            first=given.first,
            seed=given.seed,
            seconds=max(0.0, left / (len(names) - index)),
        )
        results[name] = {"cases": counts.total(), "faults": len(faults), **counts}
        print(f"{name}: {dict(counts)}", flush=True)
        print(*faults[:20], sep="\n", end="\n" if faults else "", flush=True)
        all_faults += faults
    total = sum(int(result["cases"]) for result in results.values())
    print(f"{total:,} cases, {len(all_faults)} faults")
    if given.record:
        _write(given, results, all_faults, time.perf_counter() - started)
    return 1 if all_faults else 0


def _write(
    given: argparse.Namespace,
    results: dict[str, dict[str, float]],
    faults: list[str],
    seconds: float,
) -> None:
    from analysis.records import runs_row, write_record

    kinds: tuple[str, ...] = ("cases", "refused", "same", "accepted", "faults")
    rows = [
        runs_row(name, "fuzz", [{kind: result.get(kind, 0) for kind in kinds}])
        for name, result in results.items()
    ]
    settings: dict[str, Any] = {"cases": given.cases, "seed": given.seed}
    write_record(
        "fuzz",
        command=" ".join(["python -m tests.fuzz", *sys.argv[1:]]),
        settings=settings,
        rows=rows,
        wall_seconds=seconds,
        faults=faults,
    )


if __name__ == "__main__":
    sys.exit(main())
