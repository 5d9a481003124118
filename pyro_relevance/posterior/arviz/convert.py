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
import torch
from torch import Tensor

from pyro_relevance._files import replacing
from pyro_relevance.errors import CheckpointError
from pyro_relevance.posterior.architectures import architecture_log_likelihood
from pyro_relevance.posterior.arviz.memory import check_memory
from pyro_relevance.posterior.arviz.operations import describe_graphs, operation_variables
from pyro_relevance.posterior.arviz.structure import structure, variable_name
from pyro_relevance.posterior.draws import Draws
from pyro_relevance.posterior.relevance import effect
from pyro_relevance.posterior.rule_path import rule_path

if TYPE_CHECKING:
    import xarray as xr

    from pyro_relevance.edges.find import EdgeGroup, Edges
    from pyro_relevance.graphs import Architecture
    from pyro_relevance.posterior.history import History
    from pyro_relevance.posterior.posterior import Posterior

__all__ = [
    "ArvizData",
    "architectures_to_arviz",
    "load",
    "rule_path",
    "save",
    "to_arviz",
    "variable_name",
]

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
) -> ArvizData:
    """The posterior as an ArviZ object: ``InferenceData`` (ArviZ 0.x) or ``DataTree`` (ArviZ 1.x).

    It has the groups ``posterior`` and ``prior``; ``sample_stats`` with the training history over
    ``(chain, step)``; and with ``data`` also ``posterior_predictive``, ``log_likelihood`` (nats,
    pointwise) and ``observed_data``, whose variable is ``y``. For each edge group, over ``(chain,
    draw, <group>_edge)`` with the labels of the edges as coordinates:

    - ``<group>_gate``: 0 or 1;
    - ``<group>_inclusion_probability``: probability of gate 1 in that draw (constant within a
      chain for a mean-field guide: its spread over draws is then zero and its ``r_hat`` has no
      meaning);
    - ``<group>_effect``: norm of the gated weights that read the edge (posterior only; larger =
      more relevant).

    For the operations of relaxed graphs, ``<structure>_operation_gate`` and
    ``<structure>_operation_probability`` over ``(chain, draw, source, target, operation)``, NaN
    where a graph has no such edge.

    A model without gates has effects only, and no ``prior``. ``inclusion_probability`` over
    ``(chain, draw, edge)`` joins all groups, with coordinates ``"group[label]"``. ``<group>`` is
    spelled as by :func:`variable_name`; gates with a shape (granularity ``"weight"``) are
    flattened. The attributes ``pyro_relevance_groups`` and ``pyro_relevance_layers`` of
    ``posterior`` hold, as JSON, where the gates touch the network and the shapes of its weights.

    Args:
        posterior: The fitted result.
        data: ``(num_data, ...)`` inputs and ``(num_data, ...)`` targets, or ``None`` for no groups
            about data.
        num_samples: Draws per chain.
        seed: Seed of all draws; the same seed gives the same gates in every group.
        groups: Names of the edge groups to write, or ``None`` for all.

    Returns:
        The ArviZ object, in memory.

    Raises:
        ValueError: If an argument does not fit, or more than 2 GiB would be needed at the peak.
    """
    _check(num_samples, data)
    chosen = _choose(posterior.edges, groups)
    check_memory(posterior, chosen, data, num_samples, seed)
    datasets = _edge_datasets(posterior, chosen, num_samples, seed)
    if data is not None:
        datasets.update(_data_datasets(posterior, *data, num_samples, seed))
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
    it was.

    Args:
        idata: What :func:`to_arviz` returned.
        path: The file, by custom ending in ``.nc``.

    Raises:
        FileNotFoundError: If the folder does not exist.
    """
    import xarray as xr

    nodes = idata.children if hasattr(idata, "children") else idata.groups()
    datasets = {name: _as_dataset(idata[name]) for name in nodes}
    with replacing(path) as temporary:
        xr.DataTree.from_dict(datasets).to_netcdf(temporary, engine="h5netcdf")


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


def _check(num_samples: int, data: tuple[Tensor, Tensor] | None) -> None:
    if num_samples < 1:
        raise ValueError(
            f"Expected num_samples >= 1, but got {num_samples}. Pass a positive number of draws."
        )
    if data is not None and len(data[0]) != len(data[1]):
        raise ValueError(
            f"Expected data=(x, y) of equal length, but got {len(data[0])} inputs and "
            f"{len(data[1])} targets. Pass the pairs of one data set."
        )


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


def _edge_datasets(
    posterior: Posterior, groups: Sequence[EdgeGroup], num_samples: int, seed: int
) -> dict[str, xr.Dataset]:
    """Posterior and prior of the edges; the draws themselves are released on return."""
    edges, draws = posterior.edges, posterior.sample(num_samples, seed=seed)
    datasets: dict[str, xr.Dataset]
    if draws.gates or not edges.groups:
        effects = effect(draws, edges) if edges.groups else {}
        datasets = {"posterior": _draws_dataset(groups, draws, effects)}
        prior = posterior.sample_prior(num_samples, seed=seed)
        datasets["prior"] = _draws_dataset(groups, prior, {})
        if edges.operations:
            datasets["prior"] = datasets["prior"].merge(operation_variables(edges, prior))
    else:
        shape = next(iter(draws.weights.values())).shape[:1] + (num_samples,)
        on = {group.name: torch.ones(*shape, *group.shape) for group in edges.groups}
        effects = effect(Draws(on, on, draws.weights), edges)
        datasets = {"posterior": _draws_dataset(groups, draws, effects)}
    if edges.operations:
        graphs = describe_graphs(posterior.model.network)
        datasets["posterior"].attrs["pyro_relevance_graphs"] = graphs
        own = operation_variables(edges, draws)
        datasets["posterior"] = datasets["posterior"].merge(own)
    datasets["posterior"].attrs.update(structure(edges, groups))
    return datasets


def _draws_dataset(
    groups: Sequence[EdgeGroup], draws: Draws, effects: Mapping[str, Tensor]
) -> xr.Dataset:
    """Gates, inclusion probabilities and effects of ``groups`` over (chain, draw, <group>_edge)."""
    import xarray as xr

    variables: dict[str, tuple[tuple[str, ...], _Array]] = {}
    coords: dict[str, Any] = {}
    for group in groups:
        dims = ("chain", "draw", variable_name(group.name, "edge"))
        coords[dims[2]] = np.asarray(list(group.labels), dtype=np.str_)
        values = {}
        if draws.gates:
            values["gate"] = _numpy(draws.gates[group.name]).astype(np.int8)
            values["inclusion_probability"] = _numpy(draws.inclusion_probability[group.name])
        if group.name in effects:
            values["effect"] = _numpy(effects[group.name])
        for quantity, array in values.items():
            flat = array.reshape(*array.shape[:2], group.num_edges)
            variables[variable_name(group.name, quantity)] = (dims, flat)
            coords.update(chain=np.arange(array.shape[0]), draw=np.arange(array.shape[1]))
    if draws.gates and groups:
        joined = [variables[variable_name(g.name, "inclusion_probability")][1] for g in groups]
        variables["inclusion_probability"] = (("chain", "draw", "edge"), np.concatenate(joined, -1))
        coords["edge"] = np.asarray([f"{g.name}[{label}]" for g in groups for label in g.labels])
    return xr.Dataset(variables, coords=coords)


def _data_datasets(
    posterior: Posterior, x: Tensor, y: Tensor, num_samples: int, seed: int
) -> dict[str, xr.Dataset]:
    """Replicated, scored and observed ``y``; several outputs get a dim ``output``."""
    import xarray as xr

    sample = _numpy(posterior.predict(x, num_samples=num_samples, seed=seed).sample)
    log_likelihood = _numpy(posterior.log_likelihood(x, y, num_samples=num_samples, seed=seed))
    observed = _numpy(y)
    if observed.ndim > 1:
        observed = observed.reshape(len(observed), -1)
        observed = observed[:, 0] if observed.shape[1] == 1 else observed
    sample = sample.reshape(*sample.shape[:2], *observed.shape)
    coords = {
        "chain": np.arange(sample.shape[0]),
        "draw": np.arange(sample.shape[1]),
        "obs": np.arange(len(observed)),
    }
    data_dims = ("obs", "output")[: observed.ndim]
    # In double precision, since Pareto smoothing fits the tail of these.
    scored = log_likelihood.astype(np.float64)
    return {
        "posterior_predictive": xr.Dataset({"y": (("chain", "draw", *data_dims), sample)}, coords),
        "log_likelihood": xr.Dataset({"y": (("chain", "draw", "obs"), scored)}, coords),
        "observed_data": xr.Dataset({"y": (data_dims, observed)}, {"obs": coords["obs"]}),
    }


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
