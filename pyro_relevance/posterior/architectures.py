"""The posterior over architectures: draws, the most probable ones, their cost and their fit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pyro_relevance.graphs.architectures import Architecture, canonical, is_connected
from pyro_relevance.graphs.derivation import architecture_cost
from pyro_relevance.posterior.evaluation import chain_likelihood, chain_outputs, quiet
from pyro_relevance.posterior.posterior import Posterior

__all__ = [
    "ExpectedCost",
    "architecture_log_likelihood",
    "chain_probability",
    "draw_architectures",
    "expected_cost",
    "probable_architectures",
]

INTERVAL = 0.89


@dataclass(frozen=True, slots=True)
class ExpectedCost:
    """Cost of derived networks under the posterior.

    Args:
        num_parameters: Mean, lower and upper end of the central 89 % interval.
        num_macs: The same of the multiply-accumulates for one example.
        connected: Share of the draws that have a path from input to output. The others cost
            nothing, and the means and intervals omit them.
    """

    num_parameters: tuple[float, float, float]
    num_macs: tuple[float, float, float]
    connected: float


def chain_probability(posterior: Posterior, chain: int = 0) -> dict[str, Tensor]:
    """Return the probability of each operation in one chain, as ``graphs.mode`` takes it.

    Args:
        posterior: The posterior.
        chain: Number of the chain.

    Returns:
        Group -> ``(num_operations,)``.
    """
    return {name: p[chain] for name, p in posterior.operation_probability().items()}


def draw_architectures(
    posterior: Posterior, num_samples: int = 100, *, chain: int = 0, seed: int = 0
) -> list[Architecture]:
    """Return draws of the posterior over architectures.

    Args:
        posterior: The posterior.
        num_samples: Number of draws.
        chain: The chain that draws.
        seed: Seed of the draws.

    Raises:
        ValueError: If the model gates no operations, or ``num_samples`` is not positive.
    """
    if not posterior.model.has_operations:
        raise ValueError("Expected a posterior over operations, but its model has none.")
    drawn = posterior.chain(chain).sample(num_samples, seed=seed).operations
    return [
        Architecture.from_gates(posterior.edges, {n: hard[0, i] for n, hard in drawn.items()})
        for i in range(num_samples)
    ]


def probable_architectures(
    posterior: Posterior,
    num_architectures: int = 5,
    *,
    num_samples: int = 1000,
    chain: int = 0,
    seed: int = 0,
) -> list[tuple[Architecture, float]]:
    """Return the architectures that are drawn most often, equivalent ones counted as one.

    It serves any guide. Where edges are independent, ``graphs.most_probable`` is exact.

    Args:
        posterior: The posterior.
        num_architectures: How many to return, at most.
        num_samples: Number of draws.
        chain: The chain that draws.
        seed: Seed of the draws.

    Returns:
        Architectures and their shares of the draws, the largest first.

    Raises:
        ValueError: If the model gates no operations.
    """
    network = posterior.model.network
    found: dict[str, tuple[Architecture, int]] = {}
    for architecture in draw_architectures(posterior, num_samples, chain=chain, seed=seed):
        text = canonical(network, architecture)
        first, count = found.get(text, (architecture, 0))
        found[text] = first, count + 1
    ranked = sorted(found.values(), key=lambda pair: -pair[1])[:num_architectures]
    return [(architecture, count / num_samples) for architecture, count in ranked]


def expected_cost(
    posterior: Posterior,
    example_input: Tensor | tuple[Tensor, ...],
    *,
    num_samples: int = 100,
    chain: int = 0,
    seed: int = 0,
) -> ExpectedCost:
    """Return what derived networks cost, with an interval, before any unit is pruned.

    Args:
        posterior: The posterior.
        example_input: ``(num_data, *input_shape)`` input, or a tuple of inputs.
        num_samples: Number of draws; networks that are drawn again are counted once more.
        chain: The chain that draws.
        seed: Seed of the draws.

    Raises:
        ValueError: If the model gates no operations, or no draw is connected.
    """
    network = posterior.network(chain)
    known: dict[Architecture, tuple[int, int]] = {}
    costs = []
    for architecture in draw_architectures(posterior, num_samples, chain=chain, seed=seed):
        if not is_connected(network, architecture):
            continue
        if architecture not in known:
            cost = architecture_cost(network, architecture, example_input)
            known[architecture] = cost.num_parameters, cost.num_macs
        costs.append(known[architecture])
    if not costs:
        raise ValueError(
            f"Expected a connected architecture among {num_samples} draws, but found none. See "
            "collapse.structure_report."
        )
    table = np.array(costs, dtype=float)
    ends = np.quantile(table, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2], axis=0)
    both = [(float(table[:, i].mean()), float(ends[0, i]), float(ends[1, i])) for i in (0, 1)]
    return ExpectedCost(both[0], both[1], len(costs) / num_samples)


def architecture_log_likelihood(
    posterior: Posterior,
    architecture: Architecture,
    x: Tensor,
    y: Tensor,
    *,
    num_samples: int = 100,
    seed: int = 0,
) -> Tensor:
    """Return the log likelihood of each example under one architecture, with the shared weights.

    Everything but the operations is drawn from the posterior.

    Args:
        posterior: The posterior.
        architecture: A choice of operations.
        x: ``(num_data, ...)`` inputs.
        y: ``(num_data, ...)`` targets.
        num_samples: Draws in each chain.
        seed: Seed of the draws.

    Returns:
        ``(num_chains, num_samples, num_data)`` in nats.

    Raises:
        ArchitectureError: If the architecture does not fit the edges.
    """
    draws = posterior.sample(num_samples, seed=seed)
    gates = architecture.gates(posterior.edges)
    like = next(iter(draws.operations.values()))
    fixed = {name: gate.to(like).expand(*like.shape[:2], -1) for name, gate in gates.items()}
    draws = replace(draws, operations=fixed)
    x, y = x.to(posterior.device), y.to(posterior.device)
    values = []
    with quiet(posterior.model), torch.no_grad():
        for chain in range(posterior.num_chains):
            state = {name: tensor[chain] for name, tensor in posterior.state.items()}
            outputs = chain_outputs(posterior.model, state, draws, chain, {}, x)
            likelihood = chain_likelihood(posterior.model, state)
            values.append(torch.stack([likelihood(output).log_prob(y) for output in outputs]))
    return torch.stack(values)
