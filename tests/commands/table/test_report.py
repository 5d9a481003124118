"""The report of the table command states the numbers of the posterior."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import pyro_relevance as pr
from pyro_relevance.commands.table.report import table_report
from pyro_relevance.commands.table.run import Score


def run_with(probability: torch.Tensor, **changes: Any) -> SimpleNamespace:
    """A run of two inputs, one chain for each row of `probability`, that removed the second."""
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    edges = pr.find_edges(network, granularity="input")
    mask = pr.Mask({"inputs": torch.tensor([True, False])})
    run = SimpleNamespace(
        table=SimpleNamespace(target_name="y", path="t.csv", task="regression", notes=()),
        encoder=SimpleNamespace(notes=(), input_labels=("age", "size")),
        settings=SimpleNamespace(seed=0),
        train=(torch.zeros(5, 2), torch.zeros(5)),
        test=(torch.zeros(2, 2), torch.zeros(2)),
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
    return SimpleNamespace(**(vars(run) | changes))


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


@pytest.mark.exact
def test_the_whole_report_of_a_regression() -> None:
    probability = torch.tensor([[0.1, 0.8], [0.1, 0.8], [0.4, 0.8]])
    run = run_with(
        probability,
        table=SimpleNamespace(
            target_name="y", path="t.csv", task="regression", notes=("Two rows left out.", "a")
        ),
        encoder=SimpleNamespace(notes=("a", "b"), input_labels=("age", "size")),
        settings=SimpleNamespace(seed=7),
        scores={
            "dense": Score(1.23456, -0.5, 13.0),
            "posterior mean": Score(0.5, -12.25, 10.4),
            "pruned": Score(20.0, 0.125, 10.0),
        },
        chain=2,
        seconds=61.5,
    )
    assert table_report(run).splitlines() == [
        "Relevance for y in t.csv: 5 rows to train on, 2 to test on, regression.",
        "Note: Two rows left out.",
        "Note: a.",
        "Note: b.",
        "",
        "input  inclusion      interval",
        "size        0.80  0.80 .. 0.80  removed",
        "age         0.20  0.10 .. 0.37     kept",
        "",
        "edges of  inclusion      interval",
        "inputs         0.50  0.45 .. 0.58  1 of 2 kept",
        "",
        "network          parameters  test RMSE  test log likelihood",
        "dense                    13      1.235               -0.500",
        "posterior mean  10 expected        0.5              -12.250",
        "pruned                   10         20                0.125",
        "",
        "Inclusion probabilities are means over 3 chains with their 89 % interval; chain 2 "
        "(highest ELBO) was pruned.",
        str(run.mask).splitlines()[-1],
        "",
        *str(run.pruned.receipt).splitlines(),
        "",
        "62 s in all, seed 7.",
    ]


@pytest.mark.exact
@pytest.mark.parametrize(
    ("task", "error"), [("regression", "test RMSE"), ("classification", "test error")]
)
def test_the_error_is_named_by_the_task(task: str, error: str) -> None:
    table = SimpleNamespace(target_name="y", path="t.csv", task=task, notes=())
    text = table_report(run_with(torch.rand(2, 2), table=table))
    (header,) = (line for line in text.splitlines() if line.startswith("network"))
    assert header == f"network  parameters  {error}  test log likelihood"


@pytest.mark.exact
def test_groups_of_weights_are_averaged_over_all_their_edges() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    edges = pr.find_edges(network, granularity=("input", "weight"))
    inputs = torch.tensor([[1.0, 0.5]])
    weights = torch.tensor([[[1.0, 1.0], [1.0, 0.0], [0.5, 0.7]]])
    last = torch.tensor([[[0.0, 0.0, 0.3]]])
    probability = {"inputs": inputs, "0.weight": weights, "2.weight": last}
    mask = pr.masks.threshold({name: p[0] for name, p in probability.items()}, 0.6)
    run = run_with(
        inputs,
        fit=SimpleNamespace(
            posterior=SimpleNamespace(num_chains=1, inclusion_probability=lambda: probability)
        ),
        posterior=SimpleNamespace(edges=edges),
        mask=mask,
        inputs_read=lambda: mask["inputs"],
    )
    rows = {line.split()[0]: line.split()[1:] for line in table_report(run).splitlines() if line}
    assert rows["inputs"] == ["0.75", "0.75", "..", "0.75", "1", "of", "2", "kept"]
    assert rows["0.weight"] == ["0.70", "0.70", "..", "0.70", "4", "of", "6", "kept"]
    assert rows["2.weight"] == ["0.10", "0.10", "..", "0.10", "0", "of", "3", "kept"]
    assert rows["age"][-1] == "kept"
    assert rows["size"][-1] == "removed"
