"""Primitives: the registry, and the shape that each makes of each place."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pyro_relevance import graphs
from pyro_relevance.graphs import DARTS_OPERATIONS, NASBENCH201_OPERATIONS, Place
from pyro_relevance.graphs.dense import ACTIVATIONS
from pyro_relevance.graphs.primitives import make_primitive

IMAGES = sorted({*NASBENCH201_OPERATIONS, *DARTS_OPERATIONS, "conv_relu_3x3", "conv_relu_5x5"})
DENSE = ["none", "linear", *(f"linear_{name}" for name in ACTIVATIONS)]


@pytest.mark.contract
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("source", "target"), [(4, 4), (4, 6)])
@pytest.mark.parametrize("name", IMAGES)
def test_images_get_the_channels_and_resolution_of_the_place(name, source, target, stride):
    module = make_primitive(name, Place(source, target, stride))
    assert module(torch.randn(2, source, 8, 8)).shape == (2, target, 8 // stride, 8 // stride)


@pytest.mark.contract
@pytest.mark.parametrize("name", DENSE)
def test_tables_get_the_features_of_the_place(name):
    module = make_primitive(name, Place(3, 5))
    assert module(torch.randn(2, 3)).shape == (2, 5)
    assert module(torch.randn(2, 7, 3)).shape == (2, 7, 5)


@pytest.mark.contract
@pytest.mark.parametrize("name", ["identity", *ACTIVATIONS])
def test_what_keeps_its_size_says_so(name):
    assert make_primitive(name, Place(3, 3))(torch.randn(2, 3)).shape == (2, 3)
    with pytest.raises(ValueError, match="Expected as many features after"):
        make_primitive(name, Place(3, 4))


@pytest.mark.exact
def test_statistics_and_scale_of_normalisation_follow_the_place():
    searching = make_primitive("nor_conv_3x3", Place(4, 4, affine=False, statistics=False))
    final = make_primitive("nor_conv_3x3", Place(4, 4))
    assert {name for name, _ in searching.named_parameters()} == {"1.weight"}
    assert not dict(searching.named_buffers())
    assert {name for name, _ in final.named_parameters()} == {"1.weight", "2.weight", "2.bias"}
    assert "2.running_mean" in dict(final.named_buffers())


@pytest.mark.contract
def test_a_user_registers_a_primitive_of_their_own():
    @graphs.primitive("test_doubled")
    def doubled(place: Place) -> nn.Module:
        return nn.Linear(place.source, 2 * place.target)

    assert "test_doubled" in graphs.primitives()
    assert make_primitive("test_doubled", Place(3, 4))(torch.zeros(1, 3)).shape == (1, 8)
    graphs.primitive("test_doubled")(doubled)  # the same function again, as a reloaded module does
    with pytest.raises(ValueError, match="already a primitive"):
        graphs.primitive("test_doubled")(make_primitive)
    with pytest.raises(ValueError, match="to be an identifier"):
        graphs.primitive("two words")


@pytest.mark.contract
def test_unknown_names_and_wrong_results_are_told():
    with pytest.raises(ValueError, match=r"Expected one of the primitives .* got 'conv_9x9'"):
        make_primitive("conv_9x9", Place(3, 3))
    graphs.primitive("test_no_module")(lambda place: "text")
    with pytest.raises(TypeError, match=r"to make an nn.Module, but it made a str"):
        make_primitive("test_no_module", Place(3, 3))
