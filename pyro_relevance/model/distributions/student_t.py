"""Student-t distribution whose construction does not wait for the device."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Chi2, Distribution

__all__ = ["StudentT"]


class StudentT(dist.StudentT):  # type: ignore[misc]  # pyro makes it at import
    """Student-t distribution, as ``pyro.distributions.StudentT``.

    That one makes its chi-square distribution at construction, with a number that is sent to the
    device: an accelerator would wait at each training step. Here it is made when it is drawn from.

    Args:
        df: ``(*batch_shape)`` or ``()`` degrees of freedom, > 0.
        loc: ``(*batch_shape)`` location.
        scale: ``(*batch_shape)`` scale, > 0.
    """

    def __init__(self, df: Tensor, loc: Tensor, scale: Tensor) -> None:
        self.df, self.loc, self.scale = torch.broadcast_tensors(df, loc, scale)
        Distribution.__init__(self, self.loc.shape, validate_args=False)

    @property
    def _chi2(self) -> Chi2:
        return Chi2(self.df, validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: StudentT | None = None) -> StudentT:
        """Return the same distribution with another batch shape.

        Args:
            batch_shape: New batch shape.

        Returns:
            Distribution of that batch shape.
        """
        shape = torch.Size(batch_shape)
        return StudentT(self.df.expand(shape), self.loc.expand(shape), self.scale.expand(shape))
