"""A search that measures architectures one by one, chosen by a posterior over their values.

The posterior over their values is a Gaussian process over what they compute, see
``value_posterior``. The next architecture is drawn by Thompson sampling, or is the one with the
largest expected improvement.

References:
    Mockus, On Bayesian methods for seeking the extremum, 1975 (expected improvement). Thompson, On
    the likelihood that one unknown probability exceeds another, 1933.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from pyro_relevance._random import seeded
from pyro_relevance.graphs.architectures import Architecture
from pyro_relevance.search.value_posterior import Candidates, ValuePosterior

__all__ = [
    "Candidates",
    "Proposal",
    "QuerySearch",
    "ValuePosterior",
    "measured",
    "search_by_queries",
]

Proposal = Literal["expected_improvement", "thompson"]


@dataclass(frozen=True, eq=False)
class QuerySearch:
    """What a search measured, in order.

    Args:
        architectures: The architectures.
        values: Their measured values.
        recommended: After each measurement, the number (in ``architectures``) of the one with the
            largest posterior mean among those measured.
    """

    architectures: tuple[Architecture, ...]
    values: tuple[float, ...]
    recommended: tuple[int, ...] = field(default=())

    def best(self, num_queries: int | None = None) -> Architecture:
        """Return the architecture that is recommended after so many measurements.

        Args:
            num_queries: How many of the measurements count; by default all.
        """
        number = len(self.values) if num_queries is None else num_queries
        if self.recommended:
            return self.architectures[self.recommended[number - 1]]
        return self.architectures[int(np.argmax(self.values[:number]))]


def search_by_queries(
    candidates: Candidates,
    evaluate: Callable[[Architecture], float],
    *,
    num_queries: int,
    num_initial: int = 10,
    proposal: Proposal = "expected_improvement",
    pool_size: int = 500,
    refit_every: int = 10,
    seed: int = 0,
) -> QuerySearch:
    """Measure architectures one by one; a posterior over their values chooses the next one.

    Args:
        candidates: What may be measured.
        evaluate: Measures one architecture (a short training, say); larger is better.
        num_queries: Measurements in all.
        num_initial: The first of them, drawn at random.
        proposal: ``"expected_improvement"`` over the largest posterior mean so far, or
            ``"thompson"``: the best of one joint draw of the posterior.
        pool_size: Candidates among which Thompson sampling draws, half of them the best by their
            mean, half at random.
        refit_every: Measurements between two updates of scales, widths and noise by SVI.
        seed: Seed of all draws.

    Returns:
        The search.

    Raises:
        ValueError: If a number does not fit, the proposal is unknown, or a value is not finite.
    """
    _check(candidates, num_queries, num_initial, proposal)
    generator = np.random.default_rng(seed)
    weights = candidates.num_members / candidates.num_members.sum()
    order = generator.choice(len(candidates), size=num_initial, replace=False, p=weights)
    seen = [int(index) for index in order]
    values = [measured(evaluate, candidates.architectures[index]) for index in seen]
    recommended = [int(np.argmax(values[: number + 1])) for number in range(num_initial)]
    with seeded(seed):
        posterior = ValuePosterior(candidates)
        for number in range(num_initial, num_queries + 1):
            due = number % refit_every == 0 or number == num_initial
            posterior.update(seen, values, refit=due)
            mean, spread = posterior.moments()
            if number > num_initial:
                recommended.append(int(mean[torch.tensor(seen)].argmax()))
            if number == num_queries:
                break
            if proposal == "thompson":
                chosen = _by_thompson(posterior, mean, seen, pool_size)
            else:
                chosen = _by_improvement(mean, spread, seen)
            seen.append(chosen)
            values.append(measured(evaluate, candidates.architectures[chosen]))
    chosen_ones = tuple(candidates.architectures[index] for index in seen)
    return QuerySearch(chosen_ones, tuple(values), tuple(recommended))


def measured(evaluate: Callable[[Architecture], float], architecture: Architecture) -> float:
    """Return the value of an architecture.

    Args:
        evaluate: Measures it.
        architecture: The architecture.

    Raises:
        ValueError: If the value is not finite.
    """
    value = float(evaluate(architecture))
    if not math.isfinite(value):
        raise ValueError(f"Expected a finite value, but got {value} for\n{architecture}")
    return value


def log_improvement(mean: Tensor, spread: Tensor, incumbent: float) -> Tensor:
    """Logarithm of the expected improvement, up to rounding also far below the incumbent."""
    z = (mean - incumbent) / spread
    standard = torch.distributions.Normal(torch.zeros_like(z), torch.ones_like(z))
    density = standard.log_prob(z).exp()
    improvement = z * standard.cdf(z) + density
    # For very negative z: log(phi(z) / z^2), the leading term of its expansion.
    tail = standard.log_prob(z) - 2 * z.abs().clamp(min=1.0).log()
    safe = torch.where(z > -5, improvement.clamp(min=1e-300).log(), tail)
    result = safe + spread.log()
    return torch.where(torch.isfinite(mean), result, -math.inf)


def _check(candidates: Candidates, num_queries: int, num_initial: int, proposal: str) -> None:
    if proposal not in get_args(Proposal):
        raise ValueError(f"Expected proposal from {list(get_args(Proposal))}, got {proposal!r}.")
    if not 2 <= num_initial <= num_queries <= len(candidates):
        raise ValueError(
            f"Expected 2 <= num_initial <= num_queries <= {len(candidates)} candidates, but got "
            f"{num_initial} and {num_queries}."
        )


def _by_thompson(
    posterior: ValuePosterior, mean: Tensor, seen: Sequence[int], pool_size: int
) -> int:
    """The best of one joint draw over a pool: half of it the best by their mean, half random."""
    unseen = _without(mean, seen)
    best = unseen.topk(min(pool_size // 2, len(mean) - len(seen))).indices
    others = torch.randperm(len(mean))[: pool_size // 2]
    pool = torch.cat((best, others)).unique()
    pool = pool[torch.isfinite(unseen[pool])]
    return int(pool[posterior.sample(pool).argmax()])


def _by_improvement(mean: Tensor, spread: Tensor, seen: Sequence[int]) -> int:
    """The largest expected improvement over the largest posterior mean so far."""
    incumbent = float(mean[torch.tensor(seen)].max())
    return int(log_improvement(_without(mean, seen), spread, incumbent).argmax())


def _without(mean: Tensor, seen: Sequence[int]) -> Tensor:
    """The means, those of measured candidates minus infinity."""
    return mean.index_fill(0, torch.tensor(seen), -math.inf)
