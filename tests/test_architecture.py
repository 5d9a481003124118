"""Architectures as JSON: round trips and refusals."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from pyro_relevance.architecture import build, describe
from pyro_relevance.networks import MLP, LeNet300100
from pyro_relevance.plain_modules import Constant, SelectFeatures


def _convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, (3, 5), stride=2, padding=1, bias=False),
        nn.BatchNorm2d(4, eps=1e-3),
        nn.LeakyReLU(0.2),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d((2, 2)),
        nn.Flatten(),
        nn.Sequential(nn.Linear(16, 6), nn.PReLU(6), nn.Dropout(0.3)),
        nn.Softmax(dim=-1),
    )


CASES = {
    "mlp": (MLP(4, (3, 2), 1), (5, 4)),
    "lenet": (LeNet300100(), (2, 1, 28, 28)),
    "convolutional": (_convolutional(), (2, 3, 16, 16)),
    "selection": (nn.Sequential(SelectFeatures([2, 0]), nn.Linear(2, 1)), (5, 3)),
    "constant": (Constant(torch.tensor([1.0, -2.0])), (5, 3)),
    "layer": (nn.Linear(3, 2, bias=False), (5, 3)),
    "norm": (
        nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.BatchNorm1d(4, affine=False)),
        (5, 3),
    ),
}


@pytest.mark.exact
@pytest.mark.parametrize("case", CASES)
def test_a_built_network_is_the_described_one(case):
    network, shape = CASES[case]
    network.eval()
    description = json.loads(json.dumps(describe(network)))
    state = torch.random.get_rng_state()
    built = build(description)
    assert torch.equal(torch.random.get_rng_state(), state)
    built.load_state_dict(network.state_dict())
    x = torch.randn(shape)
    assert torch.equal(built.eval()(x), network(x))
    assert describe(built) == description
    assert list(dict(built.named_modules())) == list(dict(network.named_modules()))


@pytest.mark.contract
def test_empty_layers_build_without_a_warning():
    layer = build(
        {"type": "Linear", "arguments": {"in_features": 0, "out_features": 2, "bias": True}}
    )
    assert layer(torch.zeros(3, 0)).shape == (3, 2)


class _Own(nn.Sequential):
    def forward(self, x):
        return super().forward(x) * 2


class _OwnLinear(nn.Linear):
    pass


@pytest.mark.contract
@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            nn.Sequential(nn.Linear(2, 2), nn.GRU(2, 2)),
            r"but got GRU as module '1'\. Write the network",
        ),
        (_Own(nn.Linear(2, 2)), "but got _Own as the network"),
        (nn.Sequential(nn.Sequential(_OwnLinear(2, 2))), r"but got _OwnLinear as module '0\.0'"),
    ],
)
def test_unknown_modules_are_named(network, message):
    with pytest.raises(ValueError, match=message):
        describe(network)


@pytest.mark.contract
def test_hooks_and_loose_parameters_are_refused():
    hooked = nn.Sequential(nn.Linear(2, 2))
    hooked[0].register_forward_hook(lambda module, inputs, output: output * 2)
    with pytest.raises(
        ValueError, match="Expected modules without hooks, but got one on module '0'"
    ):
        describe(hooked)
    loose = nn.Sequential(nn.Linear(2, 2))
    loose.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(
        ValueError, match=r"Expected the network to hold modules alone, but got \['scale'\]"
    ):
        describe(loose)


@pytest.mark.contract
@pytest.mark.parametrize(
    "description",
    [{}, {"type": "os.system", "arguments": {}}, {"type": "Linear", "arguments": {"command": "x"}}],
)
def test_damaged_descriptions_are_refused(description):
    with pytest.raises(ValueError, match=r"Expected a description made by describe\(\)"):
        build(description)
