"""VGG-16 for 32 x 32 images: the plain convolutional network of most pruning tables on CIFAR-10."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

__all__ = ["VGG16"]

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the convolutions between two max-poolings."""


class VGG16(nn.Sequential):
    """VGG-16 for CIFAR-10: 13 convolutions with BatchNorm, one hidden layer of 512 units.

    It has 14,986,698 parameters and takes ``(num_data, 3, 32, 32)`` inputs. The two hidden layers
    of 4096 units of the original are one of 512, as is usual at this size; convolutions have no
    bias of their own in front of BatchNorm. Children are called ``conv1_1, norm1_1,
    activation1_1, ..., pool1, ..., flatten, hidden1, activation1, output``.

    Args:
        num_classes: Number of outputs.

    Raises:
        ValueError: If ``num_classes`` is not positive.

    References:
        Simonyan, Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition,
        ICLR 2015, configuration D.
    """

    def __init__(self, num_classes: int = 10) -> None:
        if num_classes < 1:
            raise ValueError(f"Expected at least 1 class, but got {num_classes}. CIFAR-10 has 10.")
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        num_inputs = 3
        for stage, widths in enumerate(STAGES, 1):
            for number, width in enumerate(widths, 1):
                name = f"{stage}_{number}"
                layers[f"conv{name}"] = nn.Conv2d(num_inputs, width, 3, padding=1, bias=False)
                layers[f"norm{name}"] = nn.BatchNorm2d(width)
                layers[f"activation{name}"] = nn.ReLU()
                num_inputs = width
            layers[f"pool{stage}"] = nn.MaxPool2d(2)
        layers["flatten"] = nn.Flatten()
        layers["hidden1"] = nn.Linear(num_inputs, 512)
        layers["activation1"] = nn.ReLU()
        layers["output"] = nn.Linear(512, num_classes)
        super().__init__(layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
