"""Searches of the NAS-Bench-201 cell on images: posteriors, DARTS, uniform paths.

Each takes the same images and returns the names of the cells that it chose, by their rows in the
record, with what it saw on the way.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from analysis.nasbench201.proxy import (
    AUGMENT,
    LEARNING_RATE,
    PRECISION,
    darts_network,
    darts_probabilities,
    make_network,
    make_recipe,
    strongest_of_all,
)
from analysis.nasbench201.table import cell_edges
from pyro_relevance import likelihoods
from pyro_relevance._random import seeded, substream
from pyro_relevance.comparison.baselines import single_path, strongest_operations
from pyro_relevance.comparison.baselines.searching import train_plain_architecture
from pyro_relevance.data.splits import split_examples
from pyro_relevance.errors import CollapseWarning
from pyro_relevance.graphs import Architecture, spaces
from pyro_relevance.graphs.spaces import architecture_to_string
from pyro_relevance.posterior.architectures import chain_probability
from pyro_relevance.posterior.evaluation import mean_log_likelihood
from pyro_relevance.search.queries import Candidates, search_by_queries
from pyro_relevance.search.structure import SearchResult, SearchSettings, search_structure

__all__ = ["ROWS", "SEARCHES", "Settings"]

POSTERIOR = "posterior, draws trained for a while"
MODE = "posterior, best draw by shared weights"
MIXTURE = "posterior over the mixture, mode"
VALUES = "posterior of values, short trainings"
DARTS = "DARTS, first order, strongest operation but none"
DARTS_ALL = "DARTS, first order, strongest operation"
PATHS = "uniform paths, best of random cells"


@dataclass(frozen=True)
class Settings:
    """What the searches do.

    Args:
        num_seeds: Runs of each search.
        num_data: Training images, at most; a tenth is held out (half by DARTS).
        num_epochs: Epochs of the posterior's search, three quarters of them a warm-up.
        num_finalists: Draws of the posterior that are re-initialised and trained.
        num_epochs_trial: Epochs of the first of these trainings.
        num_epochs_mixture: Epochs of the search over the mixture, one of them a warm-up.
        num_effective_mixture: Number of examples that its evidence counts as.
        num_queries: Short trainings by which the posterior of values learns.
        num_epochs_query: Epochs of each.
        num_epochs_darts: Epochs of DARTS over its half.
        num_epochs_paths: Epochs of uniform paths.
        num_candidates: Random cells that are compared by the weights of uniform paths.
        learning_rate: Step size of Adam for all weights but those of DARTS, which has its paper's.
    """

    num_seeds: int = 5
    num_data: int = 25_000
    num_epochs: int = 8
    num_finalists: int = 8
    num_epochs_trial: int = 2
    num_epochs_mixture: int = 10
    num_effective_mixture: int = 30
    num_queries: int = 28
    num_epochs_query: int = 2
    num_epochs_darts: int = 20
    num_epochs_paths: int = 52
    num_candidates: int = 200
    learning_rate: float = LEARNING_RATE


def posterior(
    data: tuple[Tensor, Tensor], settings: Settings, seed: int, folder: Path
) -> dict[str, Any]:
    """Search with the posterior along paths."""
    search = dataclasses.replace(
        shared_search(settings, seed),
        num_epochs=settings.num_epochs,
        gate_learning_rate=0.1,
        warm_up=0.75,
        num_finalists=settings.num_finalists,
        finalists="draws",
        num_epochs_trial=settings.num_epochs_trial,
    )
    found, about = searched(data, search, folder / f"posterior-{seed}")
    trials = [[architecture_to_string(a), n, v] for a, n, v in found.trials]
    chosen = {POSTERIOR: found.architecture, MODE: found.candidates[0][0]}
    names = {method: architecture_to_string(cell) for method, cell in chosen.items()}
    return names | about | {"trials": trials}


def mixture(
    data: tuple[Tensor, Tensor], settings: Settings, seed: int, folder: Path
) -> dict[str, Any]:
    """Search with the posterior over the mixture."""
    search = dataclasses.replace(
        shared_search(settings, seed),
        evaluation="mixture",
        num_epochs=settings.num_epochs_mixture,
        gate_learning_rate=0.01,
        warm_up=1 / settings.num_epochs_mixture,
        num_effective=settings.num_effective_mixture,
        num_candidates=2,
        num_finalists=1,
        finalists="probable",
    )
    found, about = searched(data, search, folder / f"mixture-{seed}")
    chances = {name: p.tolist() for name, p in chain_probability(found.posterior).items()}
    return {MIXTURE: architecture_to_string(found.architecture)} | about | {"probability": chances}


def shared_search(settings: Settings, seed: int) -> SearchSettings:
    """Return what both searches for a posterior have in common."""
    return SearchSettings(
        shared=True,
        num_epochs_after=1,
        learning_rate=settings.learning_rate,
        precision=PRECISION,
        augment=AUGMENT,
        seed=seed,
    )


def searched(
    data: tuple[Tensor, Tensor], settings: SearchSettings, folder: Path
) -> tuple[SearchResult, dict[str, Any]]:
    """Search the structure; return also the warnings and the entropy of the posterior."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CollapseWarning)
        found = search_structure(
            make_network,
            data,
            likelihood=likelihoods.Categorical(),
            settings=settings,
            folder=folder,
            progress=False,
        )
    messages = [str(w.message) for w in caught if w.category is CollapseWarning]
    return found, {"warnings": messages, "entropy": found.report.entropy}


def values(
    data: tuple[Tensor, Tensor], settings: Settings, seed: int, folder: Path
) -> dict[str, Any]:
    """Search with the posterior of values."""
    with seeded(substream(seed, "split")):
        train, held = split_examples(data, 0.1)

    def measure(architecture: Architecture) -> float:
        trained = train_plain_architecture(
            make_network,
            architecture,
            train,
            recipe=make_recipe(settings.learning_rate),
            num_epochs=settings.num_epochs_query,
            name="query",
            seed=seed,
        )
        return mean_log_likelihood(trained.network.eval(), trained.likelihood, held)

    found = search_by_queries(
        candidates(),
        measure,
        num_queries=settings.num_queries,
        num_initial=settings.num_queries // 4,
        seed=seed,
    )
    queries = [
        [architecture_to_string(cell), value]
        for cell, value in zip(found.architectures, found.values, strict=True)
    ]
    return {VALUES: architecture_to_string(found.best()), "queries": queries}


@functools.cache
def candidates() -> Candidates:
    """Return all cells, those that are the same function as one."""
    edges = cell_edges()
    names = [group.name for group in edges.operations]
    cells = [
        Architecture(dict(zip(names, chosen, strict=True)))
        for chosen in itertools.product(*[group.labels for group in edges.operations])
    ]
    return Candidates(spaces.nasbench201_cell(1), cells)


def darts(
    data: tuple[Tensor, Tensor], settings: Settings, seed: int, folder: Path
) -> dict[str, Any]:
    """Search with DARTS."""
    network, edges = darts_network(seed)
    chances = darts_probabilities(
        network, edges, data, make_recipe(settings.learning_rate), settings.num_epochs_darts, seed
    )
    mean = torch.stack(list(chances.values())).mean(0)
    return {
        DARTS: architecture_to_string(strongest_operations(edges, chances)),
        DARTS_ALL: architecture_to_string(strongest_of_all(edges, chances)),
        "mean_probability": dict(zip(edges.operations[0].labels, mean.tolist(), strict=True)),
    }


def paths(
    data: tuple[Tensor, Tensor], settings: Settings, seed: int, folder: Path
) -> dict[str, Any]:
    """Search with uniform paths."""
    result = single_path(
        make_network,
        data,
        recipe=make_recipe(settings.learning_rate),
        num_epochs=settings.num_epochs_paths,
        num_candidates=settings.num_candidates,
        num_epochs_after=0,
        seed=seed,
    )
    assert isinstance(result.choice, Architecture)
    return {PATHS: architecture_to_string(result.choice)}


SEARCHES = {
    "posterior": posterior,
    "mixture": mixture,
    "values": values,
    "darts": darts,
    "paths": paths,
}

ROWS = {
    "posterior": (POSTERIOR, MODE),
    "mixture": (MIXTURE,),
    "values": (VALUES,),
    "darts": (DARTS, DARTS_ALL),
    "paths": (PATHS,),
}
"""Rows of the record by search."""
