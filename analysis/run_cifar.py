"""CIFAR-10: half of the multiply-accumulates of a residual network, at the total time of the dense.

Three ways to a network: dense; relevance of channels, pruned to a share of the MACs and trained
further; filters of small L1 norm pruned to the same share (Li et al., Pruning filters for efficient
ConvNets, ICLR 2017) and trained further. Each takes about as long as the dense network: the epochs
of a pruned network are shorter, and it gets more of them. The record has one row for the pruned
network and one for the network trained further.

Each stage is kept when it is finished, and a killed stage goes on from its checkpoint.
Settings are chosen with ``--validate``, on 5,000 images carved from the training images.

    python -m analysis.run_cifar --root DATA --validate --seeds 1
    python -m analysis.run_cifar --root DATA
    python -m analysis.run_cifar --root DATA --seeds 5 --epochs 20 --epochs-after 13 --device cuda

On a GPU the time of a step is that of its calls, not of its arithmetic: the epochs of a pruned
network are not shorter there, and it gets as many as the dense network. Several processes can share
the work (``--seed``, ``--only``).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from analysis.command import Command
from analysis.image_split import ImageSplit
from analysis.parts import Parts
from analysis.records import runs_row, write_record
from analysis.rules import filter_ranks, macs_share
from pyro_relevance import (
    Checkpoint,
    Mask,
    Posterior,
    Precision,
    RelevanceModel,
    find_edges,
    fine_tune,
    fit,
    guides,
    likelihoods,
    load_pruned,
    masks,
    networks,
    priors,
    prune,
    schedules,
)
from pyro_relevance.data.augmentation import InOrder, RandomCrop, RandomFlip
from pyro_relevance.data.images import cifar10
from pyro_relevance.edges.size import num_macs
from pyro_relevance.training.callbacks import ProgressBar

DENSE = "dense"
RELEVANCE = "relevance of channels"
FILTERS = "filters by L1 norm"
TUNED = ", trained further"
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet20": networks.ResNet20,
    "resnet56": networks.ResNet56,
    "vgg16": networks.VGG16,
}
AUGMENT = InOrder((RandomCrop(4), RandomFlip()))


@dataclass(frozen=True)
class Settings:
    """What the experiment does.

    Args:
        num_epochs: Epochs of the dense network.
        num_epochs_before: Epochs before pruning.
        num_epochs_after: Epochs after pruning. They are shorter, so there are more of them than the
            dense network has after as many before.
        share: Share of the dense network's multiply-accumulates that is kept.
        nats_per_share: Prior log-odds of a channel for each share of the network's
            multiply-accumulates that it carries.
        gate_stream: Whether channels of the residual stream have gates too, or only those inside
            the blocks, as in Li et al.
        num_seeds: Runs of each way.
        num_data: Training images, at most.
        num_validation: Images that ``--validate`` carves from the training images.
        batch_size: Images in a step.
        learning_rate: Largest step size of Adam for the weights; a cosine falls from it to 1 %.
        share_before: Share of it to which it falls before pruning: the training goes on afterwards.
        learning_rate_after: Largest step size after pruning.
        gate_learning_rate: Step size of Adam for the gates' log-odds.
        initial_log_odds: Of the gates' posterior, in nats.
        weight_scale: Prior standard deviation of the weights.
    """

    num_epochs: int = 30
    num_epochs_before: int = 10
    num_epochs_after: int = 25
    share: float = 0.5
    nats_per_share: float = -3e4
    gate_stream: bool = False
    num_seeds: int = 3
    num_data: int = 50_000
    num_validation: int = 5_000
    batch_size: int = 128
    learning_rate: float = 3e-3
    share_before: float = 0.5
    learning_rate_after: float = 3e-3
    gate_learning_rate: float = 5e-2
    initial_log_odds: float = 3.0
    weight_scale: float = 0.3


@dataclass(frozen=True, eq=False)
class Run:
    """One seed of one network, its images, and where its stages are kept."""

    make_network: Callable[[], nn.Module]
    images: ImageSplit
    settings: Settings
    precision: Precision
    device: str
    seed: int
    parts: Parts

    def path(self, method: str, suffix: str) -> Path:
        """Return the file of a stage."""
        return self.parts.path(f"{method}-{self.seed}", suffix)

    def network(self) -> nn.Module:
        """Return the network as all ways start with it."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return self.make_network()

    def train(self, method: str, num_epochs: int, *, gated: bool) -> Posterior:
        """Train the dense network, with gates or without."""
        settings, images, network = self.settings, self.images, self.network()
        edges = find_edges(
            network,
            example_input=images.x[:1],
            granularity="unit",
            where=None if settings.gate_stream else _inside_blocks,
        )
        shares = macs_share(edges) if gated else {}
        odds: dict[str, float | Tensor] = {
            name: settings.nats_per_share * share for name, share in shares.items()
        }
        model = RelevanceModel(
            network,
            edges,
            likelihood=likelihoods.Categorical(),
            num_data=len(images.x),
            gate_prior=priors.IndependentPrior(odds) if gated else None,
            weight_prior=priors.PointWeights(settings.weight_scale),
        )
        result = fit(
            model,
            (images.x, images.y),
            guide=lambda m: guides.MeanFieldGuide(m, initial_log_odds=settings.initial_log_odds),
            num_epochs=num_epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            gate_learning_rate=settings.gate_learning_rate,
            schedules=schedules.Schedules(
                kl_weight=schedules.warmup(0.5),
                learning_rate=schedules.cosine(
                    1.0, 0.01 if method == DENSE else settings.share_before
                ),
            ),
            augment=AUGMENT,
            precision=self.precision,
            checkpoint=Checkpoint(self.path(method, ".state")),
            callbacks=[ProgressBar(f"{method}, seed {self.seed}", num_updates=50)],
            seed=self.seed,
            device=self.device,
        )
        return result.posterior

    def tune(self, method: str, start: str) -> nn.Module:
        """Train a pruned network further."""
        settings, images = self.settings, self.images
        pruned = load_pruned(self.path(start, ".safetensors"))
        return fine_tune(
            pruned,
            (images.x, images.y),
            likelihood=likelihoods.Categorical(),
            num_data=len(images.x),
            num_epochs=settings.num_epochs_after,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate_after,
            weight_prior=priors.PointWeights(settings.weight_scale),
            augment=AUGMENT,
            precision=self.precision,
            checkpoint=Checkpoint(self.path(method, ".state")),
            callbacks=[ProgressBar(f"{method}, seed {self.seed}", num_updates=50)],
            seed=self.seed,
            device=self.device,
        ).network

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Return error and size of a finished network."""
        error = self.images.error(network.to(self.device), self.device)
        network.cpu()
        return {
            **error,
            "num_parameters": sum(p.numel() for p in network.parameters()),
            "num_macs": num_macs(network, self.images.x[:1]),
        }

    def stage(self, method: str, before: Mapping[str, float]) -> dict[str, dict[str, float]]:
        """Run one stage and keep its network.

        Args:
            method: The stage.
            before: Metrics of the stage that it goes on from, if any.
        """
        settings, started, core_started = self.settings, time.perf_counter(), time.process_time()
        small: Any
        if method.endswith(TUNED):
            small = self.tune(method, method.removesuffix(TUNED))
        else:
            gated = method == RELEVANCE
            whole = method == DENSE
            num_epochs = settings.num_epochs if whole else settings.num_epochs_before
            posterior = self.train(method, num_epochs, gated=gated)
            network, edges = posterior.network().cpu(), posterior.edges
            limit = int(settings.share * num_macs(network, self.images.x[:1]))
            if whole:
                mask = Mask.all_kept(edges)
            elif gated:
                mask = masks.budget(posterior, num_macs=limit)
            else:
                ranks = filter_ranks(network, edges)
                mask = masks.budget(ranks, num_macs=limit, edges=edges).completed(edges)
            small = prune(network, edges, mask, example_input=self.images.x[:100])
        seconds = {
            "seconds": time.perf_counter() - started,
            "core_seconds": time.process_time() - core_started,
        }
        small.save(self.path(method, ".safetensors"))
        total = {f"total_{k}": v + before.get(f"total_{k}", 0.0) for k, v in seconds.items()}
        metrics = {**self.evaluate(small), **seconds, **total}
        print(f"{method:40s} seed {self.seed}  {metrics}", flush=True)
        return {"metrics": metrics}


def _inside_blocks(name: str, module: nn.Module) -> bool:
    """Whether a layer does not make channels of the residual stream."""
    return name != "conv1"


METHODS = (DENSE, RELEVANCE, RELEVANCE + TUNED, FILTERS, FILTERS + TUNED)


def run(
    root: str | None,
    network: str,
    settings: Settings,
    folder: Path,
    *,
    command: str,
    validate: bool,
    device: str = "cpu",
    only: str | None = None,
    seed_now: int | None = None,
) -> Path | None:
    """Run all stages (or those named) and write the record, where all of them are there."""
    kind = torch.device(device).type
    name = f"cifar10_{network}" + ("" if kind == "cpu" else f"_{kind}")
    name += "_validation" if validate else ""
    parts = Parts.of(name, folder)
    images = ImageSplit.load(
        cifar10,
        root,
        num_data=settings.num_data,
        num_validation=settings.num_validation,
        validate=validate,
    )
    precision = Precision(autocast=torch.bfloat16, channels_last=True)
    about = dataclasses.asdict(settings) | {"num_seeds": 0}
    known: dict[tuple[str, int], dict[str, float]] = {}
    for seed in range(settings.num_seeds):
        one = Run(NETWORKS[network], images, settings, precision, device, seed, parts)
        for method in METHODS:
            part, start = f"{method}-{seed}", method.removesuffix(TUNED)
            wanted = only in (None, method) and seed_now in (None, seed)
            possible = start == method or (start, seed) in known
            if parts.has(part, about) or (wanted and possible):
                compute = partial(one.stage, method, known.get((start, seed), {}))
                known[method, seed] = parts.once(part, about, compute)["metrics"]
    if len(known) < len(METHODS) * settings.num_seeds:
        return None
    seeds = range(settings.num_seeds)
    rows = [runs_row(method, "cifar10", [known[method, s] for s in seeds]) for method in METHODS]
    return write_record(
        name,
        command=command,
        settings=dataclasses.asdict(settings) | {"precision": repr(precision)},
        device=device,
        rows=rows,
        wall_seconds=sum(metrics["seconds"] for metrics in known.values()),
        folder=folder,
    )


def smoke(settings: Settings) -> Settings:
    """Return settings that take seconds."""
    return dataclasses.replace(
        settings, num_epochs=2, num_epochs_before=1, num_epochs_after=1, num_seeds=1, num_data=300
    )


def main() -> None:
    """Read the command line and run."""
    command = Command("run_cifar", __doc__, smoke="few images and steps")
    command.add_root("CIFAR-10")
    command.add_argument("--network", choices=list(NETWORKS), default="resnet20")
    command.add_validate()
    command.add_seeds(3, "runs of each way")
    command.add_argument("--epochs", type=int, default=30, help="epochs of the dense network")
    command.add_argument(
        "--epochs-after", type=int, help="epochs after pruning (default: 5/6 of --epochs)"
    )
    command.add_argument("--device", default="cpu")
    command.add_seed()
    command.add_only("one stage", METHODS)
    arguments = command.parse_args()
    settings = Settings(
        num_epochs=arguments.epochs,
        num_epochs_before=max(1, round(arguments.epochs / 3)),
        num_epochs_after=arguments.epochs_after or max(1, round(arguments.epochs * 5 / 6)),
        num_seeds=arguments.seeds,
    )
    if arguments.smoke:
        settings = smoke(settings)
    path = run(
        arguments.root,
        arguments.network,
        settings,
        arguments.out,
        command=command.line(),
        validate=arguments.validate,
        device=arguments.device,
        only=arguments.only,
        seed_now=arguments.seed,
    )
    print(path or "Some stages are missing: no record yet.")


if __name__ == "__main__":
    main()
