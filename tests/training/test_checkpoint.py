"""Checkpoints: what is on the disk after a truncated file, a full disk, an interrupt, a kill."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save_file

import pyro_relevance as pr
from pyro_relevance import _files
from pyro_relevance._files import read_tensors, write_tensors
from pyro_relevance.errors import CheckpointError
from pyro_relevance.training import checkpoint
from pyro_relevance.training.checkpoint import (
    Checkpoint,
    fingerprint,
    read_checkpoint,
    write_checkpoint,
)
from tests.small_fits import quick_fit, regression, same


def _write(path, value):
    write_checkpoint(path, {"value": torch.tensor(value)}, {"run": "r"})


def _value(path):
    found = read_checkpoint(path, "r")
    return None if found is None else int(found[0]["value"])


def _names(folder):
    return sorted(item.name for item in folder.iterdir())


@pytest.mark.exact
def test_tensors_round_trip(tmp_path):
    tensors = {
        "float64": torch.rand(3, dtype=torch.float64),
        "int64": torch.tensor(2**60),
        "bool": torch.tensor(True),
        "bytes": torch.get_rng_state(),
        "bfloat16": torch.rand(2, 2).bfloat16(),
        "empty": torch.empty((3, 0), dtype=torch.long),
        "view": torch.arange(6.0).view(2, 3).t(),
        "expanded": torch.ones(()).expand(4),
    }
    write_tensors(tmp_path / "file", tensors, {"kind": "α"})
    read, description = read_tensors(tmp_path / "file")
    assert same(read, tensors)
    assert all(read[name].dtype == tensors[name].dtype for name in tensors)
    assert description == {"kind": "α"}
    assert _names(tmp_path) == ["file"]


@pytest.mark.contract
def test_what_is_not_a_file_of_the_library(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(CheckpointError, match="Expected a file at .*file, but there is none"):
        read_tensors(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="damaged or of another kind"):
        read_tensors(path)
    path.write_bytes(b"\x80\x04." * 50)
    with pytest.raises(CheckpointError, match="damaged or of another kind"):
        read_tensors(path)
    save_file({"weight": torch.zeros(2)}, path)  # without a description
    with pytest.raises(CheckpointError, match="damaged or of another kind"):
        read_tensors(path)
    save_file({"weight": torch.zeros(2)}, path, metadata={"description": "3"})
    with pytest.raises(CheckpointError, match="its description is not a mapping"):
        read_tensors(path)
    with pytest.raises(FileNotFoundError, match="Expected the folder of"):
        write_tensors(tmp_path / "none" / "file", {}, {})


@pytest.mark.exact
def test_the_state_before_stays_beside(tmp_path):
    path = tmp_path / "run"
    assert _value(path) is None
    for value in (1, 2, 3):
        _write(path, value)
        assert _value(path) == value
    assert _names(tmp_path) == ["run", "run.previous"]
    assert int(read_tensors(tmp_path / "run.previous")[0]["value"]) == 2


@pytest.mark.exact
@pytest.mark.parametrize("keep", [0, 1, 7, 40, -1])
def test_truncated_checkpoint_falls_back(tmp_path, keep):
    path = tmp_path / "run"
    _write(path, 1)
    _write(path, 2)
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    assert _value(path) == 1
    _write(path, 3)  # the damaged file does not take the place of the good one
    assert int(read_tensors(tmp_path / "run.previous")[0]["value"]) == 1
    path.unlink()
    assert _value(path) == 1


@pytest.mark.contract
def test_both_damaged(tmp_path):
    path = tmp_path / "run"
    _write(path, 1)
    _write(path, 2)
    for name in _names(tmp_path):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match="but both are damaged .*Delete them to start again"):
        _value(path)
    (tmp_path / "run.previous").unlink()
    with pytest.raises(CheckpointError, match="Expected a complete file"):
        _value(path)


@pytest.mark.contract
def test_of_another_run_or_kind(tmp_path):
    path = tmp_path / "run"
    _write(path, 1)
    with pytest.raises(CheckpointError, match="to belong to this run, but .* other data, settings"):
        read_checkpoint(path, "other")
    write_tensors(path, {"value": torch.tensor(0)}, {"format": "something"})
    with pytest.raises(CheckpointError, match="file is of another kind. Choose another path"):
        read_checkpoint(path, "r")


def _full_disk(error):
    def save(tensors, filename, metadata=None):
        Path(filename).write_bytes(b"half of it")
        raise error

    return save


@pytest.mark.exact
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
def test_a_write_that_fails_leaves_both_states(tmp_path, monkeypatch, error):
    path = tmp_path / "run"
    _write(path, 1)
    _write(path, 2)
    monkeypatch.setattr("safetensors.torch.save_file", _full_disk(error))
    with pytest.raises(type(error)):
        _write(path, 3)
    with pytest.raises(type(error)):
        write_tensors(path, {}, {})
    assert _names(tmp_path) == ["run", "run.previous"]
    assert _value(path) == 2
    assert int(read_tensors(tmp_path / "run.previous")[0]["value"]) == 1


@pytest.mark.contract
def test_a_full_disk_is_an_oserror_that_says_so(tmp_path, monkeypatch):
    full = checkpoint.SafetensorError("I/O error: No space left on device (os error 28)")
    monkeypatch.setattr("safetensors.torch.save_file", _full_disk(full))
    with pytest.raises(OSError, match="No space left .* Free some space and try again"):
        _write(tmp_path / "run", 1)
    assert _names(tmp_path) == []


@pytest.mark.exact
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_really_full_device(tmp_path, monkeypatch):
    path = tmp_path / "run"
    _write(path, 1)

    def save(tensors, filename, metadata=None):
        with open("/dev/full", "wb") as file:
            file.write(b"x" * 100_000)

    monkeypatch.setattr("safetensors.torch.save_file", save)
    with pytest.raises(OSError, match="No space left on device"):
        _write(path, 2)
    assert _value(path) == 1
    assert _names(tmp_path) == ["run"]


class Died(BaseException):
    """Stands for the end of the process: nothing after it is run."""


@pytest.mark.exact
@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("call", range(6))
def test_every_moment_of_a_write_keeps_a_state(tmp_path, monkeypatch, links, call):
    path = tmp_path / "run"
    _write(path, 1)
    _write(path, 2)
    calls = []

    def dying(function):
        def step(*arguments, **settings):
            if function is os.link and not links:
                raise OSError(errno.EPERM, "no links here")
            calls.append(function.__name__)
            if len(calls) == call + 1:
                raise Died
            return function(*arguments, **settings)

        return step

    for module, names in ((os, ("link", "replace", "fsync")), (_files.Path, ("unlink",))):
        for name in names:
            monkeypatch.setattr(module, name, dying(getattr(module, name)))
    died = False
    try:
        _write(path, 3)
    except Died:
        died = True
    monkeypatch.undo()
    assert died == (len(calls) > call)
    # Whatever happened, the newest state that was complete at its place is found.
    state = tmp_path / "state"
    shutil.copytree(tmp_path, state)
    assert _value(state / "run") in ((2, 3) if died else (3,))
    _write(path, 4)
    assert _value(path) == 4
    assert int(read_tensors(tmp_path / "run.previous")[0]["value"]) in (2, 3)


@pytest.mark.contract
def test_fingerprint_sees_settings_and_every_number():
    tensors = {"x": torch.zeros(3), "y": torch.arange(2)}
    start = fingerprint({"a": 1}, tensors)
    assert start == fingerprint({"a": 1}, {name: tensors[name] for name in ("y", "x")})
    assert start != fingerprint({"a": 2}, tensors)
    assert fingerprint({"a": 1, "b": 2}, tensors) == fingerprint({"b": 2, "a": 1}, tensors)
    assert start != fingerprint({"a": 1}, {**tensors, "x": torch.tensor([0.0, 0.0, 1e-9])})
    assert start != fingerprint({"a": 1}, {**tensors, "x": torch.zeros(3, dtype=torch.float64)})
    assert start != fingerprint({"a": 1}, {**tensors, "x": torch.zeros(3, 1)})


@pytest.mark.contract
@pytest.mark.parametrize("interval", [-1.0, -0.1, float("nan"), float("inf")])
def test_interval_is_checked(interval):
    with pytest.raises(ValueError, match="interval >= 0 seconds between two writes, but got"):
        Checkpoint("run", interval)


@pytest.mark.contract
def test_a_checkpoint_is_a_value():
    assert Checkpoint("run") == Checkpoint("run", 60.0)
    assert Checkpoint("run", 0.5).interval == 0.5
    with pytest.raises(AttributeError):
        Checkpoint("run").interval = 1.0


@pytest.mark.contract
@pytest.mark.parametrize("other", ["a", "z"])
def test_the_checkpoint_of_another_run_is_refused(tmp_path, other):
    _write(tmp_path / "run", 1)
    with pytest.raises(CheckpointError, match="to belong to this run"):
        read_checkpoint(tmp_path / "run", other)


# Runs in a process of its own, so that it can be killed: argument 1 names the program, 2 the path.
RUN = """
import sys, time
import torch
import pyro_relevance as pr
from tests.small_fits import make_model, make_network, quick_fit, regression
from tests.training.test_checkpoint import PROGRAMS, run

torch.set_num_threads(1)

def slowly(state):
    time.sleep(0.02)

def begin(state):
    if state.step == 1:
        sys.stdout.write("begun")
        sys.stdout.flush()

run(sys.argv[1], pr.Checkpoint(sys.argv[2], interval=0.0), [begin, slowly])
"""

PROGRAMS = {
    "loop": {"num_chains": 1, "noise": "per_example"},
    "vectorised": {"num_chains": 2},
    "per_example": {"num_chains": 2, "noise": "per_example"},
    "low_rank": {"num_chains": 1, "guide": pr.guides.LowRankGuide, "num_particles": 2},
}


def run(name, where, callbacks=(), **settings):
    """Return a fit of 96 steps with minibatches and early stopping on held-out data."""
    stop = pr.callbacks.EarlyStopping(
        regression(20, seed=5), interval=10, patience=100, start=0.1, num_samples=2
    )
    defaults = {"num_epochs": 24, "batch_size": 13, "seed": 3, **PROGRAMS[name]}
    return quick_fit(checkpoint=where, callbacks=[*callbacks, stop], **{**defaults, **settings})


@functools.cache
def uninterrupted(name):
    return run(name, None)


def _killed_midway(name, path):
    """Start a run in another process and kill it when it has written the state of step 30."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, name, str(path)], env=environment, stdout=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    step = 0
    while step < 30:
        assert time.monotonic() < deadline
        assert process.poll() is None, "the run ended before it was killed"
        time.sleep(0.02)
        if path.exists():
            # One read: the run may put another file in its place between two.
            step = int(load(path.read_bytes())["run/step"])
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    return step


@pytest.mark.exact
@pytest.mark.parametrize("name", ["loop", "vectorised"])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, name):
    path = tmp_path / "run"
    assert 30 <= _killed_midway(name, path) < 90
    steps = []
    resumed = run(name, Checkpoint(path), [lambda state: steps.append(state.step)])
    assert 30 < steps[0] < 96  # it went on, and did not start again
    assert steps == list(range(steps[0], 97))
    assert_equal_fits(resumed, uninterrupted(name))


@pytest.mark.exact
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("last", [7, 83])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, name, last):
    where = Checkpoint(tmp_path / "run", interval=0.0)

    def interrupt(state):
        if state.step == last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(name, where, [interrupt])
    assert_equal_fits(run(name, where), uninterrupted(name))


def assert_equal_fits(first, second):
    assert first.num_steps == second.num_steps
    for name, values in first.history.to_arrays().items():
        assert (values == second.history.to_arrays()[name]).all(), name
    assert same(first.posterior.state, second.posterior.state)
    assert torch.equal(first.held_out_elbo, second.held_out_elbo)
    x, _ = regression(5, seed=9)
    assert torch.equal(
        first.posterior.predict(x, num_samples=3).sample,
        second.posterior.predict(x, num_samples=3).sample,
    )


@pytest.mark.exact
def test_a_finished_run_is_not_run_again(tmp_path):
    where = Checkpoint(tmp_path / "run", interval=0.0)
    first = run("loop", where, num_epochs=2)
    steps = []
    again = run("loop", where, [lambda state: steps.append(state.step)], num_epochs=2)
    assert steps == []
    assert_equal_fits(again, first)
    assert again.seconds >= first.seconds


@pytest.mark.contract
@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 4},
        {"learning_rate": 2e-2},
        {"num_epochs": 3},
        {"batch_size": 12},
        {"schedules": pr.schedules.Schedules(kl_weight=pr.schedules.warmup(0.5))},
        {"data": regression(seed=1)},
        {"guide": pr.guides.LowRankGuide},
        {"optimizer": torch.optim.SGD},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_a_run_with_other_settings_is_refused(tmp_path, settings):
    where = Checkpoint(tmp_path / "run", interval=0.0)
    run("loop", where, num_epochs=2)
    with pytest.raises(CheckpointError, match="to belong to this run"):
        run("loop", where, **{"num_epochs": 2, **settings})


@pytest.mark.contract
def test_a_progress_bar_may_be_added_on_resume(tmp_path):
    where = Checkpoint(tmp_path / "run", interval=0.0)
    run("loop", where, num_epochs=2)
    run("loop", where, [lambda state: None, pr.callbacks.ProgressBar()], num_epochs=2)


@pytest.mark.contract
def test_the_folder_of_the_checkpoint_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected the folder of the checkpoint"):
        run("loop", Checkpoint(tmp_path / "none" / "run"))


@pytest.mark.exact
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_run_survives_a_failed_write(tmp_path, monkeypatch, error):
    where = Checkpoint(tmp_path / "run", interval=0.0)
    writes = []

    def save(tensors, filename, metadata=None):
        writes.append(filename)
        if len(writes) == 15:
            Path(filename).write_bytes(b"half of it")
            raise error
        save_file(tensors, filename, metadata)

    monkeypatch.setattr("safetensors.torch.save_file", save)
    with pytest.raises(type(error)):
        run("loop", where)
    assert _names(tmp_path) == ["run", "run.previous"]
    monkeypatch.undo()
    assert_equal_fits(run("loop", where), uninterrupted("loop"))


@pytest.mark.exact
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda groups: torch.optim.SGD(groups, momentum=0.9),
        torch.optim.SGD,
        torch.optim.NAdam,
        lambda groups: torch.optim.Adam(groups, amsgrad=True, foreach=False),
    ],
)
def test_other_optimisers_resume_too(tmp_path, optimizer):
    where = Checkpoint(tmp_path / "run", interval=0.0)

    def interrupt(state):
        if state.step == 20:
            raise KeyboardInterrupt

    settings = {"optimizer": optimizer, "num_epochs": 10, "learning_rate": 1e-4}
    with pytest.raises(KeyboardInterrupt):
        run("loop", where, [interrupt], **settings)
    assert_equal_fits(run("loop", where, **settings), run("loop", None, **settings))
