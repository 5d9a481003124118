"""The mode of a model: one frozen value, restored after every block."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pyro_relevance import Precision, RelevanceModel, find_edges, likelihoods, networks
from pyro_relevance.errors import EdgeError
from pyro_relevance.model.mode import Mode


def make_model(granularity=("input", "unit")):
    network = networks.MLP(3, [4], 1)
    edges = find_edges(network, granularity=granularity)
    return RelevanceModel(network, edges, likelihood=likelihoods.Gaussian(), num_data=8)


def num_hooks(model):
    return sum(len(module._forward_pre_hooks) for module in model.network.modules())


@pytest.mark.contract
def test_a_mode_is_frozen_and_checked():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Mode().temperature = 0.5
    with pytest.raises(ValueError, match="Expected noise to be 'shared' or 'per_example'"):
        Mode(noise="both")


@pytest.mark.contract
def test_a_block_restores_what_it_changed_and_nothing_else():
    model = make_model()
    with model.in_mode(temperature=0.5, hard_gates=True):
        assert (model.temperature, model.mode.hard_gates) == (0.5, True)
        with model.in_mode(temperature=0.1):
            assert model.temperature == 0.1
            model.set_mode(update_statistics=False)  # of the owner: outlives the blocks
        assert model.temperature == 0.5
    assert model.mode == Mode(update_statistics=False)


@pytest.mark.contract
def test_a_block_restores_after_an_error():
    model = make_model()

    def fail():
        precision = Precision(autocast=torch.bfloat16)
        with model.in_mode(noise="per_example", precision=precision):
            assert num_hooks(model) > 0
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert model.mode == Mode()
    assert num_hooks(model) == 0


@pytest.mark.contract
def test_a_mode_that_does_not_fit_changes_nothing():
    model = make_model("weight")
    with pytest.raises(EdgeError, match="noise='per_example'"):
        model.set_mode(noise="per_example")
    assert model.mode == Mode()


@pytest.mark.exact
def test_hard_gates_are_those_of_the_relaxation():
    model = make_model()
    value = torch.tensor([-3.0, -0.1, 0.1, 3.0])
    assert torch.equal(model.gate(value), torch.sigmoid(value))
    with model.in_mode(hard_gates=True):
        assert model.gate(value).tolist() == [0.0, 0.0, 1.0, 1.0]
