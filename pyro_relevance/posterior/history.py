"""What a run recorded on its way, and the best one of several chains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pyro_relevance.errors import CheckpointError

__all__ = ["History", "check_arrays"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """Records of a run at evenly spaced steps, and at the last one.

    Which steps these are depends on the length of the run alone, never on the clock.

    Args:
        step: ``(num_records,)`` step at which each record was made (the number of steps taken).
        loss: ``(num_chains, num_records)`` negative ELBO in nats, summed over the data set and
            averaged over the steps since the last record. While a gate is relaxed this is not a
            bound: see ``Posterior.elbo``.
        temperature: ``(num_records,)`` temperature of the relaxation.
        kl_weight: ``(num_records,)`` weight of the KL in the loss.
        expected_size: ``(num_chains, num_records)`` expected number of kept parameters; NaN where
            the guide does not answer what the gates' probabilities are.
    """

    step: npt.NDArray[np.int64]
    loss: Array
    temperature: Array
    kl_weight: Array
    expected_size: Array

    @classmethod
    def empty(cls, num_chains: int) -> History:
        """Return a history without records."""
        none, rows = np.zeros((0,)), np.zeros((num_chains, 0))
        return cls(none.astype(np.int64), rows, none, none, rows)

    @property
    def num_chains(self) -> int:
        """Number of chains."""
        return int(self.loss.shape[0])

    def append(
        self,
        *,
        step: int,
        loss: Array,
        temperature: float,
        kl_weight: float,
        expected_size: Array,
    ) -> History:
        """Return the history with one more record.

        Args:
            step: Steps taken.
            loss: ``(num_chains,)`` in nats.
            temperature: Temperature of the last step.
            kl_weight: KL weight of the last step.
            expected_size: ``(num_chains,)`` expected number of parameters.
        """
        return History(
            np.append(self.step, np.int64(step)),
            _with_column(self.loss, loss),
            np.append(self.temperature, temperature),
            np.append(self.kl_weight, kl_weight),
            _with_column(self.expected_size, expected_size),
        )

    def chain(self, index: int) -> History:
        """Return the history of one chain.

        Raises:
            IndexError: If there is no such chain.
        """
        if not 0 <= index < self.num_chains:
            raise IndexError(f"Expected a chain in 0 .. {self.num_chains - 1}, but got {index}.")
        rows = slice(index, index + 1)
        return History(
            self.step, self.loss[rows], self.temperature, self.kl_weight, self.expected_size[rows]
        )

    def final_loss(self, fraction: float = 0.05) -> Array:
        """Return the mean loss of each chain over the last records, ``(num_chains,)`` in nats.

        Args:
            fraction: Share of the records, in (0, 1]; at least one is used.

        Raises:
            ValueError: If there is no record, or ``fraction`` is out of range.
        """
        if not 0.0 < fraction <= 1.0:
            raise ValueError(f"Expected fraction in (0, 1], but got {fraction}.")
        if not len(self.step):
            raise ValueError("Expected at least one record, but the history is empty. Train first.")
        count = max(1, round(fraction * len(self.step)))
        return np.asarray(self.loss[:, -count:].mean(axis=1))

    def to_arrays(self) -> dict[str, Array]:
        """Return the fields as float64 arrays by name."""
        return {
            name: np.asarray(getattr(self, name), dtype=np.float64)
            for name in self.__dataclass_fields__
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> History:
        """Return the history that `to_arrays` described."""
        copies = {name: np.array(arrays[name], np.float64) for name in cls.__dataclass_fields__}
        return cls(
            copies["step"].astype(np.int64),
            copies["loss"],
            copies["temperature"],
            copies["kl_weight"],
            copies["expected_size"],
        )


def check_arrays(arrays: Mapping[str, npt.NDArray[Any]], *, num_chains: int, path: Path) -> None:
    """Check the arrays of a history that was read from a file.

    Args:
        arrays: What `History.to_arrays` returned, possibly changed on the disk.
        num_chains: Number of chains of the file.
        path: The file, for the message.

    Raises:
        CheckpointError: If an array is missing, of another shape or type, or has a number that a
            run does not record.
    """
    fields = History.__dataclass_fields__.keys()
    fault = f"expected the arrays {sorted(fields)}" if arrays.keys() != fields else ""
    num_records = arrays["step"].size if not fault else 0
    for name, values in arrays.items():
        rows = (num_chains,) if name in ("loss", "expected_size") else ()
        if fault:
            break
        if values.dtype != np.float64 or values.shape != (*rows, num_records):
            fault = f"expected '{name}' of shape {(*rows, num_records)} and type float64"
        elif not np.isfinite(values).all() and name != "expected_size":
            fault = f"expected finite numbers in '{name}'"
        elif name != "loss" and (values < 0).any():
            fault = f"expected numbers >= 0 in '{name}'"
    if not fault and (np.diff(arrays["step"]) <= 0).any():
        fault = "expected rising numbers of steps"
    if fault:
        raise CheckpointError(
            f"Expected the history of a run in {path}, but it is damaged: {fault}. Use another "
            "copy."
        )


def _with_column(rows: Array, column: Array) -> Array:
    return np.concatenate([rows, np.asarray(column, dtype=np.float64)[:, None]], axis=1)
