"""Pruning of small weights with retraining, step by step.

References:
    Han, Pool, Tran, Dally, Learning both weights and connections for efficient neural networks,
    NeurIPS 2015, section 3.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import prune

from pyro_relevance.comparison.baselines.recipe import Recipe, seeded_network
from pyro_relevance.comparison.baselines.result import BaselineResult, Stage
from pyro_relevance.edges.find import find_edges
from pyro_relevance.masks import Mask
from pyro_relevance.training.plain import with_zeros, zero_entries

__all__ = ["kept_weights", "magnitude_pruning", "smallest_weights", "weight_layers"]


def magnitude_pruning(
    make_network: Callable[[], nn.Module],
    data: tuple[Tensor, Tensor],
    *,
    recipe: Recipe,
    density: float | Mapping[str, float],
    num_epochs: float,
    num_epochs_round: float,
    num_rounds: int = 3,
    share: float = 0.4,
    seed: int = 0,
) -> BaselineResult:
    """Train, then prune the smallest weights and retrain, in several rounds.

    Biases are kept. After round r of R the share :math:`d^{r/R}` of the weights is kept.

    Args:
        make_network: Makes the network with initial weights.
        data: ``x`` of shape ``(num_data, ...)`` and ``y`` of shape ``(num_data, ...)``.
        recipe: How it is trained.
        density: Share of the weights that is kept, of all layers together; or of each layer, by
            its name.
        num_epochs: Epochs before the first round.
        num_epochs_round: Epochs of each round.
        num_rounds: Number of rounds.
        share: Share of the time before the first round, where the recipe has a deadline; the rounds
            have the same time each.
        seed: Seed of everything.

    Returns:
        The network, whose pruned weights are zeros, and the mask of its weights.

    Raises:
        ValueError: If a density is not in (0, 1] or names an unknown layer, or a number is not
            positive.
    """
    if num_rounds < 1:
        raise ValueError(f"Expected num_rounds >= 1, but got {num_rounds}.")
    network = seeded_network(make_network, seed)
    smallest_weights(network, density)  # checks the densities before any work
    trained = recipe.train(
        network, data, num_epochs=num_epochs, until=recipe.until(share), name="dense", seed=seed
    )
    history = [Stage.of(trained, "dense", "training")]
    for number in range(1, num_rounds + 1):
        now = _power(density, number / num_rounds)
        sparse = with_zeros(trained.network, smallest_weights(trained.network, now))
        trained = recipe.train(
            sparse,
            data,
            num_epochs=num_epochs_round,
            retraining=True,
            until=recipe.until(1 / (num_rounds + 1 - number)),
            zeros=zero_entries(sparse),
            name=f"round {number}",
            seed=seed,
        )
        kind = "retraining" if number == num_rounds else "search"
        history.append(Stage.of(trained, f"round {number}", kind))
    return BaselineResult.of(trained, kept_weights(trained.network), history, data[0][:2])


def _power(density: float | Mapping[str, float], share: float) -> float | dict[str, float]:
    """The density after a share of the rounds."""
    if isinstance(density, Mapping):
        return {name: value**share for name, value in density.items()}
    return float(density**share)


def weight_layers(network: nn.Module) -> dict[str, Any]:
    """Return the layers whose weights are matrices or kernels, by name.

    Args:
        network: The network.
    """
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(weight := getattr(module, "weight", None), nn.Parameter) and weight.ndim > 1
    }


def smallest_weights(network: nn.Module, density: float | Mapping[str, float]) -> dict[str, Tensor]:
    """Return which weights of a network are the smallest, as booleans for each parameter.

    Args:
        network: The network.
        density: Share of the weights that is not among them, of all layers together (rounded down,
            but at least one); or of each layer, by its name, where layers that are not named keep
            all of theirs.

    Raises:
        ValueError: If a density is not in (0, 1] or names an unknown layer.
    """
    # On a copy: torch changes the order of a layer's parameters when pruning is made permanent.
    layers = weight_layers(copy.deepcopy(network))
    by_layer = isinstance(density, Mapping)
    given = dict(density) if isinstance(density, Mapping) else {"the network": density}
    for name, value in given.items():
        if not 0 < value <= 1:
            raise ValueError(f"Expected a density in (0, 1] of {name}, but got {value}.")
    if by_layer:
        unknown = sorted(given.keys() - layers.keys())
        if unknown:
            raise ValueError(f"Expected layers out of {list(layers)}, but got {unknown}.")
        layers = {name: layers[name] for name in given}
        for name, layer in layers.items():
            amount = _number_removed(int(layer.weight.numel()), given[name])
            prune.l1_unstructured(layer, "weight", amount=amount)
    else:
        amount = _number_removed(
            sum(int(layer.weight.numel()) for layer in layers.values()), given["the network"]
        )
        prune.global_unstructured(
            [(layer, "weight") for layer in layers.values()],
            pruning_method=prune.L1Unstructured,
            amount=amount,
        )
    return {
        f"{name}.weight" if name else "weight": layer.weight_mask == 0
        for name, layer in layers.items()
    }


def _number_removed(number: int, density: float) -> int:
    # The share of a power of a root is 0.2499999 in floating point where a quarter is meant.
    return number - max(1, math.floor(density * number * (1 + 1e-9)))


def kept_weights(network: nn.Module) -> Mask:
    """Return which weights of a network are not zero, as a mask of its weights.

    Args:
        network: The network.
    """
    tensors = dict(network.named_parameters())
    kept = {}
    for group in find_edges(network, granularity="weight"):
        tensor = tensors[group.consumers[0].tensor].detach()
        kept[group.name] = (tensor != 0).reshape(group.shape).cpu()
    return Mask(kept, rule="keep the weights that are not zero")
