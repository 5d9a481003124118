"""Intervals of the posterior, over its draws and chains: of effects, losses and errors.

A chain is one fit, and the posterior is the mixture of all chains with equal weights: quantiles are
over all draws of all chains together. How far the fits agree is another question, with another
name: `relevance.over_chains`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_relevance.posterior.relevance import DrawsLike, effect

if TYPE_CHECKING:
    from pyro_relevance.edges.find import Edges
    from pyro_relevance.model.likelihoods import Likelihood
    from pyro_relevance.posterior.posterior import Posterior

__all__ = [
    "Interval",
    "LossInterval",
    "effect_interval",
    "interval",
    "loss_interval",
    "losses_and_errors",
    "root_if_squared",
]


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """Mean and equal-tailed interval of draws.

    Args:
        mean: ``(*shape)`` mean of the draws.
        lower: ``(*shape)`` lower end.
        upper: ``(*shape)`` upper end.
        probability: Share of the draws between the ends.
    """

    mean: Tensor
    lower: Tensor
    upper: Tensor
    probability: float


@dataclass(frozen=True, slots=True, eq=False)
class LossInterval:
    """Loss and error of a network on rows, as the posterior sees them.

    Args:
        loss: Mean negative log likelihood of a row, in nats on the scale of the targets given.
        error: RMSE on the scale of the targets given, or the share of rows classified wrongly.
    """

    loss: Interval
    error: Interval

    @classmethod
    def of(
        cls, likelihood: Likelihood, losses: Tensor, mean_errors: Tensor, *, probability: float
    ) -> LossInterval:
        """Return the intervals of draws.

        Args:
            likelihood: Distribution of the target.
            losses: ``(num_draws,)`` mean losses, as of `losses_and_errors`.
            mean_errors: ``(num_draws,)`` mean squared errors, or shares of wrong classes.
            probability: Share of the draws between the ends.
        """
        errors = root_if_squared(likelihood, mean_errors)
        return cls(
            interval(losses, probability=probability), interval(errors, probability=probability)
        )


def interval(values: Tensor, *, probability: float = 0.89) -> Interval:
    """Mean and equal-tailed interval over the first dimension.

    Args:
        values: ``(num_draws, *shape)``.
        probability: Share of the draws between the ends, in (0, 1).

    Raises:
        ValueError: If there are no draws, or ``probability`` is out of range.
    """
    if not 0.0 < probability < 1.0:
        raise ValueError(f"Expected probability in (0, 1), but got {probability}.")
    if values.ndim == 0 or len(values) == 0:
        raise ValueError(f"Expected at least one draw, but got shape {tuple(values.shape)}.")
    values = values.double()
    tail = (1.0 - probability) / 2.0
    # Column by column: torch.quantile refuses more than 2**24 numbers in one call.
    columns = values.flatten(1) if values.ndim > 1 else values[:, None]
    ends = torch.tensor([tail, 1.0 - tail], dtype=torch.float64)
    step = max(1, 2**24 // len(columns))
    found = torch.cat([torch.quantile(part, ends, dim=0) for part in columns.split(step, 1)], 1)
    lower, upper = (row.reshape(values.shape[1:]) for row in found)
    return Interval(values.mean(0), lower, upper, probability)


def effect_interval(
    draws: DrawsLike,
    edges: Edges,
    *,
    groups: Sequence[str] = ("inputs",),
    probability: float = 0.89,
) -> dict[str, Interval]:
    """Interval of the gated effect of each edge, over all draws and chains.

    The effect of `relevance.effect`: the norm of the weights that read the edge, zero in a draw
    where the edge is off. The lower end is therefore zero where the edge is off in more than
    ``(1 - probability) / 2`` of the draws.

    Args:
        draws: ``(chain, draw, ...)`` gates and weights of the posterior.
        edges: The gated edges.
        groups: Groups whose edges mean the same in each chain; with one chain any.
        probability: Share of the draws between the ends.

    Returns:
        Group name -> interval of the group's shape.

    Raises:
        ValueError: If a group is unknown, or is not made of inputs and there are several chains.
    """
    effects = effect(draws, edges)
    unknown = [name for name in groups if name not in effects]
    if unknown:
        raise ValueError(f"Expected groups out of {list(effects)}, but got {unknown}.")
    hidden = [name for name in groups if edges[name].granularity != "input"]
    if hidden and next(iter(effects.values())).shape[0] > 1:
        raise ValueError(
            f"Expected groups of granularity 'input', but got {hidden}. Units and weights of "
            "different chains are not the same: pass the draws of one chain."
        )
    return {name: interval(effects[name].flatten(0, 1), probability=probability) for name in groups}


def loss_interval(
    posterior: Posterior,
    data: tuple[Tensor, Tensor],
    *,
    likelihood: Likelihood | None = None,
    num_samples: int = 200,
    seed: int = 0,
    probability: float = 0.89,
) -> LossInterval:
    """Interval of the loss and error on given rows, over all draws and chains.

        loss_s = -(1/N) sum_n log p(y_n | f_s(x_n)),   s a draw of a chain

    The rows are fixed: this is the uncertainty about the network. `before_pruning` adds that of the
    rows of a test set. The loss of the averaged prediction is smaller than the mean of these.

    Args:
        posterior: The fitted result.
        data: ``(num_data, ...)`` inputs and targets; rows that were not trained on.
        likelihood: Distribution of the target, such as one fitted on held-out rows; ``None`` for
            that of each chain.
        num_samples: Draws in each chain.
        seed: Seed of the draws.
        probability: Share of the draws between the ends.
    """
    x, y = data
    outputs = posterior.predict(x, num_samples=num_samples, seed=seed).outputs
    chains = [likelihood or posterior.chain(i).likelihood for i in range(len(outputs))]
    parts = [losses_and_errors(law, o, y) for law, o in zip(chains, outputs, strict=True)]
    losses, errors = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    return LossInterval.of(chains[0], losses.mean(1), errors.mean(1), probability=probability)


def losses_and_errors(likelihood: Likelihood, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss and the error of each row under each draw.

    Args:
        likelihood: Distribution of the target.
        outputs: ``(num_samples, num_data, num_outputs)`` raw outputs.
        y: ``(num_data, ...)`` targets.

    Returns:
        ``(num_samples, num_data)`` negative log likelihood in nats, and as many squared errors
        (mean over targets), or zeros and ones for classes: 1 = wrong.
    """
    y = y.to(outputs.device)
    losses, errors = [], []
    with torch.no_grad():
        for output in outputs:
            losses.append(-likelihood(output).log_prob(y).double())
            mean = likelihood.mean(output).double()
            if likelihood.task == "classification":
                chosen = mean.argmax(-1) if mean.ndim > y.ndim else mean > 0.5
                errors.append((chosen != y).double())
            else:
                squares = (mean - y.double().reshape(mean.shape)).square()
                errors.append(squares.flatten(1).mean(1) if squares.ndim > 1 else squares)
    return torch.stack(losses), torch.stack(errors)


def root_if_squared(likelihood: Likelihood, mean_errors: Tensor) -> Tensor:
    """Return the RMSE of mean squared errors; the shares of wrong classes as they are."""
    return mean_errors if likelihood.task == "classification" else mean_errors.sqrt()
