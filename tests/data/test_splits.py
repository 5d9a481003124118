"""Splits of tensors, rows, training sets and folds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pyro_relevance.data.splits import (
    cross_validation_folds,
    split_examples,
    split_rows,
    train_validation,
)

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
    text = f"at least one example in each part at held_out={held_out:.0%}, but got 10 inputs and"
    with pytest.raises(ValueError, match=text):
        split_examples((X, y), held_out)


def test_split_rows() -> None:
    train, test = split_rows(506, seed=4)
    assert len(test) == 51
    assert sorted([*train, *test]) == list(range(506))
    again = split_rows(506, seed=4)
    assert (again[0] == train).all()
    assert (split_rows(506, seed=5)[1] != test).any()
    assert [len(part) for part in split_rows(3, test_fraction=0.01)] == [2, 1]
    assert [len(part) for part in split_rows(3, test_fraction=0.99)] == [1, 2]


def test_split_rows_keeps_the_shares_of_classes() -> None:
    labels = np.array(["a"] * 70 + ["b"] * 28 + ["c"] * 2)
    for seed in range(5):
        train, test = split_rows(100, test_fraction=0.2, seed=seed, labels=labels)
        assert sorted([*train, *test]) == list(range(100))
        assert len(test) == 20
        assert (labels[test] == "a").sum() == 14
        assert (labels[test] == "b").sum() in (5, 6)
        assert "c" in labels[train]
    _, test = split_rows(100, test_fraction=0.95, labels=labels)
    assert len(test) == 95
    assert set(labels[np.setdiff1d(np.arange(100), test)]) == {"a", "b", "c"}


def test_split_rows_leaves_global_generators_alone() -> None:
    before = np.random.get_state(legacy=False)["state"]["key"].tolist()  # noqa: NPY002
    split_rows(10)
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == before  # noqa: NPY002


def test_split_rows_refuses() -> None:
    with pytest.raises(ValueError, match="Expected at least 2 rows and a test_fraction between"):
        split_rows(1)
    with pytest.raises(ValueError, match="but got 10 rows and 1.0"):
        split_rows(10, test_fraction=1.0)
    with pytest.raises(ValueError, match=r"Expected labels of shape \(10,\), but got \(3,\)"):
        split_rows(10, labels=["a", "b", "c"])


@pytest.mark.exact
def test_train_and_validation_rows():
    state = torch.get_rng_state()
    train, valid = train_validation(20, 6, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(torch.cat([train, valid]).sort().values, torch.arange(20))
    assert len(valid) == 6
    again = train_validation(20, 6, seed=3)
    assert torch.equal(again[0], train)
    assert torch.equal(again[1], valid)
    assert not torch.equal(train_validation(20, 6, seed=4)[1], valid)
    for number in (0, 20, -1):
        with pytest.raises(ValueError, match=f"between 1 and 19, but got {number}"):
            train_validation(20, number)


@pytest.mark.exact
def test_folds_are_equal_in_size_and_each_row_is_in_one_of_them() -> None:
    folds, rests = cross_validation_folds(17, 5, seed=2)
    assert [len(fold) for fold in folds] == [3] * 5
    rows = np.concatenate(folds)
    assert len(set(rows.tolist())) == 15  # the remainder is in no fold
    for fold, rest in zip(folds, rests, strict=True):
        assert sorted([*fold, *rest]) == list(range(17))
        assert (np.diff(fold) > 0).all()
    again, _ = cross_validation_folds(17, 5, seed=2)
    assert all((one == two).all() for one, two in zip(folds, again, strict=True))
    assert (cross_validation_folds(17, 5, seed=3)[0][0] != folds[0]).any()


@pytest.mark.contract
@pytest.mark.parametrize("number", [1, 18])
def test_too_few_or_too_many_folds_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match="Expected 2 <= num_folds <= 17 rows"):
        cross_validation_folds(17, number)
