"""Residual networks for 32 x 32 images: the CIFAR family of the paper, 6n + 2 layers.

Shortcuts that change the shape have no parameters (the paper's option A): every second pixel, new
channels filled with zeros.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["CifarResNet", "ResNet20", "ResNet56"]


class Block(nn.Module):
    """Basic block: two 3 x 3 convolutions with BatchNorm, and the shortcut around them.

    Args:
        num_inputs: Channels of the input.
        num_outputs: Channels of the output, as many or more.
        stride: 1, or 2 to halve height and width.
    """

    def __init__(self, num_inputs: int, num_outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_inputs, num_outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(num_outputs)
        self.activation1 = nn.ReLU()
        self.conv2 = nn.Conv2d(num_outputs, num_outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(num_outputs)
        same = stride == 1 and num_inputs == num_outputs
        self.shortcut = nn.Identity() if same else PadShortcut(num_outputs - num_inputs, stride)
        self.activation2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(num_data, num_inputs, height, width)`` to the output's channels and size."""
        y = self.norm2(self.conv2(self.activation1(self.norm1(self.conv1(x)))))
        out: Tensor = self.activation2(y + self.shortcut(x))
        return out


class PadShortcut(nn.Module):
    """A shortcut without parameters: every ``stride``-th pixel, then channels of zeros.

    Args:
        num_added: Channels of zeros; half of them stand before the others.
        stride: Distance of the pixels that are kept.
    """

    def __init__(self, num_added: int, stride: int) -> None:
        super().__init__()
        self.before, self.stride = num_added // 2, stride
        self.after = num_added - self.before

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(num_data, channels, height, width)`` to more channels and fewer pixels."""
        kept = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(kept, (0, 0, 0, 0, self.before, self.after))

    def extra_repr(self) -> str:
        """Channels and stride, for printing."""
        return f"before={self.before}, after={self.after}, stride={self.stride}"


class CifarResNet(nn.Sequential):
    """Three stages of 16, 32 and 64 channels, global average pooling, 10 classes.

    Takes ``(num_data, 3, 32, 32)`` inputs. Children are called ``conv1, norm1, activation1,
    stage1, stage2, stage3, pool, flatten, output``; blocks are ``stage2.block1`` and so on.
    Convolutions start from He's normal distribution, as in the paper.

    Args:
        num_blocks: Blocks of each stage, n; the network has 6n + 2 layers with weights.
        num_classes: Number of outputs.

    Raises:
        ValueError: If a number is not positive.

    References:
        He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2.
    """

    def __init__(self, num_blocks: int, num_classes: int = 10) -> None:
        if num_blocks < 1 or num_classes < 1:
            raise ValueError(
                f"Expected at least 1 block and 1 class, but got {num_blocks} and {num_classes}. "
                "ResNet-20 has 3 blocks in each stage."
            )
        super().__init__(
            OrderedDict[str, nn.Module](
                conv1=nn.Conv2d(3, 16, 3, padding=1, bias=False),
                norm1=nn.BatchNorm2d(16),
                activation1=nn.ReLU(),
                stage1=_stage(16, 16, num_blocks, stride=1),
                stage2=_stage(16, 32, num_blocks, stride=2),
                stage3=_stage(32, 64, num_blocks, stride=2),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                output=nn.Linear(64, num_classes),
            )
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class ResNet20(CifarResNet):
    """ResNet-20 for CIFAR-10, 269,722 parameters; see :class:`CifarResNet`."""

    def __init__(self) -> None:
        super().__init__(3)


class ResNet56(CifarResNet):
    """ResNet-56 for CIFAR-10, 853,018 parameters; see :class:`CifarResNet`."""

    def __init__(self) -> None:
        super().__init__(9)


def _stage(num_inputs: int, num_outputs: int, num_blocks: int, *, stride: int) -> nn.Sequential:
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, num_blocks + 1):
        first = number == 1
        blocks[f"block{number}"] = Block(
            num_inputs if first else num_outputs, num_outputs, stride if first else 1
        )
    return nn.Sequential(blocks)
