"""The expected size of a run is that of the posterior, recorded or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pyro_relevance.posterior import relevance
from pyro_relevance.training.programs import sizes
from tests.small_fits import make_model, quick_fit

MODELS = {
    "units": {},
    "weights": {"granularity": ("input", "weight")},
    "no gates": {"gate_prior": None},
}


@pytest.mark.exact
@pytest.mark.parametrize("num_chains", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_a_recorded_size_is_the_same(monkeypatch, name, num_chains):
    settings = {"num_chains": num_chains, "num_epochs": 80}
    replayed = []

    class Counted(sizes.SizeOfProgram):
        def __call__(self):
            replayed.append(self._calls >= 4 and self._replay is not None)
            return super().__call__()

    monkeypatch.setattr("pyro_relevance.training.run.SizeOfProgram", Counted)
    plain = quick_fit(make_model(**MODELS[name]), **settings)
    assert not any(replayed)  # of few records
    monkeypatch.setattr(sizes, "_WORTH", 1)
    fit = quick_fit(make_model(**MODELS[name]), **settings)
    assert sum(replayed) == 20 - 4
    assert (fit.history.expected_size == plain.history.expected_size).all()
    assert name == "no gates" or len(np.unique(fit.history.expected_size)) > 15


@pytest.mark.exact
def test_the_size_is_that_of_the_posterior(monkeypatch):
    monkeypatch.setattr(sizes, "_WORTH", 1)
    fit = quick_fit(num_epochs=80, num_chains=2)
    posterior = fit.posterior
    expected = relevance.expected_size(posterior.inclusion_probability(), posterior.model.edges)
    found = torch.from_numpy(fit.history.expected_size[:, -1])
    torch.testing.assert_close(found, expected.num_parameters)


@pytest.mark.contract
def test_a_guide_that_knows_no_probabilities():
    from pyro.infer.autoguide import AutoNormal

    fit = quick_fit(guide=AutoNormal)
    assert np.isnan(fit.history.expected_size).all()
