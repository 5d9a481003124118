"""``fit``: repeatable, without a trace, for every kind of guide, chain and data."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.utils.data import TensorDataset

import pyro_relevance as pr
from pyro_relevance import likelihoods, priors
from pyro_relevance._random import local_pyro
from pyro_relevance.model.guides import LowRankGuide, MeanFieldGuide
from pyro_relevance.training.identity import stable_text
from tests.small_fits import make_model, make_network, quick_fit, regression, same


def _equal(first, second):
    return same(first.posterior.state, second.posterior.state) and bool(
        (first.history.loss == second.history.loss).all()
    )


# Repeatable


@pytest.mark.exact
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_chains": 3},
        {"noise": "per_example", "num_particles": 2},
        {"guide": LowRankGuide},
        {"guide": AutoNormal, "num_chains": 2},
        {"elbo": TraceMeanField_ELBO()},
    ],
    ids=stable_text,
)
def test_the_same_seed_gives_the_same_numbers(settings):
    torch.manual_seed(1)
    first = quick_fit(seed=7, **settings)
    torch.manual_seed(2)
    torch.rand(5)
    again = quick_fit(seed=7, **settings)
    other = quick_fit(seed=8, **settings)
    assert _equal(first, again)
    assert not _equal(first, other)


@pytest.mark.exact
def test_numpy_integers_are_seeds():
    assert _equal(quick_fit(seed=np.int64(3)), quick_fit(seed=3))


@pytest.mark.exact
def test_other_elbos_have_the_same_numbers():
    lean = quick_fit()
    stock = quick_fit(elbo=TraceMeanField_ELBO())
    torch.testing.assert_close(
        torch.from_numpy(lean.history.loss),
        torch.from_numpy(stock.history.loss),
        rtol=1e-4,
        atol=1e-3,
    )


# Without a trace


def _process():
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002 (the state that must not move)
        "random": random.getstate(),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "settings": pyro.settings.get(),
        "distributions": torch.distributions.Distribution._validate_args,
        "parameters": {n: p.tolist() for n, p in pyro.get_param_store().named_parameters()},
        "handlers": len(pyro.poutine.runtime._PYRO_STACK),
        "filters": list(warnings.filters),
        "threads": torch.get_num_threads(),
    }


def _model_state(model):
    return {
        "tensors": {name: t.tolist() for name, t in model.state_dict().items()},
        "gradients": [parameter.grad is None for parameter in model.parameters()],
        "requires": [parameter.requires_grad for parameter in model.parameters()],
        "training": [module.training for module in model.modules()],
        "hooks": [len(module._forward_pre_hooks) for module in model.modules()],
        "temperature": model.temperature,
        "noise": model.noise,
    }


@pytest.mark.contract
@pytest.mark.parametrize(
    "settings",
    [
        {"num_chains": 2},
        {"noise": "per_example"},
        {"guide": AutoNormal},
        {"guide": LowRankGuide, "weight_prior": priors.GaussianWeights()},
        {"elbo": Trace_ELBO()},
    ],
    ids=stable_text,
)
@pytest.mark.parametrize("module_local_params", [False, True])
def test_a_fit_leaves_no_trace(settings, module_local_params):
    settings = dict(settings)
    network = make_network(batch_norm=True).eval()
    before_network = {name: t.clone() for name, t in network.state_dict().items()}
    chosen = {k: settings.pop(k) for k in ("weight_prior",) if k in settings}
    model = make_model(network, **chosen)
    x, y = regression()
    kept = x.clone(), y.clone()
    pyro.get_param_store().setdefault("guide.gate_log_odds", torch.ones(3))
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        with pyro.settings.context(module_local_params=module_local_params):
            process, state = _process(), _model_state(model)
            fit = quick_fit(model, (x, y), **settings)
            fit.posterior.sample(3)
            fit.posterior.predict(x, num_samples=3)
            fit.posterior.elbo(x, y)
            assert _process() == process
            assert _model_state(model) == state
    finally:
        torch.distributions.Distribution.set_default_validate_args(True)
        pyro.clear_param_store()
    assert same(before_network, network.state_dict())
    assert not network.training
    assert torch.equal(x, kept[0])
    assert torch.equal(y, kept[1])
    assert fit.posterior.model is not model


@pytest.mark.contract
def test_a_failure_leaves_no_trace():
    def fail(state):
        raise RuntimeError("of the user's own")

    model = make_model()
    process, state = _process(), _model_state(model)
    with pytest.raises(RuntimeError, match="of the user's own"):
        quick_fit(model, noise="per_example", callbacks=[fail])
    assert _process() == process
    assert _model_state(model) == state


@pytest.mark.exact
def test_gradients_are_on_inside():
    with torch.no_grad():
        fit = quick_fit()
        assert not torch.is_grad_enabled()
    assert _equal(fit, quick_fit())


@pytest.mark.exact
def test_per_example_noise_ends_with_the_run():
    fit = quick_fit(noise="per_example", num_chains=2)
    model = fit.posterior.model
    assert model.noise == "shared"
    assert all(not module._forward_pre_hooks for module in model.modules())
    assert fit.posterior.sample(3).gates["inputs"].shape == (2, 3, 4)


@pytest.mark.exact
def test_the_dry_run_moves_no_statistics():
    model = make_model(make_network(batch_norm=True))
    fit = quick_fit(model, batch_size=None, num_epochs=1, noise="per_example", num_chains=2)
    assert fit.posterior.state["model.network.1.num_batches_tracked"].tolist() == [1, 1]
    x, _ = regression()
    hidden = x @ model.network[0].weight.detach().T + model.network[0].bias.detach()
    momentum = 0.1
    expected = (1 - momentum) + momentum * hidden.var(0)
    gates = fit.posterior.state["model.network.1.running_var"][0]
    # The gates of this run multiply inputs; the variances are near those without gates.
    assert gates.shape == expected.shape
    assert not torch.equal(gates, torch.ones(5))


# Chains


@pytest.mark.exact
def test_vectorised_chains_and_loops_agree_without_noise(monkeypatch):
    settings = {"batch_size": None, "num_chains": 3, "num_epochs": 20, "seed": 2}
    model = make_model(make_network(batch_norm=True).double(), gate_prior=None)
    data = regression(dtype=torch.float64)
    vectorised = quick_fit(model, data, **settings)
    monkeypatch.setattr(MeanFieldGuide, "vectorised", False)
    loop = quick_fit(model, data, **settings)
    for name, tensor in vectorised.posterior.state.items():
        torch.testing.assert_close(loop.posterior.state[name], tensor, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(loop.history.loss, vectorised.history.loss, rtol=1e-9)


@pytest.mark.exact
def test_chains_with_data_of_their_own(monkeypatch):
    sets = [regression(48, seed=seed, dtype=torch.float64) for seed in range(3)]
    settings = {"batch_size": None, "num_epochs": 5, "initial_weights": "network"}
    model = make_model(make_network().double(), gate_prior=None)
    together = quick_fit(model, sets, num_chains=3, **settings)
    for index, data in enumerate(sets):
        alone = quick_fit(model, data, **settings)
        for name, tensor in alone.posterior.state.items():
            torch.testing.assert_close(together.posterior.state[name][index], tensor[0])


@pytest.mark.exact
@pytest.mark.parametrize("guide", [MeanFieldGuide, AutoNormal])
def test_initial_weights(guide):
    model = make_model()
    frozen = {"num_epochs": 1, "learning_rate": 1e-20, "guide": guide, "num_chains": 3}
    wanted = dict(model.network.named_parameters())
    for name, parameter in wanted.items():
        reset = quick_fit(model, **frozen).posterior.state[f"model.network.{name}"]
        kept = quick_fit(model, initial_weights="network", **frozen).posterior.state
        assert torch.equal(reset[0], parameter.detach())
        assert not torch.equal(reset[1], parameter.detach())
        assert not torch.equal(reset[1], reset[2])
        for chain in range(3):
            assert torch.equal(kept[f"model.network.{name}"][chain], parameter.detach())


@pytest.mark.contract
def test_layers_that_cannot_be_initialised_anew():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.scale * x

    network = nn.Sequential(nn.Linear(4, 1), Scale())
    model = make_model(network, granularity="weight")
    with pytest.raises(ValueError, match=r"but '1' \(Scale\) has none. Pass initial_weights="):
        quick_fit(model, num_chains=2)
    assert quick_fit(model).posterior.num_chains == 1
    assert quick_fit(model, num_chains=2, initial_weights="network").posterior.num_chains == 2
    with pytest.raises(ValueError, match="'reset' or 'network', but got 'other'"):
        quick_fit(model, initial_weights="other")


@pytest.mark.exact
def test_lazy_guides_start_from_random_numbers_of_their_own():
    from pyro.infer.autoguide import init_to_sample

    fit = quick_fit(
        make_model(weight_prior=priors.GaussianWeights()),
        guide=lambda model: AutoNormal(model, init_loc_fn=init_to_sample),
        num_chains=2,
        learning_rate=1e-20,
        num_epochs=1,
    )
    locations = fit.posterior.state["guide.locs.weights_unconstrained"]
    assert not torch.equal(locations[0], locations[1])


# Guides


@pytest.mark.exact
@pytest.mark.parametrize(
    "guide",
    [
        MeanFieldGuide,
        lambda model: MeanFieldGuide(model, initial_log_odds=1.0),
        lambda model: LowRankGuide(model, rank=2),
        AutoNormal,
    ],
    ids=["class", "lambda", "low rank", "lazy"],
)
def test_guides_are_trained(guide):
    fit = quick_fit(guide=guide, num_epochs=3)
    start = quick_fit(guide=guide, num_epochs=1, learning_rate=1e-20, gate_learning_rate=1e-20)
    trained = [n for n in fit.posterior.state if n.startswith("guide.")]
    assert trained
    for name in trained:
        assert not torch.equal(fit.posterior.state[name], start.posterior.state[name]), name


@pytest.mark.exact
@pytest.mark.parametrize("num_chains", [1, 2])
@pytest.mark.parametrize("noise", ["shared", "per_example"])
def test_a_guide_instance_is_copied_and_belongs_to_the_chain(num_chains, noise):
    model = make_model()
    settings = {"num_chains": num_chains, "noise": noise, "num_epochs": 4}
    guide = MeanFieldGuide(model)
    fit = quick_fit(model, guide=guide, **settings)
    assert _equal(fit, quick_fit(model, **settings))
    assert bool((guide.gate_log_odds == 2.0).all())
    assert fit.posterior.guide._model[0] is fit.posterior.model
    assert model.temperature == 1.0
    assert fit.posterior.model.temperature == pytest.approx(0.1)


@pytest.mark.contract
def test_guides_that_are_refused():
    with pytest.raises(TypeError, match="guide to make an nn.Module, but it made a NoneType"):
        quick_fit(guide=lambda model: None)

    class NeedsData(MeanFieldGuide):
        def forward(self, x, y):
            return super().forward(x, y)

    with pytest.raises(TypeError, match="called without data, as the posterior is sampled, but Ne"):
        quick_fit(guide=NeedsData)

    class Global(nn.Module):
        def forward(self, x=None, y=None):
            loc = pyro.param("global_loc", torch.zeros(9))
            return pyro.sample("gate", pyro.distributions.Normal(loc, 1.0).to_event(1))

    with pytest.raises(ValueError, match=r"it called pyro.param for \['global_loc'\]. Use nn.Para"):
        quick_fit(guide=lambda model: Global())
    assert list(pyro.get_param_store().keys()) == []


@pytest.mark.exact
def test_a_guide_of_the_users_own():
    class Own(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.loc = nn.Parameter(torch.zeros(9))

        def forward(self, x=None, y=None):
            normal = pyro.distributions.Normal(self.loc, torch.ones(9), validate_args=False)
            return pyro.sample("gate", normal.to_event(1))

    fit = quick_fit(guide=Own, num_chains=2, num_epochs=20, learning_rate=0.05)
    assert bool(torch.isnan(torch.from_numpy(fit.history.expected_size)).all())
    assert fit.posterior.inclusion_probability()["inputs"].shape == (2, 4)
    assert not torch.equal(fit.posterior.state["guide.loc"], torch.zeros(2, 9))


# Data and results


@pytest.mark.exact
def test_data_sets_and_pairs_are_the_same():
    x, y = regression()
    assert _equal(quick_fit(data=TensorDataset(x, y)), quick_fit(data=(x, y)))


@pytest.mark.exact
def test_best_chain():
    fit = quick_fit(num_chains=3, num_epochs=10)
    assert fit.best_chain == int(fit.history.final_loss().argmin())
    assert fit.held_out_elbo is None
    assert fit.seconds > 0
    assert fit.num_steps == 30


# What is refused


def _with(x=None, y=None):
    data = regression()
    return (data[0] if x is None else x, data[1] if y is None else y)


def _nan(shape, at):
    values = torch.zeros(shape)
    values[at] = float("nan")
    return values


CATEGORICAL = make_model(
    nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), likelihood=likelihoods.Categorical()
)


@pytest.mark.contract
@pytest.mark.parametrize(
    ("model", "data", "text"),
    [
        (
            None,
            regression(47),
            "num_data=48 examples, as the model was given, but the data have 47",
        ),
        (None, _with(y=_nan(48, 47)), "finite targets, but y has NaN or infinite entries"),
        (None, _with(x=_nan((48, 4), (47, 3))), "finite inputs, but x has NaN or infinite entries"),
        (None, _with(x=torch.zeros(48, 4).double()), r"torch.float32, but got torch.float64. Pass"),
        (
            None,
            _with(y=torch.zeros(48, 1)),
            r"targets of shape \(48,\) for Gaussian, but got \(48, 1",
        ),
        (None, _with(y=torch.zeros(48).long()), "floating-point targets for Gaussian, but got"),
        (
            make_model(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))),
            _with(),
            r"outputs of shape \(num_data, 1\) for Gaussian, but got \(16, 2\). Change the last",
        ),
        (CATEGORICAL, _with(), "integer classes 0 .. 2 for Categorical, but got torch.float32"),
        (CATEGORICAL, _with(y=torch.full((48,), 3)), "0 .. 2 .* got torch.int64 from 3 to 3"),
        (CATEGORICAL, _with(y=torch.full((48,), -1)), "from -1 to -1. Number the classes from 0"),
        (
            make_model(likelihood=likelihoods.Bernoulli()),
            _with(),
            "targets in the support of Bernoulli, but got",
        ),
        (
            make_model(likelihood=likelihoods.Poisson()),
            _with(y=torch.full((48,), -1.0)),
            "targets in the support of Poisson, but got -1.0. Choose another likelihood",
        ),
    ],
)
def test_data_that_do_not_fit(model, data, text):
    steps = []
    with pytest.raises(ValueError, match=text):
        quick_fit(model, data, callbacks=[steps.append])
    assert steps == []


@pytest.mark.contract
def test_the_data_of_every_chain_are_checked():
    sets = [regression(), _with(y=_nan(48, 47))]
    with pytest.raises(ValueError, match="finite targets"):
        quick_fit(data=sets, num_chains=2)


@pytest.mark.contract
def test_weights_must_be_finite():
    model = make_model()
    with torch.no_grad():
        model.network.get_parameter("2.bias").fill_(float("nan"))
    with pytest.raises(ValueError, match="finite weights to start from, but '2.bias' of the net"):
        quick_fit(model)


@pytest.mark.contract
@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"num_epochs": 0}, ValueError, "num_epochs > 0 and finite, but got 0"),
        ({"num_particles": 1.5}, ValueError, "num_particles to be a positive integer, but got 1.5"),
        ({"num_chains": True}, ValueError, "num_chains to be a positive integer, but got True"),
        ({"batch_size": 0}, ValueError, "batch_size to be a positive integer, or None"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate > 0 and finite, but got 0.0"),
        ({"gate_learning_rate": float("inf")}, ValueError, "gate_learning_rate > 0 and finite"),
        ({"noise": "other"}, ValueError, "'shared' or 'per_example', but got 'other'"),
        ({"seed": 1.0}, ValueError, "seed to be an integer between .* but got 1.0"),
        ({"seed": 2**64}, ValueError, "seed to be an integer between"),
        ({"elbo": Trace_ELBO(num_particles=3)}, ValueError, "of one particle, but got num_part"),
        ({"elbo": "lean"}, TypeError, "Expected an ELBO such as .* but got 'lean'"),
    ],
    ids=stable_text,
)
def test_settings_that_do_not_fit(settings, error, text):
    with pytest.raises(error, match=text):
        quick_fit(**settings)


@pytest.mark.contract
def test_nothing_to_train():
    network = make_network().requires_grad_(False)
    likelihood = likelihoods.Gaussian(learn_noise=False)
    model = make_model(network, gate_prior=None, likelihood=likelihood)
    with pytest.raises(
        ValueError, match="Expected parameters to train, but all of them are frozen"
    ):
        quick_fit(model)


@pytest.mark.contract
def test_weight_gates_have_no_noise_per_example():
    with pytest.raises(pr.errors.EdgeError, match="Use noise='shared' for single weights"):
        quick_fit(make_model(granularity="weight"), noise="per_example")


@pytest.mark.exact
def test_pyro_state_is_restored_after_an_error():
    before = pyro.settings.get()
    inside = {}

    def fail():
        with local_pyro():
            inside.update(pyro.settings.get())
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert inside["module_local_params"]
    assert not inside["validate_infer"]
    assert pyro.settings.get() == before
