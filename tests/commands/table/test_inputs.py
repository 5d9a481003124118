"""The first table of a report."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pyro_relevance as pr
from pyro_relevance.commands.table.inputs import disagreements, input_lines, relevant_line


@pytest.fixture(scope="module")
def tested() -> pr.holdout.HoldoutTest:
    """Columns a and its copy matter, b matters by itself, c does not and is not read."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 4, generator=generator)
    x[:, 3] = x[:, 0]
    y = x[:, 0] - 0.3 * x[:, 1] + 0.5 * torch.randn(200, generator=generator)

    def network(x: torch.Tensor) -> torch.Tensor:
        return (x[:, 0] + x[:, 3]) / 2 - 0.3 * x[:, 1]

    return pr.holdout_test(network, (x, y), groups=["a", "b", "c", "copy"])


@pytest.mark.exact
def test_the_answer_names_columns_and_sets(tested: pr.holdout.HoldoutTest) -> None:
    (found,) = tested.sets
    assert relevant_line(tested) == (
        "Relevant inputs at a false discovery rate of 0.1: b; a or copy (cannot be told apart; "
        f"together p {found.p_value:.2g})."
    )


@pytest.mark.exact
def test_sets_have_the_place_of_their_own_p_value(tested: pr.holdout.HoldoutTest) -> None:
    read = np.array([True, True, False, True])
    lines = input_lines(tested, np.full((2, 4), [0.5, 1.0, 0.0, 0.25]), read, scale=10.0)
    assert [line.split()[0] for line in lines] in (
        ["input", "b", "a", "copy", "c"],
        ["input", "b", "copy", "a", "c"],  # their rises differ by rounding alone
    )
    assert lines[0].split()[1:4] == ["rise", "of", "RMSE"]
    b = tested["b"]
    assert lines[1].split()[1:4] == [
        f"{10 * b.root_rise:.3g}",
        f"{10 * b.root_standard_error:.2g}",
        f"{b.p_value:.2g}",
    ]
    assert lines[1].endswith("relevant  reads it       1.00")
    assert "cannot be told apart" in lines[2]
    assert lines[4].endswith("not shown         -       0.00")


@pytest.mark.exact
def test_disagreements_are_told(tested: pr.holdout.HoldoutTest) -> None:
    assert disagreements(tested, np.array([True, True, False, True])) == []
    unread, unshown = disagreements(tested, np.array([True, False, True, True]))
    assert unread == "Relevant by the test, but not read by the pruned network: b."
    assert unshown.endswith("(it may be noise that it fitted): c.")


@pytest.mark.exact
def test_nothing_is_said_in_words_where_nothing_was_found(tested: pr.holdout.HoldoutTest) -> None:
    none = pr.holdout_test(lambda x: 0 * x[:, 0], (torch.randn(20, 2), torch.randn(20)))
    assert relevant_line(none).endswith("0.1: none could be shown.")
