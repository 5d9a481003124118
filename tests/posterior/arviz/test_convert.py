from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import sys
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
import xarray as xr

from pyro_relevance.errors import CheckpointError
from pyro_relevance.posterior import rule_path as _rule_path
from pyro_relevance.posterior.arviz import convert as report
from pyro_relevance.posterior.arviz import memory as _report_memory
from pyro_relevance.posterior.arviz import structure as _report_structure
from pyro_relevance.posterior.relevance import effect
from tests.fake_posterior import FEATURES, fake_data, fake_posterior
from tests.small_fits import quick_fit, regression

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    import arviz as az

MODERN = not importlib.metadata.version("arviz").startswith("0")
# ArviZ and numpy on columns that are constant within a chain, and ArviZ's calls of newer libraries
constants = pytest.mark.filterwarnings(
    "ignore::RuntimeWarning",
    "ignore:Your data appears to have a single value:UserWarning",
    "ignore:Estimated shape parameter of Pareto distribution:UserWarning",
    "ignore:Passing a dict or None as alias_mapping",
    "ignore:The inplace keyword in DataFrame.sort_values",
)


@pytest.fixture(autouse=True)
def _windowless():
    with mpl.rc_context({"backend": "agg"}):
        yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def posterior():
    return fake_posterior()


@pytest.fixture
def idata(posterior):
    return report.to_arviz(posterior, data=fake_data(posterior), num_samples=30, seed=4)


def groups_of(idata):
    return set(idata.children if MODERN else idata.groups())


def dataset(idata, name):
    return idata[name].to_dataset() if MODERN else idata[name]


def test_container_is_that_of_the_installed_arviz(idata):
    assert isinstance(idata, xr.DataTree if MODERN else az.InferenceData)
    assert groups_of(idata) == {
        "posterior",
        "point_estimates",
        "relevance",
        "relevance_summary",
        "prior",
        "posterior_predictive",
        "log_likelihood",
        "observed_data",
        "sample_stats",
    }


def test_posterior_holds_the_draws_of_the_seed(idata, posterior):
    draws = posterior.sample(30, seed=4)
    effects = effect(draws, posterior.edges)
    written = dataset(idata, "relevance")
    for group, stem in (("inputs", "inputs"), ("0.units", "layer_0_units")):
        assert written[f"{stem}_gate"].dims == ("chain", "draw", f"{stem}_edge")
        for quantity, values in (
            ("gate", draws.gates),
            ("inclusion_probability", draws.inclusion_probability),
            ("effect", effects),
        ):
            np.testing.assert_array_equal(written[f"{stem}_{quantity}"], values[group].numpy())
    assert written["inputs_edge"].to_numpy().tolist() == list(FEATURES)


def test_each_draw_has_memory_of_its_own(idata):
    probability = dataset(idata, "relevance")["inputs_inclusion_probability"]
    probability[0, 0, 0] = -1.0
    assert int((probability == -1.0).sum()) == 1


def test_joined_probability_names_group_and_label(idata):
    written = dataset(idata, "relevance")
    joined = written["inclusion_probability"]
    assert joined.dims == ("chain", "draw", "edge")
    assert joined.sizes["edge"] == 13 + 12
    np.testing.assert_array_equal(
        joined.sel(edge="inputs[RM]"), written["inputs_inclusion_probability"].sel(inputs_edge="RM")
    )
    assert "0.units[3]" in joined["edge"].to_numpy()


def test_prior_has_gates_and_probabilities_but_no_effect(idata):
    prior = dataset(idata, "prior")
    assert float(prior["inputs_inclusion_probability"].min()) == 0.5
    assert set(np.unique(prior["inputs_gate"])) == {0, 1}
    assert "inputs_effect" not in prior


def test_data_groups_agree_with_the_posterior(idata, posterior):
    x, y = fake_data(posterior)
    scored = posterior.log_likelihood(x, y, num_samples=30, seed=4)
    np.testing.assert_allclose(idata["log_likelihood"]["y"], scored.numpy(), rtol=1e-6)
    np.testing.assert_array_equal(idata["observed_data"]["y"], y[:, 0].numpy())
    predicted = idata["posterior_predictive"]["y"]
    assert predicted.dims == ("chain", "draw", "obs")
    assert predicted.shape == (2, 30, 20)


def test_several_targets_get_an_output_dim():
    posterior = fake_posterior((13, 5, 3))
    x, y = fake_data(posterior)
    idata = report.to_arviz(posterior, data=(x, y), num_samples=3)
    assert idata["posterior_predictive"]["y"].dims == ("chain", "draw", "obs", "output")
    assert idata["observed_data"]["y"].shape == (20, 3)
    assert idata["log_likelihood"]["y"].shape == (2, 3, 20)


def test_class_targets_stay_whole_numbers():
    posterior = fake_posterior((13, 5, 3), classes=True)
    idata = report.to_arviz(posterior, data=fake_data(posterior), num_samples=3)
    assert idata["posterior_predictive"]["y"].shape == (2, 3, 20)
    assert idata["observed_data"]["y"].dtype.kind == "i"


def test_history_has_units_and_every_chain(idata, posterior):
    stats = dataset(idata, "sample_stats")
    assert set(stats.data_vars) == {"loss", "temperature", "kl_weight", "expected_size"}
    assert all(stats[name].dims == ("chain", "step") for name in stats.data_vars)
    np.testing.assert_array_equal(stats["loss"], posterior.history.loss)
    np.testing.assert_array_equal(stats["temperature"][1], posterior.history.temperature)
    np.testing.assert_array_equal(stats["step"], posterior.history.step)
    assert stats["loss"].attrs["units"] == "nats"


def test_without_data_and_history_only_the_edges_are_written(posterior):
    posterior.history = None
    assert groups_of(report.to_arviz(posterior, num_samples=2)) == {
        *("posterior", "point_estimates", "relevance", "relevance_summary", "prior")
    }


def test_attributes_describe_library_and_network(idata, posterior):
    for name in groups_of(idata):
        assert idata[name].attrs["inference_library"] == "pyro_relevance"
        assert {"inference_library_version", "created_at"} <= set(idata[name].attrs)
    attrs = idata["relevance"].attrs
    inputs, units = json.loads(attrs["pyro_relevance_groups"])
    assert inputs["name"] == "inputs"
    assert inputs["consumers"] == [["0.weight", 1]]
    assert units["variable"] == "layer_0_units"
    assert ["0.weight", 0] in units["producers"]
    assert units["consumers"] == [["2.weight", 1]]
    assert json.loads(attrs["pyro_relevance_layers"]) == [
        {"tensor": "0.weight", "shape": [12, 13]},
        {"tensor": "2.weight", "shape": [1, 12]},
    ]


def test_groups_chooses_edge_groups(posterior):
    written = dataset(report.to_arviz(posterior, num_samples=2, groups=["inputs"]), "relevance")
    assert "layer_0_units_gate" not in written
    assert written.sizes["edge"] == 13


def test_weight_gates_are_flattened():
    posterior = fake_posterior((3, 2, 1), ("weight",))
    written = dataset(report.to_arviz(posterior, num_samples=2), "relevance")
    assert written["layer_0_weight_gate"].shape == (2, 2, 6)
    np.testing.assert_array_equal(
        written["layer_0_weight_gate"].to_numpy().reshape(2, 2, 2, 3),
        posterior.sample(2).gates["0.weight"].numpy(),
    )


def test_posterior_without_gates_has_effects_alone(posterior, monkeypatch):
    draws = posterior.sample(4)
    draws.gates = draws.inclusion_probability = {}
    monkeypatch.setattr(posterior, "sample", lambda *args, **kwargs: draws)
    idata = report.to_arviz(posterior, num_samples=4)
    written = dataset(idata, "relevance")
    assert set(written.data_vars) == {"inputs_effect", "layer_0_units_effect"}
    norm = posterior.network[0].weight.detach().square().sum(0).sqrt()
    np.testing.assert_allclose(written["inputs_effect"][0, 0], norm, rtol=1e-5)
    assert "prior" not in groups_of(idata)


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("inputs", "inputs_gate"),
        ("fc1.units", "fc1_units_gate"),
        ("0.weight", "layer_0_weight_gate"),
    ],
)
def test_variable_names_are_identifiers(group, name):
    assert report.variable_name(group, "gate") == name
    assert name.isidentifier()


def test_variables_can_be_selected_by_attribute(idata):
    gate = idata.relevance.layer_0_units_gate
    assert gate.sel(layer_0_units_edge="3").shape == (2, 30)


@pytest.mark.parametrize("num_chains", [1, 2])
@constants
def test_arviz_summarises_and_draws(num_chains):
    posterior = fake_posterior(num_chains=num_chains)
    idata = report.to_arviz(posterior, data=fake_data(posterior), num_samples=30)
    table = az.summary(idata, var_names=["inclusion_probability"], group="relevance")
    assert "inclusion_probability[inputs[RM]]" in table.index
    assert len(table) == 25
    edges, where = (idata, {"group": "relevance"}) if MODERN else (idata.relevance, {})
    az.plot_forest(edges, var_names=["inclusion_probability"], **where)
    az.plot_forest(edges, var_names=["inputs_gate", "layer_0_units_effect"], **where)
    trace = az.plot_trace_dist if MODERN else az.plot_trace
    for name in ("inclusion_probability", "inputs_gate", "inputs_effect"):
        trace(edges, var_names=[name], **where)
    trace(idata, var_names=["gate"])


@pytest.mark.parametrize("num_chains", [1, 2])
@constants
def test_arviz_compares_models(num_chains):
    posterior = fake_posterior(num_chains=num_chains)
    full = report.to_arviz(posterior, data=fake_data(posterior), num_samples=30)
    other = report.to_arviz(posterior, data=fake_data(posterior), num_samples=30, seed=1)
    loo = az.loo(full)
    elpd = loo.elpd if MODERN else loo.elpd_loo
    scored = full["log_likelihood"]["y"].to_numpy()
    pointwise = np.log(np.exp(scored).mean(axis=(0, 1))).sum()
    # leaving a datum out cannot help, and costs little where draws hardly differ
    assert pointwise - 3 < elpd <= pointwise + 1e-6
    assert set(az.compare({"full": full, "other": other}).index) == {"full", "other"}


def test_netcdf_round_trip_is_exact(idata, tmp_path):
    report.save(idata, tmp_path / "fit.nc")
    again = report.load(tmp_path / "fit.nc")
    assert type(again) is type(idata)
    assert groups_of(again) == groups_of(idata)
    for name in groups_of(idata):
        xr.testing.assert_identical(dataset(again, name), dataset(idata, name))
    assert os.listdir(tmp_path) == ["fit.nc"]


def test_arviz_reads_and_writes_the_same_files(idata, tmp_path):
    report.save(idata, tmp_path / "fit.nc")
    with warnings.catch_warnings():  # xarray adds a filter whenever it decodes
        theirs = az.from_netcdf(tmp_path / "fit.nc")
    np.testing.assert_array_equal(
        theirs["relevance"]["inputs_gate"], idata["relevance"]["inputs_gate"]
    )
    theirs.close()
    idata.to_netcdf(tmp_path / "theirs.nc")
    xr.testing.assert_identical(
        dataset(report.load(tmp_path / "theirs.nc"), "posterior"), dataset(idata, "posterior")
    )


@pytest.mark.parametrize("failure", [OSError("no space left on device"), KeyboardInterrupt()])
def test_failed_write_leaves_the_previous_file(idata, tmp_path, monkeypatch, failure):
    report.save(idata, tmp_path / "fit.nc")
    before = (tmp_path / "fit.nc").read_bytes()

    def fail(self, path, **kwargs):
        path.write_bytes(b"half")
        raise failure

    monkeypatch.setattr(xr.DataTree, "to_netcdf", fail)
    with pytest.raises(type(failure)):
        report.save(idata, tmp_path / "fit.nc")
    assert (tmp_path / "fit.nc").read_bytes() == before
    assert os.listdir(tmp_path) == ["fit.nc"]


def test_damaged_and_missing_files_say_so(idata, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"Expected a netCDF file at .*fit\.nc, but got none"
    ):
        report.load(tmp_path / "fit.nc")
    report.save(idata, tmp_path / "fit.nc")
    whole = (tmp_path / "fit.nc").read_bytes()
    for content in (b"", b"no netCDF", whole[: len(whole) // 2]):
        (tmp_path / "fit.nc").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"cannot be read .* Write it again"):
            report.load(tmp_path / "fit.nc")
    with pytest.raises(FileNotFoundError, match="Expected the folder of"):
        report.save(idata, tmp_path / "none" / "fit.nc")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "Expected num_samples >= 1, but got 0"),
        (
            {"groups": ["input"]},
            r"Expected groups from \['inputs', '0.units'\], but got \['input'\]",
        ),
        ({"groups": "inputs"}, r"but got 'inputs'. Pass a sequence"),
        ({"groups": []}, r"but got \[\]"),
        (
            {"data": (torch.zeros(3, 13), torch.zeros(2, 1))},
            "of equal length, but got 3 inputs and 2 targets",
        ),
    ],
)
def test_wrong_arguments_say_what_was_expected(posterior, options, message):
    with pytest.raises(ValueError, match=message):
        report.to_arviz(posterior, **options)


def test_too_much_memory_is_refused_before_the_work(posterior, monkeypatch):
    monkeypatch.setattr(_report_memory, "MEMORY_LIMIT", 100_000)
    with pytest.raises(
        ValueError, match=r"Pass fewer num_samples \(at most \d+\), or some of"
    ) as error:
        report.to_arviz(posterior, num_samples=10_000)
    assert posterior.calls == ["sample(2)"]
    allowed = int(str(error.value).split("at most ")[1].split(")")[0])
    assert report.to_arviz(posterior, num_samples=allowed) is not None
    with pytest.raises(ValueError, match="GiB"):
        report.to_arviz(posterior, num_samples=allowed + 1)


def test_sites_are_left_out_where_they_alone_do_not_fit(posterior, monkeypatch):
    def variables(**options):
        return set(dataset(report.to_arviz(posterior, num_samples=20, **options), "posterior"))

    assert "gate" in variables()
    needed = 2 * 20 * 25 * (4 + 4 + 4 + 26)  # chains, draws, edges, bytes of gates and effects
    monkeypatch.setattr(_report_memory, "MEMORY_LIMIT", needed + 100)
    assert "gate" not in variables()
    with pytest.raises(ValueError, match="or sites=False"):
        variables(sites=True)


def test_memory_counts_the_data(posterior, monkeypatch):
    monkeypatch.setattr(_report_memory, "MEMORY_LIMIT", 100_000)
    assert report.to_arviz(posterior, num_samples=20) is not None
    with pytest.raises(ValueError, match="GiB"):
        report.to_arviz(posterior, data=fake_data(posterior, 1000), num_samples=20)


def test_groups_that_spell_alike_are_refused(posterior, monkeypatch):
    monkeypatch.setattr(
        "pyro_relevance.posterior.arviz.convert.variable_name", lambda group, what: f"same_{what}"
    )
    with pytest.raises(ValueError, match="Expected edge groups with distinct ArviZ names"):
        report.to_arviz(posterior, num_samples=2)


def test_arviz_is_imported_only_where_it_is_needed():
    for module in (report, _report_memory, _report_structure, _rule_path):
        body = ast.parse(Path(module.__file__).read_text()).body
        names = {
            alias.name for node in body if isinstance(node, ast.Import) for alias in node.names
        }
        assert not names & {"arviz", "xarray", "matplotlib"}


@pytest.mark.exact
def test_large_arrays_are_stored_compressed_and_small_ones_as_they_are(tmp_path, monkeypatch):
    fit = quick_fit()
    idata = report.to_arviz(fit.posterior, data=regression(), num_samples=50)
    values = idata["log_likelihood"]["y"].to_numpy()
    report.save(idata, tmp_path / "whole.nc")
    assert np.array_equal(report.load(tmp_path / "whole.nc")["log_likelihood"]["y"], values)
    monkeypatch.setattr(report, "MANY_BYTES", values.nbytes)
    report.save(idata, tmp_path / "packed.nc")
    packed = report.load(tmp_path / "packed.nc")["log_likelihood"]["y"].to_numpy()
    assert packed.dtype == np.float32
    np.testing.assert_allclose(packed, values, rtol=1e-6)
    sizes = [(tmp_path / name).stat().st_size for name in ("packed.nc", "whole.nc")]
    assert sizes[0] < sizes[1] - values.nbytes / 2
