"""Examples in two parts."""

from __future__ import annotations

import pytest
import torch

from pyro_relevance.data.splits import split_examples

X = torch.arange(20.0).reshape(10, 2)
DATA = (X, X[:, 0])


def test_each_example_is_in_one_part_with_its_target() -> None:
    train, held = split_examples(DATA, 0.3, torch.Generator().manual_seed(0))
    assert (len(train[0]), len(held[0])) == (7, 3)
    assert torch.cat([train[1], held[1]]).sort().values.tolist() == X[:, 0].tolist()
    for x, y in (train, held):
        assert torch.equal(x[:, 0], y)


def test_the_order_is_that_of_the_generator_or_of_the_global_one() -> None:
    own = [split_examples(DATA, 0.3, torch.Generator().manual_seed(4))[1][1] for _ in range(2)]
    assert torch.equal(*own)
    state = torch.get_rng_state()
    split_examples(DATA, 0.3, torch.Generator().manual_seed(4))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    assert torch.equal(split_examples(DATA, 0.3)[1][1], own[0])


@pytest.mark.parametrize(("held_out", "y"), [(0.01, X[:, 0]), (1.0, X[:, 0]), (0.3, X[:9, 0])])
def test_no_part_may_be_empty_and_each_input_needs_a_target(
    held_out: float, y: torch.Tensor
) -> None:
    text = f"at least one and not all, but got 10 inputs and {len(y)} targets"
    with pytest.raises(ValueError, match=text):
        split_examples((X, y), held_out)
