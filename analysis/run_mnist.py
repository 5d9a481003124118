"""MNIST: relevance of inputs, units and weights of LeNets, beside the dense network.

LeNet-300-100 is the default, ``--network lenet5`` is LeNet-5-Caffe. Settings were chosen on 10,000
validation images carved from the 60,000 training images (``--validate`` repeats the points in that
way, with a record of its own). The networks of the main record are trained on all 60,000 with these
settings; the test images are looked at once, when a network is finished. Each run is kept in a file
of its own when it is finished, so that a killed experiment goes on.

    python -m analysis.run_mnist --root DATA --validate
    python -m analysis.run_mnist --root DATA
    python -m analysis.run_mnist --root DATA --network lenet5
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from analysis.command import Command
from analysis.image_split import MNIST_BLACK, ImageSplit, percent_wrong
from analysis.mnist_points import EXPERIMENTS, Experiment, Point, Settings
from analysis.parts import Parts
from analysis.records import runs_row, write_record
from analysis.rules import median_within
from pyro_relevance import (
    RelevanceModel,
    find_edges,
    fit,
    guides,
    likelihoods,
    load_pruned,
    priors,
    prune,
    schedules,
)
from pyro_relevance.data.augmentation import RandomCrop
from pyro_relevance.data.images import mnist
from pyro_relevance.masks import Mask
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.training.callbacks import ProgressBar


def train(
    network: nn.Module, images: ImageSplit, point: Point, settings: Settings, seed: int
) -> Posterior:
    """Fit a network with the gates of a point."""
    edges = find_edges(network, example_input=images.x[:1], granularity=point.granularity)
    model = RelevanceModel(
        network,
        edges,
        likelihood=likelihoods.Categorical(),
        num_data=len(images.x),
        gate_prior=priors.IndependentPrior(point.odds(edges)) if point.prior_log_odds else None,
        weight_prior=priors.PointWeights(point.weight_scale),
    )
    result = fit(
        model,
        (images.x, images.y),
        guide=lambda m: guides.MeanFieldGuide(m, initial_log_odds=point.initial_log_odds),
        num_epochs=point.num_epochs,
        batch_size=settings.batch_size,
        learning_rate=point.learning_rate,
        gate_learning_rate=point.gate_learning_rate,
        schedules=schedules.Schedules(
            kl_weight=schedules.warmup(settings.warmup, end=point.kl_weight),
            learning_rate=schedules.within(schedules.cosine(1.0, 0.01), settings.decay),
        ),
        noise=point.noise if point.prior_log_odds else "shared",
        augment=RandomCrop(settings.max_shift, MNIST_BLACK) if settings.max_shift else None,
        callbacks=[ProgressBar(f"{point.method}, seed {seed}", num_updates=20)],
        seed=seed,
    )
    return result.posterior


def run_point(
    images: ImageSplit,
    point: Point,
    experiment: Experiment,
    seed: int,
    parts: Parts,
    before: Mapping[str, float],
) -> dict[str, dict[str, float]]:
    """Train, prune and evaluate one network, and keep it.

    Args:
        images: The images.
        point: The point.
        experiment: The experiment that it belongs to.
        seed: Seed of the run.
        parts: Where networks are kept.
        before: Metrics of the run whose network it starts from, if any.
    """
    settings = experiment.settings
    started = time.perf_counter()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = experiment.make_network()
    if point.start:
        network = load_pruned(parts.path(f"{point.start}-{seed}", ".safetensors")).network
    posterior = train(network, images, point, settings, seed)
    fitted, edges = posterior.network(), posterior.edges
    mask = median_within(posterior, point.limit) if point.prior_log_odds else Mask.all_kept(edges)
    small = prune(fitted, edges, mask, example_input=images.x[:100])
    seconds = time.perf_counter() - started
    small.save(parts.path(f"{point.method}-{seed}", ".safetensors"))
    with torch.no_grad():
        outputs = small.eval()(images.x_eval)
    draws = posterior.predict(images.x_eval, num_samples=20 if point.prior_log_odds else 1)
    density = likelihoods.Categorical()(outputs).log_prob(images.y_eval)
    matrices = [p for p in small.parameters() if p.ndim > 1]
    # Inputs and units that are kept, in the order of the layers.
    alive = [p.detach().flatten(2).any(2) if p.ndim > 2 else p != 0 for p in matrices]
    widths = [int(alive[0].any(0).sum()), *(int(read.any(1).sum()) for read in alive[:-1])]
    named = zip(experiment.widths, widths, strict=True)
    metrics = {
        f"{images.part}_error": percent_wrong(outputs, images.y_eval),
        f"{images.part}_log_likelihood": float(density.mean()),
        f"{images.part}_error_posterior_mean": percent_wrong(draws.posterior_mean(), images.y_eval),
        "num_parameters": small.receipt.after.num_nonzero,
        "num_weights": sum(int(p.count_nonzero()) for p in matrices),
        "num_macs": small.receipt.after.num_macs,
        **{name: width for name, width in named if name},
        "max_difference": small.receipt.max_difference,
        "seconds": seconds,
        "total_seconds": seconds + before.get("total_seconds", 0.0),
    }
    report(point.method, seed, metrics, experiment)
    return {"metrics": metrics}


def run(
    root: str | None,
    experiment: Experiment,
    folder: Path,
    *,
    command: str,
    validate: bool,
    only: str | None = None,
) -> Path | None:
    """Run all points (or the one named) and write the record, where all of them are there."""
    settings = experiment.settings
    name = experiment.record + ("_validation" if validate else "")
    parts = Parts.of(name, folder)
    images = ImageSplit.load(
        mnist,
        root,
        num_data=settings.num_data,
        num_validation=settings.num_validation,
        validate=validate,
    )
    shared = {k: v for k, v in dataclasses.asdict(settings).items() if k not in UNSHARED}
    known: dict[tuple[str, int], dict[str, float]] = {}
    by_method: dict[str, Any] = {}
    # Seed by seed, so that a run that is killed has complete rows of fewer seeds.
    for seed in range(settings.num_seeds):
        for point in settings.points:
            part = f"{point.method}-{seed}"
            about = {"point": dataclasses.asdict(point), "shared": shared}
            about |= {"start": by_method[point.start]} if point.start else {}
            by_method[point.method] = about
            if only in (None, point.method) or parts.has(part, about):
                before = known.get((point.start, seed), {})
                compute = partial(run_point, images, point, experiment, seed, parts, before)
                known[point.method, seed] = parts.once(part, about, compute)["metrics"]
    if len(known) < len(settings.points) * settings.num_seeds:
        return None
    seeds = range(settings.num_seeds)
    rows = [
        runs_row(
            point.method,
            "mnist",
            [known[point.method, seed] for seed in seeds],
            settings=dataclasses.asdict(point),
        )
        for point in settings.points
    ]
    return write_record(
        name,
        command=command,
        settings=dataclasses.asdict(settings),
        rows=rows,
        wall_seconds=sum(metrics["seconds"] for metrics in known.values()),
        folder=folder,
    )


UNSHARED = ("points", "num_seeds")
"""Settings that a single run does not depend on."""


def report(method: str, seed: int, metrics: dict[str, float], experiment: Experiment) -> None:
    """Print one run."""
    widths = "-".join(str(metrics[name]) for name in experiment.widths if name)
    error = next(value for key, value in metrics.items() if key.endswith("_error"))
    print(
        f"{method:38s} seed {seed}  error {error:.2f} %  "
        f"parameters {metrics['num_parameters']}  weights {metrics['num_weights']}  "
        f"{widths}  {metrics['seconds']:.0f} s",
        flush=True,
    )


def main() -> None:
    """Read the command line and run."""
    command = Command("run_mnist", __doc__, smoke="few images and steps")
    command.add_root("MNIST/raw")
    command.add_argument("--network", choices=list(EXPERIMENTS), default="lenet300100")
    command.add_validate()
    command.add_seeds(5, "runs of each point")
    command.add_only("one method, by its name in the record")
    arguments = command.parse_args()
    experiment = EXPERIMENTS[arguments.network]
    settings = dataclasses.replace(experiment.settings, num_seeds=arguments.seeds)
    if arguments.smoke:
        settings = smoke(settings)
    experiment = dataclasses.replace(experiment, settings=settings)
    path = run(
        arguments.root,
        experiment,
        arguments.out,
        command=command.line(),
        validate=arguments.validate,
        only=arguments.only,
    )
    print(path or "Some points are missing: no record yet.")


def smoke(settings: Settings) -> Settings:
    """Return settings that take seconds."""
    points = tuple(dataclasses.replace(point, num_epochs=1) for point in settings.points)
    return dataclasses.replace(settings, points=points, num_seeds=2, num_data=1000)


if __name__ == "__main__":
    main()
