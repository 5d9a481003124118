"""What the posterior predicts along one input, all others as they are in the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
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

    For a value v and a draw s of weights and gates it is the mean over rows of the prediction with
    the column set to v,

        y[s, v] = 1/N sum_n E[y | x_n with x_nj = v, s].

    It describes the network. Where inputs go together, rows with the column set to v may be unlike
    any that there are.

    Args:
        posterior: The fitted result.
        x: ``(num_data, num_inputs)`` rows, such as those that were trained on.
        column: Number of the input.
        num_points: Values, evenly spaced between the 2 % and 98 % quantiles of the column; its own
            values where there are fewer.
        num_samples: Draws in each chain.
        max_rows: Rows that are averaged over, drawn at random.
        seed: Seed of the draws and of the rows.
        features: Names and scales of the inputs.
        target: From the network's targets to targets in their own unit.

    Returns:
        Dataset with ``y`` over ``(chain, draw, value)``, or ``(chain, draw, value, class)``
        probabilities; ``value`` in the input's unit; ``observed`` over ``row``, the values of the
        column; and the name of the input in the attribute ``feature``.

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
    own = np.unique(x[:, column].detach().cpu().double().numpy())
    values = own
    if len(own) > num_points:
        values = np.linspace(*np.quantile(x[:, column].cpu().numpy(), [0.02, 0.98]), num_points)
    means = []
    for value in values:
        changed = rows.clone()
        changed[:, column] = float(value)
        mean = posterior.predict(changed, num_samples=num_samples, seed=seed).mean
        means.append(mean.mean(2).squeeze(-1) if mean.shape[-1] == 1 else mean.mean(2))
    stacked = torch.stack(means, 2)
    name, shift, scale = f"input {column}", 0.0, 1.0
    if features is not None:
        name = str(features.names[column])
        shift, scale = float(features.mean[column]), float(features.scale[column])
    dims = ("chain", "draw", "value", "class")[: stacked.ndim]
    y = stacked.detach().cpu().numpy() if stacked.ndim == 4 else target.values(stacked)
    observed = shift + scale * x[:, column].detach().cpu().numpy()
    return xr.Dataset(
        {"y": (dims, y), "observed": ("row", observed)},
        coords={
            "value": shift + scale * values,
            "chain": np.arange(y.shape[0]),
            "draw": np.arange(y.shape[1]),
        },
        attrs={"feature": name},
    )
