"""The report of the table command states the numbers of the posterior."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import pyro_relevance as pr
from pyro_relevance.commands.table.report import table_report


def run_with(probability: torch.Tensor) -> SimpleNamespace:
    """A run of two inputs, one chain for each row of `probability`, that removed the second."""
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    edges = pr.find_edges(network, granularity="input")
    mask = pr.Mask({"inputs": torch.tensor([True, False])})
    return SimpleNamespace(
        table=SimpleNamespace(target_name="y", path="t.csv", task="regression", notes=()),
        encoder=SimpleNamespace(notes=(), input_labels=("age", "size")),
        settings=SimpleNamespace(seed=0),
        train=torch.zeros(5, 1),
        test=torch.zeros(2, 1),
        fit=SimpleNamespace(
            posterior=SimpleNamespace(
                num_chains=len(probability),
                inclusion_probability=lambda: {"inputs": probability},
            )
        ),
        posterior=SimpleNamespace(edges=edges),
        mask=mask,
        inputs_read=lambda: mask["inputs"],
        scores={},
        chain=0,
        pruned=pr.prune(network, edges, mask, example_input=torch.randn(4, 2)),
        seconds=1.0,
    )


@pytest.mark.exact
def test_intervals_hold_89_percent_of_the_chains() -> None:
    # Evenly spread chains, in any order: 5.5 % of them lie below 0.2 + 0.4 * 0.055 = 0.222.
    spread = torch.linspace(0, 1, 201)[torch.randperm(201)]
    text = table_report(run_with(torch.stack([0.2 + 0.4 * spread, 0.5 * spread], 1)))
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    assert rows["age"] == ["0.40", "0.22", "..", "0.58", "kept"]
    assert rows["size"][:4] == ["0.25", "0.03", "..", "0.47"]
    # The mean over both inputs of each chain: 0.1 + 0.45 u.
    assert rows["inputs"] == ["0.33", "0.12", "..", "0.53", "1", "of", "2", "kept"]
    assert "201 chains with their 89 % interval" in text
