"""Chains in one vectorised program are the chains of the loop."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import pyro_relevance as pr
from pyro_relevance import priors
from pyro_relevance._random import local_pyro
from pyro_relevance.model.elbo import LeanELBO
from pyro_relevance.training.batches import Batches
from pyro_relevance.training.divergence import first_bad_site, first_bad_tensor
from pyro_relevance.training.preparation import make_chains, make_program, try_first_batch
from pyro_relevance.training.programs.chains import LoopProgram, VectorisedProgram
from pyro_relevance.training.programs.replay import ReplayedProgram
from tests.bounds import assert_mean
from tests.small_fits import make_model, make_network, quick_fit, regression, same

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _local():
    with local_pyro():
        yield


def _chains(model, num_chains=3, guide=pr.guides.MeanFieldGuide, initial_weights="reset"):
    return make_chains([model] * num_chains, guide, LeanELBO(), initial_weights, CPU)


def _both(model, num_particles=1, **settings):
    modules = _chains(model, **settings)
    return (
        LoopProgram(copy.deepcopy(modules), num_particles),
        VectorisedProgram(modules, num_particles),
    )


def _gradients(program):
    """Return the gradient of each parameter, ``(num_chains, ...)``."""
    found = {}
    for name, parameter in program.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        found.setdefault(name, []).append(gradient)
    if isinstance(program, LoopProgram):
        return {name: torch.stack(each) for name, each in found.items()}
    return {name: each[0] for name, each in found.items()}


@pytest.mark.exact
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("per_chain", [False, True])
@pytest.mark.parametrize("kl_weight", [1.0, 0.3])
def test_same_losses_and_gradients_without_noise(batch_norm, per_chain, kl_weight):
    network = make_network(batch_norm=batch_norm).double()
    loop, vectorised = _both(make_model(network, gate_prior=None))
    x, y = regression(30, dtype=torch.float64)
    if per_chain:
        x, y = x.view(3, 10, 4), y.view(3, 10)
    assert same(loop.state(), vectorised.state())
    first = loop.backward(x, y, per_chain, kl_weight)
    second = vectorised.backward(x, y, per_chain, kl_weight)
    assert not first.requires_grad
    assert not second.requires_grad
    assert first.shape == (3,)
    torch.testing.assert_close(first, second, rtol=1e-12, atol=0)
    wanted, got = _gradients(loop), _gradients(vectorised)
    assert wanted.keys() == got.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-9, atol=1e-12)
    for name, tensor in loop.state().items():  # running statistics of BatchNorm among them
        torch.testing.assert_close(vectorised.state()[name], tensor, rtol=1e-12, atol=0)
    if batch_norm:
        assert loop.state()["model.network.1.num_batches_tracked"].tolist() == [1, 1, 1]


@pytest.mark.exact
@pytest.mark.parametrize("program", [LoopProgram, VectorisedProgram])
def test_losses_are_those_that_backward_returns(program):
    chains = program(_chains(make_model(gate_prior=None)), 1)
    x, y = regression(10)
    losses = chains.losses(x, y, False, 1.0)
    assert losses.requires_grad
    assert torch.equal(losses.detach(), chains.backward(x, y, False, 1.0))


@pytest.mark.exact
def test_gradients_of_a_chain_know_nothing_of_the_others():
    x, y = regression(10)
    alone = LoopProgram(_chains(make_model(gate_prior=None))[:1], 1)
    _, all_three = _both(make_model(gate_prior=None))
    alone.backward(x, y, False, 1.0)
    all_three.backward(x, y, False, 1.0)
    for name, gradient in _gradients(alone).items():
        torch.testing.assert_close(_gradients(all_three)[name][:1], gradient)


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("settings", "guide"),
    [
        ({}, pr.guides.MeanFieldGuide),
        ({"weight_prior": priors.GaussianWeights()}, pr.guides.LowRankGuide),
        (
            {
                "weight_prior": priors.HorseshoeWeights(),
                "gate_prior": priors.HierarchicalPrior(),
            },
            pr.guides.MeanFieldGuide,
        ),
        (
            {"weight_prior": priors.ArdWeights(), "granularity": ("input", "unit", "weight")},
            pr.guides.SpikeAndSlabGuide,
        ),
    ],
    ids=["point", "gaussian, low rank", "horseshoe, hierarchical", "ard, spike and slab"],
)
def test_same_distribution_of_losses_with_noise(settings, guide):
    loop, vectorised = _both(make_model(**settings), guide=guide, num_chains=2)
    vectorised.load(loop.state())
    x, y = regression(10)
    with torch.no_grad():
        first = torch.stack([loop.losses(x, y, False, 1.0) for _ in range(400)]).double()
        second = torch.stack([vectorised.losses(x, y, False, 1.0) for _ in range(400)]).double()
    # 20 halves of the runs in turn, so that the difference has a standard error of its own.
    assert_mean((first - second).view(20, 20, 2).mean(1), torch.zeros(2))
    assert_mean(first.log() - second.log(), torch.zeros(2), rounding=1e-3)
    assert second[:, 0].std() > 0
    correlation = torch.corrcoef(second.T)[0, 1]
    assert abs(float(correlation)) < 0.35  # chains have noise of their own


@pytest.mark.exact
@pytest.mark.parametrize("program", [LoopProgram, VectorisedProgram])
def test_state_round_trip_and_gate_probability(program):
    modules = _chains(make_model(make_network(batch_norm=True)))
    for index, module in enumerate(modules):
        with torch.no_grad():
            module.guide.gate_log_odds.fill_(float(index))
    chains = program(modules, 1)
    expected = torch.sigmoid(torch.tensor([0.0, 1.0, 2.0])).unsqueeze(1).expand(3, 9)
    torch.testing.assert_close(chains.gate_probability(), expected)
    state = chains.state()
    chains.backward(*regression(10), False, 1.0)
    with torch.no_grad():
        for _, parameter in chains.named_parameters():
            parameter.add_(1.0)
    assert not same(state, chains.state())
    chains.load(state)
    assert same(state, chains.state())
    without = program(_chains(make_model(gate_prior=None)), 1)
    assert without.gate_probability() is None


@pytest.mark.exact
@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize("num_chains", [1, 2])
@pytest.mark.parametrize("noise", ["shared", "per_example"])
def test_batch_norm_moves_once_a_step(num_particles, num_chains, noise):
    model = make_model(make_network(batch_norm=True))
    fit = quick_fit(model, num_particles=num_particles, num_chains=num_chains, noise=noise)
    moved = fit.posterior.state["model.network.1.num_batches_tracked"]
    assert moved.tolist() == [fit.num_steps] * num_chains
    assert int(model.network.get_submodule("1").num_batches_tracked) == 0


@pytest.mark.exact
def test_more_particles_average_the_loss():
    modules = _chains(make_model(gate_prior=None), num_chains=1)
    x, y = regression(10)
    one = LoopProgram(modules, 1).losses(x, y, False, 0.5)
    torch.testing.assert_close(LoopProgram(modules, 3).losses(x, y, False, 0.5), one)


class Branches(nn.Module):
    """A network that vmap cannot run: what it does depends on values."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x):
        out = self.layer(x)
        return out if float(out.sum()) > 0 else 2 * out


@pytest.mark.contract
def test_the_loop_takes_what_cannot_be_vectorised():
    batches = Batches(regression(), num_chains=2, batch_size=None, device=CPU)

    def program(model, guide=pr.guides.MeanFieldGuide, num_chains=2, elbo=None):
        modules = make_chains([model] * num_chains, guide, elbo or LeanELBO(), "reset", CPU)
        try_first_batch(modules, batches)
        made = make_program(modules, batches, 1, elbo)
        return made.program if isinstance(made, ReplayedProgram) else made

    assert isinstance(program(make_model()), VectorisedProgram)
    assert isinstance(program(make_model(), num_chains=1), LoopProgram)
    from pyro.infer import TraceMeanField_ELBO
    from pyro.infer.autoguide import AutoNormal

    assert isinstance(program(make_model(), AutoNormal), LoopProgram)
    assert isinstance(program(make_model(), elbo=TraceMeanField_ELBO()), LoopProgram)
    network = Branches()
    edges = pr.find_edges(make_network(), granularity="weight")
    model = pr.RelevanceModel(
        network,
        _edges_of(edges),
        likelihood=pr.likelihoods.Gaussian(),
        num_data=48,
    )
    assert isinstance(program(model), LoopProgram)


def _edges_of(edges):
    """Return a group over the weights of a network that cannot be traced."""
    group = edges.groups[0]
    slot = type(group.consumers[0])("layer.weight", None, None)
    judged = type(group)("layer.weight", "weight", (1, 4), tuple("abcd"), (slot,))
    return type(edges)((judged,), (), {"layer.weight": (1, 4), "layer.bias": (1,)})


@pytest.mark.contract
def test_first_bad_tensor_and_site():
    nan = torch.tensor([0.0, float("nan")])
    named = [("a", torch.ones(2)), ("count", torch.tensor(3)), ("b", nan), ("c", nan)]
    assert first_bad_tensor(named) == "b"
    assert first_bad_tensor(named[:2]) is None
    module = _chains(make_model(), num_chains=1)[0]
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    state = {name: tensor.detach() for name, tensor in state.items()}
    x, y = regression(10)
    assert first_bad_site(module, state, x, y * float("nan"), 1.0) == "y"
    assert first_bad_site(module, state, x, y * 1e6, 1.0) == "y"  # the largest one
    state["guide.gate_log_odds"] = torch.full((9,), float("inf"))
    assert first_bad_site(module, state, x, y, 1.0) == "gate"


@pytest.mark.exact
@pytest.mark.parametrize("num_chains", [1, 3])
def test_views_are_the_state_without_copies(num_chains):
    modules = _chains(make_model(make_network(batch_norm=True)), num_chains)
    program = LoopProgram(modules, 1) if num_chains == 1 else VectorisedProgram(modules, 1)
    for each in (program, ReplayedProgram(program)):
        views = each.views()
        assert same(views, each.state())
        with torch.no_grad():
            each.named_parameters()[0][1].add_(1)
        assert same(views, each.state())
    loop = LoopProgram(_chains(make_model(), 3), 1)
    assert same(loop.views(), loop.state())
