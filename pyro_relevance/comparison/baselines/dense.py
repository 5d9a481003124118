"""A network built by people, trained without pruning: the reference of all other methods."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from pyro_relevance.comparison.baselines.recipe import Recipe, seeded_network
from pyro_relevance.comparison.baselines.result import BaselineResult, Stage

__all__ = ["dense"]


def dense(
    make_network: Callable[[], nn.Module],
    data: tuple[Tensor, Tensor],
    *,
    recipe: Recipe,
    num_epochs: float,
    seed: int = 0,
) -> BaselineResult:
    """Train a network without pruning.

    Args:
        make_network: Makes the network with initial weights.
        data: ``x`` of shape ``(num_data, ...)`` and ``y`` of shape ``(num_data, ...)``.
        recipe: How it is trained.
        num_epochs: Number of epochs.
        seed: Seed of everything.
    """
    trained = recipe.train(
        seeded_network(make_network, seed),
        data,
        num_epochs=num_epochs,
        until=recipe.deadline,
        seed=seed,
    )
    stage = Stage.of(trained, "dense", "training")
    return BaselineResult.of(trained, None, [stage], data[0][:2])
