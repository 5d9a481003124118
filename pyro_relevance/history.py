"""What a run recorded on its way, and the best one of several chains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["History"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """Records of a run at evenly spaced steps.

    Args:
        step: ``(num_records,)`` step at which each record was made (the number of steps taken).
        loss: ``(num_chains, num_records)`` negative ELBO in nats, summed over the data set and averaged over the
            steps since the last record. While a gate is relaxed this is not a bound: see ``Posterior.elbo``.
        temperature: ``(num_records,)`` temperature of the relaxation.
        kl_weight: ``(num_records,)`` weight of the KL in the loss.
        expected_size: ``(num_chains, num_records)`` expected number of parameters left.
    """

    step: npt.NDArray[np.int64]
    loss: Array
    temperature: Array
    kl_weight: Array
    expected_size: Array

    @classmethod
    def empty(cls, num_chains: int) -> History:
        """Return a history without records."""
        none = np.zeros((0,))
        return cls(none.astype(np.int64), np.zeros((num_chains, 0)), none, none, np.zeros((num_chains, 0)))

    @property
    def num_chains(self) -> int:
        """Number of chains."""
        return int(self.loss.shape[0])

    def append(
        self, *, step: int, loss: Array, temperature: float, kl_weight: float, expected_size: Array
    ) -> History:
        """Return the history with one more record; ``loss`` and ``expected_size`` are ``(num_chains,)``."""
        return History(
            np.append(self.step, np.int64(step)),
            np.concatenate([self.loss, np.asarray(loss, dtype=np.float64)[:, None]], axis=1),
            np.append(self.temperature, temperature),
            np.append(self.kl_weight, kl_weight),
            np.concatenate([self.expected_size, np.asarray(expected_size, dtype=np.float64)[:, None]], axis=1),
        )

    def chain(self, index: int) -> History:
        """Return the history of one chain."""
        rows = slice(index, index + 1)
        return History(
            self.step, self.loss[rows], self.temperature, self.kl_weight, self.expected_size[rows]
        )

    def final_loss(self, fraction: float = 0.05) -> Array:
        """Return the mean loss of each chain over the last ``fraction`` of the records, ``(num_chains,)``."""
        count = max(1, round(fraction * len(self.step)))
        return np.asarray(self.loss[:, -count:].mean(axis=1))

    def to_arrays(self) -> dict[str, Array]:
        """Return the fields as float64 arrays by name."""
        return {name: np.asarray(getattr(self, name), dtype=np.float64) for name in self.__dataclass_fields__}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> History:
        """Return the history that `to_arrays` described."""
        fields = {name: np.asarray(arrays[name], dtype=np.float64) for name in cls.__dataclass_fields__}
        return cls(**{**fields, "step": fields["step"].astype(np.int64)})  # type: ignore[arg-type]
