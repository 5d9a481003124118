"""Locks: one process at a time, who holds it, and what is left when it was killed."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import pyro_relevance as pr
from pyro_relevance import _locks
from pyro_relevance._locks import locked, locked_folder
from pyro_relevance.errors import CheckpointError, InUseError
from tests.small_fits import quick_fit

HOLDER = """
import sys, time
from pathlib import Path
from pyro_relevance._files import replacing
from pyro_relevance._locks import locked_folder

folder = Path(sys.argv[1])
with locked_folder(folder), replacing(folder / "some.txt") as temporary:
    temporary.write_bytes(b"half")
    print("begun", flush=True)
    time.sleep(60)
"""
UNIX = pytest.mark.skipif(_locks.fcntl is None, reason="flock")


def start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a program that says when it has begun, and wait for that."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], env=environment, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    return process


@UNIX
@pytest.mark.contract
def test_a_living_holder_is_named_and_a_killed_one_holds_nobody_up(tmp_path):
    folder = tmp_path / "a b ü"
    process = start(HOLDER, str(folder))
    try:
        with pytest.raises(InUseError) as raised, locked_folder(folder):
            pass
        host = re.escape(platform.node())
        assert re.match(
            rf"Expected the run folder .*a b ü for this run alone, but process {process.pid} on "
            rf"{host}, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC, works there. Wait until",
            str(raised.value),
        )
        assert isinstance(raised.value, CheckpointError)
        assert len(list(folder.iterdir())) == 2  # nothing of the other one was touched
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert (folder / "run.lock").exists()
    with locked_folder(folder):
        assert [path.name for path in folder.iterdir()] == ["run.lock"]
    assert not list(folder.iterdir())


@UNIX
@pytest.mark.contract
@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b'{"process": 1}', b"x" * 5000])
def test_a_file_without_a_holder_is_taken_and_one_with_an_unreadable_line_told(tmp_path, content):
    path = tmp_path / "l.lock"
    path.write_bytes(content)
    with locked(path, "it"):
        path.write_bytes(content)
        with pytest.raises(InUseError, match="but another process works there"), locked(path, "it"):
            pass
    assert not path.exists()


@UNIX
@pytest.mark.contract
def test_threads_of_one_process_take_turns(tmp_path):
    inside, taken = [], []

    def work() -> None:
        while True:
            try:
                with locked(tmp_path / "l.lock", "it"):
                    inside.append(1)
                    taken.append(len(inside))
                    inside.pop()
                return
            except InUseError:
                continue

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken == [1] * 8
    assert not list(tmp_path.iterdir())


@UNIX
@pytest.mark.contract
def test_a_lock_is_released_by_an_error_and_left_alone_when_it_is_another_ones(tmp_path):
    path = tmp_path / "l.lock"
    with pytest.raises(KeyError), locked(path, "it"):
        raise KeyError
    assert not path.exists()
    with locked(path, "it"):
        path.unlink()
        path.write_text("of somebody else")
    assert path.read_text() == "of somebody else"


@UNIX
@pytest.mark.contract
def test_a_fit_says_who_has_its_checkpoint(tmp_path):
    where = pr.Checkpoint(tmp_path / "c.safetensors", interval=0.0)

    def again(state):
        with pytest.raises(InUseError, match=rf"process {os.getpid()} \(this one\)"):
            quick_fit(checkpoint=where)
        return True

    quick_fit(checkpoint=where, callbacks=[again])
    assert "c.safetensors.lock" not in [path.name for path in tmp_path.iterdir()]
    quick_fit(checkpoint=where, callbacks=[again])


@pytest.mark.contract
def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(OSError, match="Expected a run folder .*file.*cannot be made: "),
        locked_folder(tmp_path / "file"),
    ):
        pass
