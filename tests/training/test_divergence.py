"""What is not finite is found, and what is merely large is not taken for it."""

from __future__ import annotations

import pytest
import torch

from pyro_relevance.training.divergence import all_finite, first_bad_tensor

LARGE = torch.full((4,), 3e38)


@pytest.mark.exact
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_entry_is_found(bad: float) -> None:
    named = [
        ("count", torch.ones(2, dtype=torch.long)),
        ("a", torch.zeros(3)),
        ("b", LARGE.clone()),
    ]
    assert all_finite(named)
    named[2][1][1] = bad
    assert not all_finite(named)
    assert first_bad_tensor(named) == "b"


@pytest.mark.exact
def test_opposite_infinities_are_found() -> None:
    infinite = torch.tensor([float("inf"), -float("inf")])
    assert not all_finite([("a", infinite)])
    assert not all_finite([("a", infinite[:1]), ("b", infinite[1:].double())])
    assert all_finite([])
