"""Where a run takes place: full disks, folders that cannot be written, odd names and locales."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.table_files import columns_written

ROOT = Path(__file__).parents[1]

# The folder is full, or cannot be written, from the middle of a run on.
PROGRAM = """
import contextlib, resource, signal, subprocess, sys
from pathlib import Path
import matplotlib.figure
import torch
import pyro_relevance as pr
from tests.small_fits import make_model, quick_fit, same
from tests import damaged_files

how, folder = sys.argv[1], Path(sys.argv[2])
where = pr.Checkpoint(folder / "c.safetensors", interval=0.0)
expected = quick_fit(num_epochs=8)
figure = matplotlib.figure.Figure()
idata = pr.to_arviz(expected.posterior, num_samples=2)
pruned = folder / "pruned"
damaged_files.write_pruned(pruned)
network = pr.load_pruned(pruned)
writers = {
    "pruned": lambda: network.save(pruned),
    "fit": lambda: pr.save_posterior(expected.posterior, folder / "fit"),
    "i.nc": lambda: pr.report.save(idata, folder / "i.nc"),
    "figure": lambda: pr.plots.save(figure, folder / "f"),
}
for write in writers.values():
    write()

def spoil():
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
    elif how == "full":
        with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
            while file.write(b"x" * 512):
                pass
    else:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)

def mend():
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    elif how == "full":
        (folder / "filler").unlink()
    else:
        subprocess.run(["mount", "-o", "remount,bind,rw", folder], check=True)

def contents():
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "filler"}

before = contents()
spoil()
for name, write in writers.items():
    try:
        write()
    except (OSError, pr.errors.CheckpointError) as error:
        print(name, type(error).__name__, error)
    else:
        raise AssertionError(name)
    assert contents() == before, (name, list(contents()))
mend()

def spoil_at_step(state):
    if state.step == 12:
        spoil()

if how == "read-only":  # the lock is open during the run
    spoil()
    spoil_at_step = lambda state: None
try:
    quick_fit(num_epochs=8, checkpoint=where, callbacks=[spoil_at_step])
except OSError as error:
    print("checkpoint", type(error).__name__, error)
else:
    raise AssertionError
try:
    quick_fit(num_epochs=8, checkpoint=where)
except OSError as error:
    print("again", type(error).__name__, error)
else:
    assert how != "read-only"
mend()
fit = quick_fit(num_epochs=8, checkpoint=where)
assert same(fit.posterior.state, expected.posterior.state)
left = sorted(set(contents()) - set(before))
assert left == ["c.safetensors", "c.safetensors.previous"], left
"""
WORDS = {
    "limit": "File too large",
    "full": "No space left on device",
    "read-only": "Read-only file system",
}


def run(command: list[str], **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a small environment."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command,
        env={**environment, **changes},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        timeout=300,
        cwd=changes.get("PWD", ROOT),
    )


def can_mount(folder: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    command = [*namespace(), "mount", "-t", "tmpfs", "none", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def namespace() -> list[str]:
    return ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]


@pytest.mark.contract
@pytest.mark.skipif(os.name == "nt", reason="limits of processes")
@pytest.mark.parametrize("how", WORDS)
def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path, how):
    folder = tmp_path / "Ordner mit Leerzeichen ü"
    folder.mkdir()
    command = [sys.executable, "-c", PROGRAM, how, str(folder)]
    if how != "limit":
        if not can_mount(folder):
            pytest.skip("no mounts here")
        mount = f"mount -t tmpfs -o size=2m none '{folder}' && exec \"$@\""
        command = [*namespace(), "sh", "-c", mount, "sh", *command]
    done = run(command, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr + done.stdout
    told = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert {"pruned", "fit", "i.nc", "figure", "checkpoint"} <= set(told), done.stdout
    for line in told.values():
        assert WORDS[how] in line, line


@pytest.mark.contract
@pytest.mark.skipif(os.name == "nt", reason="locales of Unix")
def test_a_command_needs_no_home_no_locale_and_no_plain_names(tmp_path):
    folder = tmp_path / "Ordner mit Leerzeichen ü"
    folder.mkdir()
    columns_written(folder)(name="größe ä.csv", länge=range(40))
    command = [sys.executable, "-m", "pyro_relevance", "table", "größe ä.csv", "--target", "y"]
    command += ["--chains", "2", "--folds", "2", "--hidden", "4", "--steps", "40", "--quiet"]
    # Python reads the C locale as UTF-8 unless it is forbidden; other locales it takes as they are.
    strict = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run([*command, "--workers", "1", "--out", "Lauf ß"], PWD=str(folder), **strict)
    assert done.returncode in (0, 3), done.stderr
    assert "Written to Lauf ??" in done.stdout
    names = {path.name for path in (folder / "Lauf ß").iterdir()}
    assert {"report.txt", "record.json", "posterior.nc", "fit.safetensors"} <= names
    assert not [name for name in names if name.startswith(".") or "checkpoint" in name]
    report = (folder / "Lauf ß" / "report.txt").read_text(encoding="utf-8")
    assert "länge" in report
    assert len(list(folder.iterdir())) == 2  # nothing was written elsewhere
