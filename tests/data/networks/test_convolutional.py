"""LeNet-5-Caffe, the CIFAR ResNets and VGG-16: sizes, names, shapes, gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from pyro_relevance.data.networks import VGG16, CifarResNet, LeNet5Caffe, ResNet20, ResNet56
from pyro_relevance.data.networks.resnet import Block, PadShortcut


@pytest.mark.contract
@pytest.mark.parametrize(
    ("make", "shape", "num_parameters"),
    [
        (LeNet5Caffe, (1, 28, 28), 431_080),
        (ResNet20, (3, 32, 32), 269_722),
        (ResNet56, (3, 32, 32), 853_018),
        (VGG16, (3, 32, 32), 14_986_698),
    ],
)
def test_size_shape_and_gradients(make, shape, num_parameters):
    network = make()
    assert sum(parameter.numel() for parameter in network.parameters()) == num_parameters
    outputs = network(torch.randn(2, *shape))
    assert outputs.shape == (2, 10)
    functional.cross_entropy(outputs, torch.tensor([1, 2])).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool(parameter.grad.any()), name


@pytest.mark.contract
@pytest.mark.parametrize(("network", "depth"), [(ResNet20(), 20), (ResNet56(), 56), (VGG16(), 15)])
def test_number_of_layers_with_weights(network, depth):
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth


@pytest.mark.contract
def test_children_have_readable_names():
    names = [name for name, _ in LeNet5Caffe().named_children()]
    assert names[:3] == ["conv1", "activation1", "pool1"]
    assert names[-4:] == ["flatten", "hidden1", "activation3", "output"]
    assert isinstance(ResNet20().get_submodule("stage3.block1.conv2"), nn.Conv2d)
    vgg = VGG16(num_classes=7)
    assert vgg.conv5_3.weight.shape == (512, 512, 3, 3)
    assert vgg.output.out_features == 7


@pytest.mark.exact
def test_shortcut_keeps_every_second_pixel_between_channels_of_zeros():
    x = torch.randn(2, 3, 6, 8)
    out = PadShortcut(5, 2)(x)
    assert out.shape == (2, 8, 3, 4)
    assert torch.equal(out[:, 2:5], x[:, :, ::2, ::2])
    assert not bool(out[:, :2].any())
    assert not bool(out[:, 5:].any())


@pytest.mark.exact
def test_block_adds_its_input():
    block = Block(4, 4, 1).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(block(x), x.relu())
    assert isinstance(block.shortcut, nn.Identity)


@pytest.mark.contract
def test_numbers_must_be_positive():
    with pytest.raises(ValueError, match="at least 1 block and 1 class, but got 0 and 10"):
        CifarResNet(0)
    with pytest.raises(ValueError, match="at least 1 block and 1 class, but got 3 and 0"):
        CifarResNet(3, 0)
    with pytest.raises(ValueError, match="Expected at least 1 class, but got 0"):
        VGG16(0)
