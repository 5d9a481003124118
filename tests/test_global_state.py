"""Public calls leave all that a process shares as it was, also when they fail."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import random
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pyro_relevance as pr
from tests.conftest import changed_names, global_state
from tests.public_calls import CALLS, Objects


class PoisonError(Exception):
    """Raised from inside a call."""


class Poison:
    """An argument that fails whatever is done with it."""

    def __getattr__(self, name: str) -> Any:
        raise PoisonError(name)


def state(network: nn.Module) -> dict[str, Any]:
    """Return what is shared, random numbers and the user's network included."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {
        **global_state(),
        "torch's random numbers": torch.get_rng_state().tolist(),
        "random": random.getstate(),
        "numpy's random numbers": str(np.random.get_state()),  # noqa: NPY002
        "environment": dict(os.environ),
        "inference mode": torch.is_inference_mode_enabled(),
        "anomaly mode": torch.is_anomaly_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "deterministic cuDNN": (
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.benchmark,
        ),
        "logging": (logging.root.manager.disable, logging.root.level, list(logging.root.handlers)),
        "streams": (sys.stdout, sys.stderr, sys.excepthook),
        "numpy errors": np.geterr(),
        "network's tensors": {name: (id(t), t.tolist()) for name, t in tensors.items()},
        "network's flags": {
            "training": [module.training for module in network.modules()],
            "gradients": [parameter.requires_grad for parameter in network.parameters()],
            "grad": [parameter.grad is None for parameter in network.parameters()],
        },
        "network's hooks": [
            [
                list(getattr(module, name))
                for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
            ]
            for module in network.modules()
        ],
        "network's attributes": [sorted(vars(module)) for module in network.modules()],
    }


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    return Objects(tmp_path_factory.mktemp("calls"))


def require_same(before: dict[str, Any], after: dict[str, Any], what: str) -> None:
    for name in changed_names(before, after):
        pytest.fail(f"{what} changed {name}: was {before[name]!r:.300}, now {after[name]!r:.300}.")


@pytest.mark.contract
@pytest.mark.parametrize("name", CALLS)
def test_a_call_changes_nothing_shared(name: str, objects: Objects) -> None:
    function, arguments, keywords = CALLS[name](objects)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function(*arguments, **keywords)  # what is imported at the first use is not the call's
        before = state(objects.network)
        function(*arguments, **keywords)
        require_same(before, state(objects.network), name)
        for place in range(len(arguments)):
            poisoned: list[Any] = list(arguments)
            poisoned[place] = Poison()
            with pytest.raises(BaseException):  # noqa: B017, PT011 (any failure will do)
                function(*poisoned, **keywords)
            require_same(before, state(objects.network), f"{name} with a bad argument {place}")


@pytest.mark.contract
@pytest.mark.parametrize("error", [PoisonError, KeyboardInterrupt])
@pytest.mark.parametrize("calls", [0, 1, 2, 5, 9])
def test_a_network_that_fails_in_the_middle(
    error: type[BaseException], calls: int, objects: Objects
) -> None:
    left = calls

    def fail(module: nn.Module, inputs: Any, outputs: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise error

    network = objects.network
    names = ("find_edges with an example", "prune", "fit", "fit, chains", "fit, slow", "diagnose")
    for name in (*names, "predict", "elbo", "to_arviz", "robustness"):
        function, arguments, keywords = CALLS[name](objects)
        hook = network[0].register_forward_hook(fail)
        try:
            before, left = state(network), calls
            with contextlib.suppress(error, Exception):
                function(*arguments, **keywords)
            require_same(before, state(network), f"{name}, failed after {calls} calls")
        finally:
            hook.remove()


@pytest.mark.contract
@pytest.mark.parametrize("error", [PoisonError, KeyboardInterrupt])
@pytest.mark.parametrize("name", ["fit", "fit, chains", "fit, slow"])
def test_a_callback_that_fails(name: str, error: type[BaseException], objects: Objects) -> None:
    function, arguments, keywords = CALLS[name](objects)

    def fail(given: Any) -> None:
        raise error

    before = state(objects.network)
    with pytest.raises(error):
        function(*arguments, **{**keywords, "callbacks": [fail], "checkpoint": None})
    require_same(before, state(objects.network), name)


def public_functions() -> dict[str, Any]:
    """Return all functions behind public names, by their dotted names."""
    values = [getattr(pr, name) for name in pr.__all__]
    values += [
        getattr(module, name) for module in values for name in getattr(module, "__all__", ())
    ]
    return {
        f"{value.__module__}.{value.__qualname__}": value
        for value in values
        if inspect.isfunction(value)
    }


@pytest.mark.contract
@pytest.mark.parametrize("name", public_functions())
def test_a_call_with_nothing_but_bad_arguments_changes_nothing_shared(
    name: str, objects: Objects
) -> None:
    function = public_functions()[name]
    needed = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    arguments = [Poison() for p in needed if p.kind is not p.KEYWORD_ONLY]
    keywords = {p.name: Poison() for p in needed if p.kind is p.KEYWORD_ONLY}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for attempt in range(2):  # the first one may import what it needs
            before = state(objects.network)
            with contextlib.suppress(Exception):
                function(*arguments, **keywords)
            if attempt:
                require_same(before, state(objects.network), name)


FIRST = """
import os, sys, warnings
import scipy.sparse, torch, pyro  # scipy adds a filter of its own
network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
filters, environment = list(warnings.filters), dict(os.environ)
import pyro_relevance as pr
pr.find_edges(network, granularity=("input", "unit"), example_input=torch.zeros(2, 3))
assert filters == list(warnings.filters), set(warnings.filters) - set(filters)
assert environment == dict(os.environ)
"""


@pytest.mark.contract
def test_the_first_search_for_edges_changes_nothing_shared() -> None:
    from tests.test_public import fresh

    assert fresh(FIRST) == ""
