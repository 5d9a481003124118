"""Gates that learn from held-out examples: both levels are recorded, and the bits stay the same."""

from __future__ import annotations

import pytest
import torch
from pyro.infer import TraceMeanField_ELBO

import pyro_relevance as pr
from tests.small_fits import make_model, make_network, quick_fit, regression, same

HELD_OUT = regression(32, seed=1)


@pytest.mark.exact
@pytest.mark.parametrize("num_chains", [1, 2])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_both_levels_are_replayed_with_the_same_bits(programs, num_chains, batch_norm):
    def fit(**settings):
        model = make_model(make_network(batch_norm=batch_norm))
        settings = {"num_epochs": 40, "num_chains": num_chains, **settings}
        return quick_fit(model, held_out=HELD_OUT, **settings)

    plain = fit(replay=False)
    assert not programs
    replayed = fit()
    assert same(replayed.posterior.state, plain.posterior.state)
    assert (replayed.history.loss == plain.history.loss).all()
    assert [program.num_replayed for program in programs] == [115, 115]


@pytest.mark.exact
def test_a_level_changes_its_own_parameters_alone():
    still = pr.schedules.Schedules(gate_learning_rate=pr.schedules.constant(0.0))
    fit = quick_fit(held_out=HELD_OUT, num_epochs=40, schedules=still)
    start = quick_fit(held_out=HELD_OUT, num_epochs=1, learning_rate=1e-12, schedules=still)
    moved = {
        name.rpartition(".")[-1]
        for name, tensor in fit.posterior.state.items()
        if not torch.allclose(tensor, start.posterior.state[name], atol=1e-6)
    }
    assert {"weight", "bias"} <= moved
    gates = set(type(fit.posterior.guide)(make_model()).gate_parameters)
    assert not gates & moved


@pytest.mark.exact
def test_a_resumed_run_is_the_same(tmp_path):
    def interrupt(state):
        if state.step == 60:
            raise KeyboardInterrupt

    where = pr.Checkpoint(tmp_path / "run", interval=0.0)
    settings = {"held_out": HELD_OUT, "num_epochs": 40, "num_chains": 2}
    with pytest.raises(KeyboardInterrupt):
        quick_fit(checkpoint=where, callbacks=[interrupt], **settings)
    resumed, whole = quick_fit(checkpoint=where, **settings), quick_fit(**settings)
    assert same(resumed.posterior.state, whole.posterior.state)


@pytest.mark.contract
def test_what_cannot_be_recorded_runs_one_after_another(programs):
    fit = quick_fit(held_out=HELD_OUT, num_chains=2, elbo=TraceMeanField_ELBO(), num_epochs=40)
    assert not programs
    assert fit.num_steps == 120
