"""Masks of growing density -> size, fit and likelihood of what they keep, draw by draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pyro_relevance.edges.size import masked_cost

if TYPE_CHECKING:
    import xarray as xr

    from pyro_relevance.masks import Mask
    from pyro_relevance.posterior.posterior import Posterior

__all__ = ["rule_path"]

Metric = Literal["rmse", "accuracy"]


def rule_path(
    posterior: Posterior,
    masks: Sequence[Mask],
    data: tuple[Tensor, Tensor],
    *,
    num_samples: int = 100,
    seed: int = 0,
    metric: Metric = "rmse",
) -> xr.Dataset:
    """How well the posterior predicts behind each mask of a path.

    For each mask m and each draw s of weights and gates (gates that m drops are zero):

        log_likelihood[m, s] = 1/N sum_n log p(y_n | x_n, s, m)
        rmse[m, s] = sqrt(1/N sum_n (y_n - E[y | x_n, s, m])^2)
        accuracy[m, s] = 1/N sum_n [y_n = argmax_y p(y | x_n, s, m)]

    Args:
        posterior: The fitted result.
        masks: The masks of one rule, e.g. for several rates; any order.
        data: ``(num_data, ...)`` inputs and ``(num_data, ...)`` targets.
        num_samples: Draws per chain.
        seed: Seed of the draws; all masks see the same draws.
        metric: ``"rmse"`` (in the unit of y) or ``"accuracy"`` (fraction; larger = better).

    Returns:
        Dataset with ``density`` (fraction of edges kept) and ``num_parameters`` over ``mask``, and
        ``log_likelihood`` (nats per datum) and ``metric`` over ``(mask, chain, draw)``, sorted by
        density.

    Raises:
        ValueError: If there is no mask, the metric is unknown, or x and y differ in length.
    """
    _check(masks, data, metric)
    x, y = data
    score = _rmse if metric == "rmse" else _accuracy
    ordered = sorted(masks, key=lambda mask: float(mask.density))
    values, fits = [], []
    for mask in ordered:
        options: dict[str, Any] = {"num_samples": num_samples, "seed": seed, "mask": mask}
        values.append(score(posterior.predict(x, **options).mean, y).cpu().numpy())
        fits.append(posterior.log_likelihood(x, y, **options).mean(-1).cpu().numpy())
    sizes = [masked_cost(posterior.edges, mask).num_nonzero for mask in ordered]
    return _dataset(ordered, sizes, np.stack(fits), np.stack(values), metric)


def _check(masks: Sequence[Mask], data: tuple[Tensor, Tensor], metric: str) -> None:
    if metric not in get_args(Metric):
        raise ValueError(
            f"Expected metric in {list(get_args(Metric))}, but got {metric!r}. Choose one of them."
        )
    if not masks:
        raise ValueError("Expected at least one mask, but got none. Pass the masks of a rule.")
    x, y = data
    if len(x) != len(y):
        raise ValueError(
            f"Expected data=(x, y) of equal length, but got {len(x)} inputs and {len(y)} targets. "
            "Pass the pairs of one data set."
        )


def _dataset(
    masks: Sequence[Mask],
    sizes: Sequence[int],
    fits: npt.NDArray[Any],
    values: npt.NDArray[Any],
    metric: Metric,
) -> xr.Dataset:
    """``fits`` and ``values`` are ``(mask, chain, draw)``."""
    import xarray as xr

    dims = ("mask", "chain", "draw")
    units = {"rmse": "unit of y", "accuracy": "fraction"}
    return xr.Dataset(
        {
            "density": ("mask", [float(mask.density) for mask in masks], {"units": "fraction"}),
            "num_parameters": ("mask", list(sizes), {"units": "parameters"}),
            "log_likelihood": (dims, fits, {"units": "nats per datum"}),
            metric: (dims, values, {"units": units[metric]}),
        },
        coords={
            "mask": np.arange(len(masks)),
            "rule": ("mask", [mask.rule for mask in masks]),
            "chain": np.arange(values.shape[1]),
            "draw": np.arange(values.shape[2]),
        },
    )


def _rmse(mean: Tensor, y: Tensor) -> Tensor:
    """``(chain, draw)`` root mean squared error of ``(chain, draw, num_data, ...)`` predictions."""
    error = mean.reshape(*mean.shape[:3], -1) - y.reshape(len(y), -1).to(mean)
    return error.square().mean(dim=(-2, -1)).sqrt()


def _accuracy(mean: Tensor, y: Tensor) -> Tensor:
    """``(chain, draw)`` fraction of right classes; one column is the probability of class 1."""
    mean = mean.reshape(*mean.shape[:3], -1)
    guess = (mean[..., 0] > 0.5).long() if mean.shape[-1] == 1 else mean.argmax(-1)
    return (guess == y.reshape(-1).to(guess)).to(torch.float64).mean(-1)
