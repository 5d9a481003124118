"""What `import pyro_relevance` does to a process: nothing but offer its names."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pyro_relevance

COSTLY = ("arviz", "matplotlib", "torchvision", "sklearn", "pandas", "xarray", "tqdm")

PROGRAM = f"""
import random, sys, warnings
import numpy, torch, pyro

def state():
    return {{
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "settings": pyro.settings.get(),  # validation flags, local parameters
        "params": set(pyro.get_param_store().keys()),
        "handlers": len(pyro.poutine.runtime._PYRO_STACK),
        "filters": list(warnings.filters),
        "rng": (torch.get_rng_state().tolist(), random.getstate(), str(numpy.random.get_state())),
        "hook": sys.excepthook,
        "display": sys.displayhook,
        "path": list(sys.path),
    }}

before, loaded = state(), set(sys.modules)
import pyro_relevance
after = state()
changed = [name for name in before if before[name] != after[name]]
assert not changed, changed
added = {{name.split(".")[0] for name in set(sys.modules) - loaded}}
costly = added & set({COSTLY!r})
assert not costly, costly
"""


@pytest.mark.contract
def test_import_changes_nothing_and_is_cheap():
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""


@pytest.mark.contract
def test_public_names():
    names = pyro_relevance.__all__
    assert len(names) == len(set(names))
    missing = [name for name in names if not hasattr(pyro_relevance, name)]
    assert not missing
    undocumented = [name for name in names if not getattr(pyro_relevance, name).__doc__]
    assert undocumented in ([], ["__version__"])
