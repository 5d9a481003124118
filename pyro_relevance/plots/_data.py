"""Selecting from an ArviZ object of either generation; nothing is computed but summaries."""

from __future__ import annotations

import json
import re
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

__all__ = [
    "INTERVAL",
    "Array",
    "described",
    "group_named",
    "one_chain",
    "pooled",
    "quantiles",
    "select",
    "structure_of",
    "weight_of",
]

Array: TypeAlias = npt.NDArray[Any]

INTERVAL = 0.89
"""Probability inside the drawn intervals, ArviZ's own default."""


def select(idata: Any, name: str) -> xr.Dataset:
    """Group ``name`` of an ``InferenceData`` or ``DataTree``.

    Raises:
        ValueError: If the object has no such group.
    """
    names = sorted(idata.children if hasattr(idata, "children") else idata.groups())
    if name not in names:
        raise ValueError(
            f"Expected an ArviZ object with group {name!r}, but got groups {names}. "
            "Pass what to_arviz returned."
        )
    node = idata[name]
    dataset: xr.Dataset = node.to_dataset() if hasattr(node, "to_dataset") else node
    return dataset


def described(dataset: xr.Dataset, what: str) -> list[dict[str, Any]]:
    """The description of the edge groups (``what="groups"``) or of the weights (``"layers"``).

    Raises:
        ValueError: If the dataset carries no such description.
    """
    text = dataset.attrs.get(f"pyro_relevance_{what}")
    if text is None:
        raise ValueError(
            f"Expected a posterior with attribute 'pyro_relevance_{what}', but got "
            f"{sorted(dataset.attrs)}. "
            "Pass what to_arviz returned."
        )
    found: list[dict[str, Any]] = json.loads(text)
    return found


def group_named(dataset: xr.Dataset, name: str) -> dict[str, Any]:
    """The description of one edge group.

    Raises:
        ValueError: If there is no such edge group.
    """
    groups = {group["name"]: group for group in described(dataset, "groups")}
    if name not in groups:
        raise ValueError(f"Expected group in {list(groups)}, but got {name!r}. Choose one of them.")
    return groups[name]


def one_chain(dataset: xr.Dataset, chain: int) -> xr.Dataset:
    """The dataset restricted to one chain; the dim stays.

    Raises:
        ValueError: If there is no such chain.
    """
    known = dataset["chain"].to_numpy().tolist()
    if chain not in known:
        raise ValueError(f"Expected chain in {known}, but got {chain}. Choose one of them.")
    return dataset.sel(chain=[chain])


def pooled(array: xr.DataArray) -> Array:
    """``(chain * draw, ...)`` values."""
    values: Array = array.transpose("chain", "draw", ...).to_numpy()
    return values.reshape(-1, *values.shape[2:])


def quantiles(values: Array, probability: float = INTERVAL) -> Array:
    """``(2, ...)`` ends of the equal-tailed interval over the first dimension."""
    ends = np.quantile(values, [(1 - probability) / 2, (1 + probability) / 2], axis=0)
    return np.asarray(ends)


def weight_of(idata: Any, tensor: str, chain: int) -> Array | None:
    """The weight of one chain, its point estimate or the mean over draws; ``None`` if unknown."""
    stem = re.sub(r"\W", "_", tensor)
    name = f"layer_{stem}" if stem[:1].isdigit() else stem
    for group in ("point_estimates", "posterior"):
        try:
            dataset: xr.Dataset = select(idata, group)
        except ValueError:
            continue
        if name in dataset:
            values = dataset[name].sel(chain=chain)
            return np.asarray(values.mean("draw") if "draw" in values.dims else values)
    return None


def structure_of(dataset: Any, structure: str | None, suffix: str) -> str:
    """Return the structure that is asked for, or the only one.

    Args:
        dataset: Group of an ArviZ object.
        structure: Its name; ``None`` where there is one.
        suffix: End of the names of variables of structures.

    Raises:
        ValueError: If there is none, several without a name, or no such one.
    """
    known = [str(n).removesuffix(suffix) for n in dataset.data_vars if str(n).endswith(suffix)]
    if not known:
        raise ValueError(
            "Expected idata with operations of relaxed graphs, but its posterior has none. Fit a "
            "model whose edges are found with granularity='operation'."
        )
    if structure is None and len(known) > 1 or structure not in (None, *known):
        raise ValueError(f"Expected structure from {known}, but got {structure!r}.")
    return structure or known[0]
