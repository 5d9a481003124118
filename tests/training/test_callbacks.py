"""Callbacks: progress, early stopping, and callbacks of the user's own."""

from __future__ import annotations

import io
import logging
import sys
from types import SimpleNamespace

import pytest
import torch

import pyro_relevance as pr
from pyro_relevance.training import callbacks as callbacks_module
from pyro_relevance.training.callbacks import EarlyStopping, ProgressBar, TensorBoard, every
from tests.small_fits import make_model, quick_fit, regression, same


class Recorder:
    """Keeps the steps at which it was called, and whether it was closed."""

    def __init__(self, stop_at=None):
        self.steps = []
        self.closed = 0
        self.stop_at = stop_at

    def __call__(self, state):
        self.steps.append(state.step)
        return state.step == self.stop_at

    def close(self):
        self.closed += 1


@pytest.mark.exact
def test_a_callback_sees_every_step():
    seen = []
    fit = quick_fit(num_chains=2, callbacks=[seen.append])
    assert [state.step for state in seen] == list(range(1, 19))
    first = seen[0]
    assert first.num_steps == fit.num_steps == 18
    assert first.losses.shape == (2,)
    assert not first.losses.requires_grad
    assert first.loss == pytest.approx(float(first.losses.mean()))
    assert first.temperature == 1.0
    assert seen[-1].temperature == pytest.approx(0.1)
    assert seen[-1].kl_weight == 1.0
    assert seen[-1].history.step[-1] == 18
    assert isinstance(first.model, pr.RelevanceModel)
    assert same(seen[-1].make_posterior().state, fit.posterior.state)


@pytest.mark.exact
def test_a_callback_stops_the_run_after_all_have_seen_the_step():
    stopping, after = Recorder(stop_at=7), Recorder()
    fit = quick_fit(callbacks=[stopping, after])
    assert fit.num_steps == 7
    assert after.steps == stopping.steps == [1, 2, 3, 4, 5, 6, 7]
    assert fit.history.step[-1] == 7
    assert stopping.closed == after.closed == 1


@pytest.mark.exact
def test_a_stop_between_two_records_is_recorded():
    fit = quick_fit(num_epochs=30, callbacks=[Recorder(stop_at=7)])  # a record each 4 steps
    assert fit.history.step.tolist() == [4, 7]
    assert fit.history.loss.shape == (1, 2)


@pytest.mark.exact
def test_the_result_of_a_callback_may_be_a_tensor():
    fit = quick_fit(callbacks=[lambda state: state.losses.isfinite().all()])
    assert fit.num_steps == 1


@pytest.mark.exact
def test_every_calls_now_and_then_and_at_the_end():
    inner = Recorder()
    quick_fit(callbacks=[every(7, inner)])
    assert inner.steps == [7, 14, 18]
    assert inner.closed == 1
    stopping = Recorder(stop_at=14)
    assert quick_fit(callbacks=[every(7, every(2, stopping))]).num_steps == 14


@pytest.mark.exact
def test_every_hands_on_the_state_of_a_callback():
    valid = regression(20, seed=1)
    settings = {"interval": 3, "start": 0.0, "num_samples": 2}
    plain, wrapped = EarlyStopping(valid, **settings), EarlyStopping(valid, **settings)
    first, second = quick_fit(callbacks=[plain]), quick_fit(callbacks=[every(1, wrapped)])
    assert torch.equal(first.held_out_elbo, second.held_out_elbo)
    assert same(every(3, wrapped).state(), wrapped.state())
    assert not hasattr(every(3, lambda state: None), "state")
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        _ = every(3, wrapped).other


@pytest.mark.contract
@pytest.mark.parametrize("num_steps", [0, -3, 1.5, True])
def test_every_checks_its_interval(num_steps):
    with pytest.raises(ValueError, match="num_steps to be a positive integer, but got"):
        every(num_steps, lambda state: None)


# Early stopping


@pytest.mark.exact
@pytest.mark.parametrize("num_chains", [1, 3])
def test_early_stopping_keeps_the_best_state_of_each_chain(num_chains):
    valid = regression(20, seed=1)
    states, values = [], []

    def look(state):
        if state.step % 5 == 0 and state.step >= 10:
            posterior = state.make_posterior()
            states.append(posterior.state)
            values.append(posterior.elbo(*valid, num_samples=4))

    stop = EarlyStopping(valid, interval=5, start=0.2, num_samples=4, patience=100)
    fit = quick_fit(num_chains=num_chains, num_epochs=15, learning_rate=0.3, callbacks=[look, stop])
    best = torch.stack(values).max(0)
    torch.testing.assert_close(fit.held_out_elbo, best.values, rtol=0, atol=0)
    assert torch.equal(stop.best_step, 10 + 5 * best.indices)
    for chain, index in enumerate(best.indices):
        expected = {name: tensor[chain : chain + 1] for name, tensor in states[index].items()}
        assert same(fit.posterior.chain(chain).state, expected)
    again = fit.posterior.elbo(*valid, num_samples=4)
    torch.testing.assert_close(again, fit.held_out_elbo, rtol=0, atol=0)
    assert fit.best_chain == int(fit.held_out_elbo.argmax())


@pytest.mark.exact
@pytest.mark.parametrize(
    ("start", "looked"),
    [(0.0, [2, 4, 6, 8, 10, 12, 14, 16, 18]), (0.5, [10, 12, 14, 16, 18]), (0.9, [18])],
)
def test_early_stopping_looks_at_nothing_before_its_start(start, looked, monkeypatch):
    steps, evaluated = [], []
    elbo = pr.Posterior.elbo

    def counted(self, *arguments, **settings):
        evaluated.append(steps[-1])
        return elbo(self, *arguments, **settings)

    monkeypatch.setattr(pr.Posterior, "elbo", counted)
    stop = EarlyStopping(regression(20, seed=1), interval=2, start=start, num_samples=2)
    fit = quick_fit(callbacks=[lambda state: steps.append(state.step), stop])
    assert fit.num_steps == 18
    assert evaluated == looked


@pytest.mark.exact
def test_early_stopping_stops_when_patience_is_at_its_end():
    # Nothing improves: the first evaluation is that of the weights that made the data.
    stop = EarlyStopping(regression(40), interval=2, start=0.0, patience=3, num_samples=2)
    fit = quick_fit(num_epochs=60, learning_rate=1e-12, gate_learning_rate=1e-12, callbacks=[stop])
    assert fit.num_steps in (8, 10, 12, 14)
    assert int(stop.best_step) == fit.num_steps - 6


@pytest.mark.exact
def test_early_stopping_always_looks_at_the_last_step():
    stop = EarlyStopping(regression(20, seed=1), interval=1000)
    fit = quick_fit(callbacks=[stop])
    assert int(stop.best_step) == fit.num_steps
    assert fit.held_out_elbo is not None


@pytest.mark.exact
def test_early_stopping_may_be_used_again():
    stop = EarlyStopping(regression(20, seed=1), interval=3, start=0.0, num_samples=2)
    first = quick_fit(callbacks=[stop], seed=1)
    quick_fit(callbacks=[stop], learning_rate=0.1)
    again = quick_fit(callbacks=[stop], seed=1)
    assert same(first.posterior.state, again.posterior.state)
    assert torch.equal(first.held_out_elbo, again.held_out_elbo)


@pytest.mark.exact
def test_early_stopping_leaves_the_course_of_training_alone():
    plain = quick_fit(noise="per_example", num_chains=2)
    stop = EarlyStopping(regression(20, seed=1), interval=1, start=0.0)
    watched = quick_fit(noise="per_example", num_chains=2, callbacks=[stop])
    assert (plain.history.loss == watched.history.loss).all()


@pytest.mark.exact
def test_early_stopping_passes_over_values_that_are_not_finite():
    class Fake:
        def __init__(self, value):
            self.value = value
            self.state = {"model.w": torch.tensor([[value]])}

        def elbo(self, x, y, num_samples):
            return torch.tensor([self.value])

    stop = EarlyStopping(regression(4), interval=1, start=0.0)
    for step, value in enumerate([float("nan"), -5.0, float("inf")], start=1):
        fake = Fake(value)
        state = pr.callbacks.TrainingState(
            step, 10, torch.zeros(1), 1.0, 1.0, None, None, lambda fake=fake: fake
        )
        assert not stop(state)
    assert stop.best_elbo.tolist() == [-5.0]
    assert stop.best_state["model.w"].tolist() == [[-5.0]]


@pytest.mark.contract
@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"patience": 0}, "patience, interval and num_samples >= 1, but got 0, 100, 16"),
        ({"interval": 0}, "but got 10, 0, 16"),
        ({"num_samples": 0}, "but got 10, 100, 0"),
        ({"start": 1.0}, r"start in \[0, 1\), a fraction of the run, but got 1.0"),
        ({"start": -0.1}, "but got -0.1"),
    ],
)
def test_early_stopping_checks_its_settings(settings, text):
    with pytest.raises(ValueError, match=text):
        EarlyStopping(regression(4), **settings)


# Progress bar


@pytest.fixture
def bars(monkeypatch):
    """Keep every bar that is made."""
    import tqdm.auto

    made = []
    original = tqdm.auto.tqdm

    class Bar(original):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            self.num_closed = 0
            made.append(self)

        def close(self):
            self.num_closed = getattr(self, "num_closed", 0) + 1
            super().close()

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    return made


@pytest.mark.contract
def test_progress_is_written_to_the_error_stream_only(capsys, bars):
    quick_fit(callbacks=[ProgressBar("training", bar=True)])
    out, err = capsys.readouterr()
    assert out == ""
    for text in ("training: 100%", "18/18", "ELBO=-", "temperature=0.10", "parameters="):
        assert text in err
    assert [bar.disable for bar in bars] == [True]  # tqdm's mark of a closed bar


@pytest.mark.contract
def test_progress_bar_is_closed_when_a_run_stops_early(bars):
    quick_fit(callbacks=[every(1, ProgressBar(bar=True)), Recorder(stop_at=4)])
    assert [bar.disable for bar in bars] == [True]
    assert bars[0].n < 18


@pytest.mark.contract
@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_progress_bar_is_closed_on_an_exception(bars, error):
    def fail(state):
        if state.step == 5:
            raise error

    with pytest.raises(type(error)):
        quick_fit(callbacks=[ProgressBar(bar=True), fail])
    assert [bar.disable for bar in bars] == [True]


@pytest.mark.contract
def test_progress_bar_reads_the_loss_seldom(monkeypatch):
    reads = []
    original = pr.callbacks.TrainingState.loss
    monkeypatch.setattr(
        pr.callbacks.TrainingState,
        "loss",
        property(lambda state: reads.append(state.step) or original.fget(state)),
    )
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    quick_fit(num_epochs=10, callbacks=[ProgressBar(num_updates=5, bar=True)])
    assert reads == [6, 12, 18, 24, 30]


@pytest.mark.contract
def test_progress_bar_may_be_used_again_and_without_gates(monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    bar = ProgressBar(bar=True)
    quick_fit(make_model(gate_prior=None), callbacks=[bar])
    quick_fit(guide=pyro_autonormal, callbacks=[bar])  # tells no gate probabilities
    ends = [line for line in stream.getvalue().split("\n") if line]
    assert [end.rsplit("\r", 1)[-1].count("18/18") for end in ends] == [1, 1]
    assert "nan" not in stream.getvalue()
    with pytest.raises(ValueError, match="num_updates >= 1, but got 0"):
        ProgressBar(num_updates=0)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def logged():
    """Keep what the library logs."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("pyro_relevance")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.mark.contract
def test_a_fit_shows_its_progress_in_a_terminal_unless_it_shall_not(monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    quick_fit()
    assert "fit: 100%" in stream.getvalue()
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    quick_fit(progress=False)
    assert stream.getvalue() == ""
    quick_fit(callbacks=[every(1, ProgressBar("own"))])
    assert "own: 100%" in stream.getvalue()
    assert "fit:" not in stream.getvalue()


@pytest.mark.contract
def test_a_file_gets_a_line_a_minute_without_carriage_returns(monkeypatch, logged):
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    clock = iter(range(0, 10_000, 7))
    own = SimpleNamespace(monotonic=lambda: float(next(clock)))
    monkeypatch.setattr(callbacks_module, "time", own)
    quick_fit(callbacks=[ProgressBar("long")])  # 18 steps of seven seconds
    assert stream.getvalue() == ""
    assert len(logged) == 1
    assert logged[0].startswith("long: step 10 of 18 (56%), ELBO -")
    assert logged[0].endswith(", about 56 s to go")
    assert "\r" not in logged[0]
    with pytest.raises(ValueError, match="seconds > 0, but got 0"):
        ProgressBar(seconds=0)


@pytest.mark.contract
def test_short_fits_in_a_file_say_nothing(monkeypatch, logged):
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    quick_fit()
    assert (stream.getvalue(), logged) == ("", [])


class Writer:
    def __init__(self):
        self.scalars = {}
        self.closed = False

    def add_scalar(self, tag, value, step):
        self.scalars.setdefault(tag, []).append((step, value))

    def close(self):
        self.closed = True


@pytest.mark.exact
def test_tensorboard_gets_the_numbers_of_each_chain():
    writer, seen = Writer(), {}

    def keep(state):
        seen[state.step] = state.losses.tolist(), state.temperature

    quick_fit(num_chains=2, callbacks=[TensorBoard(writer, interval=7), keep])
    steps = [7, 14, 18]  # and the last one
    for chain in range(2):
        expected = [(step, seen[step][0][chain]) for step in steps]
        assert writer.scalars[f"negative ELBO/chain {chain}"] == expected
        assert [step for step, _ in writer.scalars[f"expected size/chain {chain}"]] == steps
    assert writer.scalars["temperature"] == [(step, seen[step][1]) for step in steps]
    assert not writer.closed
    with pytest.raises(ValueError, match="interval >= 1, but got 0"):
        TensorBoard(writer, interval=0)


@pytest.mark.contract
def test_a_folder_needs_tensorboard(tmp_path, monkeypatch):
    made = []

    class SummaryWriter(Writer):
        def __init__(self, folder):
            super().__init__()
            made.append((folder, self))

    package = SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", package)
    quick_fit(callbacks=[TensorBoard(tmp_path / "log")])
    ((folder, writer),) = made
    assert folder == str(tmp_path / "log")
    assert writer.closed
    assert writer.scalars
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"Install pyro-relevance\[tensorboard\]"):
        TensorBoard("log")


def pyro_autonormal(model):
    from pyro.infer.autoguide import AutoNormal

    return AutoNormal(model)
