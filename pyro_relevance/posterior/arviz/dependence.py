"""What the posterior predicts along one input, all others as they are in the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pyro_relevance.posterior.arviz.rows import Features, TargetUnits

if TYPE_CHECKING:
    import xarray as xr

    from pyro_relevance.posterior.posterior import Posterior

__all__ = ["partial_dependence"]


def partial_dependence(
    posterior: Posterior,
    x: Tensor,
    column: int,
    *,
    num_points: int = 25,
    num_samples: int = 50,
    max_rows: int = 200,
    seed: int = 0,
    features: Features | None = None,
    target: TargetUnits = TargetUnits(),  # noqa: B008 (a frozen value)
) -> xr.Dataset:
    """Partial dependence of the prediction on one input, draw by draw.

    For a value v and a draw s of weights and gates it is the mean over rows with the column set to
    v: ``y[s, v] = 1/N sum_n E[y | x_n with x_nj = v, s]``. Where inputs go
    together, rows with the column set to v may be unlike any that there are.

    Args:
        posterior: The fitted result.
        x: ``(num_data, num_inputs)`` rows, such as those that were trained on.
        column: Number of the input.
        num_points: Values from the 2 % to the 98 % quantile; the column's own where they are fewer.
        num_samples: Draws in each chain.
        max_rows: Rows that are averaged over, drawn at random.
        seed: Seed of the draws and of the rows.
        features: Names and scales of the inputs.
        target: From the network's targets to targets in their own unit.

    Returns:
        Dataset with ``y`` over ``(chain, draw, value)``, probabilities with ``class`` last;
        ``value`` and ``observed`` in the input's unit; its name in the attribute ``feature``.

    Raises:
        ValueError: If ``x`` is not ``(num_data, num_inputs)`` or there is no such column.

    References:
        Friedman, Greedy function approximation, Annals of Statistics 2001, section 8.2.
    """
    import xarray as xr

    if x.ndim != 2 or not 0 <= column < x.shape[1] or len(x) == 0:
        raise ValueError(
            "Expected x of shape (num_data, num_inputs) and a column of it, but got "
            f"{tuple(x.shape)} and column {column}."
        )
    generator = torch.Generator().manual_seed(seed)
    rows = x[torch.randperm(len(x), generator=generator)[:max_rows].to(x.device)]
    values = _values(x[:, column].detach().cpu().double().numpy(), num_points)
    means = _means(posterior, rows, column, values, {"num_samples": num_samples, "seed": seed})
    name, shift, scale = _named(features, column)
    dims = ("chain", "draw", "value", "class")[: means.ndim]
    y = means.detach().cpu().numpy() if means.ndim == 4 else target.values(means)
    observed = shift + scale * x[:, column].detach().cpu().numpy()
    coords = {"chain": np.arange(y.shape[0]), "draw": np.arange(y.shape[1])}
    return xr.Dataset(
        {"y": (dims, y), "observed": ("row", observed)},
        {"value": shift + scale * values, **coords},
        {"feature": name},
    )


def _means(
    posterior: Posterior,
    rows: Tensor,
    column: int,
    values: npt.NDArray[np.float64],
    options: dict[str, Any],
) -> Tensor:
    """``(chain, draw, value)`` mean predictions, or ``(chain, draw, value, class)``."""
    means = []
    for value in values:
        changed = rows.index_fill(1, torch.tensor([column], device=rows.device), float(value))
        mean = posterior.predict(changed, **options).mean.mean(2)
        # A regression may have its outputs in a dimension of their own.
        means.append(mean.squeeze(-1) if mean.ndim == 3 and mean.shape[-1] == 1 else mean)
    return torch.stack(means, 2)


def _values(column: npt.NDArray[np.float64], num_points: int) -> npt.NDArray[np.float64]:
    own = np.unique(column)
    if len(own) <= num_points:
        return own
    low, high = np.quantile(column, [0.02, 0.98])
    return np.linspace(float(low), float(high), num_points)


def _named(features: Features | None, column: int) -> tuple[str, float, float]:
    """Name, shift and scale of an input."""
    if features is None:
        return f"input {column}", 0.0, 1.0
    return str(features.names[column]), float(features.mean[column]), float(features.scale[column])
