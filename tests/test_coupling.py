"""Units of any network: cut together what is tied, cut exactly, and tell why the rest stays."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import pyro_relevance as pr
from pyro_relevance.cost import masked_cost
from pyro_relevance.disjoint_sets import DisjointSets
from pyro_relevance.errors import EdgeError, SurgeryError


def conv(inputs, outputs, size=3, **settings):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False, **settings),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Network(nn.Module):
    """A stem, a body that subclasses write, and a classifier."""

    def __init__(self, width=8, last=None):
        super().__init__()
        self.stem = conv(3, width)
        self.classifier = nn.Linear(last or width, 4)

    def forward(self, x):
        return self.classifier(F.adaptive_avg_pool2d(self.body(self.stem(x)), 1).flatten(1))


class Residual(Network):
    def __init__(self):
        super().__init__()
        self.block1, self.block2 = conv(8, 6), nn.Conv2d(6, 8, 3, padding=1)

    def body(self, x):
        return F.relu(x + self.block2(self.block1(x)))


class PaddedShortcut(Network):
    """The parameter-free shortcut of CIFAR ResNets: every second pixel, zeros for new channels."""

    def __init__(self):
        super().__init__(last=12)
        self.block = nn.Conv2d(8, 12, 3, stride=2, padding=1)

    def body(self, x):
        return self.block(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, 4))


class Concatenation(Network):
    def __init__(self):
        super().__init__(last=13)
        self.one = conv(8, 5)
        self.norm = nn.BatchNorm2d(13)

    def body(self, x):
        x = torch.cat([x, self.one(x)], 1)
        return (
            torch.cat([self.two(self.norm(x)), x[:, :, :, :]], 1)[:, :13] if False else self.norm(x)
        )


class Depthwise(Network):
    def __init__(self):
        super().__init__()
        self.depthwise, self.point = conv(8, 8, groups=8), conv(8, 8, 1)

    def body(self, x):
        return self.point(self.depthwise(x))


class Grouped(Network):
    def __init__(self):
        super().__init__()
        self.grouped, self.point = conv(8, 12, groups=4), conv(12, 8, 1)

    def body(self, x):
        return self.point(self.grouped(x))


class Excitation(Network):
    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(8, 3, 1), nn.Conv2d(3, 8, 1)

    def body(self, x):
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Shuffle(Network):
    """Two halves, one passed on, both shuffled."""

    def __init__(self):
        super().__init__()
        self.branch = conv(4, 4)

    def body(self, x):
        one, two = x.chunk(2, dim=1)
        x = torch.cat([one, self.branch(two)], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Flattened(Network):
    def __init__(self):
        super().__init__(last=8 * 6 * 6)

    def forward(self, x):
        return self.classifier(self.stem(x).flatten(1))


class GroupNormed(Network):
    def __init__(self):
        super().__init__()
        self.norm, self.conv = nn.GroupNorm(4, 8), nn.Conv2d(8, 8, 3)

    def body(self, x):
        return self.conv(self.norm(x))


class OneOutput(Network):
    """A convolution with one output channel is not depthwise, though it has one group."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Conv2d(8, 1, 1)

    def body(self, x):
        return x * torch.sigmoid(self.gate(x))


class Transposed(Network):
    def __init__(self):
        super().__init__(last=5)
        self.up, self.slope = nn.ConvTranspose2d(8, 5, 2, stride=2), nn.PReLU(5)

    def body(self, x):
        return self.slope(self.up(x))


class Scaled(Network):
    """A parameter of its own for each channel."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(8, 1, 1))

    def body(self, x):
        return x * self.scale


class CalledTwice(Network):
    def __init__(self):
        super().__init__()
        self.shared = conv(8, 8)

    def body(self, x):
        return self.shared(self.shared(x))


class Auxiliary(Network):
    """Layers that only run in training."""

    def __init__(self):
        super().__init__()
        self.auxiliary = nn.Conv2d(8, 3, 1)

    def body(self, x):
        return x + self.auxiliary(x).mean() if self.training else x


NETWORKS = {
    # what is tied: units of each group
    Residual: {"stem.0.units": 8, "block1.0.units": 6},
    PaddedShortcut: {"stem.0.units": 8},
    Concatenation: {"stem.0.units": 8, "one.0.units": 5},
    Depthwise: {"stem.0.units": 8, "point.0.units": 8},
    Grouped: {"stem.0.units": 4, "point.0.units": 8},
    Excitation: {"stem.0.units": 8, "down.units": 3},
    Shuffle: {"stem.0.units": 4},
    Flattened: {"stem.0.units": 8},
    GroupNormed: {"stem.0.units": 4, "conv.units": 8},
    OneOutput: {"stem.0.units": 8, "gate.units": None},
    Transposed: {"stem.0.units": 8, "up.units": 5},
    Scaled: {"stem.0.units": 8},
    CalledTwice: {"stem.0.units": 8},
    Auxiliary: {"stem.0.units": 8},
}


def make(kind, dtype=torch.float32):
    """Return a network in evaluation mode whose normalisation does something."""
    network = kind().to(dtype).eval()
    shake(network)
    return network


def shake(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)


def random_mask(edges, density):
    mask = {group.name: torch.rand(group.shape) < density for group in edges}
    if 0 < density < 1:
        for keep in mask.values():
            keep.view(-1)[:2] = torch.tensor([True, False])[: keep.numel()]
    return mask


def check(network, edges, mask, x):
    """Cut, and compare with what was promised."""
    before = copy.deepcopy(network.state_dict())
    pruned = pr.prune(network, edges, mask, example_input=x)
    tolerance = 1e-4 if x.dtype == torch.float32 else 1e-9
    assert pruned.receipt.max_difference <= tolerance
    assert pruned.receipt.after.num_parameters == masked_cost(edges, mask).num_parameters
    pruned(x).sum().backward()
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    return pruned


@pytest.mark.exact
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", NETWORKS)
def test_tied_channels_are_cut_together_and_exactly(kind, dtype):
    network, x = make(kind, dtype), torch.randn(2, 3, 6, 6, dtype=dtype)
    edges = pr.find_edges(network, example_input=x, granularity="unit")
    found = {group.name: group.num_edges for group in edges}
    assert {name: found.get(name) for name in NETWORKS[kind]} == NETWORKS[kind]
    for density in (0.0, 0.3, 0.7, 1.0):
        pruned = check(network, edges, random_mask(edges, density), x)
        if density in (0.3, 0.7):
            assert pruned.receipt.after.num_parameters < pruned.receipt.before.num_parameters


@pytest.mark.exact
@pytest.mark.parametrize("kind", [Residual, Concatenation, Flattened, Depthwise])
def test_units_and_their_weights(kind):
    network, x = make(kind), torch.randn(2, 3, 6, 6)
    edges = pr.find_edges(network, example_input=x, granularity=("unit", "weight"))
    for density in (0.2, 0.8):
        check(network, edges, random_mask(edges, density), x)


@pytest.mark.contract
def test_a_layer_that_is_cut_whole_keeps_one_unit_and_says_so():
    network, x = make(Residual), torch.randn(2, 3, 6, 6)
    edges = pr.find_edges(network, example_input=x, granularity="unit")
    mask = {group.name: torch.ones(group.shape, dtype=torch.bool) for group in edges}
    mask["block1.0.units"][:] = False
    pruned = check(network, edges, mask, x)
    assert pruned.network.block1[0].out_channels == 1
    assert any("block1.0.units: all are cut" in note for note in pruned.receipt.notes)
    with pytest.raises(SurgeryError, match="nothing is left of block1.0.units"):
        pr.prune(network, edges, mask, example_input=x, on_empty="error")


class Normed(nn.Module):
    """A residual stream through LayerNorm, a hidden layer, and attention."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Linear(5, 8), nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.embed(x)
        normed = self.norm(x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        return self.head((x + self.down(F.gelu(self.up(self.norm(x))))).mean(1))


@pytest.mark.exact
def test_what_cannot_be_cut_has_a_reason():
    network, x = Normed().eval(), torch.randn(2, 4, 5)
    edges = pr.find_edges(network, example_input=x, granularity="unit")
    assert edges.names == ("up.units",)
    reasons = {item.name: item.reason for item in edges.skipped}
    assert "LayerNorm reads all of them together" in reasons["embed.units"]
    assert "heads of attention" in reasons["attention.units"]
    assert "outputs are never judged" in reasons["head.units"]
    check(network, edges, random_mask(edges, 0.5), x)


class Fixed(Network):
    """It takes a part of the channels whose size is written into the code."""

    def body(self, x):
        return torch.cat([x[:, :3], x[:, 3:]], 1)


class Rolled(Network):
    def body(self, x):
        return x.roll(2, 1)


class Indexed(Network):
    def body(self, x):
        return x[:, [1, 0, 3, 2, 5, 4, 7, 6]]


class Constant(Network):
    def body(self, x):
        return x * torch.arange(8.0).view(1, 8, 1, 1)


class Sorted(Network):
    def body(self, x):
        return x.sort(1).values


@pytest.mark.contract
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Fixed, "written into forward"),
        (Rolled, "written into forward"),
        (Indexed, "written into forward"),
        (Constant, "a constant of their size"),
        (Sorted, "pass through the operation 'sort'"),
    ],
)
def test_code_that_knows_sizes_is_refused(kind, reason):
    with pytest.raises(EdgeError, match=reason):
        pr.find_edges(kind(), example_input=torch.randn(1, 3, 6, 6), granularity="unit")


@pytest.mark.exact
def test_a_gate_of_zero_is_a_removed_channel_while_training():
    network, x = make(Residual), torch.randn(2, 3, 6, 6)
    edges = pr.find_edges(network, example_input=x, granularity="unit")
    model = pr.RelevanceModel(network, edges, likelihood=pr.likelihoods.Categorical(), num_data=20)
    data = torch.randn(20, 3, 6, 6), torch.arange(20) % 4
    fit = pr.fit(model, data, num_epochs=2, batch_size=10, seed=0)
    mask = pr.masks.top_fraction(fit.posterior, 0.5)
    trained = fit.posterior.chain(0).model.network.eval()
    check(trained, edges, dict(mask), x)


@pytest.mark.exact
@pytest.mark.parametrize(
    "name",
    ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "regnet_y_400mf"],
)
def test_networks_of_torchvision(name):
    network = torchvision.models.get_model(name, weights=None).eval()
    shake(network)
    x = torch.randn(1, 3, 64, 64)
    edges = pr.find_edges(network, example_input=x, granularity="unit")
    check(network, edges, random_mask(edges, 0.6), x)


@pytest.mark.exact
def test_disjoint_sets():
    sets, rng = DisjointSets(), np.random.default_rng(0)
    assert sets.extend(30) == 0
    expected = list(range(30))
    for _ in range(4):
        one, other = rng.integers(30, size=5), rng.integers(30, size=5)
        sets.join(one, other)
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            low, high = sorted((expected[a], expected[b]))
            expected = [low if root == high else root for root in expected]
        assert sets.roots().tolist() == expected
    assert sets.extend(2) == 30
    assert sets.roots().tolist() == [*expected, 30, 31]
