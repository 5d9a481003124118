"""Settings of a search, and the trainings that they describe."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pyro_relevance.model.relaxations import Mixture, SampledPath
from pyro_relevance.search import SearchSettings

CELLS = SearchSettings(shared=True, num_epochs_after=5, num_effective=50, num_epochs=7)


def test_a_joint_search_anneals_and_is_not_tempered() -> None:
    settings = SearchSettings(num_epochs=9, batch_size=16, learning_rate=0.02)
    search = settings.search_optimisation(1000)
    assert (search.num_epochs, search.batch_size, search.learning_rate) == (9, 16, 0.02)
    assert search.gate_learning_rate == settings.gate_learning_rate
    assert search.max_seconds == math.inf
    timed = replace(settings, max_seconds=20.0, search_share=0.25)
    assert timed.search_optimisation(1000).max_seconds == 5.0
    schedules = search.schedules
    assert schedules.temperature(0.0) == 1.0
    assert schedules.temperature(1.0) == pytest.approx(0.1)
    assert schedules.kl_weight(0.5) == settings.strength(1000) == 1.0
    assert isinstance(settings.operation_relaxation, Mixture)


def test_evidence_under_shared_weights_counts_as_that_of_fewer_examples() -> None:
    assert CELLS.strength(200) == 4.0
    assert CELLS.strength(10) == 1.0
    assert CELLS.search_optimisation(200).schedules.kl_weight(1.0) == 4.0


def test_paths_and_mixtures_are_relaxed_in_their_own_ways() -> None:
    assert CELLS.along_paths
    assert isinstance(CELLS.operation_relaxation, SampledPath)
    mixed = SearchSettings(shared=True, num_epochs_after=5, evaluation="mixture")
    assert not mixed.along_paths
    assert isinstance(mixed.operation_relaxation, Mixture)
    assert mixed.search_optimisation(10).schedules.temperature(1.0) == 1.0


def test_the_structure_rests_while_the_weights_warm_up() -> None:
    factor = SearchSettings(warm_up=0.25).search_optimisation(10).schedules.gate_learning_rate
    assert [factor(progress) for progress in (0.0, 0.24, 0.3)] == [0.0, 0.0, 1.0]


def test_derived_networks_are_trained_by_a_falling_rate() -> None:
    training = CELLS.training_optimisation(3)
    assert (training.num_epochs, training.learning_rate) == (3, CELLS.learning_rate)
    assert training.schedules.learning_rate(1.0) == pytest.approx(0.01)
    assert CELLS.weight_prior.scale == CELLS.weight_scale


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"warm_up": 1.0}, r"warm_up in \[0, 1\), but got 1.0"),
        ({"held_out": 0.0}, r"held_out in \(0, 1\), but got 0.0"),
        ({"search_share": 1.0}, r"search_share in \(0, 1\), but got 1.0"),
        ({"max_seconds": 0.0}, "max_seconds > 0, but got 0.0"),
        ({"num_candidates": 0}, "num_candidates >= 1, but got 0"),
        ({"evaluation": "all"}, "evaluation from .* got 'all'"),
        ({"num_epochs_trial": 0}, "num_epochs_trial > 0, but got 0"),
        ({"shared": True}, "num_epochs_after >= 1 where shared=True"),
    ],
)
def test_settings_out_of_range(keywords: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        SearchSettings(**keywords)
