"""Sets of inputs that carry each other."""

from __future__ import annotations

import numpy as np
import pytest

from pyro_relevance.posterior.holdout import carried_together
from pyro_relevance.posterior.holdout.carried import members, nodes

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(300, 4))


@pytest.mark.exact
def test_independent_columns_stand_alone() -> None:
    assert carried_together(X, [[0], [1], [2], [3]]) == (0, 1, 2, 3)


@pytest.mark.exact
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_copies_are_one_set_up_to_sign(sign: float) -> None:
    x = np.column_stack([X, sign * X[:, 1]])
    assert carried_together(x, [[0], [1], [2], [3], [4]], correlation=1.0) == (0, (1, 4), 2, 3)


@pytest.mark.exact
def test_correlation_is_compared_with_the_limit() -> None:
    near = 0.9 * X[:, 0] + np.sqrt(1 - 0.81) * X[:, 1]
    x = np.column_stack([X[:, 0], near, X[:, 2]])
    assert carried_together(x, [[0], [1], [2]], correlation=0.85) == ((0, 1), 2)
    assert carried_together(x, [[0], [1], [2]], correlation=0.95) == (0, 1, 2)


@pytest.mark.exact
def test_a_monotone_copy_is_found_by_its_ranks() -> None:
    x = np.column_stack([X[:, 0], np.exp(4 * X[:, 0]), X[:, 1]])
    assert abs(np.corrcoef(x[:, 0], x[:, 1])[0, 1]) < 0.5
    assert carried_together(x, [[0], [1], [2]], correlation=0.99) == ((0, 1), 2)


@pytest.mark.exact
def test_a_column_and_its_parts_are_one_set() -> None:
    x = np.column_stack([X[:, 0], X[:, 1], X[:, 0] + X[:, 1], X[:, 2]])
    # No pair of them is correlated by 0.8.
    assert np.abs(np.corrcoef(x.T) - np.eye(4)).max() < 0.8
    tree, alone = carried_together(x, [[0], [1], [2], [3]])
    assert members(tree) == (0, 1, 2)
    assert alone == 3


@pytest.mark.exact
def test_groups_are_as_similar_as_their_most_similar_columns() -> None:
    x = np.column_stack([X, X[:, 3]])
    assert carried_together(x, [[0, 3], [1, 2], [4]]) == ((0, 2), 1)


@pytest.mark.exact
def test_a_constant_column_is_like_no_other() -> None:
    x = np.column_stack([X[:, :2], np.ones(300)])
    assert carried_together(x, [[0], [1], [2]]) == (0, 1, 2)
    assert carried_together(x, [[0]]) == (0,)


@pytest.mark.exact
def test_copies_are_a_tree_within_that_of_their_relatives() -> None:
    near = 0.9 * X[:, 0] + np.sqrt(1 - 0.81) * X[:, 1]
    x = np.column_stack([X[:, 0], near, X[:, 0], X[:, 2], near])
    (tree, alone) = carried_together(x, [[0], [1], [2], [3], [4]])
    assert alone == 3
    assert {members(node) for node in nodes(tree)} == {(0, 1, 2, 4), (0, 2), (1, 4)}
    assert nodes(tree)[0] == tree
    assert nodes(3) == ()
