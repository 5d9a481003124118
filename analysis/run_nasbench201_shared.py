"""NAS-Bench-201 on a processor in minutes: posteriors, DARTS and uniform paths in equal time.

All of them search the benchmark's cell with the same small proxy: images of 16 x 16 pixels (means
of 2 x 2), 16 channels, one cell in each stage. The table is used only to report: test accuracy
after 200 epochs of the full network of the cell that was found. Numbers of passes were set so that
each search takes about as long, ten minutes of one core, by their passes and not by their results.

- posterior: ``search_structure``. Weights warm up under uniform paths, the posterior over
  operations is fitted to held-out images, and some of its draws are trained from fresh weights for
  equally many passes, the better half going on (twice as long) until one is left.
- mixture: ``search_structure`` with all operations of each edge computed and weighed by relaxed
  gates, as in DARTS, and the posterior held close to its prior (the evidence counts as 30
  examples); its mode. That a mixture prefers other cells than paths was known from DARTS, watched
  pass by pass (``run_darts_collapse``).
- posterior of values: ``search_by_queries`` with expected improvement, each measurement a training
  of a few passes from fresh weights on the proxy; no weights are shared.
- DARTS, first order: once with the strongest operation other than none of each edge, and once with
  the strongest of all.
- uniform paths: shared weights trained along random paths, the best of random cells by them.

Beside them stand random cells and the largest cell, all 3 x 3 convolutions.

    python -m analysis.run_nasbench201_shared --table nasbench201/cifar10.csv --root DATA
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from analysis.command import Command
from analysis.nasbench201_table import Table
from analysis.parts import keep, kept
from analysis.records import row, write_record
from pyro_relevance import Precision, find_edges, likelihoods
from pyro_relevance._random import seeded, substream
from pyro_relevance.comparison.baselines import (
    DartsSettings,
    Recipe,
    single_path,
    strongest_operations,
)
from pyro_relevance.comparison.baselines.darts import search_operations
from pyro_relevance.comparison.baselines.random_search import random_architecture
from pyro_relevance.comparison.baselines.recipe import seeded_network
from pyro_relevance.comparison.baselines.searching import train_plain_architecture
from pyro_relevance.data.augmentation import InOrder, RandomCrop, RandomFlip
from pyro_relevance.data.images import cifar10, some
from pyro_relevance.data.splits import split_examples
from pyro_relevance.errors import CollapseWarning
from pyro_relevance.graphs import Architecture, is_connected, spaces
from pyro_relevance.posterior.architectures import chain_probability
from pyro_relevance.posterior.evaluation import mean_log_likelihood
from pyro_relevance.search.queries import Candidates, search_by_queries
from pyro_relevance.search.structure import SearchResult, SearchSettings, search_structure

POSTERIOR = "posterior, draws trained for a while"
MODE = "posterior, best draw by shared weights"
MIXTURE = "posterior over the mixture, mode"
VALUES = "posterior of values, short trainings"
DARTS = "DARTS, first order, strongest operation but none"
DARTS_ALL = "DARTS, first order, strongest operation"
PATHS = "uniform paths, best of random cells"
RANDOM = "random cells"
DEAD = 10.0
"""Test accuracy of a cell without a path."""
PRECISION = Precision(autocast=torch.bfloat16, channels_last=True)
AUGMENT = InOrder((RandomCrop(2), RandomFlip()))


@dataclass(frozen=True)
class Settings:
    """What the experiment does.

    Args:
        num_seeds: Runs of each search.
        num_data: Training images, at most; a tenth is held out (half by DARTS).
        num_epochs: Passes of the posterior's search, three quarters of them a warm-up.
        num_finalists: Draws of the posterior that are trained from fresh weights.
        num_epochs_trial: Passes of the first of these trainings.
        num_epochs_mixture: Passes of the search over the mixture, one of them a warm-up.
        num_effective_mixture: Number of examples as which its evidence counts.
        num_queries: Short trainings by which the posterior of values learns.
        num_epochs_query: Passes of each.
        num_epochs_darts: Passes of DARTS over its half.
        num_epochs_paths: Passes of uniform paths.
        num_candidates: Random cells that are compared by the weights of uniform paths.
        learning_rate: Step size of Adam for all weights but those of DARTS, whose are its paper's.
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
    learning_rate: float = 3e-3


def make_network(full: bool) -> nn.Module:
    """Return the relaxed proxy network."""
    return spaces.nasbench201_space(10, num_cells=1, affine=full, statistics=full)


def recipe(settings: Settings) -> Recipe:
    """Return the training of all networks."""
    return Recipe(
        likelihoods.Categorical(),
        learning_rate=settings.learning_rate,
        augment=AUGMENT,
        precision=PRECISION,
    )


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
    trials = [[text(a), n, v] for a, n, v in found.trials]
    chosen = {POSTERIOR: text(found.architecture), MODE: text(found.candidates[0][0])}
    return chosen | about | {"trials": trials}


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
    return {MIXTURE: text(found.architecture)} | about | {"probability": chances}


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
    told = [str(w.message) for w in caught if w.category is CollapseWarning]
    return found, {"warnings": told, "entropy": found.report.entropy}


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
            recipe=recipe(settings),
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
    measured = zip(found.architectures, found.values, strict=True)
    return {VALUES: text(found.best()), "queries": [[text(a), v] for a, v in measured]}


@functools.cache
def candidates() -> Candidates:
    """Return all cells, those that are the same function as one."""
    edges = find_edges(spaces.nasbench201_cell(1), granularity="operation")
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
    network = seeded_network(lambda: make_network(False), substream(seed, "network"))
    edges = find_edges(network, granularity="operation")
    with seeded(substream(seed, "darts")), torch.enable_grad():
        logits, _ = search_operations(
            network, edges, data, recipe(settings), settings.num_epochs_darts, DartsSettings()
        )
    chances = {name: value.softmax(-1) for name, value in logits.items()}
    largest = {g.name: g.labels[int(chances[g.name].argmax())] for g in edges.operations}
    mean = torch.stack(list(chances.values())).mean(0)
    return {
        DARTS: text(strongest_operations(edges, chances)),
        DARTS_ALL: text(Architecture(largest)),
        "mean_probability": dict(zip(edges.operations[0].labels, mean.tolist(), strict=True)),
    }


def paths(
    data: tuple[Tensor, Tensor], settings: Settings, seed: int, folder: Path
) -> dict[str, Any]:
    """Search with uniform paths."""
    result = single_path(
        make_network,
        data,
        recipe=recipe(settings),
        num_epochs=settings.num_epochs_paths,
        num_candidates=settings.num_candidates,
        num_epochs_after=0,
        seed=seed,
    )
    assert isinstance(result.choice, Architecture)
    return {PATHS: text(result.choice)}


def small_images(root: str | None, num_data: int) -> tuple[Tensor, Tensor]:
    """Return random training images, means of 2 x 2 pixels."""
    x, y = some(*cifar10(root), num_data)
    return functional.avg_pool2d(x, 2), y


def reported(table: Table, cell: str) -> float:
    """Return the test accuracy of a cell in percent, that of chance where it has no path."""
    return table.test_accuracy(spaces.architecture_from_string(cell)) if is_alive(cell) else DEAD


def is_alive(cell: str) -> bool:
    """Whether a cell has a path from input to output."""
    return is_connected(spaces.nasbench201_cell(1), spaces.architecture_from_string(cell))


def text(architecture: Architecture) -> str:
    """Return the name of a cell in the benchmark."""
    return spaces.architecture_to_string(architecture)


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


def run(
    table: Path,
    root: str | None,
    settings: Settings,
    folder: Path,
    *,
    command: str,
    only: str | None,
) -> Path:
    """Run all searches (or the one named) and write the record of the runs that are there."""
    torch.set_num_threads(1)
    benchmark, data = Table.read(table), small_images(root, settings.num_data)
    parts = folder / ".nasbench201_shared"
    parts.mkdir(parents=True, exist_ok=True)
    about = dataclasses.asdict(settings) | {"num_seeds": 0}
    known: dict[tuple[str, int], dict[str, Any]] = {}
    for seed in range(settings.num_seeds):
        for name, search in SEARCHES.items():
            path = parts / f"{name}-{seed}.json"
            content = kept(path, about)
            if content is None:
                if only not in (None, name):
                    continue
                started, core_started = time.perf_counter(), time.process_time()
                found = search(data, settings, seed, parts)
                seconds = time.perf_counter() - started
                core = time.process_time() - core_started
                content = keep(path, about, found=found, seconds=seconds, core=core)
                print(f"{name}, seed {seed}: {found}, {core:.0f} core seconds", flush=True)
            known[name, seed] = content
    edges = find_edges(spaces.nasbench201_cell(1), granularity="operation")
    rows = []
    for name in SEARCHES:
        seeds = [seed for seed in range(settings.num_seeds) if (name, seed) in known]
        if not seeds:
            continue
        for method in ROWS[name]:
            cells = [known[name, seed]["found"][method] for seed in seeds]
            metrics = {
                "test_accuracy": [reported(benchmark, c) for c in cells],
                "dead": [float(not is_alive(c)) for c in cells],
                "num_skips": [float(c.count("skip_connect")) for c in cells],
                "seconds": [known[name, seed]["seconds"] for seed in seeds],
                "core_seconds": [known[name, seed]["core"] for seed in seeds],
            }
            rows.append(row(method, "nasbench201", seeds, metrics, cells=cells))
    generator = np.random.default_rng(0)
    drawn = [random_architecture(edges, generator) for _ in range(1000)]
    rows.append(
        row(
            RANDOM,
            "nasbench201",
            [0],
            {"test_accuracy": [benchmark.test_accuracy(a) for a in drawn]},
        )
    )
    largest = Architecture(dict.fromkeys((g.name for g in edges.operations), "nor_conv_3x3"))
    rows.append(
        row(
            "largest cell, no search",
            "nasbench201",
            [0],
            {"test_accuracy": [benchmark.test_accuracy(largest)]},
        )
    )
    return write_record(
        "nasbench201_shared",
        command=command,
        settings=dataclasses.asdict(settings) | {"precision": repr(PRECISION)},
        rows=rows,
        wall_seconds=sum(content["seconds"] for content in known.values()),
        folder=folder,
        found={f"{name}-{seed}": content["found"] for (name, seed), content in known.items()},
    )


def smoke(settings: Settings) -> Settings:
    """Return settings that take seconds."""
    return dataclasses.replace(
        settings,
        num_seeds=1,
        num_data=300,
        num_epochs=4,
        num_finalists=2,
        num_epochs_trial=1,
        num_epochs_mixture=2,
        num_queries=8,
        num_epochs_query=1,
        num_epochs_darts=1,
        num_epochs_paths=1,
        num_candidates=10,
    )


def main() -> None:
    """Read the command line and run."""
    command = Command("run_nasbench201_shared", __doc__, smoke="few images and steps")
    command.add_table()
    command.add_root("CIFAR-10")
    command.add_seeds(5, "runs of each search")
    command.add_only("one search", list(SEARCHES))
    arguments = command.parse_args()
    settings = dataclasses.replace(Settings(), num_seeds=arguments.seeds)
    if arguments.smoke:
        settings = smoke(settings)
    path = run(
        arguments.table,
        arguments.root,
        settings,
        arguments.out,
        command=command.line(),
        only=arguments.only,
    )
    print(path)


if __name__ == "__main__":
    main()
