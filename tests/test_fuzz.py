"""A slice of ``python -m tests.fuzz``: some cases of each kind, and faults are seen as such."""

from __future__ import annotations

import ast
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import outcome, run_form
from tests.fuzz_cases import FORMS, Form

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")


@pytest.mark.property
def test_a_slice() -> None:
    # A process of its own: autograd cannot train in a fork of one that has threads of autograd.
    command = [sys.executable, "-m", "tests.fuzz", "--cases", "20", "--first", "100000"]
    done = subprocess.run([*command, "--seconds", "36"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in FORMS:
        counts = ast.literal_eval(done.stdout.partition(f"{name}: ")[2].partition("\n")[0])
        assert sum(counts.values()) >= 3


def _raise(error: BaseException) -> str:
    raise error


@pytest.mark.exact
@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (lambda: "same", "same"),
        (lambda: _raise(ValueError("Expected a table, but got none.")), "refused"),
        (lambda: _raise(ValueError("oops")), "fault: no words: ValueError('oops')"),
        (lambda: _raise(KeyError("x")), "fault: KeyError in test_fuzz.py: 'x'"),
        (lambda: _raise(MemoryError()), "fault: memory"),
    ],
)
def test_outcomes(tmp_path: Path, case: object, expected: str) -> None:
    form = Form("own", lambda folder, chance: case(), (ValueError,))  # type: ignore[operator]
    assert outcome(form, tmp_path, 0, 0) == expected


@pytest.mark.exact
def test_a_crash_is_a_fault_and_the_other_cases_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def case(folder: Path, chance: random.Random) -> str:
        number = int((folder / "number").read_text()) if (folder / "number").exists() else 0
        (folder / "number").write_text(str(number + 1))
        if number == 2:
            os.kill(os.getpid(), 9)
        return "same"

    monkeypatch.setitem(FORMS, "own", lambda place: Form("own", case, ()))
    counts, faults = run_form("own", 5)
    assert faults == ["own 2: fault: crash, status -9"]
    assert counts == {"same": 4, "fault": 1}
