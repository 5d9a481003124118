"""A fit that failed says so: one planted fault for each finding."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch

import pyro_relevance as pr
from pyro_relevance.errors import ConvergenceWarning
from pyro_relevance.posterior.diagnosis import Severity, compare_losses, diagnose
from pyro_relevance.posterior.history import History


def history(num_chains: int = 1, **changed: Any) -> History:
    """A run of a hundred records that has come to rest."""
    loss = np.tile(10.0 + 90.0 * np.exp(-np.arange(100.0) / 5), (num_chains, 1))
    loss += 0.1 * np.random.default_rng(0).normal(size=loss.shape)
    fields = {
        "step": np.arange(100),
        "loss": loss,
        "temperature": np.ones(100),
        "kl_weight": np.ones(100),
        "expected_size": np.full((num_chains, 100), 50.0),
    }
    return History(**(fields | changed))


@dataclass
class Result:
    """What `diagnose` needs of a fit."""

    posterior: Any
    history: History = field(default_factory=history)
    best_chain: int = 0


def fitted(log_odds: list[float], num_chains: int = 1, prior: float = -1.5) -> Any:
    """A posterior over two inputs with given log-odds; its network is ``2 a``."""
    network = torch.nn.Linear(2, 1, bias=False)
    edges = pr.find_edges(network, granularity="input")
    model = pr.RelevanceModel(
        network,
        edges,
        likelihood=pr.likelihoods.Gaussian(0.5, learn_noise=False),
        num_data=40,
        gate_prior=pr.priors.IndependentPrior(prior),
    )
    x = torch.zeros(40, 2)
    posterior = pr.fit(model, (x, x[:, 0]), num_epochs=1, num_chains=num_chains).posterior
    state = dict(posterior.state)
    (gate,) = (name for name, value in state.items() if value.shape[-1:] == (2,) and "gate" in name)
    state[gate] = torch.tensor(log_odds).reshape(num_chains, 2)
    (weight,) = (name for name in state if name.endswith("network.weight"))
    state[weight] = torch.tensor([[[2.0, 0.0]]]).repeat(num_chains, 1, 1)
    return type(posterior)(posterior.model, posterior.guide, state, history=posterior.history)


@pytest.mark.contract
def test_a_good_fit_has_no_fault() -> None:
    diagnosis = diagnose(Result(fitted([5.0, -5.0])))
    assert diagnosis.findings == ()
    assert str(diagnosis).startswith("No fault was found.\nChecked: gates against prior, ")
    assert not diagnosis.failed


@pytest.mark.contract
def test_gates_at_their_prior_are_a_failure() -> None:
    with pytest.warns(ConvergenceWarning, match="Gates are still at their prior probability"):
        diagnosis = diagnose(Result(fitted([-1.5, -1.4])))
    assert diagnosis.failed
    assert str(diagnosis).startswith("The fit failed: do not use its relevances.\nFAILED: Gates")
    assert "inputs 100% at 0.18" in str(diagnosis)
    # One gate that has moved is enough to have learned something.
    assert not diagnose(Result(fitted([2.0, -1.5]))).failed


@pytest.mark.contract
def test_a_mask_that_keeps_nothing_is_a_failure() -> None:
    diagnosis = diagnose(Result(fitted([-3.0, -6.0])), warn=False)
    assert [f.severity for f in diagnosis.findings] == [Severity.FAILED]
    assert "Nothing is kept of inputs" in diagnosis.findings[0].what
    kept = {"inputs": torch.tensor([True, False])}
    assert not diagnose(Result(fitted([-3.0, -6.0])), mask=kept).failed


@pytest.mark.contract
def test_a_warning_is_given_only_where_it_is_wanted() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        diagnose(Result(fitted([-3.0, -6.0])), warn=False)
        diagnose(Result(fitted([3.0, -6.0])))


@pytest.mark.contract
def test_undecided_gates() -> None:
    diagnosis = diagnose(Result(fitted([0.5, 0.3])))
    assert "inputs 100%" in diagnosis.findings[0].what
    assert diagnosis.verdict == "The fit can be used, with 1 caution(s)."


@pytest.mark.contract
def test_chains_that_disagree() -> None:
    posterior = fitted([5.0, -5.0, 5.0, 4.0], num_chains=2)
    diagnosis = diagnose(Result(posterior, history(2)))
    assert "Chains disagree on 1 of 2 inputs" in diagnosis.findings[0].what
    losses = history(2).loss + np.array([[0.0], [10.0]])  # 10 nats over 40 rows
    apart = diagnose(Result(fitted([5.0, -5.0] * 2, num_chains=2), history(2, loss=losses)))
    assert "from 0.249 to 0.500 nats a row" in apart.findings[0].what


@pytest.mark.contract
def test_a_run_that_still_moves() -> None:
    good = fitted([5.0, -5.0])
    sizes = np.linspace(100.0, 50.0, 100)[None]
    moving = diagnose(Result(good, history(expected_size=sizes)))
    assert "the expected size changed by 9" in moving.findings[0].what
    falling = np.linspace(100.0, 0.0, 100)[None] + history().loss * 1e-3
    steep = diagnose(Result(good, history(loss=falling)))
    assert "The loss is not on a plateau: it fell by 10" in steep.findings[0].what
    # A KL weight that rises changes the loss by itself.
    rising = history(loss=falling, kl_weight=np.linspace(0.1, 1.0, 100))
    assert diagnose(Result(good, rising)).findings == ()


@pytest.mark.exact
def test_held_out_rows_are_compared_with_the_best_constant() -> None:
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    result = Result(fitted([5.0, -5.0]))
    assert diagnose(result, held_out=(x, 2 * x[:, 0])).findings == ()
    bad = diagnose(result, held_out=(x, -2 * x[:, 0]), warn=False)
    expected = (16 * x[:, 0] ** 2).mean(), (2 * x[:, 0]).var(correction=0)
    assert f"squared error {expected[0]:.3g} against {expected[1]:.3g}" in bad.findings[0].what
    assert bad.failed


@pytest.mark.exact
def test_a_dense_network_that_is_better() -> None:
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    y = 2 * x[:, 0] + x[:, 1]
    dense = torch.nn.Linear(2, 1)
    with torch.no_grad():
        dense.weight.copy_(torch.tensor([[2.0, 1.0]]))
        dense.bias.zero_()
    diagnosis = diagnose(Result(fitted([5.0, -5.0])), held_out=(x, y), dense=dense)
    assert [f.severity for f in diagnosis.findings] == [Severity.CAUTION]
    assert "worse than the dense one" in diagnosis.findings[0].what


@pytest.mark.exact
def test_a_gain_below_two_standard_errors_is_a_caution() -> None:
    constant = np.array([1.0, 1.0, 1.0, 1.0])
    (finding,) = compare_losses(np.array([0.0, 1.9, 0.2, 1.8]), constant)
    assert finding.severity is Severity.CAUTION
    assert compare_losses(np.array([0.1, 0.2, 0.1, 0.2]), constant) == ()


@pytest.mark.contract
def test_pure_noise_warns_through_fit() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(150, 20), torch.randn(150)
    new = torch.randn(150, 20), torch.randn(150)
    network = pr.networks.MLP(20, [50], 1)
    model = pr.RelevanceModel(
        network,
        pr.find_edges(network, granularity="input"),
        likelihood=pr.likelihoods.Gaussian(),
        num_data=150,
        gate_prior=pr.priors.IndependentPrior(0.0),
    )
    fit = pr.fit(model, (x, y), num_epochs=600, learning_rate=5e-3)
    with pytest.warns(ConvergenceWarning):
        diagnosis = pr.diagnose(fit, held_out=new)
    assert diagnosis.failed
    assert replace(diagnosis, findings=()).failed is False
