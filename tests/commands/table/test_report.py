"""The report of the table command states the numbers of the posterior."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import pyro_relevance as pr
from pyro_relevance.commands.table.report import table_report
from pyro_relevance.commands.table.run import Score
from pyro_relevance.posterior.intervals import Interval, LossInterval


def run_with(probability: torch.Tensor, **changes: Any) -> SimpleNamespace:
    """A run of two inputs, one chain for each row of `probability`, that removed the second."""
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]))
    edges = pr.find_edges(network, granularity="input")
    mask = pr.Mask({"inputs": torch.tensor([True, False])})
    draws = SimpleNamespace(
        gates={"inputs": torch.ones(len(probability), 1, 2)},
        weights={
            name: weight.detach().expand(len(probability), 1, *weight.shape)
            for name, weight in network.named_parameters()
        },
    )
    run = SimpleNamespace(
        table=SimpleNamespace(target_name="y", path="t.csv", task="regression", notes=()),
        encoder=SimpleNamespace(notes=(), input_labels=("age", "size"), target_scale=10.0),
        expected=LossInterval(
            Interval(torch.tensor(0.0), torch.tensor(-1.0), torch.tensor(2.0), 0.9),
            Interval(torch.tensor(0.5), torch.tensor(0.25), torch.tensor(0.75), 0.9),
        ),
        settings=SimpleNamespace(seed=0),
        train=(torch.zeros(5, 2), torch.zeros(5)),
        test=(torch.zeros(2, 2), torch.zeros(2)),
        fit=SimpleNamespace(
            posterior=SimpleNamespace(
                num_chains=len(probability),
                inclusion_probability=lambda: {"inputs": probability},
                sample=lambda num_samples: draws,
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
def test_what_is_of_all_chains_and_what_of_one_stand_under_their_own_names() -> None:
    probability = torch.tensor([[0.9, 0.2], [0.3, 0.1], [0.6, 0.6]])
    gates = torch.ones(3, 100, 2)
    gates[0, :50, 1] = 0.0
    weight = torch.tensor([[[3.0, 1.0]], [[4.0, 2.0]], [[5.0, 3.0]]])[:, None]
    draws = SimpleNamespace(gates={"inputs": gates}, weights={"0.weight": weight})
    run = run_with(probability, chain=1)
    run.posterior.edges = pr.find_edges(
        torch.nn.Sequential(torch.nn.Linear(2, 1)), granularity="input"
    )
    run.fit.posterior.sample = lambda num_samples: draws
    text = table_report(run)
    rows = {line.split()[0]: re.split(r"  +", line)[1:] for line in text.splitlines() if line}
    assert rows["input"][:4] == ["inclusion", "range over chains", "effect", "89% interval"]
    assert rows["input"][4:] == ["chain 1", "pruned"]
    assert rows["age"] == ["0.60", "0.30 .. 0.90", "4.00", "3.00 .. 5.00", "0.30", "kept"]
    # Off in 50 of 300 draws: more than 5.5 % of them lie at zero.
    assert rows["size"] == ["0.30", "0.10 .. 0.60", "1.83", "0.00 .. 3.00", "0.10", "removed"]
    assert rows["inputs"] == ["0.45", "0.20 .. 0.60", "0.20", "1 of 2 kept"]
    assert "is no interval of the posterior" in text
    assert "Chain 1 (highest ELBO) was pruned: the columns under its name are its own." in text


@pytest.mark.exact
def test_the_whole_report_of_a_regression() -> None:
    probability = torch.tensor([[0.1, 0.8], [0.1, 0.8], [0.4, 0.8]])
    run = run_with(
        probability,
        table=SimpleNamespace(
            target_name="y", path="t.csv", task="regression", notes=("Two rows left out.", "a")
        ),
        encoder=SimpleNamespace(notes=("a", "b"), input_labels=("age", "size"), target_scale=10.0),
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
        "input  inclusion  range over chains  effect  89% interval  chain 2   pruned",
        "size        0.80       0.80 .. 0.80    2.00  2.00 .. 2.00     0.80  removed",
        "age         0.20       0.10 .. 0.40    1.00  1.00 .. 1.00     0.40     kept",
        "",
        "edges of  inclusion  range over chains  chain 2       pruned",
        "inputs         0.50       0.45 .. 0.60     0.60  1 of 2 kept",
        "",
        "network          parameters  test RMSE  test log likelihood",
        "dense                    13      1.235               -0.500",
        "posterior mean  10 expected        0.5              -12.250",
        "pruned                   10         20                0.125",
        "",
        "Before the test, cross-validation promised the pruned network an RMSE of 2.5 .. 7.5 and a "
        "log likelihood of -4.3 .. -1.3 (90% predictive intervals for 2 rows).",
        "Inclusion is the mean over the draws of 3 chains; its range over chains tells how far the "
        "fits agree and is no interval of the posterior.",
        "The effect is the norm of the gated weights that read the input, with its 89% interval "
        "over all draws of all chains; the posterior mean is that of all chains too.",
        "Chain 2 (highest ELBO) was pruned: the columns under its name are its own.",
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
            posterior=SimpleNamespace(
                num_chains=1,
                inclusion_probability=lambda: probability,
                sample=lambda num_samples: SimpleNamespace(
                    gates={n: (p > 0.5).float()[None] for n, p in probability.items()},
                    weights={n: w.detach()[None, None] for n, w in network.named_parameters()},
                ),
            )
        ),
        posterior=SimpleNamespace(edges=edges),
        mask=mask,
        inputs_read=lambda: mask["inputs"],
    )
    text = table_report(run)
    rows = {line.split()[0]: re.split(r"  +", line)[1:] for line in text.splitlines() if line}
    assert rows["inputs"] == ["0.75", "0.75 .. 0.75", "0.75", "1 of 2 kept"]
    assert rows["0.weight"] == ["0.70", "0.70 .. 0.70", "0.70", "4 of 6 kept"]
    assert rows["2.weight"] == ["0.10", "0.10 .. 0.10", "0.10", "0 of 3 kept"]
    assert rows["age"][-1] == "kept"
    assert rows["size"][-1] == "removed"
