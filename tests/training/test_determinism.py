"""Which changes of circumstances leave the numbers of a fit as they are, and which do not."""

from __future__ import annotations

import multiprocessing
import threading
from typing import Any

import pytest
import torch
from torch import Tensor

import pyro_relevance as pr
from pyro_relevance.training import preparation
from tests.small_fits import make_model, quick_fit, regression, same

SETTINGS: dict[str, Any] = {"num_chains": 2, "num_epochs": 20}


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return quick_fit(**SETTINGS).posterior.state


@pytest.mark.exact
@pytest.mark.parametrize("replay", [None, True, False])
def test_recorded_or_not(replay: bool | None, expected: dict[str, Tensor]) -> None:
    assert same(quick_fit(**SETTINGS, replay=replay).posterior.state, expected)


@pytest.mark.exact
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_of_torch(threads: int, expected: dict[str, Tensor]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        state = quick_fit(**SETTINGS).posterior.state
    finally:
        torch.set_num_threads(before)
    for name, tensor in state.items():
        # Sums over parts may be added in another order: rounding, which a few steps enlarge.
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.exact
def test_fits_in_several_threads_take_turns(expected: dict[str, Tensor]) -> None:
    models, data = [make_model() for _ in range(3)], regression()
    states: dict[int, dict[str, Tensor]] = {}

    def work(index: int) -> None:
        fit = quick_fit(models[index], data, **SETTINGS)
        fit.posterior.predict(data[0], num_samples=2)
        states[index] = fit.posterior.state

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(states) == 3
    assert all(same(state, expected) for state in states.values())


def state_as_lists() -> dict[str, Any]:
    """Return the state of a fit, for another process."""
    torch.set_num_threads(1)
    state = quick_fit(**SETTINGS).posterior.state
    return {name: tensor.tolist() for name, tensor in state.items()}


@pytest.mark.exact
def test_a_process_that_was_spawned(expected: dict[str, Tensor]) -> None:
    # A fork cannot train where its parent has: torch says so.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(state_as_lists)
    for name, tensor in expected.items():
        torch.testing.assert_close(
            torch.tensor(found[name], dtype=tensor.dtype), tensor, rtol=1e-4, atol=1e-4
        )


@pytest.mark.exact
def test_a_fork_while_another_thread_is_at_work() -> None:
    begun, enough = threading.Event(), threading.Event()

    def wait(state: Any) -> None:
        begun.set()
        enough.wait(60)

    model, data = make_model(), regression()
    thread = threading.Thread(target=lambda: quick_fit(model, data, num_epochs=1, callbacks=[wait]))
    thread.start()
    assert begun.wait(60)
    try:
        if "fork" in multiprocessing.get_all_start_methods():
            context = multiprocessing.get_context("fork")
            child = context.Process(target=_draws_once)
            child.start()
            child.join(60)
            assert child.exitcode == 0
    finally:
        enough.set()
        thread.join()


def _draws_once() -> None:
    from pyro_relevance._random import seeded

    with seeded(0):
        torch.rand(1)


@pytest.mark.contract
def test_chains_one_by_one_are_other_draws_of_the_same_fit(
    monkeypatch: pytest.MonkeyPatch, expected: dict[str, Tensor]
) -> None:
    monkeypatch.setattr(preparation, "_vectorised", lambda *arguments: None)
    state = quick_fit(**SETTINGS).posterior.state
    assert not same(state, expected)  # as docs/determinism.md says
    assert same(state, quick_fit(**SETTINGS).posterior.state)
    assert {n: t.shape for n, t in state.items()} == {n: t.shape for n, t in expected.items()}


@pytest.mark.exact
def test_early_stopping_on_numbers_that_are_not_finite_stops_with_words() -> None:
    x, y = regression()
    x = x.masked_fill(torch.arange(48)[:, None] == 3, float("inf"))
    with pytest.raises(ValueError, match="finite held-out inputs, but x of valid has NaN"):
        pr.callbacks.EarlyStopping((x, y))
    with pytest.raises(ValueError, match="finite held-out targets, but y of valid has NaN"):
        pr.callbacks.EarlyStopping((torch.zeros(48, 4), y / 0))
