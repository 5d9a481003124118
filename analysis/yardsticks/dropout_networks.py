"""Networks with dropout, many trained together: one for each data set and dropout rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from analysis.splits import RawSplit, standardised

__all__ = ["MAX_STEPS", "DropoutNetworks"]

MAX_STEPS = 16_000
"""Steps of training, at most: 4,000 epochs on a Boston training set, fewer on others."""

BATCH_SIZE = 128


class DropoutNetworks:
    """One network for each chain: stacked parameters, a data set and a dropout rate for each.

    Weights start as in Glorot & Bengio (uniform), biases at zero.
    """

    def __init__(
        self, splits: Sequence[RawSplit], hidden: int, rates: Tensor, generator: torch.Generator
    ) -> None:
        parts = [standardised(split) for split in splits]
        self.x, self.y, self.x_test = (torch.stack([p[i] for p in parts]) for i in range(3))
        self.y_test = torch.tensor(np.stack([split[3] for split in splits]))
        self.centre = torch.tensor([[split[1].mean()] for split in splits])
        self.scale = torch.tensor([[split[1].std()] for split in splits])
        self.rates = rates[:, None, None].float()
        self.generator = generator
        chains, inputs = len(splits), self.x.shape[2]

        def glorot(fan_in: int, fan_out: int) -> Tensor:
            limit = math.sqrt(6 / (fan_in + fan_out))
            draws = torch.rand(chains, fan_in, fan_out, generator=generator)
            return ((2 * draws - 1) * limit).requires_grad_()

        self.weights = [glorot(inputs, hidden), glorot(hidden, 1)]
        self.biases = [torch.zeros(chains, 1, n, requires_grad=True) for n in (hidden, 1)]

    @property
    def parameters(self) -> list[Tensor]:
        """All parameters, each ``(chain, ...)``."""
        return [*self.weights, *self.biases]

    def train(self, taus: Tensor, num_epochs: int, max_steps: int = MAX_STEPS) -> int:
        """Train with weight decay by ``(chain,)`` precisions; return the number of steps."""
        chains, rows = self.y.shape
        decay = 1e-4 * (1 - self.rates[:, 0, 0]) / (2 * rows * taus.float())
        optimizer = torch.optim.Adam(self.parameters, lr=1e-3, eps=1e-7, fused=True)
        which = torch.arange(chains)[:, None]
        steps = -(-rows // BATCH_SIZE)
        epochs = max(1, min(num_epochs, max_steps // steps))
        for _ in range(epochs):
            order = torch.rand(chains, rows, generator=self.generator).argsort(1)
            for batch in order.split(BATCH_SIZE, dim=1):
                error = self.forward(self.x[which, batch]) - self.y[which, batch]
                norm = sum(w.square().sum((1, 2)) for w in self.weights)
                loss = (error.square().mean(1) + decay * norm).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return epochs * steps

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(chain, rows)`` outputs of ``(chain, rows, inputs)`` under new masks."""
        h = torch.baddbmm(self.biases[0], x * self.mask(x.shape), self.weights[0]).relu()
        h = h * self.mask(h.shape)
        return (h * self.weights[1].mT).sum(2) + self.biases[1][:, :, 0]

    def mask(self, shape: torch.Size) -> Tensor:
        """Return kept entries scaled to mean one; the rate is rounded to a multiple of 2^-16."""
        limit = 2**15  # 16 random bits for each entry: random numbers are most of the work
        words = torch.randint(
            -(2**63), 2**63 - 1, (-(-shape.numel() // 4),), generator=self.generator
        )
        threshold = (self.rates * 2 * limit - limit).round().to(torch.int16)
        kept = words.view(torch.int16)[: shape.numel()].view(shape) >= threshold
        return kept.float() / (1 - self.rates)

    @torch.no_grad()
    def score(self, taus: Tensor, num_samples: int) -> tuple[Tensor, Tensor]:
        """Return the error of the mean and the log likelihood of the test rows.

        Args:
            taus: ``(chain, tau)`` precisions.
            num_samples: Number of masks.

        Returns:
            RMSE ``(chain,)`` in original units, and ``(chain, tau)`` nats per row.
        """
        total = torch.zeros_like(self.y_test)
        evidence = torch.full((*taus.shape, self.y_test.shape[1]), -math.inf)
        half = 0.5 * taus[:, :, None].float()
        for _ in range(num_samples):
            output = self.forward(self.x_test) * self.scale + self.centre
            total += output
            squared = (self.y_test - output).square().float()
            evidence = torch.logaddexp(evidence, -half * squared[:, None])
        rmse = (total / num_samples - self.y_test).square().mean(1).sqrt()
        constant = 0.5 * (taus / (2 * math.pi)).log() - math.log(num_samples)
        return rmse, evidence.double().mean(2) + constant
