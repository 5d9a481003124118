"""Many parameters packed into one vector, so that they are one latent site.

Each site costs about a tenth of a millisecond in a step. A column of a parameter with two or more
dimensions (an index of its dimension 1) holds the weights that read one edge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["check_positive", "columns", "expand_columns", "pack", "prior_scale", "unpack"]


def check_positive(**values: float) -> None:
    """Check the arguments of a prior.

    Raises:
        ValueError: If one is not positive and finite.
    """
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"Expected {name} > 0, but got {value}.")


def pack(parameters: Mapping[str, Tensor]) -> Tensor:
    """Return all parameters as one detached vector ``(num_parameters,)``, in their order."""
    return torch.cat([value.detach().reshape(-1) for value in parameters.values()])


def unpack(vector: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the vector split into tensors of the parameters' shapes."""
    sizes = [value.numel() for value in parameters.values()]
    parts = vector.split(sizes)
    return {
        name: part.view(value.shape)
        for (name, value), part in zip(parameters.items(), parts, strict=True)
    }


def columns(parameters: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the number of input columns (dimension 1) of each parameter that has columns."""
    return {name: value.shape[1] for name, value in parameters.items() if value.ndim >= 2}


def expand_columns(scales: Tensor, parameters: Mapping[str, Tensor], default: float) -> Tensor:
    """Return one scale per entry from one per input column; others get ``default``."""
    sizes = columns(parameters)
    parts = dict(zip(sizes, scales.split(list(sizes.values())), strict=True))
    expanded = []
    for name, value in parameters.items():
        if name in parts:
            shape = (1, -1) + (1,) * (value.ndim - 2)
            expanded.append(parts[name].view(shape).expand(value.shape).reshape(-1))
        else:
            expanded.append(scales.new_full((value.numel(),), default))
    return torch.cat(expanded)


def prior_scale(
    scale: float | Mapping[str, float], parameters: Mapping[str, Tensor]
) -> dict[str, float]:
    """Return the prior standard deviation of each parameter, after checking it.

    Raises:
        ValueError: If a scale is not positive, or a mapping does not name exactly the parameters.
    """
    if not isinstance(scale, Mapping):
        scale = dict.fromkeys(parameters, float(scale))
    if set(scale) != set(parameters):
        raise ValueError(
            f"Expected a prior scale for exactly the parameters {list(parameters)}, but got "
            f"{sorted(scale)}."
        )
    for name, value in scale.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"Expected a prior scale > 0 for '{name}', but got {value}.")
    return {name: float(scale[name]) for name in parameters}
