"""Records of a run."""

from __future__ import annotations

import numpy as np
import pytest

from pyro_relevance.posterior.history import History


def _history(num_records=4):
    history = History.empty(2)
    for index in range(num_records):
        history = history.append(
            step=10 * (index + 1),
            loss=np.array([5.0 - index, 7.0 - index]),
            temperature=1.0 / (index + 1),
            kl_weight=0.5,
            expected_size=np.array([30.0, np.nan]),
        )
    return history


@pytest.mark.exact
def test_append_keeps_order_and_shapes():
    history = _history()
    assert history.num_chains == 2
    assert history.step.tolist() == [10, 20, 30, 40]
    assert history.step.dtype == np.int64
    assert history.loss.tolist() == [[5, 4, 3, 2], [7, 6, 5, 4]]
    assert history.temperature.tolist() == [1, 1 / 2, 1 / 3, 1 / 4]
    assert history.expected_size.shape == (2, 4)


@pytest.mark.exact
def test_append_leaves_the_history_before_it():
    before = _history(1)
    before.append(
        step=20, loss=np.zeros(2), temperature=1.0, kl_weight=1.0, expected_size=np.zeros(2)
    )
    assert before.step.tolist() == [10]
    assert before.loss.shape == (2, 1)


@pytest.mark.exact
def test_chain_is_a_slice():
    chain = _history().chain(1)
    assert chain.num_chains == 1
    assert chain.loss.tolist() == [[7, 6, 5, 4]]
    with pytest.raises(IndexError, match=r"chain in 0 .. 1, but got 2"):
        _history().chain(2)


@pytest.mark.exact
def test_final_loss_is_the_mean_of_the_last_records():
    assert _history().final_loss(0.5).tolist() == [2.5, 4.5]
    assert _history().final_loss().tolist() == [2.0, 4.0]
    with pytest.raises(ValueError, match="Expected at least one record"):
        History.empty(1).final_loss()
    with pytest.raises(ValueError, match=r"fraction in \(0, 1\], but got 0"):
        _history().final_loss(0)


@pytest.mark.exact
@pytest.mark.parametrize("num_records", [0, 3])
def test_arrays_round_trip(num_records):
    history = _history(num_records)
    again = History.from_arrays(history.to_arrays())
    for name in history.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(history, name), getattr(again, name))
    assert again.step.dtype == np.int64
