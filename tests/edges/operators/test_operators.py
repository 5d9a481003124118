"""Operators of a user: skipped with a reason before they are registered, pruned exactly after."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import pyro_relevance as pr
from pyro_relevance.edges.size import num_macs
from pyro_relevance.errors import CheckpointError, EdgeError


@torch.library.custom_op("relevance_tests::soft_clip", mutates_args=())
def soft_clip(x: Tensor) -> Tensor:
    return x / (1 + x.abs())


@soft_clip.register_fake
def _(x):
    return torch.empty_like(x)


@torch.library.custom_op("relevance_tests::scale_channels", mutates_args=())
def scale_channels(x: Tensor, scale: Tensor) -> Tensor:
    return x * scale.reshape(1, -1, *([1] * (x.ndim - 2)))


@scale_channels.register_fake
def _(x, scale):
    return torch.empty_like(x)


@torch.library.custom_op("relevance_tests::mix", mutates_args=())
def mix(x: Tensor) -> Tensor:
    return x.cumsum(1)


@mix.register_fake
def _(x):
    return torch.empty_like(x)


@torch.library.custom_op("relevance_tests::relu", mutates_args=())
def reversed_relu(x: Tensor) -> Tensor:
    return x.flip(1).relu()


@reversed_relu.register_fake
def _(x):
    return torch.empty_like(x)


class SoftClip(nn.Module):
    def forward(self, x):
        return soft_clip(x)


class Mix(nn.Module):
    def forward(self, x):
        return mix(x)


class ReversedRelu(nn.Module):
    def forward(self, x):
        return reversed_relu(x)


class Scale(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x):
        return scale_channels(x, self.scale)


def perceptron(activation):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), activation, nn.Linear(6, 2)).eval()


def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), Scale(6), nn.Conv2d(6, 4, 3), nn.Flatten(),
        nn.Linear(16, 2),
    ).eval()  # fmt: skip


@pytest.fixture
def registry():
    with pr.operators.temporary():
        yield pr.operators


def register_soft_clip(registry):
    @registry.operator("relevance_tests::soft_clip", last_axis="apart", saved=True)
    def soft_clip_units(run, node, name):
        return registry.pointwise(run, node, name)


def masked_and_pruned(network, x, name, keep):
    edges = pr.find_edges(network, example_input=x, granularity="unit")
    mask = {group.name: torch.ones(group.shape, dtype=torch.bool) for group in edges}
    mask[name] = torch.tensor(keep)
    return pr.apply_mask(network, edges, mask), pr.prune(network, edges, mask, example_input=x)


@pytest.mark.contract
def test_an_unknown_operator_is_skipped_with_a_reason():
    with pytest.raises(EdgeError, match="operation 'relevance_tests::soft_clip', which may mix"):
        pr.find_edges(perceptron(SoftClip()), example_input=torch.randn(2, 3))


@pytest.mark.exact
@pytest.mark.parametrize("example", [None, torch.randn(5, 3)], ids=["layerwise", "coupled"])
def test_units_around_a_registered_activation_are_pruned_and_saved(registry, tmp_path, example):
    register_soft_clip(registry)
    network, x = perceptron(SoftClip()), torch.randn(5, 3)
    assert pr.find_edges(network, example_input=example).names == ("0.units",)
    keep = [True, False, True, True, False, True]
    masked, small = masked_and_pruned(network, x, "0.units", keep)
    assert small.network[0].out_features == 4
    torch.testing.assert_close(small(x), masked(x))
    small.save(tmp_path / "small.safetensors")
    loaded = pr.load_pruned(tmp_path / "small.safetensors")
    assert torch.equal(loaded(x), small(x))
    registry.unregister("relevance_tests::soft_clip")
    with pytest.raises(CheckpointError, match="If you trust it, register it first"):
        pr.load_pruned(tmp_path / "small.safetensors")


@pytest.mark.exact
def test_parameters_of_an_operator_are_pruned_with_its_channels(registry, tmp_path):
    registry.operator("relevance_tests::scale_channels")(registry.channels)
    network, x = convolutions(), torch.randn(4, 3, 6, 6)
    masked, small = masked_and_pruned(network, x, "0.units", [True, False, True, True, False, True])
    assert small.network[1].scale.shape == (4,)
    assert small.network[2].in_channels == 4
    torch.testing.assert_close(small(x), masked(x))
    with pytest.raises(ValueError, match="scale_channels"):  # it is not said that files may call it
        small.save(tmp_path / "small.safetensors")


@pytest.mark.contract
def test_a_name_of_another_library_is_not_that_of_torch():
    with pytest.raises(EdgeError, match="relevance_tests::relu"):
        pr.find_edges(perceptron(ReversedRelu()), example_input=torch.randn(2, 3))


@pytest.mark.contract
def test_an_operator_may_say_that_it_reads_all_units_together(registry):
    @registry.operator("relevance_tests::mix")
    def mix_units(run, node, name):
        labels = run.value(node.args[0])
        run.columns(labels.movedim(1, 0), 1)  # joins all units of an example
        return labels

    edges = pr.find_edges(perceptron(Mix()), example_input=torch.randn(2, 3))
    assert edges["0.units"].num_edges == 1


@pytest.mark.exact
def test_multiply_accumulates_of_an_operator_are_counted(registry):
    network, x = perceptron(SoftClip()), torch.randn(2, 3)
    before = num_macs(network, x)
    registry.operator("relevance_tests::soft_clip", macs=lambda x, out_shape: 10 * x[1])(
        registry.pointwise
    )
    assert before == 3 * 6 + 6 * 2
    assert num_macs(network, x) == before + 10 * 6


@pytest.mark.contract
def test_a_registration_ends_with_its_block():
    with pr.operators.temporary():
        register_soft_clip(pr.operators)
        assert pr.operators.find("relevance_tests::soft_clip").saved
    assert not pr.operators.find("relevance_tests::soft_clip").saved
    with pytest.raises(ValueError, match="Expected the name of a registered operator"):
        pr.operators.unregister("relevance_tests::soft_clip")


@pytest.mark.contract
def test_what_is_registered_twice_or_without_a_name_is_an_error(registry):
    register_soft_clip(registry)
    with pytest.raises(ValueError, match=r"not registered yet, but got 'relevance_tests::soft"):
        register_soft_clip(registry)
    with pytest.raises(ValueError, match="at least one name"):
        registry.operator()(registry.pointwise)
    with pytest.raises(ValueError, match="but got 'Linear'"):
        registry.note("relevance_tests::mix", modules={type("Linear", (nn.Module,), {}): ""})
