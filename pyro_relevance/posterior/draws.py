"""Draws of a posterior and predictions made from them: plain containers of tensors."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

__all__ = ["Draws", "Prediction"]


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Draws of gates and weights.

    Args:
        gates: Group -> ``(num_chains, num_samples, *group.shape)`` hard gates, 0 or 1.
        inclusion_probability: Group -> the same shape: probability of the gate given what else was
            drawn (common factors, inclusion rates). Its mean over draws estimates the inclusion
            probability with less noise than the mean of the gates. Constant over draws for
            independent gates.
        weights: Parameter -> ``(num_chains, num_samples or 1, *shape)`` parameters of the network
            before gating; the second dimension is 1 for point estimates. With
            `SpikeAndSlabGuide`, a weight is a draw of its prior where one of its gates is off.
        operations: Group of ``edges.operations`` -> ``(num_chains, num_samples, num_operations)``
            hard gates, 1 at the operation drawn and 0 elsewhere.
        operation_probability: The same shape: probability of each operation given what else was
            drawn.
    """

    gates: dict[str, Tensor]
    inclusion_probability: dict[str, Tensor]
    weights: dict[str, Tensor]
    operations: dict[str, Tensor] = field(default_factory=dict)
    operation_probability: dict[str, Tensor] = field(default_factory=dict)

    @property
    def num_chains(self) -> int:
        """Number of chains."""
        return int(next(iter(self._values().values())).shape[0])

    @property
    def num_samples(self) -> int:
        """Number of draws in each chain."""
        return max(int(t.shape[1]) for t in self._values().values())

    def _values(self) -> dict[str, Tensor]:
        return self.gates or self.operations or self.weights


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Predictions of each draw.

    Args:
        outputs: ``(num_chains, num_samples, num_data, num_outputs)`` raw outputs of the network.
        mean: ``(num_chains, num_samples, num_data, ...)`` expected target; class probabilities for
            classes.
        sample: ``(num_chains, num_samples, num_data, ...)`` one target drawn from the likelihood
            for each draw.
    """

    outputs: Tensor
    mean: Tensor
    sample: Tensor

    def posterior_mean(self) -> Tensor:
        """Return the expected target averaged over chains and draws, ``(num_data, ...)``."""
        return self.mean.mean(dim=(0, 1))
