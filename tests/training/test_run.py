"""The loop: steps without waiting, records, what happens to a loss that is not finite."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import pyro_relevance as pr
from pyro_relevance import likelihoods, priors
from pyro_relevance._files import read_tensors
from pyro_relevance._random import local_pyro
from pyro_relevance.data.augmentation import InOrder, RandomCrop, RandomFlip
from pyro_relevance.errors import DivergenceError
from pyro_relevance.training.checkpoint import Checkpoint
from pyro_relevance.training.run import interval_of_records
from pyro_relevance.training.snapshots import load_optimizer, optimizer_state
from pyro_relevance.training.svi import TrainingRun
from tests.model import test_precision
from tests.small_fits import make_model, make_network, quick_fit, regression, same


class Waits(TorchDispatchMode):
    """Counts what makes an accelerator wait: reading a value, or numbers sent from Python."""

    READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        made = "lift_fresh" in name and args[0].numel()  # numbers from Python, to be sent over
        if made or any(read in name for read in self.READS):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def captured(monkeypatch):
    """Return a function that makes the run of a fit, ready for its first step."""

    def capture(*arguments, **settings):
        kept = []
        with monkeypatch.context() as patch:
            patch.setattr(TrainingRun, "execute", lambda run: kept.append(run))
            patch.setattr("pyro_relevance.training.svi._result", lambda run: None)
            quick_fit(*arguments, **settings)
        return kept[0]

    return capture


@pytest.mark.exact
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_chains": 3},
        {"noise": "per_example"},
        {"batch_size": None},
        {"num_particles": 2},
        {"guide": pr.guides.LowRankGuide},
        {"model": make_model(weight_prior=priors.GaussianWeights())},
        {"model": make_model(granularity=("input", "unit", "weight"))},
        {"model": make_model(gate_prior=priors.HierarchicalPrior())},
        {"model": make_model(likelihood=likelihoods.StudentT())},
        {"model": make_model(relaxation=pr.relaxations.HardConcreteGate())},
        {"model": make_model(make_network(batch_norm=True))},
        {
            "model": test_precision.make_model(),
            "data": test_precision.images(),
            "augment": InOrder((RandomCrop(1), RandomFlip())),
            "precision": test_precision.FAST,
            "noise": "per_example",
        },
    ],
    ids=str,
)
def test_a_step_never_waits_for_the_device(captured, settings):
    run = captured(**settings)
    with local_pyro():
        run.take_step()
        with Waits() as waits:
            for _ in range(4):
                run.step += 1
                run.take_step()
    assert waits.found == []


@pytest.mark.exact
def test_the_counter_of_waits_counts():
    with Waits() as waits:
        torch.ones(()).item()
        bool(torch.ones(()) > 0)
        torch.tensor([1.0])
    assert len(waits.found) == 3


@pytest.mark.exact
def test_records_are_evenly_spaced_and_the_schedules_are_followed():
    schedules = pr.schedules.Schedules(
        temperature=pr.schedules.linear(2.0, 0.5), kl_weight=pr.schedules.warmup(0.5, 0.1)
    )
    losses = []
    fit = quick_fit(
        num_epochs=200,
        num_chains=2,
        schedules=schedules,
        callbacks=[lambda state: losses.append(state.losses)],
    )
    history = fit.history
    assert fit.num_steps == 600
    assert history.step.tolist() == [*range(30, 601, 30)]
    blocks = torch.stack(losses, 1).double().view(2, 20, 30)
    torch.testing.assert_close(torch.from_numpy(history.loss), blocks.mean(-1))
    for index in (0, 5, 19):
        progress = (history.step[index] - 1) / 599
        assert history.temperature[index] == pytest.approx(2.0 - 1.5 * progress)
        assert history.kl_weight[index] == pytest.approx(min(1.0, 0.1 + 1.8 * progress))
    assert history.expected_size.shape == (2, 20)
    assert bool((history.expected_size > 0).all())
    assert bool((history.expected_size < 31).all())
    assert fit.posterior.model.temperature == pytest.approx(0.5)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("num_steps", "interval"),
    [(1, 1), (19, 1), (60, 3), (300, 15), (1000, 50), (10_000, 50), (20_000, 100)],
)
def test_short_runs_have_few_records_and_long_ones_two_hundred(num_steps, interval):
    assert interval_of_records(num_steps) == interval


@pytest.mark.exact
def test_a_record_copies_nothing_to_the_host(monkeypatch):
    def copied(*arguments):
        pytest.fail("the state was copied to the host")

    monkeypatch.setattr("pyro_relevance.training.run.to_host", copied)
    assert len(quick_fit(num_epochs=10).history.step) == 30


@pytest.mark.exact
def test_the_learning_rate_follows_its_schedule(captured):
    schedules = pr.schedules.Schedules(learning_rate=pr.schedules.linear(1.0, 0.0))
    run = captured(schedules=schedules, learning_rate=0.1, gate_learning_rate=0.4)
    with local_pyro():
        run.take_step()
        assert [group["lr"] for group in run.optimizer.param_groups] == [0.1, 0.4]
        run.step = run.num_steps - 1
        run.take_step()
        assert [group["lr"] for group in run.optimizer.param_groups] == [0.0, 0.0]


@pytest.mark.exact
def test_expected_size_without_gates_is_the_size():
    fit = quick_fit(make_model(gate_prior=None))
    assert bool((fit.history.expected_size == 31).all())


@pytest.mark.exact
def test_snapshot_and_restore(captured):
    run = captured(
        num_chains=2,
        noise="per_example",
        optimizer=lambda groups: torch.optim.SGD(groups, momentum=0.5, lr=1e-4),
    )
    with local_pyro():
        for _ in range(3):
            run.take_step()
            run.step += 1
        snapshot = run.snapshot()
        kept = {name: tensor.clone() for name, tensor in snapshot.items()}
        first = [run.take_step().clone() for _ in range(3)]
        assert same(snapshot, kept)  # copies: training goes on without touching them
        run.restore(snapshot)
        assert run.step == 3
        assert same(run.snapshot(), kept)
        again = [run.take_step() for _ in range(3)]
        assert same(snapshot, kept)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.contract
def test_states_of_optimisers():
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    optimizer.state[parameter] = {"count": 3, "rate": 0.1, "nothing": None, "on": True}
    state = optimizer_state(optimizer)
    fresh = torch.optim.SGD([parameter], lr=0.1)
    load_optimizer(fresh, state)
    assert fresh.state[parameter] == {"count": 3, "rate": 0.1, "on": True}
    optimizer.state[parameter] = {"old": [1]}
    with pytest.raises(TypeError, match="SGD keeps 'old' as list. Use another optimiser"):
        optimizer_state(optimizer)


# Losses that fail


def _is_finite(fit):
    return all(
        bool(tensor.isfinite().all())
        for tensor in fit.posterior.state.values()
        if tensor.is_floating_point()
    )


class BreaksLater(likelihoods.Gaussian):
    """A likelihood that returns NaN from its ``at``-th call on."""

    def __init__(self, at, value=float("nan")):
        super().__init__()
        self.at, self.value, self.calls = at, value, 0

    def forward(self, outputs):
        self.calls += 1
        return super().forward(outputs + (self.value if self.calls > self.at else 0.0))


class BreaksOnPurpose(nn.Module):
    """A network that returns NaN once its bias has moved away from where it was."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.register_buffer("start", self.layer.bias.detach().clone())

    def forward(self, x):
        moved = (self.layer.bias - self.start).abs().max() > 0.025
        return torch.where(moved, float("nan"), self.layer(x))


def _broken_model():
    network = BreaksOnPurpose()
    edges = pr.find_edges(nn.Sequential(nn.Linear(4, 1)), granularity="input")
    slot = type(edges.groups[0].consumers[0])("layer.weight", 1, None)
    group = type(edges.groups[0])("inputs", "input", (4,), tuple("abcd"), (slot,))
    shapes = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    return pr.RelevanceModel(
        network,
        type(edges)((group,), (), shapes, ("start",)),
        likelihood=likelihoods.Gaussian(),
        num_data=48,
    )


@pytest.mark.exact
@pytest.mark.parametrize("num_chains", [1, 2])
@pytest.mark.parametrize(("num_epochs", "rate"), [(6, 0.01), (400, 0.002)])
def test_nan_names_the_site_and_keeps_the_last_good_state(tmp_path, num_chains, num_epochs, rate):
    where = Checkpoint(tmp_path / "run", interval=1e6)
    with pytest.raises(DivergenceError) as caught:
        quick_fit(
            _broken_model(),
            num_chains=num_chains,
            num_epochs=num_epochs,
            learning_rate=rate,
            checkpoint=where,
            initial_weights="network",
        )
    error = caught.value
    assert error.site == "y"
    assert 0.025 / rate - 1 <= error.step <= 100  # about one rate in each step
    chain = r" of chain [01]" if num_chains == 2 else ""
    text = rf"loss, but site 'y'{chain} was not at step {error.step}\. The state of step \d+ was"
    assert re.search(text, str(error))
    assert "Use a smaller learning rate, scale the inputs and targets" in str(error)
    fit = error.fit
    assert _is_finite(fit)
    interval = interval_of_records(3 * num_epochs)
    assert fit.num_steps == error.step // interval * interval
    assert fit.history.step.tolist() == [*range(interval, fit.num_steps + 1, interval)]
    x, _ = regression(3)
    assert fit.posterior.sample(2).gates["inputs"].shape == (num_chains, 2, 4)
    assert fit.posterior.model.noise == "shared"
    tensors, description = read_tensors(where.path)
    assert description["step"] == int(tensors["run/step"]) == fit.num_steps
    state = {n.removeprefix("program/"): t for n, t in tensors.items() if n.startswith("program/")}
    assert same(state, fit.posterior.state)


@pytest.mark.exact
@pytest.mark.parametrize("num_chains", [1, 2])
def test_a_huge_learning_rate(num_chains):
    with pytest.raises(DivergenceError, match="Expected a finite, bounded loss") as caught:
        quick_fit(
            num_epochs=40,
            num_chains=num_chains,
            learning_rate=1e4,
            optimizer=torch.optim.SGD,
        )
    error = caught.value
    assert error.site.startswith(("model.", "y", "weight_prior"))
    assert _is_finite(error.fit)
    assert error.fit.num_steps <= error.step


@pytest.mark.exact
def test_a_loss_that_explodes_but_stays_finite():
    def throw(state):
        if state.step == 10:
            with torch.no_grad():
                for parameter in state.model.network.parameters():
                    parameter.mul_(1e5)

    with pytest.raises(DivergenceError) as caught:
        quick_fit(callbacks=[throw], num_epochs=10)
    error = caught.value
    assert error.step >= 10
    assert error.fit.num_steps == 10
    assert error.site in ("y", "weight_prior")


@pytest.mark.exact
def test_parameters_that_break_in_the_last_step():
    class Breaks(torch.optim.SGD):
        calls = 0

        def step(self, closure=None):
            super().step(closure)
            Breaks.calls += 1
            if Breaks.calls >= 18:
                with torch.no_grad():
                    self.param_groups[0]["params"][0].fill_(float("inf"))

    with pytest.raises(DivergenceError, match="parameter 'model.network.0.weight' was not at step"):
        quick_fit(optimizer=lambda groups: Breaks(groups, lr=1e-4), learning_rate=1e-4)


@pytest.mark.exact
def test_a_likelihood_that_breaks_after_some_calls():
    # The first call checks shapes, then one for each step.
    with pytest.raises(DivergenceError) as caught:
        quick_fit(make_model(likelihood=BreaksLater(12)))
    error = caught.value
    assert error.site == "y"
    assert _is_finite(error.fit)
    assert 0 < error.fit.num_steps <= error.step


@pytest.mark.contract
def test_callbacks_are_closed_and_restored_when_a_loss_fails():
    closed = []

    class Closes:
        def __call__(self, state):
            return None

        def close(self):
            closed.append(True)

    stop = pr.callbacks.EarlyStopping(regression(20, seed=1), interval=1, start=0.0)
    with pytest.raises(DivergenceError) as caught:
        quick_fit(_broken_model(), callbacks=[Closes(), stop], num_epochs=400)
    assert closed == [True]
    fit = caught.value.fit
    if fit.held_out_elbo is not None:
        assert bool(fit.held_out_elbo.isfinite().all())
        assert int(stop.best_step) <= fit.num_steps
    assert _is_finite(fit)
