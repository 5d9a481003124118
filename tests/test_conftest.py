"""The guard of tests/conftest.py sees what it is there for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable

import matplotlib
import pyro
import pytest
import torch

from tests.conftest import changed_names, global_state, restore

LEAKS: dict[str, Callable[[], object]] = {
    "default dtype": lambda: torch.set_default_dtype(torch.float64),
    "grad mode": lambda: torch.set_grad_enabled(False),
    "pyro settings": lambda: pyro.settings.set(module_local_params=True),
    "pyro settings (validation)": lambda: pyro.enable_validation(False),
    "pyro settings (torch)": lambda: torch.distributions.Distribution.set_default_validate_args(
        False
    ),
    "pyro parameters": lambda: pyro.param("w", torch.zeros(2)),
    "warning filters": lambda: warnings.filterwarnings("ignore", message="nothing"),
    "matplotlib style": lambda: matplotlib.rcParams.update({"font.size": 3}),
    "working directory": lambda: os.chdir("/"),
}


@pytest.mark.contract
@pytest.mark.parametrize("name", LEAKS)
def test_every_leak_is_seen_and_undone(name):
    before = global_state()
    LEAKS[name]()
    after = global_state()
    restore(before)
    assert changed_names(before, after) == [name.split(" (")[0]]
    assert changed_names(before, global_state()) == []


@pytest.mark.contract
def test_random_numbers_are_free():
    before = global_state()
    torch.rand(3)
    assert changed_names(before, global_state()) == []


@pytest.mark.contract
@pytest.mark.parametrize("order", ["first", "second"])
def test_every_test_starts_from_the_seed(order, request):
    pyro.set_rng_seed(request.config.getoption("--seed"))
    expected = torch.rand(3)
    pyro.set_rng_seed(request.config.getoption("--seed"))
    assert torch.equal(torch.rand(3), expected)
