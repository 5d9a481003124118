"""Save and load of posteriors: everything comes back, nothing is pickled, errors say what to do."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from safetensors import safe_open
from torch import nn

import pyro_relevance as pr
from pyro_relevance import _files, likelihoods, priors, relaxations
from pyro_relevance.errors import CheckpointError
from pyro_relevance.model import stored
from pyro_relevance.posterior.files import load_posterior, save_posterior
from tests.small_fits import make_model, make_network, quick_fit, regression, same

CLASSES = (regression()[0], (regression()[1] > 0).long())
ZERO_ONE = (regression()[0], (regression()[1] > 0).float())
COUNTS = (regression()[0], regression()[1].abs().round())


def _outputs(num_outputs):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, num_outputs))


def _round_trip(posterior, path, **given):
    save_posterior(posterior, path)
    return load_posterior(path, **given)


def _assert_equal(first, second):
    assert first.num_chains == second.num_chains
    assert first.edges == second.edges
    assert same(first.state, second.state)
    draws, again = first.sample(5, seed=3), second.sample(5, seed=3)
    for name in ("gates", "inclusion_probability", "weights"):
        assert same(getattr(draws, name), getattr(again, name)), name
    assert same(first.sample_prior(5).gates, second.sample_prior(5).gates)
    x, _ = regression(7, seed=8, dtype=next(iter(draws.weights.values())).dtype)
    prediction, repeated = first.predict(x, num_samples=3), second.predict(x, num_samples=3)
    for name in ("outputs", "mean", "sample"):
        assert torch.equal(getattr(prediction, name), getattr(repeated, name)), name
    for chain in range(first.num_chains):
        network, other = first.network(chain), second.network(chain)
        assert same(network.state_dict(), other.state_dict())
    for name, values in first.history.to_arrays().items():
        np.testing.assert_array_equal(values, second.history.to_arrays()[name])


@pytest.mark.exact
@pytest.mark.parametrize(
    ("settings", "guide"),
    [
        ({"gate_prior": priors.IndependentPrior(-1.5)}, pr.guides.MeanFieldGuide),
        (
            {"gate_prior": priors.IndependentPrior({"inputs": torch.zeros(4), "0.units": -1})},
            pr.guides.MeanFieldGuide,
        ),
        ({"gate_prior": priors.DescriptionLengthPrior()}, pr.guides.LowRankGuide),
        (
            {"gate_prior": priors.HierarchicalPrior(2.0, 3.0)},
            lambda model: pr.guides.LowRankGuide(model, rank=2),
        ),
        (
            {"gate_prior": None, "weight_prior": priors.LogUniformWeights()},
            pr.guides.MeanFieldGuide,
        ),
        ({"weight_prior": priors.PointWeights(None)}, pr.guides.MeanFieldGuide),
        ({"weight_prior": priors.GaussianWeights(0.5)}, pr.guides.MeanFieldGuide),
        (
            {
                "weight_prior": priors.GaussianWeights(
                    {"0.weight": 1.0, "0.bias": 2.0, "2.weight": 0.5, "2.bias": 1.0}
                )
            },
            pr.guides.LowRankGuide,
        ),
        ({"weight_prior": priors.ArdWeights(rate=0.2)}, pr.guides.MeanFieldGuide),
        ({"weight_prior": priors.HorseshoeWeights()}, pr.guides.MeanFieldGuide),
        ({"relaxation": relaxations.HardConcreteGate(-0.2, 1.3)}, pr.guides.MeanFieldGuide),
        ({"relaxation": relaxations.StraightThrough()}, pr.guides.MeanFieldGuide),
        ({"relaxation": relaxations.Hardening(0.3)}, pr.guides.MeanFieldGuide),
        ({"granularity": "weight"}, pr.guides.MeanFieldGuide),
        ({"weight_prior": priors.GaussianWeights(0.5)}, pr.guides.SpikeAndSlabGuide),
        (
            {"weight_prior": priors.HorseshoeWeights(), "granularity": "weight"},
            pr.guides.SpikeAndSlabGuide,
        ),
        ({"weight_prior": priors.ArdWeights()}, pr.guides.default_guide),
    ],
)
def test_priors_guides_and_relaxations_round_trip(tmp_path, settings, guide):
    posterior = quick_fit(make_model(**settings), guide=guide, num_chains=2, num_epochs=2).posterior
    loaded = _round_trip(posterior, tmp_path / "fit.safetensors")
    _assert_equal(posterior, loaded)
    for name in ("gate_prior", "weight_prior", "relaxation"):
        if not isinstance(settings.get(name), priors.IndependentPrior):  # equal tensors are not ==
            assert getattr(loaded.model, name) == getattr(posterior.model, name)
    assert type(loaded.guide) is type(posterior.guide)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("likelihood", "num_outputs", "data"),
    [
        (likelihoods.Gaussian(0.3, minimum_scale=0.1), 1, regression()),
        (likelihoods.Gaussian(heteroscedastic=True), 2, regression()),
        (likelihoods.Gaussian(num_targets=2), 2, (regression()[0], regression()[0][:, :2])),
        (likelihoods.StudentT(5.0, learn_degrees_of_freedom=True), 1, regression()),
        (likelihoods.Categorical(), 3, CLASSES),
        (likelihoods.Bernoulli(), 1, ZERO_ONE),
        (likelihoods.Poisson(), 1, COUNTS),
    ],
)
def test_likelihoods_round_trip(tmp_path, likelihood, num_outputs, data):
    model = make_model(_outputs(num_outputs), likelihood=likelihood)
    posterior = quick_fit(model, data, num_chains=2, num_epochs=2).posterior
    loaded = _round_trip(posterior, tmp_path / "fit.safetensors")
    _assert_equal(posterior, loaded)
    first = posterior.log_likelihood(*data, num_samples=2)
    assert torch.equal(first, loaded.log_likelihood(*data, num_samples=2))


@pytest.mark.exact
def test_float64_and_batch_norm_round_trip(tmp_path):
    model = make_model(make_network(batch_norm=True).double())
    fit = quick_fit(model, regression(dtype=torch.float64), num_chains=2)
    loaded = _round_trip(fit.posterior, tmp_path / "fit.safetensors")
    _assert_equal(fit.posterior, loaded)
    assert loaded.network().get_submodule("0").weight.dtype == torch.float64
    assert loaded.state["model.network.1.num_batches_tracked"].tolist() == [18, 18]


@pytest.mark.exact
def test_one_chain_draws_as_it_did_in_the_run(tmp_path):
    posterior = quick_fit(num_chains=3).posterior
    loaded = _round_trip(posterior.chain(2), tmp_path / "fit.safetensors")
    _assert_equal(posterior.chain(2), loaded)
    assert torch.equal(posterior.sample(5).gates["inputs"][2:], loaded.sample(5).gates["inputs"])


@pytest.mark.contract
def test_files_hold_tensors_and_text_only(tmp_path, monkeypatch):
    def never(*arguments, **settings):
        raise AssertionError("pickle was used")

    posterior = quick_fit(num_epochs=1).posterior
    for module, name in (
        (torch, "load"),
        (torch, "save"),
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "dump"),
        (pickle, "dumps"),
    ):
        monkeypatch.setattr(module, name, never)
    path = tmp_path / "fit.safetensors"
    _round_trip(posterior, path)
    with safe_open(path, framework="pt") as file:
        assert "state/model.network.0.weight" in file.keys()  # noqa: SIM118
    assert path.read_bytes()[8:9] == b"{"  # the header of a safetensors file
    assert b"x" not in {name.encode() for name in posterior.state}  # no data
    assert [item.name for item in tmp_path.iterdir()] == ["fit.safetensors"]


@pytest.mark.contract
def test_loading_leaves_random_numbers_alone(tmp_path):
    path = tmp_path / "fit.safetensors"
    save_posterior(quick_fit(guide=pr.guides.LowRankGuide, num_epochs=1).posterior, path)
    before = torch.get_rng_state()
    load_posterior(path)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.exact
def test_a_failed_write_leaves_the_file_before_it(tmp_path, monkeypatch):
    path = tmp_path / "fit.safetensors"
    posterior = quick_fit(num_epochs=1).posterior
    save_posterior(posterior, path)

    def full(tensors, filename, metadata=None):
        Path(filename).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_posterior(quick_fit(num_epochs=2).posterior, path)
    _assert_equal(posterior, load_posterior(path))
    assert [item.name for item in tmp_path.iterdir()] == ["fit.safetensors"]


# What the file cannot describe


class Residual(nn.Module):
    """A network of the user's own class."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 1)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


class Laplace(nn.Module):
    """A likelihood of the user's own class."""

    task = "regression"

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def num_outputs(self):
        return 1

    def settings(self):
        return {}

    def forward(self, outputs):
        from pyro.distributions import Laplace as Distribution

        return Distribution(outputs.squeeze(-1), self.log_scale.exp())

    def mean(self, outputs):
        return outputs.squeeze(-1)


class Halves:
    """A prior over gates of the user's own class."""

    def log_odds(self, edges):
        return torch.zeros(edges.num_edges)

    def latents(self, edges):
        return ()

    def sample(self, log_odds, edges):
        return log_odds


class Flat:
    """A prior over weights of the user's own class."""

    def latents(self, parameters):
        return ()

    def latent_parameters(self, parameters):
        return ()

    def sample(self, parameters):
        return dict(parameters)


class Soft(relaxations.Concrete):
    """A relaxation of the user's own class."""


@pytest.mark.exact
@pytest.mark.parametrize(
    ("name", "settings", "thing"),
    [
        ("network", {"network": Residual()}, Residual()),
        ("likelihood", {"likelihood": Laplace()}, Laplace()),
        ("gate_prior", {"gate_prior": Halves()}, Halves()),
        ("weight_prior", {"weight_prior": Flat()}, Flat()),
        ("relaxation", {"relaxation": Soft()}, Soft()),
    ],
)
def test_own_classes_are_given_when_loading(tmp_path, name, settings, thing):
    settings = dict(settings)
    network = settings.pop("network", None)
    if network is not None:
        settings["edges"] = pr.find_edges(network, example_input=torch.zeros(1, 4))
        model = pr.RelevanceModel(
            network, settings["edges"], likelihood=likelihoods.Gaussian(), num_data=48
        )
    else:
        model = make_model(**settings)
    posterior = quick_fit(model, num_chains=2, num_epochs=2).posterior
    path = tmp_path / "fit.safetensors"
    save_posterior(posterior, path)
    with pytest.raises(
        CheckpointError, match=rf"Expected {name}= for .* Pass load_posterior\(path, {name}=...\)"
    ):
        load_posterior(path)
    before = {n: t.clone() for n, t in thing.state_dict().items()} if network is not None else {}
    _assert_equal(posterior, load_posterior(path, **{name: thing}))
    if network is not None:
        assert same(before, dict(thing.state_dict()))  # the network given is not changed


@pytest.mark.exact
def test_autoguides_are_given_when_loading(tmp_path):
    posterior = quick_fit(guide=AutoNormal).posterior
    path = tmp_path / "fit.safetensors"
    save_posterior(posterior, path)
    with pytest.raises(CheckpointError, match=r"Expected guide= for"):
        load_posterior(path)
    with pytest.raises(
        CheckpointError, match=r"Expected nothing for 'guide\.locs.* and example_input="
    ):
        load_posterior(path, guide=AutoNormal)
    loaded = load_posterior(path, guide=AutoNormal, example_input=torch.zeros(1, 4))
    _assert_equal(posterior, loaded)


@pytest.mark.contract
def test_wrong_files_and_wrong_things(tmp_path):
    path = tmp_path / "fit.safetensors"
    with pytest.raises(CheckpointError, match="there is none. Check the path"):
        load_posterior(path)
    _files.write_tensors(path, {}, {"format": "pyro_relevance checkpoint 1"})
    with pytest.raises(CheckpointError, match="Expected a posterior at .* of another kind"):
        load_posterior(path)
    save_posterior(quick_fit(num_epochs=1).posterior, path)
    with pytest.raises(
        CheckpointError,
        match=r"Expected shape \(1,\) for 'model.network.3.bias' in .* but found nothing",
    ):
        load_posterior(path, network=nn.Sequential(*make_network(), nn.Linear(1, 1)))
    with pytest.raises(CheckpointError, match=r"Expected shape \(9, 4\) for 'guide.gate_factor_lo"):
        load_posterior(path, guide=pr.guides.LowRankGuide)
    with pytest.raises(CheckpointError, match="guide= to make an nn.Module, but it made a dict"):
        load_posterior(path, guide=lambda model: {})
    with pytest.raises(TypeError, match=r"guide=lambda model: MeanFieldGuide\(model, ...\)"):
        load_posterior(path, guide=pr.guides.MeanFieldGuide(make_model()))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="it is damaged or of another kind"):
        load_posterior(path)
    with pytest.raises(FileNotFoundError, match="Expected the folder of"):
        save_posterior(quick_fit(num_epochs=1).posterior, tmp_path / "none" / "fit")


@pytest.mark.contract
@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ("gate_prior", "annotations"),
        ("gate_prior", "PointWeights"),
        ("weight_prior", "IndependentPrior"),
        ("relaxation", "Tensor"),
        ("relaxation", "Mixture"),
        ("guide", "LatentPosteriors"),
        ("guide", "AutoregressiveGuide"),
    ],
)
def test_a_file_names_registered_classes_of_its_part_only(tmp_path, part, kind):
    path = tmp_path / "posterior.safetensors"
    save_posterior(quick_fit(num_epochs=1).posterior, path)
    tensors, description = _files.read_tensors(path)
    description[part]["kind"] = kind
    _files.write_tensors(path, tensors, description)
    with pytest.raises(CheckpointError, match=rf"a {part} of this library .* got '{kind}'"):
        load_posterior(path)


@pytest.mark.contract
def test_every_prior_and_relaxation_of_the_library_is_registered():
    protocols = {"GatePrior", "OperationPrior", "WeightPrior", "Relaxation", "OperationRelaxation"}
    # A latent site is part of a prior.
    public = {*priors.__all__, *relaxations.__all__} - protocols - {"Latent"}
    assert set(stored._KINDS) == public
