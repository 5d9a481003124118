"""How the network is computed in a training step: data type of its operators, memory format."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Precision"]


@dataclass(frozen=True, slots=True)
class Precision:
    """Data type and memory format of the network's forward pass while it is trained.

    The network alone is computed in another type. Gates, likelihood, KL, gradients, the optimiser
    and the fitted parameters stay in the type of the parameters.

    Args:
        autocast: ``torch.bfloat16`` for layers in that type (``torch.autocast``), which halves the
            time of convolutions on recent processors; ``None`` for the type of the parameters.
        channels_last: Whether images and the weights of convolutions lie in memory channel by
            channel within each pixel, which convolutions prefer; with several chains this has no
            effect on weights.

    Raises:
        ValueError: If ``autocast`` is another type. float16 would need its gradients scaled.
    """

    autocast: torch.dtype | None = None
    channels_last: bool = False

    def __post_init__(self) -> None:
        """Check the type."""
        if self.autocast not in (None, torch.bfloat16):
            raise ValueError(
                f"Expected autocast to be torch.bfloat16 or None, but got {self.autocast!r}."
            )

    def prepare(self, network: nn.Module) -> None:
        """Change the memory format of the weights of convolutions for training, in place."""
        if self.channels_last:
            network.to(memory_format=torch.channels_last)

    def restore(self, network: nn.Module) -> None:
        """Restore the usual memory format, in place."""
        if self.channels_last:
            network.to(memory_format=torch.contiguous_format)

    def arrange(self, x: Tensor) -> Tensor:
        """Return inputs in the chosen memory format, if they are images.

        Args:
            x: ``(num_examples, num_channels, height, width)`` images; any other shape is returned
                as it is.
        """
        # Chains in one vectorised call share their memory, which has no such format.
        batched = torch._C._functorch.is_batchedtensor(x)
        if self.channels_last and x.ndim == 4 and not batched:
            return x.contiguous(memory_format=torch.channels_last)
        return x

    def context(self, device: torch.device) -> torch.autocast:
        """Return a context in which layers are computed in the chosen type."""
        # A weight is used once in a step, and a cache would keep what was recorded for replay.
        return torch.autocast(
            device.type,
            dtype=self.autocast or torch.bfloat16,
            enabled=self.autocast is not None,
            cache_enabled=False,
        )
