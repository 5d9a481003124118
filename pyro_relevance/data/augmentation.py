"""Random changes of training images on the device: each example of a minibatch by its own draw.

Pass one of these to ``fit(augment=...)``. Everything is one gather or one choice for the whole
batch: no loop over examples, and nothing that waits for the device. Draws come from torch's global
generator, which ``fit`` seeds and checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Augment", "InOrder", "RandomCrop", "RandomFlip"]

Augment = Callable[[Tensor], Tensor]
"""Maps a batch ``(num_examples, ...)`` to one of the same shape and type."""


@dataclass(frozen=True, slots=True)
class RandomCrop:
    """A window of the image's own size at a random position of the padded image.

    All ``(2 * padding + 1) ** 2`` positions have the same probability.

    Args:
        padding: Pixels added on each side, so that an image moves by at most as many.
        fill: Value of the added pixels, on the scale of the images: 0 is the mean of standardised
            ones; for the black margin of MNIST pass ``-mean / sd``.

    Raises:
        ValueError: If ``padding`` is not a positive integer, or ``fill`` is not finite.

    Example:
        >>> RandomCrop(2)(torch.zeros(8, 3, 32, 32)).shape
        torch.Size([8, 3, 32, 32])
    """

    padding: int
    fill: float = 0.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        if isinstance(self.padding, bool) or not isinstance(self.padding, int) or self.padding < 1:
            raise ValueError(
                f"Expected padding as a positive number of pixels, but got {self.padding!r}. "
                "Leave the crop out for none."
            )
        if not math.isfinite(self.fill):
            raise ValueError(f"Expected a finite fill, but got {self.fill}. Pass a pixel's value.")

    def __call__(self, x: Tensor) -> Tensor:
        """Crop each image of ``(num_examples, num_channels, height, width)`` by its own draw.

        Raises:
            ValueError: If ``x`` has another number of dimensions.
        """
        num_examples, channels, height, width = _image_shape(x)
        padded = functional.pad(x, (self.padding,) * 4, value=self.fill)
        positions = 2 * self.padding + 1
        corner = torch.randint(positions, (2, num_examples, 1), device=x.device)
        rows = corner[0] + torch.arange(height, device=x.device)
        columns = corner[1] + torch.arange(width, device=x.device)
        # One flat gather is several times faster than indexing with rows and columns.
        index = rows.unsqueeze(2) * padded.shape[3] + columns.unsqueeze(1)
        index = index.view(num_examples, 1, height * width).expand(-1, channels, -1)
        return padded.flatten(2).gather(2, index).view_as(x)


@dataclass(frozen=True, slots=True)
class RandomFlip:
    """Each image mirrored left to right with a probability.

    Args:
        probability: Of a mirrored image, in [0, 1].

    Raises:
        ValueError: If it is outside [0, 1].
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        """Check the probability."""
        if not 0 <= self.probability <= 1:
            raise ValueError(
                f"Expected a probability in [0, 1], but got {self.probability}. Pass 0.5."
            )

    def __call__(self, x: Tensor) -> Tensor:
        """Flip each image of ``(num_examples, num_channels, height, width)`` by its own draw.

        Raises:
            ValueError: If ``x`` has another number of dimensions.
        """
        num_examples, *_ = _image_shape(x)
        mirrored = torch.rand((num_examples, 1, 1, 1), device=x.device) < self.probability
        return torch.where(mirrored, x.flip(3), x)


@dataclass(frozen=True, slots=True)
class InOrder:
    """Several changes, one after another.

    Args:
        steps: The changes, the first one first.

    Example:
        >>> InOrder((RandomCrop(4), RandomFlip()))(torch.zeros(8, 3, 32, 32)).shape
        torch.Size([8, 3, 32, 32])
    """

    steps: tuple[Augment, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Apply all of them to a batch."""
        for step in self.steps:
            x = step(x)
        return x


def _image_shape(x: Tensor) -> tuple[int, ...]:
    if x.ndim != 4:
        raise ValueError(
            "Expected images of shape (num_examples, num_channels, height, width), but got "
            f"{tuple(x.shape)}. Keep images as images; the network may flatten them."
        )
    return tuple(x.shape)
