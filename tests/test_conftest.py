"""The guard of tests/conftest.py sees what it is there for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LEAKS = {
    "default dtype": "torch.set_default_dtype(torch.float64)",
    "grad mode": "torch.set_grad_enabled(False)",
    "pyro settings": "pyro.settings.set(module_local_params=True)",
    "pyro settings, ": "pyro.enable_validation(False)",
    "pyro parameters": "pyro.param('w', torch.zeros(2))",
    "warning filters": "warnings.filterwarnings('ignore', message='nothing')",
    "matplotlib style": "matplotlib.rcParams['font.size'] = 3",
    "working directory": "os.chdir('/')",
}


@pytest.mark.contract
def test_every_leak_fails_and_stays_in_its_test(tmp_path: Path):
    guard = (Path(__file__).parent / "conftest.py").read_text(encoding="utf-8")
    (tmp_path / "conftest.py").write_text(guard, encoding="utf-8")
    lines = ["import matplotlib, os, pyro, torch, warnings"]
    for index, leak in enumerate(LEAKS.values()):
        lines.append(f"def test_{index:02d}_leaks():\n    {leak}")
        lines.append(f"def test_{index:02d}_random():\n    torch.rand(3)")
    (tmp_path / "test_leaks.py").write_text("\n".join(lines), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", "."],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # A leak shows when the fixture ends: the test itself passes and its teardown is an error.
    assert f"{2 * len(LEAKS)} passed, {len(LEAKS)} errors" in result.stdout, result.stdout
    for name in LEAKS:
        assert f"changed global state: {name.split(',')[0]}" in result.stdout
