"""Boston, structure and all: depth, activations, shortcuts and single weights from one posterior.

The relaxed graph is that of ``graphs.spaces.mlp_space`` (three hidden layers of at most 50 units,
five activations, each layer and the input read by the output or not), with a gate on each weight:
operations and weights in one Pyro model. On each of the 20 standard splits the most probable
architecture is derived and cut to at most 200 parameters. Settings are those of ``run_uci`` for the
fixed 13-50-1 network, by default at half its steps (``--steps 8000`` for all of them); nothing was
chosen for this space. The noise of new rows is fitted on a fifth of each training split, predicted
by a second fit to the rest.

    python -m analysis.run_structure
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from analysis.records import RESULTS, row, write_record
from analysis.run_uci import NOISE, Split
from pyro_relevance import (
    RelevanceModel,
    datasets,
    derive,
    find_edges,
    fit,
    likelihoods,
    masks,
    prune,
)
from pyro_relevance.callbacks import ProgressBar
from pyro_relevance.derivation import derived_mask
from pyro_relevance.graphs import Architecture, canonical, mode, spaces
from pyro_relevance.noise import fit_noise
from pyro_relevance.posterior import Posterior
from pyro_relevance.priors import IndependentPrior, PointWeights
from pyro_relevance.tabular import Recipe

RECIPE = Recipe(num_steps=4000)
MAX_PARAMETERS = 200
SHARE_HELD_OUT = 0.2


def make_model(recipe: Recipe, num_data: int, seed: int) -> RelevanceModel:
    """Return the model of the relaxed graph with a gate on each weight."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = spaces.mlp_space(13, 1)
    edges = find_edges(
        network, granularity=("operation", "weight"), example_input=torch.zeros(2, 13)
    )
    scales = {}
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            scales[name] = recipe.bias_scale
        else:
            scale = recipe.output_scale if "__y." in name else recipe.weight_scale
            scales[name] = scale / math.sqrt(parameter.shape[1])
    return RelevanceModel(
        network,
        edges,
        likelihood=likelihoods.Gaussian(recipe.noise_scale, learn_noise=False),
        num_data=num_data,
        gate_prior=IndependentPrior(recipe.prior_log_odds),
        weight_prior=PointWeights(scales),
    )


def train(recipe: Recipe, sets: list[tuple[Tensor, Tensor]], seed: int, text: str) -> Posterior:
    """Fit one chain for each training set, all of them together."""
    num_data = len(sets[0][0])
    steps = -(-num_data // recipe.batch_size)
    return fit(
        make_model(recipe, num_data, seed),
        sets,
        num_epochs=max(1, round(recipe.num_steps / steps)),
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        gate_learning_rate=recipe.gate_learning_rate,
        schedules=recipe.schedules(),
        num_chains=len(sets),
        callbacks=[ProgressBar(text)],
        seed=seed,
    ).posterior


def derived(posterior: Posterior, example: Tensor) -> tuple[nn.Module, Architecture, int]:
    """Return the plain network of one chain within the limit, its structure and its size."""
    network, edges = posterior.network(), posterior.edges
    probability = {name: p[0] for name, p in posterior.operation_probability().items()}
    architecture = mode(edges, probability, network=network)
    plain = derive(network, architecture, example_input=example).network
    own = find_edges(plain, granularity="weight", example_input=example)
    limit = MAX_PARAMETERS - sum(p.numel() for p in NOISE.parameters())
    mask, allowed = masks.median_probability(posterior), 4 * limit
    while True:
        kept = derived_mask(edges, mask, architecture, own)
        small = prune(plain, own, kept, example_input=example)
        size = small.receipt.after.num_nonzero
        if size <= limit:
            return small.eval(), architecture, size
        # The budget counts weights of operations that were not chosen, too: tighten it.
        allowed = int(0.9 * allowed)
        mask = mask & masks.budget(posterior, num_parameters=allowed)


def run(recipe: Recipe, num_splits: int, folder: Path, *, command: str, seed: int) -> Path:
    """Fit, derive and test on all splits, and write the record."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    x, y = _boston()
    splits = [Split.of(x, y, *rows) for rows in datasets.standard_splits(len(x), num_splits)]
    posterior = train(recipe, [(s.x, s.y) for s in splits], seed, "splits")
    fitted = time.perf_counter() - started
    order = np.random.default_rng(seed).permutation(len(splits[0].x))
    size = round(SHARE_HELD_OUT * len(order))
    fold, rest = np.sort(order[:size]), np.sort(order[size:])
    held = train(recipe, [(s.x[rest], s.y[rest]) for s in splits], seed, "for the noise")
    names = ("rmse", "test_log_likelihood", "num_parameters", "hidden_layers", "entropy")
    metrics: dict[str, list[float]] = {name: [] for name in names}
    activations: Counter[str] = Counter()
    forms: Counter[str] = Counter()
    for index, split in enumerate(splits):
        chain = posterior.chain(index)
        network, architecture, number = derived(chain, split.x[:8])
        small, _, _ = derived(held.chain(index), split.x[:8])
        with torch.no_grad():
            outputs = small(split.x[fold]).unsqueeze(0)
        noise = fit_noise(NOISE, outputs, split.y[fold])
        with torch.no_grad():
            test = network(split.x_test).unsqueeze(0)
        metrics["rmse"].append(split.rmse(test))
        metrics["test_log_likelihood"].append(split.log_likelihood(noise, test))
        metrics["num_parameters"].append(number + sum(p.numel() for p in NOISE.parameters()))
        text = canonical(chain.model.network, architecture)
        forms[text] += 1
        chosen = architecture.operations
        read = [d for d in (1, 2, 3) if chosen[f"mlp.h{d}.y"] == "linear"]
        metrics["hidden_layers"].append(max(read, default=0))
        activations.update(chosen[f"mlp.a{d}.h{d}"] for d in range(1, max(read, default=0) + 1))
        chances = torch.cat([p[0] for p in chain.operation_probability().values()])
        metrics["entropy"].append(float(-(chances * chances.clamp(min=1e-12).log()).sum()))
    return write_record(
        "structure_boston",
        command=command,
        settings={
            "recipe": repr(recipe),
            "max_parameters": MAX_PARAMETERS,
            "share_held_out": SHARE_HELD_OUT,
            "seed": seed,
        },
        rows=[
            row("structure and weights, derived network", "boston", [*range(num_splits)], metrics)
        ],
        wall_seconds=time.perf_counter() - started,
        folder=folder,
        seconds_without_noise=fitted,
        activations=dict(activations),
        architectures=dict(forms),
    )


def _boston() -> tuple[np.ndarray, np.ndarray]:
    table = datasets.boston()
    return table.features.to_numpy(dtype=float), table.target.to_numpy(dtype=float)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--splits", type=int, default=20, help="standard splits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=RECIPE.num_steps, help="steps of each fit")
    parser.add_argument("--smoke", action="store_true", help="two splits, few steps: seconds")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the record")
    arguments = parser.parse_args()
    recipe = replace(RECIPE, num_steps=40 if arguments.smoke else arguments.steps)
    command = " ".join(["python -m analysis.run_structure", *sys.argv[1:]])
    splits = 2 if arguments.smoke else arguments.splits
    print(run(recipe, splits, arguments.out, command=command, seed=arguments.seed))


if __name__ == "__main__":
    main()
