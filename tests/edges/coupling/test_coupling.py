"""Units of any network: pruned together what is tied, exactly; and tell why the rest stays."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

import pyro_relevance as pr
from pyro_relevance.edges.coupling.disjoint_sets import DisjointSets
from pyro_relevance.edges.size import count_cost, masked_cost
from pyro_relevance.errors import EdgeError, SurgeryError
from pyro_relevance.surgery.operations import name_of_function
from pyro_relevance.surgery.steps import GraphNetwork, SizeError


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
        return self.norm(torch.cat([x, self.one(x)], 1))


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


class Fixed(Network):
    """It takes a part of the channels whose size is written into the code."""

    def body(self, x):
        return torch.cat([x[:, 3:], x[:, :3]], 1)


class Split(Network):
    """Parts of unequal size, of which one is dropped."""

    def __init__(self):
        super().__init__(last=6)
        self.one = conv(2, 3)

    def body(self, x):
        one, two, _ = x.split([2, 3, 3], 1)
        return torch.cat([self.one(one), two], 1)


class Rolled(Network):
    def body(self, x):
        return x.roll(2, 1)


class Indexed(Network):
    def body(self, x):
        return x[:, [1, 0, 3, 2, 5, -4, 7, 6, 0]][:, 1:]


NETWORKS = {
    # what is tied: units of each group
    Residual: {"stem.0.units": 8, "block1.0.units": 6},
    PaddedShortcut: {"stem.0.units": 12},
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
    Fixed: {"stem.0.units": 8},
    Split: {"stem.0.units": 5, "one.0.units": 3},
    Rolled: {"stem.0.units": 8},
    Indexed: {"stem.0.units": 7},  # one of them is not read
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
    """Prune, and compare with what was promised."""
    before = copy.deepcopy(network.state_dict())
    pruned = pr.prune(network, edges, mask, example_input=x)
    tolerance = 1e-9 if x.dtype == torch.float64 else 1e-4
    assert pruned.receipt.max_difference <= tolerance
    predicted, after = masked_cost(edges, mask), pruned.receipt.after
    if all(bool(keep.any()) for keep in mask.values()):
        assert after.num_parameters == predicted.num_parameters
        assert after.num_macs == predicted.num_macs
    else:  # what a removed layer leaves without use is not foreseen
        assert after.num_parameters <= predicted.num_parameters
        assert after.num_macs <= predicted.num_macs
    pruned(x).sum().backward()
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    return pruned


# Most of the time is torch.export's: each type has its own masks.
DENSITIES = {torch.float32: (0.3, 1.0), torch.float64: (0.0, 0.7)}


@pytest.mark.exact
@pytest.mark.parametrize("dtype", DENSITIES)
@pytest.mark.parametrize("kind", NETWORKS)
def test_tied_channels_are_pruned_together_and_exactly(kind, dtype):
    network, x = make(kind, dtype), torch.randn(2, 3, 6, 6, dtype=dtype)
    edges = pr.find_edges(network, example_input=x, granularity="unit")
    found = {group.name: group.num_edges for group in edges}
    assert {name: found.get(name) for name in NETWORKS[kind]} == NETWORKS[kind]
    for density in DENSITIES[dtype]:
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


def without(edges, name):
    """Return a mask that removes one group whole."""
    mask = {group.name: torch.ones(group.shape, dtype=torch.bool) for group in edges}
    mask[name][:] = False
    return mask


@pytest.mark.exact
def test_a_layer_that_is_pruned_whole_is_removed_with_its_branch():
    network, x = make(Residual), torch.randn(2, 3, 6, 6)
    edges = pr.find_edges(network, example_input=x, granularity="unit")
    pruned = check(network, edges, without(edges, "block1.0.units"), x)
    assert "block1.0.units: 0 of 6 kept." in pruned.receipt.notes
    assert "block1.0.units is removed" in pruned.receipt.notes[-1]
    called = [step.target for step in pruned.network.steps if "conv" in step.target]
    assert called == ["torch.ops.aten.conv2d.default"]  # of three the stem alone is left
    assert not any(name.startswith("block1") for name in pruned.network.state_dict())
    # The branch has become its bias, added to the stream.
    stem = F.relu(network.stem(x) + network.block2.bias[:, None, None])
    expected = network.classifier(stem.mean((2, 3)))
    torch.testing.assert_close(pruned(x), expected)


@pytest.mark.exact
def test_a_layer_that_is_pruned_whole_keeps_one_unit_if_so_chosen():
    network, x = make(Residual), torch.randn(2, 3, 6, 6)
    edges = pr.find_edges(network, example_input=x, granularity="unit")
    mask = without(edges, "block1.0.units")
    kept = pr.prune(network, edges, mask, example_input=x, on_empty="keep")
    assert kept.network.block1[0].out_channels == 1
    assert "block1.0.units: 1 of 6 kept." in kept.receipt.notes
    assert kept.receipt.max_difference < 1e-5
    with pytest.raises(SurgeryError, match="none is kept in block1.0.units"):
        pr.prune(network, edges, mask, example_input=x, on_empty="error")


@pytest.mark.exact
@pytest.mark.parametrize("kind", NETWORKS)
def test_each_group_can_be_removed_whole(kind):
    network, x = make(kind), torch.randn(2, 3, 6, 6)
    edges = pr.find_edges(network, example_input=x, granularity="unit")
    for name in edges.names:
        check(network, edges, without(edges, name), x)
        kept = pr.prune(network, edges, without(edges, name), example_input=x, on_empty="keep")
        assert kept.receipt.after.num_parameters > 0


class Normed(nn.Module):
    """A residual stream through LayerNorm, a hidden layer, and attention."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Linear(5, 8), nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 3)
        self.make_attention()

    def make_attention(self):
        self.attention = nn.MultiheadAttention(8, 4, batch_first=True)

    def attend(self, x):
        return self.attention(x, x, x, need_weights=False)[0]

    def forward(self, x):
        x = self.embed(x)
        x = x + self.attend(self.norm(x))
        return self.head((x + self.down(F.gelu(self.up(self.norm(x))))).mean(1))


class Written(Normed):
    """Attention as it is written down by hand, with a bias and a scale for each head."""

    def make_attention(self):
        self.qkv, self.project = nn.Linear(8, 24), nn.Linear(8, 8)
        self.bias = nn.Parameter(torch.randn(4, 1, 6))
        self.scale = nn.Parameter(torch.rand(4, 1, 1))

    def attend(self, x):
        n, length, width = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1)) * self.scale + self.bias
        mixed = weights.softmax(-1) @ v
        return self.project(mixed.transpose(1, 2).reshape(n, length, width))


class Einsum(Normed):
    """Attention in Einstein's notation, on queries and keys of length one."""

    def make_attention(self):
        self.q, self.k, self.v = (nn.Linear(8, 12) for _ in range(3))
        self.project = nn.Linear(12, 8)

    def attend(self, x):
        q, k, v = (m(x).unflatten(-1, (4, 3)) for m in (self.q, self.k, self.v))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        weights = torch.einsum("b i h d, b j h d -> b h i j", q, k).softmax(-1)
        return self.project(torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2))


class Masked(Normed):
    """Positions and a mask that forward() makes on the device of its input."""

    def make_attention(self):
        self.qkv, self.project = nn.Linear(8, 24), nn.Linear(8, 8)
        self.positions = nn.Embedding(6, 8)

    def attend(self, x):
        x = x + self.positions(torch.arange(6, device=x.device))
        mask = torch.ones(6, 6, device=x.device).tril().bool()
        q, k, v = self.qkv(x).view(x.shape[0], 6, 3, 4, 2).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.mT / 2**0.5).masked_fill(~mask, -1e9).softmax(-1)
        return self.project((weights @ v).transpose(1, 2).flatten(2))


class Causal(Normed):
    def make_attention(self):
        self.qkv, self.project = nn.Linear(8, 24, bias=False), nn.Linear(8, 8, bias=False)

    def attend(self, x):
        q, k, v = (part.unflatten(-1, (4, 2)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.project(mixed.transpose(1, 2).flatten(2))


def attention_groups(edges):
    return [group for group in edges if group.name in edges.rewritten]


@pytest.mark.exact
@pytest.mark.parametrize("dtype", DENSITIES)
@pytest.mark.parametrize("kind", [Normed, Written, Einsum, Causal, Masked])
def test_heads_of_attention_are_pruned_whole_and_exactly(kind, dtype):
    network, x = kind().to(dtype).eval(), torch.randn(2, 6, 5, dtype=dtype)
    edges = pr.find_edges(network, example_input=x, granularity="unit")
    assert [group.num_edges for group in attention_groups(edges)] == [4]
    assert "up.units" in edges.names
    assert pr.Edges.from_json(edges.to_json()) == edges
    everything = {group.name: torch.ones(group.shape, dtype=torch.bool) for group in edges}
    assert masked_cost(edges, everything).num_macs == count_cost(network, x).num_macs
    for density in DENSITIES[dtype]:
        pruned = check(network, edges, random_mask(edges, density), x)
        with torch.no_grad():
            for size in (1, 3):  # it does not know how many examples there were
                assert pruned(x[:1].repeat(size, 1, 1)).shape == (size, 3)
    heads = attention_groups(edges)[0].name
    assert f"pruning {heads} changes numbers in forward()" in str(edges)
    assert "is removed" in check(network, edges, without(edges, heads), x).receipt.notes[-1]


@pytest.mark.exact
def test_a_network_without_some_heads_is_saved_and_exported(tmp_path):
    network, x = Normed().eval(), torch.randn(2, 6, 5)
    edges = pr.find_edges(network, example_input=x, granularity="unit")
    pruned = check(network, edges, random_mask(edges, 0.5), x)
    pruned.save(tmp_path / "small.safetensors")
    assert torch.equal(pr.load_pruned(tmp_path / "small.safetensors")(x), pruned(x))
    receipt = pr.export_torch(pruned, tmp_path / "small.pt2", example_input=x)
    assert receipt.max_difference < 1e-5
    receipt = pr.export_onnx(pruned, tmp_path / "small.onnx", example_input=x)
    assert receipt.max_difference < 1e-4


@pytest.mark.exact
def test_what_cannot_be_pruned_has_a_reason():
    network, x = Normed().eval(), torch.randn(2, 4, 5)
    edges = pr.find_edges(network, example_input=x, granularity="unit")
    assert edges.names == ("attention.units", "up.units")
    reasons = {item.name: item.reason for item in edges.skipped}
    assert "LayerNorm reads all of them together" in reasons["embed.units"]
    assert "outputs are never gated" in reasons["head.units"]


class Cross(Normed):
    """Queries from one stream, keys and values from another: rows of one weight are used apart."""

    def attend(self, x):
        return self.attention(x, x * 1.0, 2.0 * x, need_weights=False)[0]


class Shared(Normed):
    """Two heads of queries for one of keys and values."""

    def make_attention(self):
        self.q, self.kv, self.project = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def attend(self, x):
        n, length, _ = x.shape
        q = self.q(x).view(n, length, 4, 2).transpose(1, 2)
        k, v = self.kv(x).view(n, length, 2, 2, 2).permute(2, 0, 3, 1, 4)
        k, v = (part.repeat_interleave(2, 1) for part in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.project(mixed.transpose(1, 2).flatten(2))


class Tokens(Normed):
    """Tokens in the place of numbers, sizes taken from tensors and from the code."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)

    def make_attention(self):
        self.qkv, self.project = nn.Linear(8, 24), nn.Linear(8, 8)

    def attend(self, x):
        parts = self.qkv(x).split(8, dim=2)
        q, k, v = (p.view(*p.size()[:-1], 4, 2).permute(0, 2, 1, 3) for p in parts)
        mixed = (torch.matmul(q, k.transpose(-1, -2)).softmax(-1) @ v).permute(0, 2, 1, 3)
        return self.project(mixed.contiguous().view(*x.size()[:-1], 8))


@pytest.mark.exact
@pytest.mark.parametrize(("kind", "num_units"), [(Cross, 4), (Shared, 2), (Tokens, 4)])
def test_other_ways_to_write_attention(kind, num_units):
    network = kind().eval()
    x = torch.randint(11, (2, 6)) if kind is Tokens else torch.randn(2, 6, 5)
    edges = pr.find_edges(network, example_input=x, granularity="unit")
    groups = attention_groups(edges)
    assert [group.num_edges for group in groups] == [num_units]
    check(network, edges, random_mask(edges, 0.5), x)
    check(network, edges, without(edges, groups[0].name), x)


@pytest.mark.exact
def test_an_encoder_and_a_decoder_of_torch():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Linear(5, 8), nn.Linear(8, 3)
            self.both = nn.Transformer(8, 4, 1, 1, 16, batch_first=True)

        def forward(self, x):
            x = self.embed(x)
            return self.head(self.both(x, x).mean(1))

    network, x = Both().eval(), torch.randn(2, 6, 5)
    edges = pr.find_edges(network, example_input=x, granularity="unit")
    assert [group.num_edges for group in attention_groups(edges)] == [4, 4, 4]
    check(network, edges, random_mask(edges, 0.5), x)


@pytest.mark.contract
def test_layers_that_are_not_followed_are_listed():
    network = nn.Sequential(
        nn.Linear(5, 6), nn.ReLU(), nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)),
        nn.ReLU(), nn.Linear(4, 7), nn.LayerNorm(7), nn.Linear(7, 4), nn.ReLU(), nn.Linear(4, 2),
    )  # fmt: skip
    x = torch.randn(2, 5)
    edges = pr.find_edges(network, example_input=x, granularity="unit")
    assert edges.names == ("6.units",)
    reasons = {item.name: item.reason for item in edges.skipped}
    assert "weight is computed from other tensors" in reasons["2.units"]
    assert set(reasons) == {"0.units", "2.units", "4.units", "8.units"}
    edges = pr.find_edges(make(Auxiliary), example_input=torch.randn(1, 3, 6, 6))
    reasons = {item.name: item.reason for item in edges.skipped}
    assert "not called in evaluation" in reasons["auxiliary.units"]


class ByLength(Normed):
    """Its code looks at the number of examples."""

    def attend(self, x):
        return super().attend(x if len(x) == 1 else 2.0 * x)


class Blind(ByLength):
    """Its code for several examples looks at a value."""

    def __init__(self):
        super().__init__()
        self.register_buffer("sign", torch.ones(()))

    def attend(self, x):
        return super().attend(x if len(x) == 1 or float(self.sign) > 0 else -x)


@pytest.mark.exact
def test_heads_are_written_anew_for_the_number_of_examples_that_was_seen():
    network, x = ByLength().eval(), torch.randn(2, 4, 5)
    edges = pr.find_edges(network, example_input=x, granularity="unit")
    pruned = check(network, edges, random_mask(edges, 0.5), x)
    with pytest.raises(SizeError, match="axis 0 of the input 'x' == 2, but got 1"):
        pruned(x[:1])


@pytest.mark.contract
def test_heads_stay_where_the_code_cannot_be_written_anew():
    edges = pr.find_edges(Blind().eval(), example_input=torch.randn(2, 4, 5), granularity="unit")
    assert edges.names == ("up.units",)
    reasons = {item.name: item.reason for item in edges.skipped}
    assert "the number of heads is written into forward()" in reasons["attention.units"]


class Single(Network):
    """One channel is used apart."""

    def __init__(self):
        super().__init__(last=9)

    def body(self, x):
        return torch.cat([x, x[:, 2].unsqueeze(1)], 1)


class Unbound(Network):
    """Channels are taken apart."""

    def body(self, x):
        return torch.stack(x.unbind(1)[1:], 1).repeat_interleave(2, 1)[:, :8]


class Mixed(Network):
    def body(self, x):
        return x * x.softmax(1)


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
        (Single, "single ones are taken whose places are written into forward"),
        (Unbound, "single ones are taken whose places are written into forward"),
        (Mixed, "the operation 'softmax' reads all of them together"),
        (Constant, "a constant of their size"),
        (Sorted, "pass through the operation 'sort'"),
    ],
)
def test_code_that_knows_sizes_is_refused(kind, reason):
    with pytest.raises(EdgeError, match=reason):
        pr.find_edges(kind(), example_input=torch.randn(1, 3, 6, 6), granularity="unit")


@pytest.mark.exact
@pytest.mark.parametrize("num_chains", [1, 2])
@pytest.mark.parametrize("kind", [Residual, Normed])
def test_a_gate_of_zero_is_a_removed_unit_while_training(kind, num_chains):
    shape, num_classes = ((3, 6, 6), 4) if kind is Residual else ((6, 5), 3)
    network, x = make(kind), torch.randn(2, *shape)
    edges = pr.find_edges(network, example_input=x, granularity="unit")
    model = pr.RelevanceModel(network, edges, likelihood=pr.likelihoods.Categorical(), num_data=20)
    data = torch.randn(20, *shape), torch.arange(20) % num_classes
    fit = pr.fit(model, data, num_epochs=2, batch_size=10, num_chains=num_chains, seed=0)
    posterior = fit.posterior.chain(0)
    mask = pr.masks.top_fraction(posterior, 0.5)
    trained = posterior.network().eval()
    pruned = check(trained, edges, dict(mask), x)
    # Gates of zero and one in the model's own program give the outputs of the pruned network.
    gates = {name: keep.float() for name, keep in mask.items()}
    model.network.load_state_dict(trained.state_dict())
    inside = model.eval().run(x, dict(model.network.named_parameters()), gates)
    torch.testing.assert_close(inside, pruned(x), rtol=1e-4, atol=1e-5)


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


class Partly(Network):
    """A constant is written out along the first three channels."""

    def body(self, x):
        first = x[:, :3] * torch.arange(1.0, 4.0).view(1, 3, 1, 1)
        return torch.cat([first, x[:, 3:]], 1)


@pytest.mark.exact
def test_units_that_are_not_gated_beside_others_are_listed():
    network, x = make(Partly), torch.randn(2, 3, 6, 6)
    edges = pr.find_edges(network, example_input=x, granularity="unit")
    assert edges["stem.0.units"].num_edges == 5
    reasons = {item.name: item.reason for item in edges.skipped}
    assert reasons["stem.0.units"].startswith("3 of 8 are not gated: a constant of their size")
    check(network, edges, random_mask(edges, 0.5), x)


@pytest.mark.exact
def test_channels_that_a_shortcut_adds_are_units():
    torch.manual_seed(0)
    network, x = pr.networks.ResNet20().eval(), torch.randn(2, 3, 32, 32)
    shake(network)
    edges = pr.find_edges(network, example_input=x, granularity="unit")
    assert edges.num_edges == 64 + 3 * (16 + 32 + 64)
    mask = random_mask(edges, 0.5)
    assert isinstance(check(network, edges, mask, x).network, GraphNetwork)
    small = pr.prune(network, edges, mask, example_input=x)
    norms = [m for m in small.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 19  # one behind each convolution
    before = [norm.running_mean.clone() for norm in norms]
    small.train()(x)
    assert not any(torch.equal(a, b.running_mean) for a, b in zip(before, norms, strict=True))
    mask["conv1.units"][list(edges.rewritten["conv1.units"])] = True
    assert type(check(network, edges, mask, x).network) is type(network)


class Dropping(nn.Module):
    """Heads beside dropout of three kinds."""

    def __init__(self):
        super().__init__()
        self.embed, self.out, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.keys = nn.Linear(8, 24)
        self.drop, self.drop_features = nn.Dropout(0.5), nn.Dropout1d(0.25)

    def forward(self, x):
        x = self.drop_features(self.embed(x))
        q, k, v = self.keys(x).reshape(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.drop(self.out(y))
        return self.head(F.dropout(x, 0.125, self.training).mean(1))


@pytest.mark.exact
def test_dropout_goes_on_in_networks_that_are_written_down(tmp_path):
    network, x = make(Dropping), torch.randn(3, 5, 4)
    edges = pr.find_edges(network, example_input=x, granularity="unit")
    heads = next(g.name for g in edges if g.num_edges == 2)
    mask = {g.name: torch.ones(g.shape, dtype=torch.bool) for g in edges}
    mask[heads][0] = False
    small = check(network, edges, mask, x)
    assert isinstance(small.network, GraphNetwork)
    small.save(tmp_path / "small.safetensors")
    for one in (small, pr.load_pruned(tmp_path / "small.safetensors")):
        kept = [
            (type(m), m.p) for m in one.modules() if isinstance(m, nn.modules.dropout._DropoutNd)
        ]
        assert kept == [(nn.Dropout1d, 0.25), (nn.Dropout, 0.5), (nn.Dropout, 0.125)]
        assert torch.equal(one.eval()(x), one(x))
        assert not torch.equal(one.train()(x), one(x))
    # In training it drops what the network drops: the same with the same random numbers.
    masked = pr.apply_mask(network, edges, mask).train()
    torch.manual_seed(1)
    expected = masked(x)
    torch.manual_seed(1)
    torch.testing.assert_close(small.train()(x), expected)


def vision_transformer():
    return torchvision.models.VisionTransformer(
        image_size=16, patch_size=4, num_layers=2, num_heads=4, hidden_dim=16, mlp_dim=24
    )


def swin(version):
    """Shifted windows: a mask made in place, relative positions for each head, rolls."""
    v2 = version == 2
    settings = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2} if v2 else {}
    return torchvision.models.SwinTransformer(
        patch_size=[2, 2], embed_dim=12, depths=[2, 2], num_heads=[3, 6], window_size=[4, 4],
        num_classes=5, **settings,
    )  # fmt: skip


def maxvit():
    return torchvision.models.MaxVit(
        input_size=(32, 32), stem_channels=8, partition_size=4, block_channels=[8, 16],
        block_layers=[1, 1], head_dim=4, stochastic_depth_prob=0.0, num_classes=5,
    )  # fmt: skip


@pytest.mark.exact
@pytest.mark.parametrize(
    ("make_network", "size"),
    [
        (vision_transformer, 16),
        (functools.partial(swin, 1), 32),
        (functools.partial(swin, 2), 32),
        (maxvit, 32),
    ],
    ids=["vit", "swin", "swin_v2", "maxvit"],
)
def test_transformers_of_torchvision(make_network, size):
    torch.manual_seed(0)
    network, x = make_network().eval(), torch.randn(1, 3, size, size)
    shake(network)
    for parameter in network.parameters():
        if not bool(parameter.any()):  # a head of zeros would hide everything
            nn.init.normal_(parameter, std=0.3)
    edges = pr.find_edges(network, example_input=x, granularity="unit")
    heads = attention_groups(edges)
    assert len(heads) in (2, 4)
    assert all(group.num_edges in (2, 3, 4, 6) for group in heads)
    nothing = torch.zeros(heads[0].shape, dtype=torch.bool)
    check(network, edges, {**random_mask(edges, 0.6), heads[0].name: nothing}, x)


@pytest.mark.contract
def test_whatever_is_followed_can_be_written_down():
    # Of some operators nothing but the number of operations is known.
    entries = [e for e in pr.operators.registered() if e.macs is None or e.couples is not None]
    followed = [name for entry in entries for name in entry.names]
    for name in followed:
        packet = getattr(torch.ops.aten, name, None)
        for overload in packet.overloads() if packet is not None else ():
            if "out" not in overload:
                assert name_of_function(getattr(packet, overload)), f"{name}.{overload}"


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
