"""Training and test rows of a regression table, in original units and standardised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.model.noise import predictive_log_likelihood
from pyro_relevance.posterior.posterior import Posterior

__all__ = ["Array", "RawSplit", "Split", "rmse", "standardised"]

Array = NDArray[np.float64]
RawSplit = tuple[Array, Array, Array, Array]
"""``x_train`` (rows, inputs), ``y_train`` (rows,), ``x_test``, ``y_test`` in original units; rows
in random order."""


def standardised(split: RawSplit) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the parts as float32, standardised with statistics of the training rows."""
    x, y, x_test, y_test = split
    mean, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    parts = [(x - mean) / scale, (y - y.mean()) / y.std()]
    parts += [(x_test - mean) / scale, (y_test - y.mean()) / y.std()]
    a, b, c, d = (torch.tensor(part, dtype=torch.float32) for part in parts)
    return a, b, c, d


@dataclass(frozen=True, eq=False)
class Split:
    """One training and test set, standardised with statistics of the training rows."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    scale: float

    @classmethod
    def of(cls, raw: RawSplit) -> Split:
        """Return a standardised split; constant columns of the training rows become zero.

        Args:
            raw: The rows in original units.
        """
        return cls(*standardised(raw), float(raw[1].std()))

    def rmse(self, outputs: Tensor) -> float:
        """Return the test RMSE of the mean of the draws, in original units."""
        return rmse(outputs, self.y_test) * self.scale

    def best_chain(self, posterior: Posterior, chains: range) -> Posterior:
        """Return the chain with the highest evidence lower bound on the training rows."""
        found = [posterior.chain(number) for number in chains]
        return max(found, key=lambda chain: float(chain.elbo(self.x, self.y)))

    def log_likelihood(self, likelihood: Likelihood, outputs: Tensor) -> float:
        """Return the mean log predictive density of a test row, in nats and original units."""
        with torch.no_grad():
            value = predictive_log_likelihood(likelihood, outputs, self.y_test).mean()
        return float(value) - float(np.log(self.scale))


def rmse(outputs: Tensor, y: Tensor) -> float:
    """Return the RMSE of the mean of the draws.

    Args:
        outputs: ``(num_samples, num_data, 1)`` draws.
        y: ``(num_data,)`` targets.
    """
    return float((outputs[..., 0].mean(0) - y).square().mean().sqrt())
