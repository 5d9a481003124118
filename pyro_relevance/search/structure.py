"""From data to a trained plain network in one call: structure, weights, derivation, training.

Where the relaxed graph is the final network (``shared=False``: tables, small images), structure,
units and weights are learned jointly by SVI and the result is derived with its weights. Where many
architectures share weights that suit none of them (``shared=True``: cells), the weights warm up
under uniform paths (or as a mixture of all operations). The posterior over operations is then
fitted to held-out examples. A few of its draws are trained for a short while, the better half for
longer (successive halving). The winner is trained from initial weights. All of it counts as the
time of the method.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyro_relevance import masks
from pyro_relevance._random import seeded, substream
from pyro_relevance.data.splits import split_examples
from pyro_relevance.edges.find import find_edges
from pyro_relevance.errors import ArchitectureError
from pyro_relevance.graphs.architectures import Architecture, canonical, is_connected, most_probable
from pyro_relevance.graphs.derivation import derive, derived_mask, reinitialised_network
from pyro_relevance.model import guides
from pyro_relevance.model.likelihoods import Likelihood, moved
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.model.operation_elbo import ScoreFunctionELBO
from pyro_relevance.model.priors import PointWeights
from pyro_relevance.posterior.architectures import chain_probability, draw_architectures
from pyro_relevance.posterior.evaluation import mean_log_likelihood
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.search.collapse import StructureReport, structure_report, warn_of_collapse
from pyro_relevance.search.settings import Evaluation, Finalists, SearchSettings
from pyro_relevance.search.shared_weights import SharedWeights
from pyro_relevance.surgery.pruned_network import PrunedNetwork
from pyro_relevance.surgery.pruning import apply_mask, prune
from pyro_relevance.training.batches import whole_epochs
from pyro_relevance.training.callbacks import Callback, ProgressBar
from pyro_relevance.training.checkpoint import Checkpoint
from pyro_relevance.training.fine_tuning import fine_tune
from pyro_relevance.training.plain import train_plain
from pyro_relevance.training.settings import Estimation
from pyro_relevance.training.svi import fit

__all__ = ["Evaluation", "Finalists", "SearchResult", "SearchSettings", "search_structure"]

STATE_SUFFIX = ".state"
"""Ends the names of a search's checkpoints, one for each of its trainings."""


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search found.

    Args:
        posterior: The posterior over structure and weights.
        report: Summary of its operations, and its faults.
        architecture: The architecture that was chosen.
        candidates: Architectures that were compared, with their mean held-out log likelihood in
            nats under the weights of the search, the best first.
        trials: Architectures that were trained for a while, with epochs and mean held-out log
            likelihood, in order.
        network: The plain trained network.
        seconds: Wall time of the search, of the choice, and of the training of the derived network.
    """

    posterior: Posterior
    report: StructureReport
    architecture: Architecture
    candidates: tuple[tuple[Architecture, float], ...]
    trials: tuple[tuple[Architecture, float, float], ...]
    network: PrunedNetwork
    seconds: dict[str, float]


def search_structure(
    make_network: Callable[[bool], nn.Module],
    data: tuple[Tensor, Tensor],
    *,
    likelihood: Likelihood,
    settings: SearchSettings = SearchSettings(),  # noqa: B008 (a frozen value)
    folder: Path | None = None,
    progress: bool = True,
    device: torch.device | str | None = None,
) -> SearchResult:
    """Search for a structure and return the trained plain network.

    Args:
        make_network: Makes the relaxed network; called with True for normalisation layers with a
            scale and statistics of their own (the final network), with False for the search.
        data: ``x`` of shape ``(num_data, ...)`` and ``y`` of shape ``(num_data, ...)``: the
            training examples; the search holds some of them out.
        likelihood: Distribution of the target given the network's outputs.
        settings: The settings.
        folder: Where the stages keep their checkpoints; a search that was killed goes on from
            there. ``None`` for none.
        progress: Whether progress bars are shown.
        device: Where to train; by default where the data are.

    Raises:
        ValueError: If the data do not fit, or too few are held out.
        ArchitectureError: If no connected architecture was found among the candidates.
    """
    x, y = data
    target = torch.device(device or x.device)
    placed = x.to(target), y.to(target)
    return _Search(make_network, placed, likelihood, settings, folder, progress).run()


class _Search:
    def __init__(
        self,
        make_network: Callable[[bool], nn.Module],
        data: tuple[Tensor, Tensor],
        likelihood: Likelihood,
        settings: SearchSettings,
        folder: Path | None,
        progress: bool,
    ) -> None:
        x, _ = data
        self.train, self.held_out = split_examples(
            data, settings.held_out, torch.Generator().manual_seed(settings.seed)
        )
        self.data = data
        self.make_network = lambda full: make_network(full).to(x.device)
        self.likelihood = moved(likelihood, x.device)
        self.settings = settings
        self.folder = folder
        self.progress = progress
        self.example = x[:2]
        self.started = time.perf_counter()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def run(self) -> SearchResult:
        posterior = self.fit()
        searched = time.perf_counter()
        network, edges = posterior.network(), posterior.edges
        report = structure_report(network, edges, chain_probability(posterior))
        warn_of_collapse(report)
        candidates = self.compare(posterior, network, self.draws(posterior, network))
        trials: list[tuple[Architecture, float, float]] = []
        chosen = candidates[0][0]
        if self.settings.shared:
            ranked = [architecture for architecture, _ in candidates]
            chosen, trials = self.halve(self.finalists(posterior, network, ranked))
        decided = time.perf_counter()
        small = self.finish(posterior, network, chosen)
        return SearchResult(
            posterior=posterior,
            report=report,
            architecture=chosen,
            candidates=tuple(candidates),
            trials=tuple(trials),
            network=small,
            seconds={
                "search": searched - self.started,
                "choice": decided - searched,
                "training": time.perf_counter() - decided,
            },
        )

    def fit(self) -> Posterior:
        settings = self.settings
        with seeded(substream(settings.seed, "network")):
            network = self.make_network(False)
        finer = () if settings.shared else settings.granularity
        edges = find_edges(
            network,
            granularity=("operation", *finer),
            example_input=self.example if finer else None,
        )
        num_data = len(self.train[0])
        model = RelevanceModel(
            network,
            edges,
            likelihood=self.likelihood,
            num_data=num_data,
            gate_prior=settings.gate_prior,
            # Only the evidence about the structure is tempered. The KL weight strengthens the
            # prior of the weights, too; a wider prior makes up for it.
            weight_prior=PointWeights(settings.weight_scale * settings.strength(num_data) ** 0.5),
            operation_prior=settings.operation_prior,
            operation_relaxation=settings.operation_relaxation,
        )
        result = fit(
            model,
            self.train,
            guide=lambda m: guides.MeanFieldGuide(m, initial_log_odds=settings.initial_log_odds),
            optimisation=settings.search_optimisation(num_data),
            estimation=Estimation(ScoreFunctionELBO(4) if settings.along_paths else None),
            execution=settings.execution,
            held_out=self.held_out if settings.shared else None,
            augment=settings.augment,
            callbacks=self.bars("search"),
            checkpoint=self.checkpoint("search"),
            progress=False,
            seed=settings.seed,
        )
        return result.posterior

    def draws(self, posterior: Posterior, network: nn.Module) -> list[Architecture]:
        """Connected candidates, different functions: the most probable ones, then draws."""
        settings, edges = self.settings, posterior.edges
        likely = most_probable(
            edges,
            chain_probability(posterior),
            max(1, settings.num_candidates // 2),
            key=lambda a: canonical(network, a),
            num_visited=1000,
        )
        found = [architecture for architecture, _ in likely]
        found += draw_architectures(posterior, 4 * settings.num_candidates, seed=settings.seed)
        different = self.different(network, found)
        if not different:
            raise ArchitectureError(
                "Expected a connected architecture among the draws of the posterior, but each of "
                f"{len(found)} has no path from input to output. Leave 'none' out of the "
                "operations, or give it a lower prior."
            )
        return different[: settings.num_candidates]

    def finalists(
        self, posterior: Posterior, network: nn.Module, ranked: list[Architecture]
    ) -> list[Architecture]:
        """Architectures to be trained for a while; where draws are too much alike, ranked ones."""
        number = self.settings.num_finalists
        if self.settings.finalists == "draws":
            seed = substream(self.settings.seed, "finalists")
            ranked = draw_architectures(posterior, 10 * number, seed=seed) + ranked
        elif self.settings.finalists == "probable":
            # Ranked by the probability of the text. As functions, architectures with unused edges
            # would come first, since many texts are the same function.
            likely = most_probable(posterior.edges, chain_probability(posterior), 100 * number)
            ranked = [architecture for architecture, _ in likely] + ranked
        return self.different(network, ranked)[:number]

    def different(
        self, network: nn.Module, architectures: Sequence[Architecture]
    ) -> list[Architecture]:
        """Connected architectures that are different functions, the first of each."""
        found: dict[str, Architecture] = {}
        for architecture in architectures:
            if is_connected(network, architecture):
                found.setdefault(canonical(network, architecture), architecture)
        return list(found.values())

    def compare(
        self, posterior: Posterior, network: nn.Module, architectures: Sequence[Architecture]
    ) -> list[tuple[Architecture, float]]:
        """Mean held-out log likelihood of each architecture under the weights of the search."""
        if len(posterior.edges):
            network = apply_mask(network, posterior.edges, masks.median_probability(posterior))
        value = SharedWeights(network, posterior.likelihood, self.held_out)
        scored = [(architecture, value(architecture)) for architecture in architectures]
        return sorted(scored, key=lambda pair: -pair[1])

    def halve(
        self, finalists: list[Architecture]
    ) -> tuple[Architecture, list[tuple[Architecture, float, float]]]:
        """Train finalists for a while from initial weights; the better half goes on for twice."""
        trials: list[tuple[Architecture, float, float]] = []
        num_epochs, left = self.settings.num_epochs_trial, list(finalists)
        while len(left) > 1:
            scored = []
            for architecture in left:
                name = f"trial-{num_epochs:g}-{finalists.index(architecture)}"
                data, number = whole_epochs(self.train, num_epochs)
                with seeded(substream(self.settings.seed, name)):
                    relaxed = self.make_network(True)
                    network = reinitialised_network(relaxed, architecture, self.example)
                fitted = train_plain(network.train(), data, **self.training(data, number, name))
                network = fitted.posterior.network().eval()
                noise = fitted.posterior.likelihood
                value = mean_log_likelihood(network, noise, self.held_out)
                trials.append((architecture, num_epochs, value))
                scored.append((value, len(left) - left.index(architecture), architecture))
            scored.sort(key=lambda item: item[:2], reverse=True)
            left = [architecture for _, _, architecture in scored[: len(scored) // 2]]
            num_epochs *= 2
        return left[0], trials

    def finish(
        self, posterior: Posterior, network: nn.Module, architecture: Architecture
    ) -> PrunedNetwork:
        """Return the plain network, trained."""
        settings = self.settings
        if settings.shared:
            with seeded(substream(settings.seed, "final")):
                relaxed = self.make_network(True)
                small = derive(relaxed, architecture, example_input=self.example, weights="fresh")
            return self.train_further(small.train())
        small = derive(network, architecture, example_input=self.example)
        if len(posterior.edges):
            mask = masks.median_probability(posterior)
            own = find_edges(
                small.network, granularity=settings.granularity, example_input=self.example
            )
            kept = derived_mask(posterior.edges, mask, architecture, own)
            small = prune(small.network, own, kept, example_input=self.example)
        if settings.num_epochs_after:
            small = self.train_further(small)
        return small

    def train_further(self, small: PrunedNetwork) -> PrunedNetwork:
        arguments = self.training(self.data, self.settings.num_epochs_after, "final")
        left = self.settings.max_seconds - (time.perf_counter() - self.started)
        optimisation = replace(arguments.pop("optimisation"), max_seconds=max(1e-9, left))
        return fine_tune(small, self.data, optimisation=optimisation, **arguments).network

    def training(self, data: tuple[Tensor, Tensor], num_epochs: int, name: str) -> dict[str, Any]:
        """Arguments of the training of a derived network."""
        settings = self.settings
        return {
            "likelihood": self.likelihood,
            "num_data": len(data[0]),
            "weight_prior": settings.weight_prior,
            "optimisation": settings.training_optimisation(num_epochs),
            "execution": settings.execution,
            "augment": settings.augment,
            "callbacks": self.bars(name),
            "checkpoint": self.checkpoint(name),
            "seed": settings.seed,
        }

    def bars(self, text: str) -> list[Callback]:
        return [ProgressBar(text)] if self.progress else []

    def checkpoint(self, name: str) -> Checkpoint | None:
        return None if self.folder is None else Checkpoint(self.folder / f"{name}{STATE_SUFFIX}")
