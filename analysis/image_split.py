"""Training images, and the images on which a finished network is evaluated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyro_relevance.data.images import MNIST_MEAN, MNIST_SD, some
from pyro_relevance.data.splits import train_validation

__all__ = ["MNIST_BLACK", "ImageSplit", "percent_wrong"]

MNIST_BLACK = -MNIST_MEAN[0] / MNIST_SD[0]
"""Value of the margin of a digit, on the scale of the inputs."""


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """Training images, and the images on which a finished network is evaluated.

    Args:
        x: Training images.
        y: Their classes.
        x_eval: Test or validation images.
        y_eval: Their classes.
        part: ``"test"`` or ``"validation"``, for the names of the metrics.
    """

    x: Tensor
    y: Tensor
    x_eval: Tensor
    y_eval: Tensor
    part: str

    @classmethod
    def load(
        cls,
        read: Callable[..., tuple[Tensor, Tensor]],
        root: str | None,
        *,
        num_data: int,
        num_validation: int = 0,
        validate: bool = False,
    ) -> ImageSplit:
        """Read a data set; with ``validate`` its test images are not read.

        Args:
            read: ``images.mnist`` or ``images.cifar10``.
            root: Folder of the data.
            num_data: Training images, at most.
            num_validation: Images that are carved from the training images.
            validate: Whether networks are evaluated on these.
        """
        x, y = read(root)
        if not validate:
            return cls(*some(x, y, num_data), *read(root, train=False), "test")
        train, valid = train_validation(len(x), num_validation, seed=0)
        return cls(*some(x[train], y[train], num_data), x[valid], y[valid], "validation")

    def error(self, network: nn.Module, device: str = "cpu") -> dict[str, float]:
        """Return the percentage of wrong classes by the name of its metric.

        Args:
            network: A finished network on the device; it is put into evaluation mode.
            device: Where it is computed, 500 images at once.
        """
        network.eval()
        with torch.no_grad():
            outputs = torch.cat([network(x.to(device)).cpu() for x in self.x_eval.split(500)])
        return {f"{self.part}_error": percent_wrong(outputs, self.y_eval)}


def percent_wrong(outputs: Tensor, y: Tensor) -> float:
    """Return the percentage of examples whose largest output is not that of their class.

    Args:
        outputs: ``(num_data, num_classes)``.
        y: ``(num_data,)`` classes.
    """
    return 100 * float((outputs.argmax(1) != y).float().mean())
