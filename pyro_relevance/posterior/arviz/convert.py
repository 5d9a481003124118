"""Posterior -> ArviZ: the only file that knows ArviZ's data format, in both of its generations.

Everything that a figure or a table needs is computed here once. ``plots`` and ``az.*`` only select
and draw.
"""

from __future__ import annotations

import importlib.metadata
import os
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pyro_relevance._files import replacing
from pyro_relevance.errors import CheckpointError
from pyro_relevance.posterior.architectures import architecture_log_likelihood
from pyro_relevance.posterior.arviz.memory import check_memory
from pyro_relevance.posterior.arviz.relevance_groups import relevance_datasets
from pyro_relevance.posterior.arviz.rows import (
    Features,
    HeldOutDraws,
    TargetUnits,
    Writing,
    prediction_datasets,
    row_datasets,
)
from pyro_relevance.posterior.arviz.sites import draw_numbers, point_estimates, site_variables
from pyro_relevance.posterior.arviz.structure import variable_name
from pyro_relevance.posterior.rule_path import rule_path

if TYPE_CHECKING:
    import xarray as xr

    from pyro_relevance.edges.find import EdgeGroup, Edges
    from pyro_relevance.graphs import Architecture
    from pyro_relevance.model.likelihoods import Likelihood
    from pyro_relevance.posterior.history import History
    from pyro_relevance.posterior.posterior import Posterior

__all__ = [
    "ArvizData",
    "Features",
    "HeldOutDraws",
    "TargetUnits",
    "architectures_to_arviz",
    "load",
    "rule_path",
    "save",
    "to_arviz",
    "variable_name",
]

MANY_BYTES = 1 << 20
"""Bytes of an array from which on a file stores it in a compressed form."""

# arviz.InferenceData (ArviZ 0.x) or xarray.DataTree (ArviZ 1.x); no name is valid under both.
ArvizData: TypeAlias = Any

_Array: TypeAlias = npt.NDArray[Any]
_POINTWISE = ("chain", "draw", "obs")
_UNITS = {"loss": "nats", "temperature": "1", "kl_weight": "1", "expected_size": "parameters"}


def to_arviz(
    posterior: Posterior,
    *,
    data: tuple[Tensor, Tensor] | None = None,
    num_samples: int = 200,
    seed: int = 0,
    groups: Sequence[str] | None = None,
    sites: bool | None = None,
    likelihood: Likelihood | None = None,
    target: TargetUnits = TargetUnits(),  # noqa: B008 (a frozen value)
    features: Features | None = None,
    held_out: HeldOutDraws | None = None,
    predictions: tuple[Tensor, Tensor | None] | None = None,
) -> ArvizData:
    """The posterior as an ArviZ object: ``InferenceData`` (ArviZ 0.x) or ``DataTree`` (ArviZ 1.x).

    :mod:`pyro_relevance.report` lists its groups and variables: latent sites and weights in
    ``posterior``, gates and effects of edges in ``relevance``, rows that were trained on in
    ``observed_data``, ``log_likelihood`` and ``posterior_predictive``, new rows in ``predictions``.

    Args:
        posterior: The fitted result.
        data: ``(num_data, ...)`` inputs and ``(num_data, ...)`` targets that were trained on, or
            ``None`` for no groups about them.
        num_samples: Draws per chain.
        seed: Seed of all draws; the same seed gives the same gates in every group.
        groups: Names of the edge groups in ``relevance``, or ``None`` for all.
        sites: Whether ``posterior`` has the latent sites and weights, or the number of each draw
            alone; ``None``: if memory allows.
        likelihood: Distribution of the target to score and predict with, such as one that
            `fit_noise` fitted on held-out rows; ``None`` for that of each chain in training.
        target: From the network's targets to targets in their own unit.
        features: Names and scales of the inputs.
        held_out: Outputs of cross-validation for rows of ``data``, in the place of draws of this
            posterior.
        predictions: ``(num_new, ...)`` inputs of new rows, and their targets or ``None``.

    Returns:
        The ArviZ object, in memory.

    Raises:
        ValueError: If an argument does not fit, or more than 2 GiB would be needed at the peak.
    """
    _check(num_samples, data, held_out, predictions)
    chosen = _choose(posterior.edges, groups)
    rows = [None if held_out is not None else data, predictions]
    sites = check_memory(posterior, chosen, rows, num_samples, seed, sites=sites)
    datasets = _edge_datasets(posterior, chosen, num_samples, seed, (sites, likelihood, target))
    writing = Writing(posterior, num_samples, seed, likelihood, target, features)
    if data is not None:
        datasets.update(row_datasets(writing, *data, held_out))
    if predictions is not None:
        datasets.update(prediction_datasets(writing, *predictions))
    if posterior.history is not None and len(posterior.history.step):
        datasets["sample_stats"] = _history_dataset(posterior.history)
    return _from_datasets(datasets)


def architectures_to_arviz(
    posterior: Posterior,
    architectures: Mapping[str, Architecture],
    data: tuple[Tensor, Tensor],
    *,
    num_samples: int = 100,
    seed: int = 0,
) -> dict[str, ArvizData]:
    """One ArviZ object for each of several architectures, for ``az.compare``.

    Each has the group ``log_likelihood``: that of the (held-out) examples under the architecture,
    with everything but the operations drawn from the posterior.

    Args:
        posterior: The fitted result.
        architectures: Name -> architecture.
        data: ``(num_data, ...)`` inputs and ``(num_data, ...)`` targets.
        num_samples: Draws per chain.
        seed: Seed of the draws, the same for all.

    Raises:
        ArchitectureError: If an architecture does not fit the edges.
    """
    import xarray as xr

    found = {}
    for name, architecture in architectures.items():
        values = architecture_log_likelihood(
            posterior, architecture, *data, num_samples=num_samples, seed=seed
        )
        coords = {dim: np.arange(n) for dim, n in zip(_POINTWISE, values.shape, strict=True)}
        scored = _numpy(values).astype(np.float64)
        gates = xr.Dataset(
            {"draw_number": (("chain", "draw"), np.broadcast_to(coords["draw"], scored.shape[:2]))},
            {dim: coords[dim] for dim in ("chain", "draw")},
        )
        datasets = {
            "posterior": gates,
            "log_likelihood": xr.Dataset({"y": (_POINTWISE, scored)}, coords),
        }
        found[name] = _from_datasets(datasets)
    return found


def save(idata: ArvizData, path: str | os.PathLike[str]) -> None:
    """Write an ArviZ object to a netCDF file that both generations of ArviZ read.

    The file is written under a temporary name and renamed: a failure leaves the previous file as
    it was. Arrays of a mebibyte or more are compressed, and stored with 32 bits a number.

    Args:
        idata: What :func:`to_arviz` returned.
        path: The file, by custom ending in ``.nc``.

    Raises:
        FileNotFoundError: If the folder does not exist.
    """
    import xarray as xr

    nodes = idata.children if hasattr(idata, "children") else idata.groups()
    datasets = {name: _as_dataset(idata[name]) for name in nodes}
    # What was computed in 32 bits is not more exact for the unit of the target.
    packed = {"dtype": "float32", "zlib": True, "complevel": 1, "shuffle": True}
    encoding = {
        f"/{group}": {
            name: packed
            for name, values in dataset.data_vars.items()
            if values.dtype == "float64" and values.nbytes >= MANY_BYTES
        }
        for group, dataset in datasets.items()
    }
    encoding = {group: variables for group, variables in encoding.items() if variables}
    with replacing(path) as temporary:
        tree = xr.DataTree.from_dict(datasets)
        tree.to_netcdf(temporary, engine="h5netcdf", encoding=encoding)


def load(path: str | os.PathLike[str]) -> ArvizData:
    """Read the ArviZ object that :func:`save` wrote, wholly into memory; the file is closed.

    Args:
        path: The netCDF file.

    Returns:
        The ArviZ object of the installed generation.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is damaged or no netCDF file.
    """
    import xarray as xr

    if not os.path.exists(path):
        raise FileNotFoundError(
            f"Expected a netCDF file at {os.fspath(path)}, but got none. "
            "Write one with report.save first."
        )
    try:
        # xarray adds a warning filter whenever it decodes
        with warnings.catch_warnings(), xr.open_datatree(path, engine="h5netcdf") as tree:
            datasets = {name: node.to_dataset().load() for name, node in tree.children.items()}
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"Expected a netCDF file written by report.save at {os.fspath(path)}, but got one "
            f"that cannot be read ({error}). Write it again."
        ) from error
    return _from_datasets(datasets)


def _check(
    num_samples: int,
    data: tuple[Tensor, Tensor] | None,
    held_out: HeldOutDraws | None,
    predictions: tuple[Tensor, Tensor | None] | None,
) -> None:
    if num_samples < 1:
        raise ValueError(
            f"Expected num_samples >= 1, but got {num_samples}. Pass a positive number of draws."
        )
    for name, pair in (("data", data), ("predictions", predictions)):
        if pair is not None and pair[1] is not None and len(pair[0]) != len(pair[1]):
            raise ValueError(
                f"Expected {name}=(x, y) of equal length, but got {len(pair[0])} inputs and "
                f"{len(pair[1])} targets. Pass the pairs of one data set."
            )
    if held_out is None:
        return
    if data is None:
        raise ValueError("Expected data=(x, y) beside held_out, whose rows are rows of data.")
    rows, known = held_out.rows, len(data[0])
    if len(np.unique(rows)) != len(rows) or rows.min() < 0 or rows.max() >= known:
        raise ValueError(
            f"Expected held_out.rows as different numbers from 0 to {known - 1}, but got "
            f"{len(rows)} numbers from {rows.min()} to {rows.max()}."
        )
    if held_out.outputs.ndim != 4 or held_out.outputs.shape[2] != len(rows):
        raise ValueError(
            "Expected held_out.outputs of shape (num_chains, num_samples, "
            f"{len(rows)}, num_outputs), but got {tuple(held_out.outputs.shape)}."
        )


def _edge_datasets(
    posterior: Posterior,
    groups: Sequence[EdgeGroup],
    num_samples: int,
    seed: int,
    about: tuple[bool, Likelihood | None, TargetUnits],
) -> dict[str, xr.Dataset]:
    """The groups about gates and weights; the draws themselves are released on return."""
    sites, likelihood, target = about
    draws = posterior.sample(num_samples, seed=seed)
    datasets = relevance_datasets(posterior, draws, groups, num_samples, seed)
    if sites:
        datasets["posterior"] = site_variables(posterior, draws, num_samples, seed)
        datasets["point_estimates"] = point_estimates(posterior, draws, likelihood, target)
    else:
        datasets["posterior"] = draw_numbers(posterior.num_chains, num_samples)
    return datasets


def _from_datasets(datasets: dict[str, xr.Dataset]) -> ArvizData:
    """The container of the installed ArviZ. Only here its generations differ."""
    import xarray as xr

    now = datetime.now(UTC).isoformat(timespec="seconds")
    for dataset in datasets.values():
        dataset.attrs.setdefault("inference_library", "pyro_relevance")
        dataset.attrs.setdefault("inference_library_version", _version("pyro_relevance"))
        dataset.attrs.setdefault("created_at", now)
    if _version("arviz").split(".")[0] != "0":
        return xr.DataTree.from_dict(datasets)
    with warnings.catch_warnings():
        # ArviZ 0.23 announces its own refactoring at the first import.
        warnings.simplefilter("ignore", FutureWarning)
        import arviz as az
    return az.InferenceData(**cast("dict[str, Any]", datasets))


def _as_dataset(node: Any) -> xr.Dataset:
    dataset: xr.Dataset = node.to_dataset() if hasattr(node, "to_dataset") else node
    return dataset


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _choose(edges: Edges, groups: Sequence[str] | None) -> tuple[EdgeGroup, ...]:
    """The chosen edge groups, in the order of ``edges``."""
    known = [group.name for group in edges.groups]
    unknown = [] if groups is None else [name for name in groups if name not in known]
    if unknown or (groups is not None and not groups) or isinstance(groups, str):
        raise ValueError(
            f"Expected groups from {known}, but got {groups!r}. Pass a sequence of those names, "
            "or None for all."
        )
    chosen = tuple(group for group in edges.groups if groups is None or group.name in groups)
    names = [variable_name(group.name, "edge") for group in chosen]
    doubled = [group.name for group in chosen if names.count(variable_name(group.name, "edge")) > 1]
    if doubled:
        raise ValueError(
            f"Expected edge groups with distinct ArviZ names, but got {doubled}, which are "
            "spelled alike. "
            "Convert them one at a time with groups=[...], or rename a module."
        )
    return chosen


def _numpy(tensor: Tensor) -> _Array:
    # The draws may be one expanded value: a write would change all of them.
    return np.ascontiguousarray(tensor.detach().cpu().numpy())


def _history_dataset(history: History) -> xr.Dataset:
    """The training history over (chain, step); schedules are repeated for each chain."""
    import xarray as xr

    shape = np.shape(history.loss)
    dims = ("chain", "step")
    variables = {
        name: (dims, np.broadcast_to(getattr(history, name), shape).copy(), {"units": units})
        for name, units in _UNITS.items()
    }
    coords = {"chain": np.arange(shape[0]), "step": np.asarray(history.step)}
    return xr.Dataset(variables, coords=coords)
