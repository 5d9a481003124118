"""Every test starts from the same seed and leaves the process as it found it."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("MPLBACKEND", "Agg")  # before anything imports matplotlib
if "PYTEST_XDIST_WORKER" in os.environ:  # before torch: workers share the cores, one each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pyro
import pytest
import torch

hypothesis.settings.register_profile("tests", deadline=None, derandomize=True)
hypothesis.settings.load_profile("tests")

# Third-party packages that install warning filters or styles when they are first imported.
LATE = frozenset(
    {"arviz", "arviz_plots", "matplotlib", "pandas", "scipy.special", "sklearn", "sympy"}
    | {"torchvision", "xarray"}
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--seed``, so that statistical tests can be repeated."""
    parser.addoption("--seed", type=int, default=0, help="seed of every test (default: 0)")


@pytest.fixture(autouse=True)
def _seed(request: pytest.FixtureRequest) -> None:
    pyro.set_rng_seed(request.config.getoption("--seed"))


@pytest.fixture(autouse=True)
def _leaves_no_trace(_seed: None) -> Iterator[None]:
    before = global_state()
    loaded = LATE & sys.modules.keys()
    yield
    after = global_state()
    restore(before)
    changed = changed_names(before, after)
    if LATE & sys.modules.keys() != loaded:
        # The first import of a plotting package is not the doing of our code.
        changed = [name for name in changed if name not in ("warning filters", "matplotlib style")]
    if changed:
        name = changed[0]
        pytest.fail(
            f"The test changed global state: {', '.join(changed)}. "
            f"{name} was {before[name]!r}, now {after[name]!r}."
        )


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every replayed program that a fit makes."""
    from pyro_relevance.training import preparation
    from pyro_relevance.training.programs import replay

    made: list[Any] = []

    class Kept(replay.ReplayedProgram):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(preparation, "ReplayedProgram", Kept)
    return made


def global_state() -> dict[str, Any]:
    """Return what a user's process shares with the library, apart from random numbers."""
    matplotlib = sys.modules.get("matplotlib")
    style = dict(matplotlib.rcParams.copy()) if matplotlib else {}
    style.pop("backend", None)  # resolved on first use
    return {
        "default dtype": torch.get_default_dtype(),
        "grad mode": torch.is_grad_enabled(),
        "number of threads": torch.get_num_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "pyro settings": pyro.settings.get(),  # validation flags, local parameters
        "pyro parameters": {
            name: value.detach().clone().tolist()
            for name, value in pyro.get_param_store().named_parameters()
        },
        "pyro handlers": len(pyro.poutine.runtime._PYRO_STACK),
        "warning filters": list(warnings.filters),
        "matplotlib style": style,
        "working directory": os.getcwd(),
    }


def changed_names(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the names of what differs between two states."""
    return [name for name in before if before[name] != after[name]]


def restore(state: dict[str, Any]) -> None:
    """Put a state back, so that one leak does not fail every later test."""
    torch.set_default_dtype(state["default dtype"])
    torch.set_grad_enabled(state["grad mode"])
    torch.set_num_threads(state["number of threads"])
    torch.use_deterministic_algorithms(state["deterministic algorithms"])
    pyro.settings.set(**state["pyro settings"])
    if not state["pyro parameters"]:
        pyro.clear_param_store()
    warnings.filters[:] = state["warning filters"]
    warnings._filters_mutated()  # the cache of what was shown already
    if state["matplotlib style"]:
        sys.modules["matplotlib"].rcParams.update(state["matplotlib style"])
    os.chdir(state["working directory"])
