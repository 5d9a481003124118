"""A small relaxed graph, its model and the enumeration of its architectures."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

import pyro_relevance as pr
from pyro_relevance import RelevanceModel
from pyro_relevance.graphs import Graph, GraphEdge


def make_graph(*, seed: int = 0) -> Graph:
    """Return a graph of 36 architectures: 3 x 2 x 2 operations, two of them with ``none``."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Graph(
            {"x": 3, "a": 6, "h": 6, "y": 1},
            [
                GraphEdge("x", "a", "linear"),
                GraphEdge("a", "h", ("relu", "tanh", "none")),
                GraphEdge("h", "y", ("linear", "linear_tanh")),
                GraphEdge("x", "y", ("none", "linear")),
            ],
            output="y",
        )


def make_data(num_data: int = 20, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return ``(num_data, 3)`` inputs and ``(num_data,)`` targets."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_data, 3, generator=generator)
    return x, torch.sin(2 * x[:, 0]) + 0.3 * torch.randn(num_data, generator=generator)


def make_model(graph: Graph | None = None, **settings: Any) -> RelevanceModel:
    """Return a model of the graph for `make_data`."""
    graph = make_graph() if graph is None else graph
    granularity = settings.pop("granularity", "operation")
    example = torch.zeros(2, 3, dtype=next(graph.parameters()).dtype)
    return RelevanceModel(
        graph,
        pr.find_edges(graph, granularity=granularity, example_input=example),
        likelihood=settings.pop("likelihood", pr.likelihoods.Gaussian(0.7, learn_noise=False)),
        num_data=settings.pop("num_data", 20),
        **settings,
    )


def choices(model: RelevanceModel) -> Tensor:
    """Return all choices as gates, ``(num_architectures, num_groups, num_operations)``."""
    edges = model.edges
    rows = []
    for places in itertools.product(*[range(g.num_edges) for g in edges.operations]):
        table = torch.zeros(len(places), edges.num_operations)
        table[range(len(places)), places] = 1.0
        rows.append(table)
    return torch.stack(rows).to(model.prior_operation_logits)


def log_likelihoods(model: RelevanceModel, x: Tensor, y: Tensor) -> Tensor:
    """Return the log likelihood of the data under each of `choices`, with the present weights."""
    parameters = dict(model.network.named_parameters())
    values = []
    with torch.no_grad():
        for table in choices(model):
            outputs = model.run(x, parameters, model.edges.split_operations(table))
            values.append(model.likelihood(outputs).log_prob(y).sum())
    return torch.stack(values)


def exact_posterior(model: RelevanceModel, x: Tensor, y: Tensor) -> Tensor:
    """Return the probability of each of `choices` given the data and the present weights."""
    prior = torch.log_softmax(model.prior_operation_logits, -1)
    log_prior = (choices(model) * prior).sum((-1, -2))
    return torch.softmax(log_likelihoods(model, x, y) + log_prior, 0)
