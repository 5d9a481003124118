"""Calls of public functions with arguments that work, for tests that hold for all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import pyro_relevance as pr
from tests import small_graphs
from tests.small_fits import make_model, make_network, quick_fit, regression

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""A function, its arguments and its keywords."""


@dataclass(frozen=True)
class Objects:
    """Objects that calls are made with; the network is the user's.

    Args:
        folder: Where files may be written.
    """

    folder: Path

    @functools.cached_property
    def network(self) -> nn.Module:
        """A user's network, in training mode, with a frozen parameter and hooks."""
        network = make_network(batch_norm=True)
        network[0].bias.requires_grad_(False)
        network[2].register_forward_hook(lambda module, inputs, outputs: None)
        return network.train()

    @functools.cached_property
    def data(self) -> Any:
        """Inputs and targets."""
        return regression()

    @functools.cached_property
    def edges(self) -> Any:
        """Inputs and units of the network."""
        return pr.find_edges(
            self.network, granularity=("input", "unit"), example_input=self.data[0][:2]
        )

    @functools.cached_property
    def model(self) -> Any:
        """A model of the network."""
        return make_model(self.network)

    @functools.cached_property
    def fit(self) -> Any:
        """A short fit of two chains."""
        return quick_fit(self.model, num_chains=2)

    @functools.cached_property
    def mask(self) -> Any:
        """The median-probability mask of the first chain."""
        return pr.masks.median_probability(self.fit.posterior.chain(0))

    @functools.cached_property
    def pruned(self) -> Any:
        """The network of the first chain, pruned."""
        posterior = self.fit.posterior.chain(0)
        network = posterior.network()
        return pr.prune(network, posterior.edges, self.mask, example_input=self.data[0][:2])

    @functools.cached_property
    def idata(self) -> Any:
        """ArviZ data of the fit."""
        return pr.to_arviz(self.fit.posterior, data=self.data, num_samples=4)

    @functools.cached_property
    def draws(self) -> Any:
        """Draws of the fit."""
        return self.fit.posterior.sample(5)

    @functools.cached_property
    def table(self) -> Path:
        """A table of 40 rows."""
        rows = np.random.default_rng(0).normal(size=(40, 3)).round(3)
        path = self.folder / "table.csv"
        lines = ["a,b,y", *(",".join(map(str, row)) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
        return path

    @functools.cached_property
    def encoder(self) -> Any:
        """An encoder of the table."""
        return pr.tables.encode(pr.tables.read_table(self.table, target="y"), range(40))

    @functools.cached_property
    def run(self) -> Path:
        """A run folder."""
        network = nn.Sequential(nn.Linear(self.encoder.num_columns, 1)).requires_grad_(False)
        from pyro_relevance.surgery.receipt import Receipt

        receipt = Receipt.measured(
            network, network, torch.zeros(2, self.encoder.num_columns), max_difference=0.0, notes=[]
        )
        noise = pr.likelihoods.StudentT(4.0)
        run = pr.Predictor(self.encoder, pr.PrunedNetwork(network, receipt), noise, False)
        run.save(self.folder / "run")
        return self.folder / "run"

    @functools.cached_property
    def graph(self) -> Any:
        """A relaxed graph, its edges and the probabilities of its operations."""
        graph = small_graphs.make_graph()
        edges = pr.find_edges(graph, granularity="operation")
        equal = {g.name: torch.full((g.num_edges,), 1 / g.num_edges) for g in edges.operations}
        return graph, edges, equal

    @functools.cached_property
    def architecture(self) -> Any:
        """The most probable architecture of the graph."""
        graph, edges, probability = self.graph
        return pr.graphs.mode(edges, probability, network=graph)


def _no_score(network: nn.Module, x: Any, y: Any) -> float:
    return 0.0


def _search(o: Objects) -> Call:
    settings = pr.SearchSettings(num_epochs=1, num_epochs_after=1, held_out=0.3)
    make = lambda full: small_graphs.make_graph()  # noqa: E731
    keywords = {"likelihood": pr.likelihoods.Gaussian(), "settings": settings, "progress": False}
    return pr.search_structure, (make, small_graphs.make_data(60)), keywords


def _posterior(name: str, *more: str) -> Callable[[Objects], Call]:
    def call(o: Objects) -> Call:
        arguments = {"data": o.data, "x": o.data[0], "y": o.data[1]}
        given = tuple(arguments[one] for one in more)
        return getattr(o.fit.posterior, name), given, {"num_samples": 3}

    return call


CALLS: dict[str, Callable[[Objects], Call]] = {
    "find_edges": lambda o: (pr.find_edges, (o.network,), {"granularity": ("input", "weight")}),
    "find_edges with an example": lambda o: (
        *(pr.find_edges, (o.network,)),
        {"granularity": ("input", "unit"), "example_input": o.data[0][:2]},
    ),
    "RelevanceModel": lambda o: (
        *(pr.RelevanceModel, (o.network, o.edges)),
        {"likelihood": pr.likelihoods.Gaussian(), "num_data": 48},
    ),
    "fit": lambda o: (pr.fit, (o.model, o.data), {"num_epochs": 2, "batch_size": 16}),
    "fit, chains": lambda o: (
        *(pr.fit, (o.model, o.data)),
        {"num_epochs": 2, "num_chains": 2, "held_out": o.data},
    ),
    "fit, slow": lambda o: (
        *(pr.fit, (o.model, o.data)),
        {"num_epochs": 1, "replay": False, "checkpoint": pr.Checkpoint(o.folder / "c")},
    ),
    "fine_tune": lambda o: (
        *(pr.fine_tune, (o.pruned, o.data)),
        {"likelihood": pr.likelihoods.Gaussian(), "num_data": 48, "num_epochs": 1},
    ),
    "fit_noise": lambda o: (
        *(pr.fit_noise, (pr.likelihoods.Gaussian(), o.data[0][None, :, :1], o.data[1])),
        {"num_steps": 5},
    ),
    "sample": _posterior("sample"),
    "sample_prior": _posterior("sample_prior"),
    "predict": _posterior("predict", "x"),
    "log_likelihood": _posterior("log_likelihood", "x", "y"),
    "elbo": _posterior("elbo", "x", "y"),
    "network of a posterior": lambda o: (o.fit.posterior.network, (0,), {}),
    "diagnose": lambda o: (pr.diagnose, (o.fit,), {"held_out": o.data, "warn": False}),
    "holdout_test": lambda o: (
        *(pr.holdout_test, (o.pruned, o.data, [np.arange(48)])),
        {"num_redraws": 3},
    ),
    "to_arviz": lambda o: (pr.to_arviz, (o.fit.posterior,), {"data": o.data, "num_samples": 3}),
    "rule_path": lambda o: (
        *(pr.rule_path, (o.fit.posterior.chain(0), [o.mask], o.data)),
        {"num_samples": 3},
    ),
    "apply_mask": lambda o: (pr.apply_mask, (o.network, o.edges, o.mask), {}),
    "prune": lambda o: (
        *(pr.prune, (o.network, o.edges, o.mask)),
        {"example_input": o.data[0][:2]},
    ),
    "export_torch": lambda o: (
        *(pr.export_torch, (o.pruned, o.folder / "n.pt2")),
        {"example_input": o.data[0][:2]},
    ),
    "PrunedNetwork.save": lambda o: (pr.load_run(o.run).network.save, (o.folder / "p",), {}),
    "load_pruned": lambda o: (pr.load_pruned, (o.run / "network.safetensors",), {}),
    "save_posterior": lambda o: (pr.save_posterior, (o.fit.posterior, o.folder / "f"), {}),
    "load_posterior": lambda o: (
        (
            pr.save_posterior(quick_fit().posterior, o.folder / "g"),
            pr.load_posterior,
        )[1:]
        + ((o.folder / "g",), {})
    ),
    "load_run": lambda o: (pr.load_run, (o.run,), {}),
    "Predictor.predict": lambda o: (
        pr.load_run(o.run).predict,
        (pr.tables.read_table(o.table, target="y").features,),
        {},
    ),
    "read_table": lambda o: (pr.tables.read_table, (o.table,), {"target": "y"}),
    "encode": lambda o: (
        pr.tables.encode,
        (pr.tables.read_table(o.table, target="y"), np.arange(40)),
        {},
    ),
    "read_rows": lambda o: (pr.tables.read_rows, (o.table, o.encoder), {}),
    "split_rows": lambda o: (pr.tables.split_rows, (40,), {}),
    "boston": lambda o: (pr.datasets.boston, (), {}),
    "friedman_like": lambda o: (pr.datasets.friedman_like, (30,), {}),
    "budget": lambda o: (pr.masks.budget, (o.fit.posterior.chain(0),), {"num_parameters": 20}),
    "false_discovery_rate": lambda o: (
        pr.masks.false_discovery_rate,
        (o.fit.posterior.chain(0), 0.2),
        {},
    ),
    "path": lambda o: (pr.masks.path, (o.fit.posterior.chain(0),), {"num_points": 3}),
    "top_fraction": lambda o: (pr.masks.top_fraction, (o.fit.posterior.chain(0), 0.5), {}),
    "effect": lambda o: (pr.relevance.effect, (o.draws, o.edges), {}),
    "effect_interval": lambda o: (pr.intervals.effect_interval, (o.draws, o.edges), {}),
    "loss_interval": lambda o: (
        *(pr.intervals.loss_interval, (o.fit.posterior, o.data)),
        {"num_samples": 3},
    ),
    "pruned_loss_interval": lambda o: (
        *(pr.before_pruning.pruned_loss_interval, (o.fit.posterior.chain(0), o.mask, o.data)),
        {"num_samples": 3, "num_draws": 20},
    ),
    "prior_sensitivity": lambda o: (
        pr.before_pruning.prior_sensitivity,
        (o.fit.posterior.chain(0),),
        {"prior_odds": (0.1, 1.0)},
    ),
    "plots.relevance": lambda o: (pr.plots.relevance, (o.idata,), {}),
    "plots.network": lambda o: (pr.plots.network, (o.idata,), {}),
    "plots.training": lambda o: (pr.plots.training, (o.idata,), {}),
    "plots.save": lambda o: (pr.plots.save, (pr.plots.training(o.idata), o.folder / "t"), {}),
    "report.save": lambda o: (pr.report.save, (o.idata, o.folder / "i.nc"), {}),
    "report.load": lambda o: (
        (pr.report.save(o.idata, o.folder / "j.nc"), pr.report.load)[1:]
        + ((o.folder / "j.nc",), {})
    ),
    "derive": lambda o: (
        *(pr.derive, (o.graph[0], o.architecture)),
        {"example_input": torch.zeros(2, 3)},
    ),
    "search_structure": _search,
    "structure_report": lambda o: (pr.collapse.structure_report, o.graph, {}),
    "operation_macs": lambda o: (pr.graphs.operation_macs, (o.graph[0], torch.zeros(2, 3)), {}),
    "most_probable": lambda o: (pr.graphs.most_probable, (*o.graph[1:], 3), {}),
    "robustness": lambda o: (
        *(pr.robustness.robustness, (o.network, pr.likelihoods.Gaussian(), o.data, _no_score)),
        {"num_draws": 2},
    ),
    "evolution": lambda o: (
        *(pr.baselines.evolution, (o.graph[1], lambda architecture: 0.0)),
        {"num_queries": 12},
    ),
    "reinforce": lambda o: (
        *(pr.baselines.reinforce, (o.graph[1], lambda architecture: 0.0)),
        {"num_queries": 3},
    ),
    "sklearn": lambda o: (
        pr.sklearn.RelevanceRegressor(num_steps=20, num_chains=1, num_folds=2, random_state=0).fit,
        (o.data[0].numpy(), o.data[1].numpy()),
        {},
    ),
}
