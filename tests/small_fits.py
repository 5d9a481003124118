"""Small data, models and fits that several test files share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import pyro_relevance as pr
from pyro_relevance import Fit, RelevanceModel


def regression(
    num_data: int = 48, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return ``(num_data, 4)`` inputs, of which two matter, and ``(num_data,)`` targets."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_data, 4, generator=generator, dtype=torch.float64)
    noise = torch.randn(num_data, generator=generator, dtype=torch.float64)
    y = 2 * x[:, 0] - x[:, 1] + 0.1 * noise
    return x.to(dtype), y.to(dtype)


def make_network(*, batch_norm: bool = False, seed: int = 0) -> nn.Module:
    """Return a network of 4 inputs, 5 hidden units and one output."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1)]
        return nn.Sequential(*[layer for i, layer in enumerate(layers) if batch_norm or i != 1])


def make_model(network: nn.Module | None = None, **settings: Any) -> RelevanceModel:
    """Return a model of `make_network` for `regression`."""
    network = make_network() if network is None else network
    granularity = settings.pop("granularity", ("input", "unit"))
    edges = pr.find_edges(network, granularity=granularity)
    return RelevanceModel(
        network,
        edges,
        likelihood=settings.pop("likelihood", pr.likelihoods.Gaussian()),
        num_data=settings.pop("num_data", 48),
        **settings,
    )


def quick_fit(model: RelevanceModel | None = None, data: Any = None, **settings: Any) -> Fit:
    """Return a fit of a few steps."""
    return pr.fit(
        make_model() if model is None else model,
        regression() if data is None else data,
        **{"num_epochs": 6, "batch_size": 16, "learning_rate": 1e-2, **settings},
    )


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two mappings hold bitwise equal tensors."""
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )
