"""Bad input is refused before any work: what was expected, what came, what to do."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import pyro_relevance as pr
from tests.small_fits import make_model, make_network, quick_fit, regression, same

X, Y = regression()
WIDE, FLAT = torch.zeros(48, 5), torch.zeros(48)
LONG, COMPLEX = torch.ones(48, 4, dtype=torch.long), torch.zeros(48, 4, dtype=torch.complex64)
HOLES = torch.where(torch.arange(48)[:, None] == 7, float("nan"), X)
LAYER = "Its first layer with weights is Linear.in_features=4"
BAD_INPUTS = {
    "too wide": (WIDE, rf"of shape \(\d+, 5\).*cannot be multiplied.*{LAYER}.*Pass x of the shape"),
    "one-dimensional": (FLAT, r"of shape \(\d+,\)"),
    "integers": (LONG, f"type torch.int64 failed: .*{LAYER}"),
    "booleans": (LONG.bool(), "type torch.bool failed"),
    "complex": (COMPLEX, "inputs of the network's type torch.float32, but got torch.complex64"),
    "double": (
        X.double(),
        r"type torch.float32, but got torch.float64. Pass x.to\(torch.float32\)",
    ),
    "half": (X.half(), "type torch.float32, but got torch.float16"),
    "holes": (HOLES, "finite .*inputs, but x.* has NaN or infinite entries. Leave those rows out"),
}


@pytest.fixture(scope="module")
def fit():
    return quick_fit()


@pytest.mark.contract
@pytest.mark.parametrize("name", BAD_INPUTS)
def test_inputs(name, fit):
    x, message = BAD_INPUTS[name]
    posterior, y = fit.posterior, Y
    mask = pr.masks.median_probability(posterior)
    pruned = pr.prune(posterior.network(), posterior.edges, mask, example_input=X[:2])
    likelihood = pr.likelihoods.Gaussian()
    steps: list[int] = []
    calls = {
        "fit": lambda: quick_fit(data=(x, y), callbacks=[lambda state: steps.append(state.step)]),
        "held_out": lambda: quick_fit(held_out=(x, y)),
        "EarlyStopping": lambda: quick_fit(
            callbacks=[
                pr.callbacks.EarlyStopping((x, y), start=0.9),
                lambda state: steps.append(state.step),
            ]
        ),
        "fine_tune": lambda: pr.fine_tune(
            pruned, (x, y), likelihood=likelihood, num_data=48, num_epochs=1
        ),
        "log_likelihood": lambda: posterior.log_likelihood(x, y, num_samples=2),
        "elbo": lambda: posterior.elbo(x, y, num_samples=2),
        "to_arviz": lambda: pr.to_arviz(posterior, data=(x, y), num_samples=2),
        "diagnose": lambda: pr.diagnose(fit, held_out=(x, y)),
    }
    if name != "holes":  # a network may predict NaN where it is given NaN
        calls["predict"] = lambda: posterior.predict(x, num_samples=2)
    for what, call in calls.items():
        with pytest.raises(ValueError, match=f"Expected .*({message}|row of outputs)") as raised:
            call()
        assert re.search(r"(Pass|Leave|Choose)", str(raised.value)), what
    assert not steps


@pytest.mark.contract
@pytest.mark.parametrize("shape", [(4,), ()])
def test_inputs_without_an_axis_of_examples(shape, fit):
    with pytest.raises(ValueError, match="Expected (a row of outputs|inputs with one row)"):
        fit.posterior.predict(torch.zeros(shape))


@pytest.mark.contract
def test_what_is_no_tensor(fit):
    with pytest.raises(TypeError, match=r"Expected inputs as a tensor, but got ndarray. Convert"):
        fit.posterior.predict(X.numpy())
    with pytest.raises(TypeError, match=r"Expected targets as a tensor, but got ndarray. Convert"):
        fit.posterior.elbo(X, Y.numpy())


@pytest.mark.contract
@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name in ("learning_rate", "gate_learning_rate", "num_epochs", "max_seconds")
        for value in ("fast", None, True, [1.0], float("nan"), -1.0)
        # None leaves these two to the library.
        if value is not None or name not in ("learning_rate", "num_epochs")
    ],
)
def test_numbers_of_a_run(name, value):
    with pytest.raises(ValueError, match=f"Expected {name} (to be a number|> 0).*, but got"):
        quick_fit(**{name: value})


@pytest.mark.contract
@pytest.mark.parametrize("seed", [None, "0", 1.5, True, 2**64])
def test_seeds(seed, fit):
    for call in (
        lambda: quick_fit(seed=seed),
        lambda: fit.posterior.sample(2, seed=seed),
        lambda: fit.posterior.predict(X, num_samples=2, seed=seed),
    ):
        with pytest.raises(ValueError, match="Expected seed to be an integer between .*, but got"):
            call()


@pytest.mark.exact
@pytest.mark.parametrize("made_inside", [False, True])
def test_a_fit_under_inference_mode_is_the_same_fit(made_inside):
    expected = quick_fit(num_chains=2)
    with torch.inference_mode():
        model, data = (make_model(), (X + 0, Y + 0)) if made_inside else (make_model(), (X, Y))
        fit = quick_fit(model, data, num_chains=2)
    assert same(fit.posterior.state, expected.posterior.state)
    data = data if made_inside else (X, Y)
    assert same(quick_fit(data=data, num_chains=2).posterior.state, expected.posterior.state)


@pytest.mark.contract
def test_small_data():
    one = quick_fit(make_model(num_data=1), (X[:1], Y[:1]))
    assert all(bool(t.isfinite().all()) for t in one.posterior.state.values())
    narrow = nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1))
    assert quick_fit(make_model(narrow), (X[:, :1], Y)).num_steps == 18
    assert same(
        quick_fit(batch_size=1000).posterior.state, quick_fit(batch_size=None).posterior.state
    )


@pytest.mark.contract
@pytest.mark.parametrize(("rows", "size"), [(1, None), (33, 16)])
def test_a_minibatch_of_one_for_normalisation_is_told_before_work(rows, size):
    model = make_model(make_network(batch_norm=True), num_data=rows, granularity=("input",))
    message = "more than 1 value per channel.*Pass a last minibatch of more than one example"
    steps: list[int] = []
    with pytest.raises(ValueError, match=message):
        quick_fit(
            model, (X[:rows], Y[:rows]), batch_size=size, callbacks=[lambda s: steps.append(s.step)]
        )
    assert not steps


@pytest.mark.exact
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "int32", "bool", "uint16", "uint32", "uint64"]
)
def test_labels_of_all_integer_types_are_the_same_labels(dtype):
    def fitted(y):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
        fit = quick_fit(make_model(network, likelihood=pr.likelihoods.Categorical()), (X, y))
        return fit, fit.posterior.elbo(X, y, num_samples=2)

    (expected, bound), (fit, other) = (
        fitted((Y > 0).long()),
        fitted((Y > 0).to(getattr(torch, dtype))),
    )
    assert same(fit.posterior.state, expected.posterior.state)
    assert torch.equal(bound, other)


@pytest.mark.contract
def test_errors_of_a_users_own_part_stay_what_they_are():
    class Own(nn.Module):
        fails = False

        def forward(self, x):
            if self.fails:
                raise RuntimeError("out of luck")
            return x * 2

    network = nn.Sequential(nn.Linear(4, 3), Own(), nn.Linear(3, 1))
    edges = pr.find_edges(network, granularity="input")
    model = pr.RelevanceModel(network, edges, likelihood=pr.likelihoods.Gaussian(), num_data=48)
    Own.fails = True
    with pytest.raises(RuntimeError, match="out of luck"):
        quick_fit(model)
