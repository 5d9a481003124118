"""Gates, inclusion probabilities and effects as ArviZ groups, and their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pyro_relevance.posterior.arviz.operations import describe_graphs, operation_variables
from pyro_relevance.posterior.arviz.structure import structure, variable_name
from pyro_relevance.posterior.draws import Draws
from pyro_relevance.posterior.intervals import interval
from pyro_relevance.posterior.relevance import effect

if TYPE_CHECKING:
    import xarray as xr

    from pyro_relevance.edges.find import EdgeGroup
    from pyro_relevance.posterior.posterior import Posterior

__all__ = ["relevance_datasets"]

_Array = npt.NDArray[Any]


def relevance_datasets(
    posterior: Posterior, draws: Draws, groups: Sequence[EdgeGroup], num_samples: int, seed: int
) -> dict[str, xr.Dataset]:
    """Return the groups ``relevance``, ``relevance_summary`` and, with gates, ``prior``.

    Args:
        posterior: The fitted result.
        draws: Its draws.
        groups: The groups of edges to write.
        num_samples: Draws in each chain.
        seed: Seed of the draws.
    """
    edges = posterior.edges
    datasets: dict[str, xr.Dataset]
    if draws.gates or not edges.groups:
        effects = effect(draws, edges) if edges.groups else {}
        datasets = {"relevance": _draws_dataset(groups, draws, effects)}
        prior = posterior.sample_prior(num_samples, seed=seed)
        datasets["prior"] = _draws_dataset(groups, prior, {})
        if edges.operations:
            datasets["prior"] = datasets["prior"].merge(operation_variables(edges, prior))
    else:
        shape = next(iter(draws.weights.values())).shape[:1] + (num_samples,)
        on = {group.name: torch.ones(*shape, *group.shape) for group in edges.groups}
        effects = effect(Draws(on, on, draws.weights), edges)
        datasets = {"relevance": _draws_dataset(groups, draws, effects)}
    if edges.operations:
        graphs = describe_graphs(posterior.model.network)
        datasets["relevance"].attrs["pyro_relevance_graphs"] = graphs
        own = operation_variables(edges, draws)
        datasets["relevance"] = datasets["relevance"].merge(own)
    datasets["relevance"].attrs.update(structure(edges, groups))
    if groups:
        datasets["relevance_summary"] = _summary(groups, draws, effects)
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


def _summary(
    groups: Sequence[EdgeGroup], draws: Draws, effects: Mapping[str, Tensor]
) -> xr.Dataset:
    """Means, ranges over chains, and intervals over draws and chains, of each edge.

    Where edges of different chains are not the same edges there is one row for each chain.
    """
    import xarray as xr

    variables: dict[str, Any] = {}
    coords: dict[str, Any] = {}
    probability = 0.89
    for group in groups:
        edge = variable_name(group.name, "edge")
        coords[edge] = np.asarray(list(group.labels), dtype=np.str_)
        num_chains = next(iter(effects.values())).shape[0]
        pooled = group.granularity == "input" or num_chains == 1
        dims = (edge,) if pooled else ("chain", edge)
        if not pooled:
            coords["chain"] = np.arange(num_chains)
        shape = (group.num_edges,) if pooled else (num_chains, group.num_edges)
        # Chains are draws like others where edges mean the same in each of them.
        effect_of = effects[group.name].flatten(2)
        over = interval(
            effect_of.flatten(0, 1) if pooled else effect_of.transpose(0, 1),
            probability=probability,
        )
        values = {"effect_mean": over.mean, "effect_lower": over.lower, "effect_upper": over.upper}
        if draws.gates:
            chains = draws.inclusion_probability[group.name].mean(1).flatten(1)
            values["inclusion_mean"] = chains.mean(0) if pooled else chains
            if pooled and num_chains > 1:
                values["inclusion_lowest_chain"] = chains.amin(0)
                values["inclusion_highest_chain"] = chains.amax(0)
        for quantity, value in values.items():
            variables[variable_name(group.name, quantity)] = (dims, _numpy(value).reshape(shape))
    about = {
        "interval_probability": probability,
        "effect": "mean and equal-tailed interval over the draws of all chains together, where the "
        "edges mean the same in each chain; else over those of one chain",
        "inclusion": "mean of the probability over draws and chains; lowest and highest chain tell "
        "how far the fits agree, which is no posterior interval",
    }
    return xr.Dataset(variables, coords, about)


def _numpy(tensor: Tensor) -> _Array:
    # The draws may be one expanded value: a write would change all of them.
    return np.ascontiguousarray(tensor.detach().cpu().numpy())
