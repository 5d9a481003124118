"""Every figure of a posterior takes the objects of both generations of ArviZ."""

from __future__ import annotations

import pytest
import xarray as xr

from pyro_relevance import plots
from pyro_relevance.posterior.arviz import convert as report
from tests.fake_posterior import fake_data, fake_posterior

DRAWN = {
    "before_after": plots.before_after,
    "calibration": plots.calibration,
    "effect_inclusion": plots.effect_inclusion,
    "gate_correlation": plots.gate_correlation,
    "network": plots.network,
    "observed_predicted": plots.observed_predicted,
    "relevance": plots.relevance,
    "stability": plots.stability,
    "training": plots.training,
}


@pytest.fixture(scope="module")
def both():
    """The same posterior as groups of either generation."""
    posterior = fake_posterior()
    x, y = fake_data(posterior)
    idata = report.to_arviz(posterior, predictions=(x, y.squeeze(-1)), num_samples=20)
    names = idata.children if hasattr(idata, "children") else idata.groups()
    groups = {name: report._as_dataset(idata[name]) for name in names}
    return Mapped(groups), xr.DataTree.from_dict(groups)


class Mapped(dict):
    """Datasets by the name of their group, as in ``InferenceData``."""

    def groups(self):
        return list(self)


@pytest.mark.contract
@pytest.mark.parametrize("name", DRAWN)
def test_both_generations_give_the_same_figure(both, name):
    first, second = (DRAWN[name](idata) for idata in both)
    assert plots.caption(first) == plots.caption(second) != ""
    assert plots.as_png(first, dots=(60,)) == plots.as_png(second, dots=(60,))
