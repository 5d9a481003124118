"""Boston, structure and all: depth, activations, shortcuts and single weights from one posterior.

The relaxed graph is that of ``graphs.spaces.mlp_space`` (three hidden layers of at most 50 units,
five activations, each layer and the input read by the output or not), with a gate on each weight:
operations and weights in one Pyro model. On each of the 20 standard splits the most probable
architecture is derived and pruned to at most 200 parameters. The pruned network is trained further,
with the noise and the priors of the fit. Settings are those of ``run_uci`` for the fixed 13-50-1
network, by default at less than half its steps (``--steps 10000`` for all of them); nothing was
chosen for this space. As there, five chains of each split compete by their evidence, and the noise
of new rows is fitted by five folds of each training split, each predicted by a fit to the others.
Fits go on where a run was killed.

    python -m analysis.run_structure
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from analysis.command import Command
from analysis.parts import Parts
from analysis.records import row, write_record
from analysis.run_uci import NOISE
from analysis.splits import Split, rmse
from pyro_relevance import (
    RelevanceModel,
    datasets,
    derive,
    find_edges,
    fine_tune,
    fit,
    likelihoods,
    masks,
    prune,
)
from pyro_relevance.commands.table.recipe import TableRecipe
from pyro_relevance.data.splits import cross_validation_folds
from pyro_relevance.graphs import Architecture, canonical, mode, spaces
from pyro_relevance.graphs.derivation import derived_mask
from pyro_relevance.model.noise import fit_noise
from pyro_relevance.model.priors import IndependentPrior, PointWeights
from pyro_relevance.posterior.architectures import chain_probability
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.surgery.pruned_network import PrunedNetwork
from pyro_relevance.training.callbacks import ProgressBar
from pyro_relevance.training.checkpoint import Checkpoint
from pyro_relevance.training.svi import Fit

MAX_PARAMETERS = 200
CUT = "structure and weights, derived network"
FURTHER = "structure and weights, derived network, trained further"


@dataclass(frozen=True)
class Settings:
    """What the experiment does.

    Args:
        recipe: Model and training of the relaxed graph.
        num_splits: Standard splits.
        num_restarts: Chains of each training split; the one with the highest evidence lower bound
            on its training rows is kept, as in ``run_uci``.
        num_folds: Folds of each training split by which the noise is fitted, as in ``run_uci``.
        num_steps_after: Steps by which the pruned network is trained further.
        seed: Seed of everything.
    """

    recipe: TableRecipe = TableRecipe(num_steps=4000)
    num_splits: int = 20
    num_restarts: int = 5
    num_folds: int = 5
    num_steps_after: int = 2000
    seed: int = 0


def prior_scales(recipe: TableRecipe, network: nn.Module) -> dict[str, float]:
    """Return the prior standard deviation of each parameter of an unpruned network."""
    scales = {}
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            scales[name] = recipe.bias_scale
        else:
            scale = recipe.output_scale if "__y" in name else recipe.weight_scale
            scales[name] = scale / math.sqrt(parameter.shape[1])
    return scales


def make_model(recipe: TableRecipe, num_data: int, seed: int) -> RelevanceModel:
    """Return the model of the relaxed graph with a gate on each weight."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = spaces.mlp_space(13, 1)
    edges = find_edges(
        network, granularity=("operation", "weight"), example_input=torch.zeros(2, 13)
    )
    return RelevanceModel(
        network,
        edges,
        likelihood=likelihoods.Gaussian(recipe.noise_scale, learn_noise=False),
        num_data=num_data,
        gate_prior=IndependentPrior(recipe.prior_log_odds),
        weight_prior=PointWeights(prior_scales(recipe, network)),
    )


def train(
    recipe: TableRecipe, sets: list[tuple[Tensor, Tensor]], seed: int, text: str, state: Path
) -> Fit:
    """Fit one chain for each training set, all of them together; goes on from its state."""
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
        checkpoint=Checkpoint(state),
        callbacks=[ProgressBar(text)],
        seed=seed,
    )


@dataclass(frozen=True, eq=False)
class Derived:
    """The plain network of one chain, pruned to the limit.

    Args:
        small: The network.
        scales: Prior standard deviation of each of its parameters.
        architecture: The operations that were chosen.
        size: Parameters that are not zero.
    """

    small: PrunedNetwork
    scales: dict[str, float]
    architecture: Architecture
    size: int


def derived(recipe: TableRecipe, posterior: Posterior, example: Tensor) -> Derived:
    """Return the plain network of one chain within the limit."""
    network, edges = posterior.network(), posterior.edges
    architecture = mode(edges, chain_probability(posterior), network=network)
    plain = derive(network, architecture, example_input=example).network
    own = find_edges(plain, granularity="weight", example_input=example)
    limit = MAX_PARAMETERS - sum(p.numel() for p in NOISE.parameters())
    mask, allowed = masks.median_probability(posterior), 4 * limit
    while True:
        kept = derived_mask(edges, mask, architecture, own)
        small = prune(plain, own, kept, example_input=example)
        size = small.receipt.after.num_nonzero
        if size <= limit:
            # In the pruned network, an operation whose inputs were pruned is the second layer of a
            # sequence.
            before = prior_scales(recipe, plain)
            scales = {
                name: before[name.replace(".1.", ".")]
                for name, _ in small.network.named_parameters()
            }
            return Derived(small.eval(), scales, architecture, size)
        # The budget counts weights of operations that were not chosen, too: tighten it.
        allowed = int(0.9 * allowed)
        mask = mask & masks.budget(posterior, num_parameters=allowed)


def trained_further(
    recipe: TableRecipe, found: Derived, data: tuple[Tensor, Tensor], num_steps: int, seed: int
) -> nn.Module:
    """Train the pruned network further, with the noise and the priors of the fit."""
    batch = recipe.batch_size
    return fine_tune(
        found.small,
        data,
        likelihood=likelihoods.Gaussian(recipe.noise_scale, learn_noise=False),
        num_data=len(data[0]),
        num_epochs=max(1, round(num_steps * batch / len(data[0]))),
        batch_size=batch,
        learning_rate=recipe.learning_rate,
        weight_prior=PointWeights(found.scales),
        seed=seed,
    ).network.eval()


def outputs_of(network: nn.Module, x: Tensor) -> Tensor:
    """Return the outputs of a plain network, one draw: ``(1, num_data, 1)``."""
    with torch.no_grad():
        outputs: Tensor = network(x).unsqueeze(0)
    return outputs


def run(settings: Settings, folder: Path, *, command: str) -> Path:
    """Fit, derive and test on all splits, and write the record."""
    torch.set_num_threads(1)
    recipe, seed = settings.recipe, settings.seed
    parts = Parts.of("structure_boston", folder)
    x, y = _boston()
    rows = datasets.standard_splits(len(x), settings.num_splits)
    splits = [Split.of((x[a], y[a], x[b], y[b])) for a, b in rows]
    number = settings.num_restarts
    sets = [(s.x, s.y) for s in splits for _ in range(number)]
    fits = [train(recipe, sets, seed, "splits", parts.path(f"splits-{number}", ".state"))]
    folds, rests = cross_validation_folds(len(splits[0].x), settings.num_folds, seed=seed)
    for k, rest in enumerate(rests):
        sets = [(s.x[rest], s.y[rest]) for s in splits]
        fits.append(train(recipe, sets, seed, f"fold {k}", parts.path(f"fold-{k}", ".state")))
    started = time.perf_counter()
    metrics: dict[str, dict[str, list[float]]] = {CUT: {}, FURTHER: {}}
    activations: Counter[str] = Counter()
    forms: Counter[str] = Counter()
    for index, split in enumerate(splits):
        chain = split.best_chain(fits[0].posterior, range(index * number, (index + 1) * number))
        found = derived(recipe, chain, split.x[:8])
        held: dict[str, list[Tensor]] = {CUT: [], FURTHER: []}
        for k, (fold, rest) in enumerate(zip(folds, rests, strict=True)):
            other = derived(recipe, fits[1 + k].posterior.chain(index), split.x[:8])
            data = (split.x[rest], split.y[rest])
            further = trained_further(recipe, other, data, settings.num_steps_after, seed)
            held[CUT].append(outputs_of(other.small, split.x[fold]))
            held[FURTHER].append(outputs_of(further, split.x[fold]))
        rows_held = split.y[np.concatenate(folds)]
        further = trained_further(recipe, found, (split.x, split.y), settings.num_steps_after, seed)
        chosen = found.architecture.operations
        read = [d for d in (1, 2, 3) if chosen[f"mlp.h{d}.y"] == "linear"]
        forms[canonical(chain.model.network, found.architecture)] += 1
        activations.update(chosen[f"mlp.a{d}.h{d}"] for d in range(1, max(read, default=0) + 1))
        chances = torch.cat([p[0] for p in chain.operation_probability().values()])
        for name, network in ((CUT, found.small), (FURTHER, further)):
            outputs = torch.cat(held[name], dim=1)
            noise = fit_noise(NOISE, outputs, rows_held)
            test = outputs_of(network, split.x_test)
            values = {
                "rmse": split.rmse(test),
                "test_log_likelihood": split.log_likelihood(noise, test),
                "held_out_rmse": rmse(outputs, rows_held) * split.scale,
                "num_parameters": found.size + sum(p.numel() for p in NOISE.parameters()),
                "hidden_layers": max(read, default=0),
                "entropy": float(-(chances * chances.clamp(min=1e-12).log()).sum()),
            }
            for key, value in values.items():
                metrics[name].setdefault(key, []).append(float(value))
    return write_record(
        "structure_boston",
        command=command,
        settings=asdict(settings) | {"max_parameters": MAX_PARAMETERS},
        rows=[
            row(name, "boston", [*range(settings.num_splits)], values)
            for name, values in metrics.items()
        ],
        wall_seconds=sum(f.seconds for f in fits) + time.perf_counter() - started,
        folder=folder,
        activations=dict(activations),
        architectures=dict(forms),
    )


def _boston() -> tuple[np.ndarray, np.ndarray]:
    table = datasets.boston()
    return table.features.to_numpy(dtype=float), table.target.to_numpy(dtype=float)


def main() -> None:
    """Read the command line and run."""
    command = Command("run_structure", __doc__, smoke="two splits, few steps")
    known = Settings()
    command.add_argument("--splits", type=int, default=known.num_splits, help="standard splits")
    command.add_argument("--seed", type=int, default=known.seed)
    command.add_argument(
        "--steps", type=int, default=known.recipe.num_steps, help="steps of each fit"
    )
    arguments = command.parse_args()
    settings = replace(
        known,
        recipe=replace(known.recipe, num_steps=40 if arguments.smoke else arguments.steps),
        num_splits=2 if arguments.smoke else arguments.splits,
        num_restarts=2 if arguments.smoke else known.num_restarts,
        num_folds=2 if arguments.smoke else known.num_folds,
        num_steps_after=10 if arguments.smoke else known.num_steps_after,
        seed=arguments.seed,
    )
    print(run(settings, arguments.out, command=command.line()))


if __name__ == "__main__":
    main()
