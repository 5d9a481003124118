"""The mutation check: which faults are made, and which of them tests catch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cosmic_ray")

from analysis.equivalent_mutants import EQUIVALENT
from analysis.mutants import count_positions, draw_mutants

ROOT = Path(__file__).parents[2]

MODULE = '''"""Text with 1 + 1."""


def larger(a: int | float, b: int | float) -> int | float:
    """Return the larger one of 2."""
    return a if a > b else b


def share(part: float, whole: float) -> float:
    if whole < part:
        raise ValueError(f"Expected a part, got {part + 0.0}.")
    return part / whole
'''

TESTS = """import pytest
from toy import larger, share


def test_larger():
    assert [larger(1, 2), larger(2, 1), larger(2, 2)] == [2, 2, 2]


def test_share():
    assert share(1.0, 4.0) == 0.25
    with pytest.raises(ValueError):
        share(2.0, 1.0)
"""

# Judged in a process of its own: pytest does not run within pytest.
SCRIPT = """
import dataclasses, json, sys
from pathlib import Path
from analysis.mutants import Mutant
from analysis.mutation import judge

root = Path(sys.argv[1])
path = root / "toy.py"
changes = [("a > b", "a >= b"), ("part / whole", "part * whole"), ("def share", "def part")]
mutants = [
    (Mutant(path, 0, "", "", 0, *change, path.read_text().replace(*change)), ["test_toy.py"])
    for change in changes
]
judged = judge([(None, ["test_toy.py"]), *mutants], root=root)
print(json.dumps([(mutant and mutant.after, end.result, end.by) for mutant, end in judged]))
"""


@pytest.mark.contract
def test_faults_are_in_the_code_and_not_in_texts_annotations_and_errors(tmp_path: Path) -> None:
    path = tmp_path / "toy.py"
    path.write_text(MODULE)
    mutants = draw_mutants([path], 100, seed=0)
    # Comparison and condition of `larger`; comparison and condition of the check; quotient.
    assert sorted(mutant.line for mutant in mutants) == [6, 6, 10, 10, 12]
    assert len(mutants) == count_positions(path)
    assert len({mutant.source for mutant in mutants}) == 5
    assert all(mutant.source != MODULE for mutant in mutants)


@pytest.mark.contract
def test_a_draw_is_repeated_by_its_seed(tmp_path: Path) -> None:
    path = tmp_path / "toy.py"
    path.write_text(MODULE)
    assert draw_mutants([path], 2, seed=3) == draw_mutants([path], 2, seed=3)
    assert len(draw_mutants([path], 2, seed=3)) == 2


@pytest.mark.contract
def test_a_fault_is_caught_and_the_same_function_written_differently_survives(
    tmp_path: Path,
) -> None:
    (tmp_path / "toy.py").write_text(MODULE)
    (tmp_path / "test_toy.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcomes = {change: (result, by) for change, result, by in json.loads(done.stdout)}
    assert outcomes == {
        None: ("survived", ""),
        "a >= b": ("survived", ""),
        "part * whole": ("killed", "test_toy.py::test_share"),
        "def part": ("killed", "test_toy.py"),
    }


@pytest.mark.contract
def test_equivalent_mutants_are_faults_in_lines_of_today() -> None:
    for entry in EQUIVALENT:
        lines = (ROOT / "pyro_relevance" / entry.path).read_text().splitlines()
        assert entry.before in {line.strip() for line in lines}, entry
        assert entry.after != entry.before
        assert entry.reason
