"""How a model computes at the moment: one frozen value, changed for the length of a block.

The same model is trained with relaxed gates at a falling temperature and looked at with hard ones,
while a run goes on. What differs between the two is this value and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

from torch import Tensor

from pyro_relevance.model.precision import Precision

__all__ = ["Mode", "ModeChanges", "Noise"]

Noise = Literal["shared", "per_example"]
"""One draw of the gates for all examples of a batch, or one for each."""


@dataclass(frozen=True, slots=True)
class Mode:
    """How a model computes.

    Args:
        temperature: Of the relaxed gates and operations; a tensor where a step is recorded, whose
            value is then an argument of the recording.
        noise: ``"shared"``: one draw of the gates serves the whole batch. ``"per_example"``: each
            example has its own, which estimates the same ELBO with less variance (the expected log
            likelihood is a sum over examples); gates are then applied to what a layer reads instead
            of being folded into its weights.
        hard_gates: Whether gates that are on or off by themselves are zeros and ones.
        precision: Data type and memory format of the network's forward pass.
        update_statistics: Whether the running statistics of normalisation layers move.

    Raises:
        ValueError: If ``noise`` is unknown.
    """

    temperature: float | Tensor = 1.0
    noise: Noise = "shared"
    hard_gates: bool = False
    precision: Precision = Precision()
    update_statistics: bool = True

    def __post_init__(self) -> None:
        """Check the kind of noise."""
        if self.noise not in ("shared", "per_example"):
            raise ValueError(
                f"Expected noise to be 'shared' or 'per_example', but got {self.noise!r}."
            )


class ModeChanges(TypedDict, total=False):
    """Fields of `Mode`, as keywords."""

    temperature: float | Tensor
    noise: Noise
    hard_gates: bool
    precision: Precision
    update_statistics: bool
