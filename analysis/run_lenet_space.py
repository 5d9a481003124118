"""MNIST: kernels, pooling, activation, layers and channels of a small network from one posterior.

The relaxed graph is that of ``graphs.spaces.lenet_space``: two convolutions of 3 x 3 or 5 x 5, two
poolings by maximum or mean, an activation, and two ways to the classes, each of which may be none;
with a gate on each channel and unit, all in one Pyro model. The most probable connected
architecture is derived and pruned to the allowed number of parameters, least probable units first.
The pruned network is a row of the record; trained further, it is the other.

Settings were chosen on 10,000 validation images carved from the training images (``--validate``);
the networks of the main record are trained on all 60,000, and the test images are read once for
each. Runs are kept one by one, and one that is killed goes on from its checkpoint.

    python -m analysis.run_lenet_space --root DATA --validate --seeds 1
    python -m analysis.run_lenet_space --root DATA
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from analysis.command import Command
from analysis.image_split import MNIST_BLACK, ImageSplit
from analysis.parts import Parts
from analysis.records import runs_row, write_record
from pyro_relevance import (
    Checkpoint,
    Precision,
    PrunedNetwork,
    RelevanceModel,
    derive,
    find_edges,
    fine_tune,
    fit,
    guides,
    likelihoods,
    masks,
    priors,
    prune,
    schedules,
)
from pyro_relevance.data.augmentation import RandomCrop
from pyro_relevance.data.images import mnist
from pyro_relevance.graphs import Architecture, mode, spaces
from pyro_relevance.graphs.derivation import derived_mask
from pyro_relevance.posterior.architectures import chain_probability
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.training.callbacks import ProgressBar

CUT = "operations and units, cut"
TUNED = "operations and units, trained further"
PRECISION = Precision(autocast=torch.bfloat16, channels_last=True)


@dataclass(frozen=True)
class Settings:
    """What the experiment does.

    Args:
        channels: Channels of the two convolutions, at most.
        hidden: Units of the hidden layer, at most.
        odds: Prior log-odds of a channel of the first and of the second convolution and of a hidden
            unit, in nats.
        limit: Most parameters that are kept.
        num_epochs: Epochs of the relaxed graph.
        num_epochs_after: Epochs of the pruned network.
        num_seeds: Runs.
        num_data: Training images, at most.
        num_validation: Images that ``--validate`` carves from the training images.
        max_shift: Training images move by at most as many pixels, up or down and sideways.
        batch_size: Images in a step.
        learning_rate: Step size of Adam for the weights.
        learning_rate_after: The same of the pruned network.
        gate_learning_rate: Step size of Adam for the gates.
        weight_scale: Prior standard deviation of the weights.
    """

    channels: tuple[int, int] = (12, 24)
    hidden: int = 100
    odds: tuple[float, float, float] = (-50.0, -100.0, -35.0)
    limit: int = 5000
    num_epochs: int = 12
    num_epochs_after: int = 60
    num_seeds: int = 5
    num_data: int = 60_000
    num_validation: int = 10_000
    max_shift: int = 1
    batch_size: int = 128
    learning_rate: float = 3e-3
    learning_rate_after: float = 4e-3
    gate_learning_rate: float = 5e-2
    weight_scale: float = 0.3


def train(images: ImageSplit, settings: Settings, seed: int, state: Path) -> Posterior:
    """Fit operations, units and weights together."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = spaces.lenet_space(channels=settings.channels, hidden=settings.hidden)
    edges = find_edges(network, granularity=("operation", "unit"), example_input=images.x[:2])
    model = RelevanceModel(
        network,
        edges,
        likelihood=likelihoods.Categorical(),
        num_data=len(images.x),
        gate_prior=priors.IndependentPrior(
            {group.name: odds for group, odds in zip(edges, settings.odds, strict=True)}
        ),
        weight_prior=priors.PointWeights(settings.weight_scale),
    )
    return fit(
        model,
        (images.x, images.y),
        guide=lambda m: guides.MeanFieldGuide(m, initial_log_odds=2.0),
        num_epochs=settings.num_epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        gate_learning_rate=settings.gate_learning_rate,
        schedules=schedules.Schedules(
            kl_weight=schedules.warmup(0.5),
            learning_rate=schedules.within(schedules.cosine(1.0, 0.05), 0.4),
        ),
        noise="per_example",
        augment=RandomCrop(settings.max_shift, MNIST_BLACK),
        precision=PRECISION,
        checkpoint=Checkpoint(state),
        callbacks=[ProgressBar(f"search, seed {seed}", num_updates=50)],
        seed=seed,
    ).posterior


def derive_and_prune(
    posterior: Posterior, example: torch.Tensor, limit: int
) -> tuple[PrunedNetwork, Architecture]:
    """Derive the most probable connected architecture and prune it to the limit."""
    network, edges = posterior.network(), posterior.edges
    architecture = mode(edges, chain_probability(posterior), network=network)
    plain = derive(network, architecture, example_input=example).network
    own = find_edges(plain, granularity="unit", example_input=example)
    # The derived network takes over the probabilities of the units. Units that are no longer tied
    # keep the probability of the set that they came from.
    chances = posterior.chain(0).inclusion_probability()
    scores = {group.name: torch.zeros(group.shape) for group in own}
    for bound in sorted({float(p) for values in chances.values() for p in values.flatten()}):
        mask = {name: values[0] >= bound for name, values in chances.items()}
        for name, above in derived_mask(edges, mask, architecture, own).items():
            scores[name] = torch.where(above, torch.tensor(bound), scores[name])
    mask = masks.median_probability(scores)
    within = masks.budget(scores, num_parameters=limit, edges=own)
    return prune(plain, own, mask & within, example_input=example), architecture


def run_seed(images: ImageSplit, settings: Settings, seed: int, parts: Parts) -> dict[str, Any]:
    """Run one seed; return the metrics of the pruned network and of the one trained further."""
    started = time.perf_counter()
    posterior = train(images, settings, seed, parts.path(f"search-{seed}", ".state"))
    small, architecture = derive_and_prune(posterior, images.x[:100], settings.limit)
    searched = time.perf_counter() - started
    tuned = fine_tune(
        small,
        (images.x, images.y),
        likelihood=likelihoods.Categorical(),
        num_data=len(images.x),
        num_epochs=settings.num_epochs_after,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate_after,
        weight_prior=priors.PointWeights(settings.weight_scale),
        augment=RandomCrop(settings.max_shift, MNIST_BLACK),
        precision=PRECISION,
        checkpoint=Checkpoint(parts.path(f"after-{seed}", ".state")),
        callbacks=[ProgressBar(f"after pruning, seed {seed}", num_updates=50)],
        seed=seed,
    ).network
    tuned.save(parts.path(f"network-{seed}", ".safetensors"))
    seconds = time.perf_counter() - started
    chances = torch.cat([p[0] for p in posterior.operation_probability().values()])
    entropy = float(-(chances * chances.clamp(min=1e-12).log()).sum())
    size = small.receipt.after
    about = {"num_parameters": size.num_parameters, "num_macs": size.num_macs, "entropy": entropy}
    result = {
        "architecture": dict(architecture.operations),
        CUT: {**images.error(small), **about, "total_seconds": searched},
        TUNED: {**images.error(tuned), **about, "total_seconds": seconds},
    }
    return {"result": result}


def run(
    root: str | None, settings: Settings, folder: Path, *, command: str, validate: bool
) -> Path:
    """Run all seeds and write the record."""
    name = "structure_mnist" + ("_validation" if validate else "")
    parts = Parts.of(name, folder)
    images = ImageSplit.load(
        mnist,
        root,
        num_data=settings.num_data,
        num_validation=settings.num_validation,
        validate=validate,
    )
    about = dataclasses.asdict(settings) | {"num_seeds": 0}
    found = []
    for seed in range(settings.num_seeds):
        compute = partial(run_seed, images, settings, seed, parts)
        found.append(parts.once(f"{seed}", about, compute)["result"])
        print(f"seed {seed}  {found[-1]}", flush=True)
    return write_record(
        name,
        command=command,
        settings=dataclasses.asdict(settings) | {"precision": repr(PRECISION)},
        rows=[
            runs_row(method, "mnist", [result[method] for result in found])
            for method in (CUT, TUNED)
        ],
        wall_seconds=sum(result[TUNED]["total_seconds"] for result in found),
        folder=folder,
        architectures=[result["architecture"] for result in found],
    )


def smoke(settings: Settings) -> Settings:
    """Return settings that take seconds."""
    return dataclasses.replace(
        settings,
        channels=(3, 4),
        hidden=8,
        num_epochs=1,
        num_epochs_after=1,
        num_seeds=1,
        num_data=300,
    )


def main() -> None:
    """Read the command line and run."""
    command = Command("run_lenet_space", __doc__, smoke="few images and steps")
    command.add_root("MNIST/raw")
    command.add_validate()
    command.add_seeds(5, "runs")
    arguments = command.parse_args()
    settings = dataclasses.replace(Settings(), num_seeds=arguments.seeds)
    if arguments.smoke:
        settings = smoke(settings)
    path = run(
        arguments.root,
        settings,
        arguments.out,
        command=command.line(),
        validate=arguments.validate,
    )
    print(path)


if __name__ == "__main__":
    main()
