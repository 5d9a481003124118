"""Costs: counted by hand, and computed from a mask as on the pruned network."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pyro_relevance import operators
from pyro_relevance.data.networks import MLP, LeNet300100
from pyro_relevance.edges import size
from pyro_relevance.edges.find import Edges, find_edges
from pyro_relevance.edges.packing import pack, packed_size, unpack
from pyro_relevance.edges.size import (
    Cost,
    count_cost,
    latency,
    masked_cost,
    num_bytes,
    num_macs,
    num_nonzero,
    num_parameters,
)
from pyro_relevance.surgery.pruning import prune


@pytest.mark.exact
def test_lenet_by_hand():
    network = LeNet300100()
    weights = 784 * 300 + 300 * 100 + 100 * 10
    cost = count_cost(network, torch.zeros(16, 1, 28, 28))
    assert cost == Cost(weights + 410, weights + 410, weights, 4 * (weights + 410))


@pytest.mark.exact
def test_zeros_are_stored_but_not_counted():
    network = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))
    with torch.no_grad():
        network[0].weight[1:] = 0
        network[0].bias.fill_(1.0)
    assert num_parameters(network) == 32 + 4 + 8
    assert num_nonzero(network) == 8 + 4 + 4
    # The weight is 8 values and 32 bits; bias, mean, counter of BatchNorm are zeros: 1 byte each.
    assert num_bytes(network) == (8 * 4 + 4) + 16 + 16 + 1 + 1 + 16 + 1


@pytest.mark.exact
def test_macs_of_convolutions_and_positions():
    network = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Linear(5, 4))
    x = torch.zeros(7, 2, 5, 5)
    assert num_macs(network, x) == 25 * 3 * 2 * 9 + 15 * 5 * 4
    edges = find_edges(network, granularity="weight", example_input=x)
    mask = {group.name: torch.ones(group.shape).bool() for group in edges}
    assert masked_cost(edges, mask).num_macs == num_macs(network, x)
    assert masked_cost(Edges.from_json(edges.to_json()), mask) == masked_cost(edges, mask)
    blind = find_edges(network, granularity="weight")
    with pytest.raises(
        ValueError, match=r"how often '0\.weight' is applied.*Pass example_input to find_edges"
    ):
        masked_cost(blind, mask)


@pytest.mark.property
@settings(max_examples=80)
@given(
    seed=st.integers(0, 2**16),
    sizes=st.lists(st.integers(1, 7), min_size=2, max_size=5),
    activation=st.sampled_from([nn.ReLU, nn.Sigmoid]),
    norm=st.booleans(),
    granularity=st.sampled_from(
        [("input",), ("weight",), ("input", "unit"), ("input", "unit", "weight")]
    ),
    density=st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_masked_cost_is_what_is_counted_after_pruning(
    seed, sizes, activation, norm, granularity, density, dtype
):
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for before, after in zip(sizes, sizes[1:], strict=False):
        layers += [
            nn.Linear(before, after),
            *([nn.BatchNorm1d(after)] if norm else []),
            activation(),
        ]
    network = nn.Sequential(*layers, nn.Linear(sizes[-1], 2)).to(dtype)
    for tensor in network.state_dict().values():
        tensor.copy_(1 if tensor.ndim == 0 else torch.rand_like(tensor) + 0.5)
    edges = find_edges(network, granularity=granularity)
    mask = {group.name: torch.rand(group.shape) < density for group in edges}
    x = torch.randn(3, sizes[0], dtype=dtype)
    pruned = prune(network, edges, mask, example_input=x)
    expected = count_cost(pruned.network, x)
    assert masked_cost(edges, mask, entry_size=dtype.itemsize) == expected == pruned.receipt.after


@pytest.mark.exact
def test_a_whole_mask_costs_the_whole_network():
    network = MLP(13, (50,), 1)
    edges = find_edges(network)
    cost = masked_cost(edges, {"hidden1.units": torch.ones(50).bool()})
    assert cost == Cost(751, 751, 700, 3004)
    with pytest.raises(ValueError, match="Expected a value for each of"):
        masked_cost(edges, {})


@pytest.mark.exact
@pytest.mark.parametrize("shape", [(2, 4, 9), (2, 4, 9, 9)])
def test_a_convolution_found_without_an_example_cannot_be_costed(shape):
    kind = nn.Conv1d if len(shape) == 3 else nn.Conv2d
    network = nn.Sequential(kind(4, 3, 3), nn.ReLU(), kind(3, 2, 3))
    mask = {"0.weight": torch.ones(network[0].weight.shape).bool()}
    mask["2.weight"] = torch.ones(network[2].weight.shape).bool()
    with pytest.raises(ValueError, match=r"how often '0\.weight' is applied"):
        masked_cost(find_edges(network, granularity="weight"), mask)
    found = find_edges(network, granularity="weight", example_input=torch.zeros(shape))
    assert masked_cost(found, mask).num_macs == num_macs(network, torch.zeros(shape)) > 0


class Scaled(nn.Module):
    """A layer whose outputs are scaled, each by its own entry of a matrix of one row."""

    def __init__(self):
        super().__init__()
        self.layer, self.scale = nn.Linear(3, 4), nn.Parameter(torch.full((1, 4), 2.0))
        self.register_buffer("steps", torch.tensor(7))
        self.register_buffer("offset", torch.ones(4))
        self.last = nn.Linear(4, 1)

    def forward(self, x):
        return self.last(torch.relu(self.layer(x) * self.scale + self.offset))


@pytest.mark.exact
def test_matrices_that_multiply_nothing_and_buffers():
    network, x = Scaled(), torch.zeros(2, 3)
    edges = find_edges(network, granularity="input", example_input=x)
    cost = masked_cost(edges, {"inputs": torch.tensor([True, True, True])})
    num = 12 + 4 + 4 + 4 + 1
    # Four entries of four bytes and an integer of eight are no parameters and lie in the file.
    assert cost == Cost(num, num, 12 + 4, 4 * num + 4 * 4 + 8) == count_cost(network, x)
    # Without the second input: four weights less, and two of three numbers of columns in its place.
    smaller = masked_cost(edges, {"inputs": torch.tensor([True, False, True])})
    assert smaller == Cost(
        num - 4, num - 4, 8 + 4, 4 * (num - 4) + 4 * 4 + 8 + packed_size(1, 2, 4)
    )


class Attention(nn.Module):
    """Two heads of three numbers over five places."""

    def __init__(self):
        super().__init__()
        self.attend, self.last = nn.MultiheadAttention(6, 2, batch_first=True), nn.Linear(6, 1)

    def forward(self, x):
        return self.last(self.attend(x, x, x, need_weights=False)[0])


@pytest.mark.exact
def test_macs_of_attention_by_hand(capsys):
    network, x = Attention().eval(), torch.randn(4, 5, 6)
    layers = 5 * (4 * 6 * 6 + 6)
    products = 2 * 2 * 5 * 5 * 3  # for each head: of queries and keys, of weights and values
    assert num_macs(network, x) == layers + products
    edges = find_edges(network, granularity="unit", example_input=x)
    everything = {group.name: torch.ones(group.shape).bool() for group in edges}
    assert masked_cost(edges, everything).num_macs == layers + products
    (heads,) = (group.name for group in edges if group.name in edges.rewritten)
    one = everything | {heads: torch.tensor([True, False])}
    # Half of the queries, keys and values, and of what reads the mixed values.
    assert masked_cost(edges, one).num_macs == 5 * (2 * 6 * 6 + 6) + products // 2
    assert torch.backends.mha.get_fastpath_enabled()
    assert capsys.readouterr().out == ""


@pytest.mark.contract
def test_an_operator_of_torch_is_counted_as_it_is_registered():
    class Quantiles(nn.Module):
        def forward(self, x):
            return x.erfinv()

    x = torch.zeros(3, 7)
    assert num_macs(Quantiles(), x) == 0
    with operators.temporary():
        operators.operator("erfinv", macs=lambda x, out_shape: 6 * x[1])(operators.pointwise)
        assert num_macs(Quantiles(), x) == 6 * 7


class Clock:
    """A clock that only the network moves on."""

    def __init__(self):
        self.now = 50.0

    def perf_counter(self):
        return self.now


class Slow(nn.Module):
    """A network that takes as many seconds at each pass as it is told."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds, self.calls = clock, seconds, 0

    def forward(self, x):
        self.clock.now += self.seconds[min(self.calls, len(self.seconds) - 1)]
        self.calls += 1
        return x


@pytest.mark.exact
@pytest.mark.parametrize(
    ("seconds", "settings", "num_timed", "expected"),
    [
        # Three passes warm up, however slow they are; the quartiles of 1, 2, 3, 4, 5 are 2, 3, 4.
        ([0.9, 0.9, 0.9, 0.01, 0.05, 0.02, 0.04, 0.03], {"repeats": 5}, 5, (0.03, 0.02, 0.04)),
        ([0.01], {}, 20, (0.01, 0.01, 0.01)),
        ([0.01], {"repeats": 2}, 2, (0.01, 0.01, 0.01)),
        # Two passes at least; none after two seconds.
        ([5.0], {}, 2, (5.0, 5.0, 5.0)),
        ([1.0], {}, 2, (1.0, 1.0, 1.0)),
        ([0.75], {}, 3, (0.75, 0.75, 0.75)),
    ],
)
def test_latency_by_a_clock(monkeypatch, seconds, settings, num_timed, expected):
    clock = Clock()
    monkeypatch.setattr(size, "time", clock)
    network = Slow(clock, seconds)
    found = latency(network, torch.zeros(2, 3), **settings)
    assert network.calls == 3 + num_timed
    assert (found.median, found.lower, found.upper) == pytest.approx(expected)


@pytest.mark.contract
def test_costs_are_values():
    for value, name in ((Cost(1, 1, 1, 1), "num_macs"), (size.Latency(1.0, 1.0, 1.0), "median")):
        with pytest.raises(AttributeError):
            setattr(value, name, 0)


@pytest.mark.contract
def test_latency_leaves_the_network_as_it_was():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout())
    network[2].eval()
    time = latency(network, torch.randn(5, 3), repeats=5)
    assert 0 < time.lower <= time.median <= time.upper
    assert [module.training for module in network.modules()] == [True, True, True, False]
    assert network[1].num_batches_tracked == 0
    with pytest.raises(ValueError, match="repeats of at least 2, but got 1"):
        latency(network, torch.randn(5, 3), repeats=1)


@pytest.mark.property
@given(
    shape=st.lists(st.integers(0, 9), max_size=3),
    density=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8]),
)
def test_packing_loses_nothing_and_takes_the_promised_bytes(shape, density, dtype):
    tensor = ((torch.rand(shape) < density) * (1 + 9 * torch.rand(shape))).to(dtype)
    packed, shapes = pack({"a.weight": tensor})
    restored = unpack(packed, shapes)["a.weight"]
    assert restored.dtype == dtype
    assert torch.equal(restored, tensor)
    size = sum(part.numel() * part.element_size() for part in packed.values())
    assert size == packed_size(int(tensor.count_nonzero()), tensor.numel(), tensor.element_size())
    assert size <= tensor.numel() * tensor.element_size()


@pytest.mark.contract
def test_damaged_packing_is_refused():
    packed, shapes = pack({"w": torch.tensor([0.0, 1.0, 0.0, 2.0])})
    with pytest.raises(ValueError, match="values and bits of the packed tensor 'w'"):
        unpack({"w::values": packed["w::values"]}, shapes)
    with pytest.raises(ValueError, match="Expected 2 values of 'w', but got 1"):
        unpack(packed | {"w::values": torch.ones(1)}, shapes)
