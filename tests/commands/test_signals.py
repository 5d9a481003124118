"""SIGTERM ends a command like Ctrl-C, and the same command goes on from the state it wrote."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from pyro_relevance._files import read_tensors
from pyro_relevance.commands import main as module
from pyro_relevance.commands.main import main
from pyro_relevance.training.checkpoint import remove_checkpoint
from tests.commands.test_main import write_table

SMALL = ["--chains", "2", "--folds", "2", "--hidden", "6", "--workers", "1", "--steps", "1500"]


@pytest.mark.contract
def test_sigterm_leaves_a_state_from_which_the_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = tmp_path / "out", write_table(tmp_path / "things.csv")
    command = ["table", str(file), "--target", "y", "--out", str(out), *SMALL]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    terminal, other = os.openpty()  # where there is one, the bar says how far it is
    termios.tcsetwinsize(terminal, (40, 100))
    process = subprocess.Popen(
        [sys.executable, "-m", "pyro_relevance", *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=other,
    )
    os.close(other)
    seen = b""
    while not re.search(rb"fit, 2 chains: +[1-9]\d%", seen):  # beyond the first record
        byte = os.read(terminal, 1)
        assert byte, seen
        seen += byte
    process.send_signal(signal.SIGTERM)
    rest = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while part := os.read(terminal, 4096):
            rest += part
    os.close(terminal)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert b"pyro-relevance: ended by SIGTERM; the same command goes on from here." in rest
    assert b"Traceback" not in rest
    names = sorted(path.name for path in out.iterdir())
    assert names == ["checkpoint.safetensors"]
    tensors, _ = read_tensors(out / "checkpoint.safetensors")
    assert 0 < int(tensors["run/step"]) < 1500
    assert main([*command, "--quiet"]) in (0, 3)
    assert capsys.readouterr().out
    names = [path.name for path in out.iterdir()]
    assert "fit.safetensors" in names
    _the_finished_run_is_recognised(command, out, capsys)
    assert not [n for n in names if n.startswith(("checkpoint", "."))]


def _the_finished_run_is_recognised(
    command: list[str], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command prints the report; others are refused before any work."""
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    started = time.monotonic()
    assert main([*command, "--quiet"]) in (0, 3)
    told = capsys.readouterr().out
    assert (out / "report.txt").read_text() in told
    assert f"Already in {out}: a finished run of this table and settings." in told
    assert main([*command, "--quiet", "--chains", "3", "--seed", "5"]) == 2
    told = capsys.readouterr().err
    assert f"but {out} has a finished run with num_chains 2 (now 3), seed 0 (now 5). Choose" in told
    table = Path(command[1])
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:1], *lines[:0:-1]]) + "\n")
    assert main([*command, "--quiet"]) == 2
    assert "has a finished run with another table. Choose" in capsys.readouterr().err
    assert time.monotonic() - started < 30
    assert before == {path.name: path.stat().st_mtime_ns for path in out.iterdir()}


@pytest.mark.contract
def test_the_handler_is_there_while_a_command_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(given: object) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal came too late")

    parser = argparse.ArgumentParser()
    parser.set_defaults(run=run, traceback=False)
    monkeypatch.setattr(module, "_parser", lambda: parser)
    before = signal.getsignal(signal.SIGTERM)
    assert main([]) == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert "ended by SIGTERM" in capsys.readouterr().err


@pytest.mark.contract
def test_other_threads_leave_signals_alone() -> None:
    before, found = signal.getsignal(signal.SIGTERM), []

    def inside() -> None:
        with module._interrupted_by_sigterm():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [before]


@pytest.mark.contract
def test_a_finished_checkpoint_is_removed_whole(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    for name in ("c.safetensors", "c.safetensors.previous", "c.safetensors.link", "d.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    remove_checkpoint(path)
    remove_checkpoint(path)
    assert [item.name for item in tmp_path.iterdir()] == ["d.safetensors"]


@pytest.mark.contract
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_comparison_ends_with_its_workers(tmp_path: Path, number: signal.Signals) -> None:
    command = ["compare", "--task", "boston", "--methods", "dense", "magnitude", "--seeds", "1"]
    command += ["--budget-minutes", "5", "--workers", "2", "--out", str(tmp_path), "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pyro_relevance", *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        start_new_session=True,  # by which what is left of it is found
    )
    try:
        while not list(tmp_path.rglob("*.plan.json")):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.1)
        started = time.monotonic()
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
        while _members(process.pid) and time.monotonic() < started + 30:
            time.sleep(0.05)
        assert time.monotonic() - started < 5 + 5 * _is_busy()
        assert process.returncode == {15: 143, 2: 130, 9: -9}[number]
        assert b"Traceback" not in told
        hidden = [path.name for path in tmp_path.rglob(".*")]
        assert not hidden
        assert (tmp_path / "runs" / "run.lock").exists() == (number == signal.SIGKILL)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _members(session: int) -> list[int]:
    """Return the living processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            state, _, _, own = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:4]
            if int(own) == session and state != "Z":
                found.append(int(folder.name))
    return found


def _is_busy() -> bool:
    """Return whether other work takes the processors."""
    return os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1)
