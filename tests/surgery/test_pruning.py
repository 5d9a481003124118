"""Pruning: the small network is the masked one, the original stays, files are small and whole."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from pyro_relevance.data.networks import MLP, LeNet300100
from pyro_relevance.edges.find import find_edges
from pyro_relevance.edges.size import masked_cost, num_bytes, num_nonzero, num_parameters
from pyro_relevance.errors import CheckpointError, SurgeryError
from pyro_relevance.surgery import pruning as surgery
from pyro_relevance.surgery.plain_modules import Constant, SelectFeatures
from pyro_relevance.surgery.pruning import Receipt, apply_mask, load_pruned, prune

GRANULARITIES = (("unit",), ("input",), ("weight",), ("input", "unit"), ("input", "unit", "weight"))


def random_mask(edges, density):
    return {group.name: torch.rand(group.shape) < density for group in edges}


def randomised(network):
    """Parameters and statistics without a zero."""
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(
                torch.rand_like(tensor) + 0.1 if tensor.ndim == 1 else torch.randn_like(tensor)
            )
    return network


@st.composite
def networks(draw):
    torch.manual_seed(draw(st.integers(0, 2**16)))
    activation = draw(st.sampled_from([nn.ReLU, nn.Tanh, nn.Sigmoid]))
    sizes = draw(st.lists(st.integers(1, 6), min_size=2, max_size=5))
    norm, bias = draw(st.booleans()), draw(st.booleans())
    layers: list[nn.Module] = []
    for before, after in zip(sizes, sizes[1:], strict=False):
        layers.append(nn.Linear(before, after, bias=bias))
        layers += [nn.BatchNorm1d(after)] if norm else []
        layers += [activation(), nn.Dropout(0.5)]
    layers.append(nn.Linear(sizes[-1], draw(st.integers(1, 3))))
    network = randomised(nn.Sequential(*layers))
    return network.to(draw(st.sampled_from([torch.float32, torch.float64])))


def _same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# Pruned = masked


@pytest.mark.property
@settings(max_examples=100)
@given(
    network=networks(),
    granularity=st.sampled_from(GRANULARITIES),
    density=st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]),
)
def test_pruned_equals_masked_equals_gated_and_the_original_stays(network, granularity, density):
    dtype = network[0].weight.dtype
    try:
        edges = find_edges(network, granularity=granularity)
    except ValueError:
        return
    mask = random_mask(edges, density)
    x = torch.randn(4, network[0].in_features, dtype=dtype)
    before, modules = copy.deepcopy(network.state_dict()), list(network.modules())

    pruned = prune(network, edges, mask, example_input=x)

    masked = apply_mask(network, edges, mask)
    gated = torch.func.functional_call(
        copy.deepcopy(network).eval(), edges.fold(dict(network.named_parameters()), mask), x
    )
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    expected = masked.eval()(x).detach()
    assert torch.equal(expected, gated)
    scale = max(1.0, float(expected.abs().max()))
    assert float((pruned.eval()(x).detach() - expected).abs().max()) <= tolerance * scale
    assert pruned.receipt.max_difference <= tolerance
    assert _same(before.values(), network.state_dict().values())
    assert all(a is b for a, b in zip(modules, network.modules(), strict=True))
    assert all(module.training for module in network.modules())
    assert pruned.receipt.before.num_parameters == num_parameters(network)
    assert pruned.receipt.after.num_parameters == num_parameters(pruned)
    # Nothing dead is left.
    layers = [module for module in pruned.modules() if isinstance(module, nn.Linear)]
    assert all(layer.in_features > 0 and layer.out_features > 0 for layer in layers)


@pytest.mark.property
@settings(max_examples=40)
@given(
    network=networks(),
    granularity=st.sampled_from(GRANULARITIES[2:]),
    density=st.sampled_from([0.3, 0.6]),
)
def test_pruning_twice_is_pruning_once(network, granularity, density):
    edges = find_edges(network, granularity=granularity)
    x = torch.randn(4, network[0].in_features, dtype=network[0].weight.dtype)
    once = prune(network, edges, random_mask(edges, density), example_input=x).network
    if isinstance(once, Constant):
        return
    again = find_edges(once, granularity="weight")
    mask = {
        name: parameter != 0 for name, parameter in once.named_parameters() if name in again.names
    }
    twice = prune(once, again, mask, example_input=x).network
    assert list(twice.state_dict()) == list(once.state_dict())
    assert _same(twice.state_dict().values(), once.state_dict().values())


@pytest.mark.exact
def test_sizes_shrink_and_unread_inputs_are_passed_by():
    network = MLP(5, (4, 3), 2)
    edges = find_edges(network, granularity=("input", "unit"))
    mask = {
        "inputs": torch.tensor([1, 0, 0, 1, 1]).bool(),
        "hidden1.units": torch.tensor([1, 0, 1, 1]).bool(),
        "hidden2.units": torch.tensor([0, 1, 1]).bool(),
    }
    x = torch.randn(7, 5)
    pruned = prune(network, edges, mask, example_input=x)
    select, layer = pruned.network.hidden1
    assert isinstance(select, SelectFeatures)
    assert select.index.tolist() == [0, 3, 4]
    assert layer.weight.shape == (layer.out_features, layer.in_features) == (3, 3)
    assert pruned.network.hidden2.weight.shape == (2, 3)
    assert pruned.network.output.weight.shape == (2, 2)
    torch.testing.assert_close(pruned(x), apply_mask(network, edges, mask)(x))
    assert "inputs: 3 of 5 kept." in pruned.receipt.notes
    assert pruned.receipt.batch_size == 7


@pytest.mark.exact
def test_constant_units_move_into_biases():
    network = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.Linear(2, 1, bias=False)).double()
    edges = find_edges(network, granularity="weight")
    mask = {
        "0.weight": torch.tensor([[True, True], [False, False]]),
        "2.weight": torch.ones(1, 2).bool(),
    }
    pruned = prune(network, edges, mask, example_input=torch.randn(3, 2, dtype=torch.float64))
    small = pruned.network
    assert small[0].out_features == 1
    expected = network[2].weight[0, 1] * torch.sigmoid(network[0].bias[1])
    torch.testing.assert_close(small[2].bias, expected.reshape(1).detach())
    assert "0.units: 1 constant, moved into biases." in pruned.receipt.notes


@pytest.mark.exact
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_all_pruned_is_a_constant(granularity):
    network = MLP(3, (4, 5), 2, activation=nn.Sigmoid)
    edges = find_edges(network, granularity=granularity)
    mask = random_mask(edges, 0.0)
    x = torch.randn(6, 3)
    pruned = prune(network, edges, mask, example_input=x)
    assert isinstance(pruned.network, Constant)
    assert torch.equal(pruned(x), apply_mask(network, edges, mask)(x))
    assert pruned(torch.randn(0, 3)).shape == (0, 2)
    assert pruned.receipt.after.num_parameters == 2
    assert pruned.receipt.after.num_macs == 0
    with pytest.raises(SurgeryError, match=r"none is kept in inputs, .*on_empty='remove'"):
        prune(network, edges, mask, example_input=x, on_empty="error")


@pytest.mark.exact
def test_one_empty_layer_empties_the_network():
    network = MLP(3, (4, 5), 2, activation=nn.Tanh)
    edges = find_edges(network)
    mask = {"hidden1.units": torch.ones(4).bool(), "hidden2.units": torch.zeros(5).bool()}
    pruned = prune(network, edges, mask, example_input=torch.randn(6, 3))
    torch.testing.assert_close(pruned.network.value, network.output.bias)


@pytest.mark.exact
def test_networks_with_branches_and_functions():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 5), nn.Linear(6, 4)
            self.c, self.d = nn.Linear(5, 2, bias=False), nn.Linear(4, 2)

        def forward(self, x):
            x = x.flatten(1)
            return self.c(torch.tanh(self.a(x))) + self.d(F.gelu(self.b(x)))

    network = Branches().double()
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    edges = find_edges(network, granularity=("input", "unit", "weight"))
    for density in (0.0, 0.3, 0.7):
        prune(network, edges, random_mask(edges, density), example_input=x)
    mask = random_mask(edges, 2.0) | {"b.units": torch.zeros(4).bool()}
    pruned = prune(network, edges, mask, example_input=x)
    assert pruned.network.d.in_features == 0
    torch.testing.assert_close(
        pruned(x), network.c(torch.tanh(network.a(x.flatten(1)))) + network.d.bias
    )


@pytest.mark.exact
def test_readers_choose_their_own_columns():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x):
            return self.a(x) + self.b(x)

    network = Two()
    edges = find_edges(network, granularity="weight")
    mask = random_mask(edges, 2.0)
    mask["a.weight"][:, 1:] = False
    mask["b.weight"][:, 0] = False
    pruned = prune(network, edges, mask, example_input=torch.randn(3, 4))
    assert pruned.network.a[0].index.tolist() == [0]
    assert pruned.network.b[0].index.tolist() == [1, 2, 3]


@pytest.mark.exact
def test_flattened_units_shared_columns_and_single_layers():
    network = nn.Sequential(
        nn.Linear(3, 4), nn.ReLU(), nn.Flatten(), nn.PReLU(8), nn.Linear(8, 2)
    ).double()
    edges = find_edges(network, granularity=("input", "unit"), input_index=[0, 1, 1])
    mask = {"inputs": torch.tensor([True, False]), "0.units": torch.tensor([1, 0, 0, 1]).bool()}
    pruned = prune(network, edges, mask, example_input=torch.randn(5, 2, 3, dtype=torch.float64))
    assert pruned.network[3].num_parameters == pruned.network[4].in_features == 4
    assert pruned.network[0][0].index.tolist() == [0]
    layer = nn.Linear(3, 1)
    edges = find_edges(layer, granularity="input")
    pruned = prune(
        layer, edges, {"inputs": torch.tensor([0, 1, 0]).bool()}, example_input=torch.ones(2, 3)
    )
    assert num_parameters(pruned) == 2


@pytest.mark.exact
def test_images_and_convolutions():
    network = LeNet300100()
    edges = find_edges(network, granularity=("input", "unit"))
    x = torch.randn(2, 1, 28, 28)
    pruned = prune(network, edges, random_mask(edges, 0.1), example_input=x)
    assert pruned(x).shape == (2, 10)
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 5), nn.Sigmoid(), nn.Linear(5, 2)
    )
    x = torch.randn(3, 1, 4, 4)
    edges = find_edges(network, granularity=("unit", "weight"), example_input=x)
    for density in (0.0, 0.3):
        mask = random_mask(edges, density)
        pruned = prune(network, edges, mask, example_input=x)
        assert masked_cost(edges, mask).num_macs == pruned.receipt.after.num_macs


@pytest.mark.contract
@pytest.mark.parametrize("training", [True, False])
def test_training_flag_gradients_and_modes_survive(training):
    network = nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 1)
    ).train(training)
    network[0].bias.requires_grad_(False)
    network(torch.randn(5, 3)).sum().backward()
    edges = find_edges(network, granularity=("input", "unit"))
    statistics = network[1].running_mean.clone()
    pruned = prune(network, edges, random_mask(edges, 0.7), example_input=torch.randn(5, 3))
    assert torch.equal(statistics, network[1].running_mean)
    assert pruned.training is training
    assert all(module.training is training for module in (*network.modules(), *pruned.modules()))
    assert all(parameter.grad is None for parameter in pruned.parameters())
    assert not any(module._forward_pre_hooks for module in (*network.modules(), *pruned.modules()))
    assert network[0].weight.grad is not None


# Refusals


def _case(**mask):
    network = MLP(3, (4,), 1)
    return network, find_edges(network), {"hidden1.units": torch.ones(4).bool()} | mask


@pytest.mark.contract
def test_masks_and_networks_that_do_not_fit():
    network, edges, mask = _case()
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"a mask of the groups \['hidden1.units'\], but got \[\]"):
        prune(network, edges, {}, example_input=x)
    with pytest.raises(
        ValueError, match=r"booleans of shape \(4,\), but got torch.bool of shape \(5,\)"
    ):
        apply_mask(network, edges, {"hidden1.units": torch.ones(5).bool()})
    with pytest.raises(ValueError, match=r"booleans of shape \(4,\), but got torch.float32"):
        apply_mask(network, edges, {"hidden1.units": torch.ones(4)})
    with pytest.raises(ValueError, match=r"'hidden1.weight' of shape \(4, 3\), but got \(7, 3\)"):
        apply_mask(MLP(3, (7,), 1), edges, mask)
    with pytest.raises(ValueError, match=r"\['remove', 'keep', 'error'\], but got 'raise'"):
        prune(network, edges, mask, example_input=x, on_empty="raise")
    with pytest.raises(ValueError, match="at least one example, but got none"):
        prune(network, edges, mask, example_input=x[:0])


class Fixed(nn.Module):
    """A number of units is written into its code."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, x):
        return self.b(self.a(x).view(-1, 4))


class FixedBatch(Fixed):
    """And a number of examples too."""

    def forward(self, x):
        return self.b(self.a(x).view(2, 4))


@pytest.mark.exact
def test_sizes_written_into_forward_are_written_anew():
    network, x = Fixed(), torch.randn(2, 3)
    edges = find_edges(network, example_input=x)
    mask = {"a.units": torch.tensor([1, 0, 0, 1]).bool()}
    pruned = prune(network, edges, mask, example_input=x)
    assert pruned.receipt.after.num_parameters == masked_cost(edges, mask).num_parameters
    assert pruned.receipt.notes[-1].startswith("forward() is now a list of operations")
    for size in (1, 2, 5):
        x = torch.randn(size, 3)
        torch.testing.assert_close(pruned(x), apply_mask(network, edges, mask)(x))


@pytest.mark.contract
def test_a_number_of_examples_in_the_code_is_kept_and_others_are_refused():
    network, x = FixedBatch(), torch.randn(2, 3)
    edges = find_edges(network, example_input=x)
    mask = {"a.units": torch.tensor([1, 0, 0, 1]).bool()}
    pruned = prune(network, edges, mask, example_input=x)
    assert any("of the size of the example: axis 0 (2)" in note for note in pruned.receipt.notes)
    x = torch.randn(2, 3)
    torch.testing.assert_close(pruned(x), apply_mask(network, edges, mask)(x))
    with pytest.raises(ValueError, match="size of axis 0"):
        pruned(torch.randn(3, 3))


@pytest.mark.contract
def test_pruning_that_is_not_exact_is_refused():
    # Wrong edges: the units of layer 0 pass through a layer that mixes them.
    network = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1), nn.Linear(1, 1))
    good = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1), nn.Linear(1, 1))
    edges = find_edges(good)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}

    def usable(group):
        return replace(group, producers=tuple(s for s in group.producers if s.tensor in shapes))

    edges = replace(
        edges,
        groups=tuple(map(usable, edges.groups)),
        structure=tuple(map(usable, edges.structure)),
        shapes=shapes,
        buffers=(),
    )
    mask = {"0.units": torch.tensor([1, 0, 1, 1]).bool(), "2.units": torch.ones(1).bool()}
    with pytest.raises(SurgeryError, match="the pruned network"):
        prune(network, edges, mask, example_input=torch.randn(3, 3))


@pytest.mark.contract
def test_a_difference_beyond_rounding_is_refused(monkeypatch):
    network, edges, mask = _case()
    mask["hidden1.units"][0] = False
    kept = surgery.kept_positions

    def wrong(*arguments):
        return {
            key: flags.flip(0) if key == ("output.weight", 1) else flags
            for key, flags in kept(*arguments).items()
        }

    monkeypatch.setattr(surgery, "kept_positions", wrong)
    with pytest.raises(SurgeryError, match="to 1e-05 in torch.float32, but they differ by"):
        prune(network, edges, mask, example_input=torch.randn(3, 3))


# Receipt


@pytest.mark.contract
def test_the_receipt_is_a_readable_table():
    network, edges, mask = _case()
    mask["hidden1.units"][1:] = False
    receipt = prune(network, edges, mask, example_input=torch.randn(3, 3)).receipt
    assert receipt.compression_ratio == 21 / 6
    assert receipt.speedup == receipt.latency_before.median / receipt.latency_after.median
    assert (
        receipt.latency_after.lower <= receipt.latency_after.median <= receipt.latency_after.upper
    )
    assert Receipt.from_dict(json.loads(json.dumps(receipt.to_dict()))) == receipt
    lines = str(receipt).splitlines()
    assert lines[0].split() == ["before", "after", "ratio"]
    assert lines[1].split() == ["parameters", "21", "6", "3.5x"]
    assert lines[3].split() == ["MACs", "per", "example", "16", "4", "4.0x"]
    assert lines[-1] == "hidden1.units: 1 of 4 kept."


@pytest.mark.exact
def test_compression_does_not_count_zeros():
    network = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Tanh(), nn.Linear(4, 2, bias=False))
    edges = find_edges(network, granularity="weight")
    mask = {group.name: torch.zeros(group.shape, dtype=torch.bool) for group in edges}
    mask["0.weight"][0, 0] = mask["0.weight"][1, 1] = True
    mask["2.weight"][0, 0] = mask["2.weight"][1, 1] = True
    receipt = prune(network, edges, mask, example_input=torch.randn(5, 3)).receipt
    # Four weights remain: two 2 x 2 matrices, each with two zeros.
    assert receipt.after.num_parameters > receipt.after.num_nonzero == 4
    assert receipt.compression_ratio == (3 * 4 + 4 * 2) / 4


# Files


@pytest.mark.property
@settings(max_examples=25)
@given(
    network=networks(),
    granularity=st.sampled_from(GRANULARITIES[2:]),
    density=st.sampled_from([0.0, 0.2, 0.7]),
)
def test_a_saved_network_is_the_same_network(tmp_path_factory, network, granularity, density):
    edges = find_edges(network, granularity=granularity)
    x = torch.randn(4, network[0].in_features, dtype=network[0].weight.dtype)
    pruned = prune(network, edges, random_mask(edges, density), example_input=x)
    path = tmp_path_factory.mktemp("files") / "small.safetensors"
    pruned.save(path)
    loaded = load_pruned(path)
    assert torch.equal(loaded(x), pruned.eval()(x))
    assert loaded.receipt == pruned.receipt
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    payload = sum(tensor.numel() * tensor.element_size() for tensor in load_file(path).values())
    assert payload == num_bytes(pruned) == pruned.receipt.after.num_bytes


@pytest.mark.exact
def test_sparse_weights_take_fewer_bytes_on_disk(tmp_path):
    network = MLP(100, (50,), 1)
    edges = find_edges(network, granularity="weight")
    sizes = {}
    for density in (2.0, 0.1):
        pruned = prune(
            network, edges, random_mask(edges, density), example_input=torch.randn(2, 100)
        )
        pruned.save(tmp_path / "small.safetensors")
        sizes[density] = os.path.getsize(tmp_path / "small.safetensors")
    assert num_nonzero(pruned) < 600
    assert sizes[0.1] < 0.25 * sizes[2.0]


@pytest.mark.contract
def test_networks_of_own_code_are_not_saved(tmp_path):
    class Own(nn.Sequential):
        def forward(self, x):
            return super().forward(torch.special.entr(x))

    network = Own(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    edges = find_edges(network)
    pruned = prune(network, edges, random_mask(edges, 2.0), example_input=torch.zeros(2, 3))
    with pytest.raises(ValueError, match="Expected functions of torch on tensors, but got"):
        pruned.save(tmp_path / "small.safetensors")
    assert not os.listdir(tmp_path)


@pytest.mark.contract
def test_damaged_files_are_refused(tmp_path):
    network, edges, mask = _case()
    pruned = prune(network, edges, mask, example_input=torch.zeros(2, 3))
    path = tmp_path / "small.safetensors"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_pruned(path)
    pruned.save(path)
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    with pytest.raises(CheckpointError, match="Expected a whole safetensors file"):
        load_pruned(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="says format None"):
        load_pruned(path)
    save_file(
        {"a": torch.zeros(1)},
        path,
        {"format": "pyro_relevance.pruned_network", "version": "99"},
    )
    with pytest.raises(CheckpointError, match=r"Expected version 1 .* has '99'"):
        load_pruned(path)
    save_file(
        {"a": torch.zeros(1)},
        path,
        {"format": "pyro_relevance.pruned_network", "version": "1"},
    )
    with pytest.raises(CheckpointError, match="is damaged: 'architecture'"):
        load_pruned(path)


@pytest.mark.contract
def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    network, edges, mask = _case()
    pruned = prune(network, edges, mask, example_input=torch.zeros(2, 3))
    path = tmp_path / "small.safetensors"
    pruned.save(path)
    content = path.read_bytes()

    def full_disk(tensors, target, metadata):
        target.write_bytes(b"half a fi")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        pruned.save(path)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["small.safetensors"]
