"""Settings as frozen values, and the flat keywords that override their fields."""

from __future__ import annotations

import inspect
import pydoc
from dataclasses import FrozenInstanceError, fields, replace

import pyro
import pytest
import torch

import pyro_relevance as pr
from pyro_relevance.training.plain import train_plain
from pyro_relevance.training.settings import (
    Estimation,
    Execution,
    FitKeywords,
    FitSettings,
    Optimisation,
    PlainKeywords,
)

PARTS = (Optimisation, Estimation, Execution)
CALLS = (pr.fit, pr.fine_tune, train_plain)


def problem() -> tuple[pr.RelevanceModel, tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    x = torch.randn(32, 3)
    network = pr.networks.MLP(3, [4], 1)
    edges = pr.find_edges(network, granularity="input")
    model = pr.RelevanceModel(
        network, edges, likelihood=pr.likelihoods.Gaussian(0.5), num_data=len(x)
    )
    return model, (x, x[:, 0])


def test_each_field_has_one_keyword_and_each_keyword_one_field() -> None:
    names = [field.name for part in PARTS for field in fields(part)]
    assert sorted(names) == sorted(FitKeywords.__annotations__)
    own = set(Estimation.__dataclass_fields__) | {"gate_learning_rate"}
    assert set(PlainKeywords.__annotations__) == set(names) - own


@pytest.mark.parametrize("call", CALLS)
def test_a_call_has_at_most_twelve_keywords_of_its_own(call: object) -> None:
    assert callable(call)
    parameters = inspect.signature(call).parameters.values()
    assert sum(p.kind is p.KEYWORD_ONLY for p in parameters) <= 12


def test_the_help_of_fit_names_every_keyword() -> None:
    text = pydoc.plain(pydoc.render_doc(pr.fit))
    assert not [name for name in FitKeywords.__annotations__ if name not in text]


def test_values_and_keywords_give_the_same_run() -> None:
    model, data = problem()
    by_keywords = pr.fit(
        model, data, num_epochs=3, batch_size=8, learning_rate=0.01, num_particles=2, replay=False
    )
    by_values = pr.fit(
        model,
        data,
        optimisation=Optimisation(num_epochs=3, batch_size=8, learning_rate=0.01),
        estimation=Estimation(num_particles=2),
        execution=Execution(replay=False),
    )
    assert by_keywords.num_steps == by_values.num_steps == 12
    one, other = by_keywords.posterior.state, by_values.posterior.state
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_keyword_overrides_the_field_of_its_name_and_leaves_the_others() -> None:
    settings = FitSettings(Optimisation(num_epochs=7, batch_size=None))
    changed = settings.updated({"num_epochs": 2, "noise": "per_example", "device": "cpu"})
    assert changed.optimisation == Optimisation(num_epochs=2, batch_size=None)
    assert changed.estimation == Estimation(noise="per_example")
    assert changed.execution == Execution(device="cpu")
    assert settings.optimisation.num_epochs == 7


@pytest.mark.parametrize("call", CALLS)
def test_an_unknown_keyword_is_answered_by_the_known_ones(call: object) -> None:
    model, data = problem()
    assert callable(call)
    more = {} if call is pr.fit else {"likelihood": model.likelihood, "num_data": 32}
    with pytest.raises(TypeError, match=r"from \['batch_size', .* unexpected .* 'epochs'"):
        call(model.network if more else model, data, **more, epochs=3)


def test_training_without_gates_does_not_accept_settings_of_gates() -> None:
    model, data = problem()
    keywords = {"gate_learning_rate": 0.1}
    with pytest.raises(TypeError, match=r"train_plain\(\) .* 'gate_learning_rate'"):
        train_plain(model.network, data, likelihood=model.likelihood, num_data=32, **keywords)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("part", "keywords", "error", "text"),
    [
        (Optimisation, {"num_epochs": 0}, ValueError, "num_epochs > 0 and finite, but got 0"),
        (Optimisation, {"num_epochs": True}, ValueError, "num_epochs to be a number, but got True"),
        (Optimisation, {"num_epochs": "2"}, ValueError, "num_epochs to be a number, but got '2'"),
        (Optimisation, {"max_seconds": 0.0}, ValueError, "max_seconds > 0, but got 0.0"),
        (Optimisation, {"batch_size": True}, ValueError, "batch_size to be a positive integer"),
        (Optimisation, {"learning_rate": 0.0}, ValueError, "learning_rate > 0 and finite"),
        (Optimisation, {"gate_learning_rate": float("inf")}, ValueError, "gate_learning_rate > 0"),
        (Estimation, {"num_particles": 0}, ValueError, "num_particles to be a positive integer"),
        (Estimation, {"elbo": "elbo"}, TypeError, "Expected an ELBO such as"),
        (
            Estimation,
            {"elbo": pyro.infer.Trace_ELBO(num_particles=2)},
            ValueError,
            "ELBO of one particle, but got num_particles=2",
        ),
    ],
)
def test_settings_are_checked_where_they_are_made(
    part: type, keywords: dict[str, object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        part(**keywords)
    with pytest.raises(error, match=text):
        replace(part(), **keywords)


def test_settings_are_frozen_and_compared_by_value() -> None:
    for part in PARTS:
        assert part() == part()
        with pytest.raises(FrozenInstanceError):
            setattr(part(), fields(part)[0].name, None)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("steps_per_epoch", "epochs"), [(1, 5000), (4, 1250), (50, 100), (469, 100)]
)
def test_small_data_are_seen_as_often_as_a_run_needs(steps_per_epoch: int, epochs: float) -> None:
    completed = Optimisation().completed(steps_per_epoch, points=True)
    assert completed.num_epochs == epochs
    assert completed.num_steps(steps_per_epoch) == max(5000, 100 * steps_per_epoch)
    given = Optimisation(num_epochs=3).completed(steps_per_epoch, points=True)
    assert given.num_epochs == 3


@pytest.mark.exact
def test_weights_with_a_posterior_take_larger_steps() -> None:
    assert Optimisation().completed(1, points=True).learning_rate == 1e-3
    assert Optimisation().completed(1, points=False).learning_rate == 1e-2
    assert Optimisation(learning_rate=0.5).completed(1, points=False).learning_rate == 0.5


@pytest.mark.exact
def test_a_rate_of_the_librarys_own_falls_in_the_end() -> None:
    falls = Optimisation().completed(1, points=False).schedules.learning_rate
    assert [falls(0.0), falls(0.5)] == [1.0, 1.0]
    assert falls(1.0) == pytest.approx(0.01)
    for kept in (
        Optimisation().completed(1, points=True),
        Optimisation(learning_rate=0.01).completed(1, points=False),
    ):
        assert kept.schedules.learning_rate(1.0) == 1.0
    own = pr.schedules.Schedules(learning_rate=pr.schedules.cosine(1.0, 0.5))
    assert Optimisation(schedules=own).completed(1, points=False).schedules == own


@pytest.mark.contract
def test_fit_fills_in_what_was_not_given() -> None:
    model, data = problem()
    assert pr.fit(model, data, progress=False).num_steps == 5000


def test_the_identity_of_a_run_is_that_of_checkpoints_before_settings_were_values() -> None:
    assert FitSettings().completed(50, points=True).identity() == {
        "num_epochs": 100,
        "batch_size": 128,
        "learning_rate": 1e-3,
        "gate_learning_rate": 3e-2,
        "noise": "shared",
        "num_particles": 1,
        "elbo": "NoneType",
    }
    precise = FitSettings(execution=Execution(precision=pr.Precision(channels_last=True)))
    assert precise.identity()["precision"] == "Precision(autocast=None, channels_last=True)"
