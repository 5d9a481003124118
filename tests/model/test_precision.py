"""The network in another data type and memory format while it is trained, and nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

import pyro_relevance as pr
from pyro_relevance.errors import EdgeError
from pyro_relevance.model.precision import Precision
from tests.small_fits import same

FAST = Precision(autocast=torch.bfloat16, channels_last=True)


def make_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 4, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * 4 * 4, 3),
        )


def images(num_data=40):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(num_data, 2, 6, 6, generator=generator)
    return x, (x.mean((2, 3)) @ torch.tensor([[1.0, -1, 0], [0, 1, -1]])).argmax(1)


def make_model(network=None):
    network = network or make_network()
    edges = pr.find_edges(network, example_input=images()[0][:1], granularity="unit")
    return pr.RelevanceModel(
        network, edges, likelihood=pr.likelihoods.Categorical(), num_data=len(images()[0])
    )


def quick_fit(model=None, **settings):
    settings = {"num_epochs": 12, "batch_size": 10, "precision": FAST, "seed": 3, **settings}
    return pr.fit(model or make_model(), images(), **settings)


@pytest.mark.exact
@pytest.mark.parametrize("noise", ["shared", "per_example"])
def test_the_network_alone_is_computed_in_bfloat16(noise):
    model, (x, _) = make_model(), images()
    model.set_mode(noise=noise)
    parameters = dict(model.network.named_parameters())
    shape = (len(x),) if noise == "per_example" else ()
    gates = {group.name: torch.rand(*shape, *group.shape) for group in model.edges}
    exact = copy.deepcopy(model).run(x, parameters, gates)
    model.set_mode(precision=Precision(autocast=torch.bfloat16))
    seen = []
    handle = model.network[3].register_forward_hook(lambda m, i, output: seen.append(output.dtype))
    fast = model.run(x, parameters, gates)
    handle.remove()
    assert seen == [torch.bfloat16]
    assert fast.dtype == torch.float32
    assert not torch.equal(fast, exact)
    torch.testing.assert_close(fast, exact, rtol=0.05, atol=0.05)
    if noise == "shared":  # the gates meet the weights in their own type
        folded = model.edges.fold(parameters, gates)
        with torch.autocast("cpu", torch.bfloat16):
            expected = functional_call(make_network(), parameters | folded, (x,))
        assert torch.equal(fast, expected.float())
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.exact
def test_channels_last_is_the_same_function():
    model, (x, _) = make_model(), images()
    parameters = dict(model.network.named_parameters())
    expected = copy.deepcopy(model).run(x, parameters, {})
    model.set_mode(precision=Precision(channels_last=True))
    model.mode.precision.prepare(model.network)
    seen = []
    model.network[3].register_forward_pre_hook(lambda m, i: seen.append(i[0]))
    torch.testing.assert_close(model.run(x, dict(model.network.named_parameters()), {}), expected)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert not seen[0].is_contiguous()


@pytest.mark.contract
@pytest.mark.parametrize("num_chains", [1, 2])
@pytest.mark.parametrize("noise", ["shared", "per_example"])
def test_what_is_fitted_has_the_type_of_the_parameters(num_chains, noise):
    network = make_network()
    before = copy.deepcopy(network.state_dict())
    fit = quick_fit(make_model(network), num_chains=num_chains, noise=noise)
    floats = [t for t in fit.posterior.state.values() if t.is_floating_point()]
    assert {tensor.dtype for tensor in floats} == {torch.float32}
    assert all(bool(tensor.isfinite().all()) for tensor in floats)
    assert same(before, network.state_dict())
    trained = fit.posterior.chain(0).network()
    assert all(p.is_contiguous() for p in trained.parameters())
    x, _ = images()
    mask = pr.masks.top_fraction(fit.posterior.chain(0), 0.5)
    pr.prune(trained, fit.posterior.edges, mask, example_input=x)  # compares in float32


@pytest.mark.exact
def test_a_fit_in_bfloat16_is_near_to_the_exact_one_and_another_one():
    fast, exact = quick_fit(num_epochs=3), quick_fit(num_epochs=3, precision=Precision())
    one, other = (fit.history.loss for fit in (fast, exact))
    assert (one != other).any()
    assert abs(one[-1] - other[-1]).max() < 0.05 * abs(other).max()


@pytest.mark.exact
@pytest.mark.parametrize("num_chains", [1, 2])
def test_replay_and_resume_give_the_same_bits(num_chains, tmp_path, programs):
    plain = quick_fit(replay=False, num_chains=num_chains)
    assert not programs
    replayed = quick_fit(replay=True, num_chains=num_chains)
    assert same(replayed.posterior.state, plain.posterior.state)
    assert programs[0].num_recordings == 2

    def stop(event):
        if event.step >= 41:
            raise KeyboardInterrupt

    checkpoint = pr.Checkpoint(tmp_path / "state", 0.0)
    settings = {"num_chains": num_chains, "checkpoint": checkpoint, "replay": True}
    with pytest.raises(KeyboardInterrupt):
        quick_fit(**settings, callbacks=[stop])
    resumed = quick_fit(**settings)
    assert same(resumed.posterior.state, plain.posterior.state)


@pytest.mark.contract
def test_another_precision_is_another_run(tmp_path):
    checkpoint = pr.Checkpoint(tmp_path / "state")
    quick_fit(checkpoint=checkpoint)
    with pytest.raises(pr.errors.CheckpointError, match="other data, settings or seed"):
        quick_fit(checkpoint=checkpoint, precision=Precision())


@pytest.mark.contract
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, "bfloat16"])
def test_other_types_are_refused(dtype):
    with pytest.raises(ValueError, match=r"autocast to be torch.bfloat16 or None, but got"):
        Precision(autocast=dtype)


@pytest.mark.exact
def test_training_starts_from_a_trained_network_with_its_statistics():
    network = make_network()
    with torch.no_grad():
        network[1].running_mean.normal_()
        network[1].running_var.uniform_(0.5, 2.0)
    fit = quick_fit(
        make_model(network), num_epochs=1, num_chains=2, learning_rate=1e-12,
        initial_weights="network", precision=Precision(),
    )  # fmt: skip
    for chain in range(2):
        state = fit.posterior.chain(chain).network().state_dict()
        for name, value in network.named_parameters():
            torch.testing.assert_close(state[name], value.detach(), rtol=0, atol=1e-6)
    # Four steps of momentum 0.1, from the statistics that the network came with.
    x, _ = images()
    with torch.no_grad():
        mean = nn.functional.conv2d(x, network[0].weight, padding=1).mean((0, 2, 3))
    moved = network[1].running_mean
    state = fit.posterior.chain(0).network().state_dict()
    expected = 0.9**4 * moved + (1 - 0.9**4) * mean
    torch.testing.assert_close(state["1.running_mean"], expected, rtol=0.1, atol=0.03)
    assert int(state["1.num_batches_tracked"]) == 4


class Bare(nn.Module):
    """It uses the weight of a layer without calling the layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return nn.functional.linear(self.a(x), self.b.weight, self.b.bias)


@pytest.mark.contract
def test_gates_that_would_not_act_are_refused():
    edges = pr.find_edges(Bare(), example_input=torch.zeros(1, 3), granularity="unit")
    model = pr.RelevanceModel(Bare(), edges, likelihood=pr.likelihoods.Categorical(), num_data=20)
    data = torch.randn(20, 3), torch.arange(20) % 2
    with pytest.raises(EdgeError, match=r"calls 'b' as a module.*noise='shared'"):
        pr.fit(model, data, num_epochs=1, noise="per_example")
    assert pr.fit(model, data, num_epochs=1).num_steps == 1
