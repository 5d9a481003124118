"""The report of the table command states the numbers of the posterior."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import pyro_relevance as pr
from pyro_relevance.commands.scoring.scores import Score
from pyro_relevance.commands.table.report import table_report
from pyro_relevance.posterior.diagnosis import Diagnosis, Finding, Severity
from pyro_relevance.posterior.holdout import GroupTest, HoldoutTest, Verdict
from pyro_relevance.posterior.intervals import Interval, LossInterval

GOOD = Diagnosis((), ("this", "that"))
FAILED = Diagnosis((Finding(Severity.FAILED, "It did not.", "Try again."),), ("this",))


def inputs_test(**changes: Any) -> HoldoutTest:
    """A test of the two inputs: the second is relevant, the first was not shown to be."""
    fields: dict[str, Any] = {
        "groups": (
            GroupTest("age", 0.1, 0.2, 0.0123, 0.1, 0.25, 40, 0.0, Verdict.NOT_SHOWN),
            GroupTest("size", 2.0, 0.5, 1.0, 0.25, 0.002, 499, 0.5, Verdict.RELEVANT),
        ),
        "sets": (),
        "trees": (0, 1),
        "rate": 0.1,
        "loss": "squared",
        "num_rows": 5,
        "max_redraws": 499,
    }
    return HoldoutTest(**(fields | changes))


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
        encoder=SimpleNamespace(
            notes=(), input_labels=("age", "size"), target_scale=2.0, classes=()
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
        inputs_read=lambda: mask["inputs"].numpy(),
        expected=LossInterval(
            Interval(torch.tensor(0.0), torch.tensor(-1.0), torch.tensor(2.0), 0.9),
            Interval(torch.tensor(0.5), torch.tensor(0.25), torch.tensor(0.75), 0.9),
        ),
        tested=inputs_test(),
        diagnosis=GOOD,
        scores={},
        baselines={},
        decision=None,
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
    _, text = table_report(run).split("posterior of")
    text = "posterior of" + text
    rows = {line.split()[0]: re.split(r"  +", line)[1:] for line in text.splitlines() if line}
    header = ["inclusion", "over chains", "chain 1", "effect", "89% interval"]
    assert rows["posterior"] == header
    assert rows["age"] == ["0.60", "0.30 .. 0.90", "0.30", "4.00", "3.00 .. 5.00"]
    # Off in 50 of 300 draws: more than 5.5 % of them lie at zero.
    assert rows["size"] == ["0.30", "0.10 .. 0.60", "0.10", "1.83", "0.00 .. 3.00"]
    # The mean over both inputs of each chain: 0.55, 0.2, 0.6.
    assert rows["inputs"] == ["0.45", "0.20 .. 0.60", "0.20", "1 of 2 read"]


@pytest.mark.contract
def test_a_fit_that_failed_is_not_praised() -> None:
    text = table_report(run_with(torch.rand(2, 2), diagnosis=FAILED))
    assert "The fit failed: do not use its relevances.\nFAILED: It did not. Try again." in text
    assert "ratio" not in text
    assert "was pruned" not in text
    assert "left out: the fit failed" in text


@pytest.mark.exact
def test_the_whole_report_of_a_regression() -> None:
    probability = torch.tensor([[0.1, 0.8], [0.1, 0.8], [0.4, 0.8]])
    run = run_with(
        probability,
        table=SimpleNamespace(
            target_name="y", path="t.csv", task="regression", notes=("Two rows left out.", "a")
        ),
        encoder=SimpleNamespace(
            notes=("a", "b"), input_labels=("age", "size"), target_scale=2.0, classes=()
        ),
        settings=SimpleNamespace(seed=7),
        scores={
            "dense": Score(1.23456, -0.5, 13.0),
            "posterior mean": Score(0.5, -12.25, 10.4),
            "pruned": Score(20.0, 0.125, 10.0, 1.25, 0.0625, densities=np.array([0.25, 0.0])),
        },
        baselines={
            "constant": Score(30.0, -2.0, 1.0, 2.0, 0.5, densities=np.array([-1.0, -3.0])),
            "boosting": Score(9.0, 0.5, float("nan"), 1.0, 0.5, densities=np.array([1.0, 0.0])),
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
        "No fault was found.",
        "Checked: this, that.",
        "",
        "Relevant inputs at a false discovery rate of 0.1: size.",
        "",
        "input  rise of RMSE  +- SE      p  at FDR 0.1   network  inclusion",
        "size              2    0.5  0.002    relevant         -       0.80",
        "age          0.0246    0.2   0.25   not shown  reads it       0.20",
        "",
        "Relevant by the test, but not read by the pruned network: size.",
        "Read by the pruned network, but not shown to be relevant (it may be noise that it "
        "fitted): age.",
        "rise: of the held-out RMSE (in y) when the column is drawn anew given the others, over 5 "
        "rows; p: rank of the data among redraws (holdout randomisation test). 'not shown' is not "
        "'irrelevant'.",
        "network: what the pruned network (chain 2) reads; inclusion: posterior probability that "
        "the network uses the input, mean over 3 chains. It describes the fit; it is not a tested "
        "statement about the data.",
        "",
        "posterior of  inclusion   over chains  chain 2  effect  89% interval",
        "size               0.80  0.80 .. 0.80     0.80    2.00  2.00 .. 2.00",
        "age                0.20  0.10 .. 0.40     0.40    1.00  1.00 .. 1.00",
        "",
        "over chains: lowest and highest chain, which tells how far the fits agree and is no "
        "interval of the posterior; effect: norm of the gated weights that read the input, with "
        "its 89% interval over all draws of all chains.",
        "",
        "edges of  inclusion   over chains  chain 2       pruned",
        "inputs         0.50  0.45 .. 0.60     0.60  1 of 2 read",
        "",
        "network          parameters  test RMSE  +- SE  test log likelihood  +- SE",
        "dense                    13      1.235      -               -0.500      -",
        "posterior mean  10 expected        0.5      -              -12.250      -",
        "pruned                   10         20    1.2                0.125  0.062",
        "baseline",
        "constant                  1         30      2               -2.000    0.5",
        "boosting                  -          9      1                0.500    0.5",
        "",
        "Baselines, on the same training and test rows: constant: mean, or shares of the classes, "
        "of the training rows; boosting: scikit-learn's histogram gradient boosting, default "
        "settings. +- SE: standard error over the 2 test rows.",
        "Log likelihood of the pruned network minus that of the best baseline (boosting), row by "
        "row: -0.375 +- 0.37 nats.",
        "",
        "Before the test, cross-validation promised the pruned network an RMSE of 0.5 .. 1.5 and a "
        "log likelihood of -2.69 .. 0.307 (90% predictive intervals for 2 rows).",
        "Chain 2 (highest ELBO of 3) was pruned.",
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
    (header,) = (line for line in text.splitlines() if line.startswith("network  "))
    assert header == f"network  parameters  {error}  +- SE  test log likelihood  +- SE"


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
        inputs_read=lambda: mask["inputs"].numpy(),
    )
    first, text = table_report(run).split("edges of")
    rows = {line.split()[0]: re.split(r"  +", line)[1:] for line in text.splitlines() if line}
    assert rows["inputs"] == ["0.75", "0.75 .. 0.75", "0.75", "1 of 2 read"]
    assert rows["0.weight"] == ["0.70", "0.70 .. 0.70", "0.70", "4 of 6 kept"]
    assert rows["2.weight"] == ["0.10", "0.10 .. 0.10", "0.10", "0 of 3 kept"]
    first, _ = first.split("posterior of")
    rows = {line.split()[0]: re.split(r"  +", line)[1:] for line in first.splitlines() if line}
    assert rows["age"][-2] == "reads it"
    assert rows["size"][-2] == "-"
