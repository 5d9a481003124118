"""Lottery tickets: rounds that prune small weights and rewind the others to their initial values.

References:
    Frankle, Carbin, The lottery ticket hypothesis: finding sparse, trainable neural networks, ICLR
    2019, section 2 and appendix G (rates of LeNet-300-100: 20 % of each layer in a round, 10 % of
    the output layer). Frankle, Dziugaite, Roy, Carbin, Stabilizing the lottery ticket hypothesis,
    2019 (weights of an early step instead of the first).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from pyro_relevance._random import substream
from pyro_relevance.comparison.baselines.magnitude import (
    kept_weights,
    smallest_weights,
    weight_layers,
)
from pyro_relevance.comparison.baselines.recipe import Recipe, Trained, seeded_network
from pyro_relevance.comparison.baselines.result import BaselineResult, Stage
from pyro_relevance.masks import Mask
from pyro_relevance.training.plain import with_zeros, zero_entries

__all__ = ["Ticket", "lottery_ticket", "random_ticket", "ticket_rounds"]


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """A network with some weights pruned, trained from its initial weights.

    Args:
        trained: The trained network.
        mask: The weights that are kept.
        density: Share of the weights that is kept.
    """

    trained: Trained
    mask: Mask
    density: float


def ticket_rounds(
    make_network: Callable[[], nn.Module],
    data: tuple[Tensor, Tensor],
    *,
    recipe: Recipe,
    num_epochs: float,
    until: Callable[[int], float] = lambda number: math.inf,
    share: float = 0.2,
    output_share: float = 0.1,
    num_epochs_early: int = 0,
    seed: int = 0,
) -> Iterator[Ticket]:
    """Yield the dense network, then the ticket after each round of pruning, without end.

    Args:
        make_network: Makes the network with initial weights.
        data: ``x`` of shape ``(num_data, ...)`` and ``y`` of shape ``(num_data, ...)``.
        recipe: How each of the networks is trained.
        num_epochs: Number of epochs, of each training.
        until: From the number of a training (0 for the dense network) to when it is to end, as of
            ``Recipe.train``.
        share: Share of each layer's remaining weights that a round prunes.
        output_share: The same of the last layer.
        num_epochs_early: Epochs after which the weights are saved to which they are rewound; 0 for
            the initial weights.
        seed: Seed of everything.

    Raises:
        ValueError: If a share is not in [0, 1).
    """
    for name, value in {"share": share, "output_share": output_share}.items():
        if not 0 <= value < 1:
            raise ValueError(f"Expected {name} in [0, 1), but got {value}.")
    network = seeded_network(make_network, seed)
    if num_epochs_early:
        early = recipe.train(network, data, num_epochs=num_epochs_early, name="early", seed=seed)
        network = early.network
    layers = list(weight_layers(network))
    shares = dict.fromkeys(layers, 1 - share) | {layers[-1]: 1 - output_share}
    density = dict.fromkeys(layers, 1.0)
    sparse = network
    for number in range(10_000):
        trained = recipe.train(
            sparse,
            data,
            num_epochs=num_epochs,
            until=until(number),
            zeros=zero_entries(sparse) if number else None,
            name=f"ticket {number}",
            seed=seed,
        )
        mask = kept_weights(trained.network)
        yield Ticket(trained, mask, mask.density)
        density = {name: value * shares[name] for name, value in density.items()}
        sparse = with_zeros(network, smallest_weights(trained.network, density))


def lottery_ticket(
    make_network: Callable[[], nn.Module],
    data: tuple[Tensor, Tensor],
    *,
    recipe: Recipe,
    density: float,
    num_epochs: float,
    num_rounds: int | None = None,
    num_epochs_early: int = 0,
    seed: int = 0,
) -> BaselineResult:
    """Return the winning ticket of a density.

    Args:
        make_network: Makes the network with initial weights.
        data: ``x`` of shape ``(num_data, ...)`` and ``y`` of shape ``(num_data, ...)``.
        recipe: How each of the networks is trained.
        density: Largest share of the weights that is kept.
        num_epochs: Number of epochs, of each training.
        num_rounds: Rounds of pruning, all by the same share; ``None`` for as many as the rates of
            the paper need. Where the recipe has a deadline, all trainings have the same time.
        num_epochs_early: As of `ticket_rounds`.
        seed: Seed of everything.

    Returns:
        The ticket, whose pruned weights are zeros, and the mask of its weights.

    Raises:
        ValueError: If the density is not in (0, 1], or a number is out of range.
    """
    if not 0 < density <= 1:
        raise ValueError(f"Expected a density in (0, 1], but got {density}.")
    if num_rounds is not None and num_rounds < 1:
        raise ValueError(f"Expected num_rounds >= 1 or None, but got {num_rounds}.")
    if num_rounds is None and recipe.deadline < math.inf:
        raise ValueError("Expected num_rounds where the recipe has a deadline, but got None.")
    shares = {}
    if num_rounds is not None:
        even = 1 - density ** (1 / num_rounds)
        shares = {"share": even, "output_share": even}
    history: list[Stage] = []
    for ticket in ticket_rounds(
        make_network,
        data,
        recipe=recipe,
        num_epochs=num_epochs,
        until=lambda number: recipe.until(1 / max(1, (num_rounds or 0) + 1 - number)),
        num_epochs_early=num_epochs_early,
        seed=seed,
        **shares,
    ):
        done = ticket.density <= density
        kind = "retraining" if done else "search" if history else "training"
        name = f"{ticket.density:.3f} of the weights"
        history.append(Stage.of(ticket.trained, name, kind))
        if done:
            break
    return BaselineResult.of(ticket.trained, ticket.mask, history, data[0][:2])


def random_ticket(
    make_network: Callable[[], nn.Module],
    data: tuple[Tensor, Tensor],
    *,
    recipe: Recipe,
    mask: Mapping[str, Tensor],
    num_epochs: float,
    seed: int = 0,
) -> BaselineResult:
    """Train the weights of a winning ticket from other initial weights: the control.

    Args:
        make_network: Makes the network with initial weights.
        data: ``x`` of shape ``(num_data, ...)`` and ``y`` of shape ``(num_data, ...)``.
        recipe: How it is trained.
        mask: The mask of the winning ticket.
        num_epochs: Number of epochs.
        seed: Seed of the winning ticket. The initial weights have a seed derived from it.
    """
    network = seeded_network(make_network, substream(seed, "random ticket"))
    sparse = with_zeros(network, {name: ~keep for name, keep in mask.items()})
    trained = recipe.train(
        sparse,
        data,
        num_epochs=num_epochs,
        zeros=zero_entries(sparse),
        until=recipe.deadline,
        name="random ticket",
        seed=seed,
    )
    stage = Stage.of(trained, "random ticket", "retraining")
    kept = kept_weights(trained.network)
    return BaselineResult.of(trained, kept, [stage], data[0][:2])
