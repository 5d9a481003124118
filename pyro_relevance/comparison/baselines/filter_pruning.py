"""Pruning of filters (channels, units) by the L1 norm of their weights, with retraining.

Ranking and pruning are those of torch-pruning. As in the paper, only channels that a single layer
makes are pruned. Those of a residual stream, to which several layers add, are kept.

References:
    Li, Kadav, Durdanovic, Samet, Graf, Pruning filters for efficient ConvNets, ICLR 2017.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_relevance import masks
from pyro_relevance._random import seeded, substream
from pyro_relevance.comparison.baselines.recipe import Recipe, seeded_network
from pyro_relevance.comparison.baselines.result import BaselineResult, Stage
from pyro_relevance.edges.find import Edges, find_edges
from pyro_relevance.edges.size import num_macs as count_macs
from pyro_relevance.edges.size import num_parameters as count_parameters
from pyro_relevance.masks import Mask
from pyro_relevance.surgery.pruning import prune

__all__ = ["filter_pruning", "prune_filters", "random_channels", "the_limit"]


def filter_pruning(
    make_network: Callable[[], nn.Module],
    data: tuple[Tensor, Tensor],
    *,
    recipe: Recipe,
    num_epochs: float,
    num_epochs_after: float,
    num_parameters: int | None = None,
    num_macs: int | None = None,
    share: float = 0.4,
    seed: int = 0,
) -> BaselineResult:
    """Train, prune the same share of each layer's filters by their norm, and retrain.

    Args:
        make_network: Makes the network with initial weights.
        data: ``x`` of shape ``(num_data, ...)`` and ``y`` of shape ``(num_data, ...)``.
        recipe: How it is trained.
        num_epochs: Epochs before pruning.
        num_epochs_after: Epochs after pruning.
        num_parameters: Largest number of parameters after pruning; or
        num_macs: largest number of multiply-accumulates for one example. Exactly one of them.
        share: Share of the time before pruning, where the recipe has a deadline.
        seed: Seed of everything.

    Returns:
        The small network and the mask of the channels of the dense one.

    Raises:
        ImportError: If torch-pruning is not installed.
        ValueError: If not exactly one limit is given, or it cannot be reached.
    """
    _library()
    the_limit(num_parameters, num_macs)  # before any work
    trained = recipe.train(
        seeded_network(make_network, seed),
        data,
        num_epochs=num_epochs,
        until=recipe.until(share),
        name="dense",
        seed=seed,
    )
    history = [Stage.of(trained, "dense", "training")]
    small, mask = prune_filters(
        trained.network, data[0][:2], num_parameters=num_parameters, num_macs=num_macs
    )
    trained = recipe.train(
        small,
        data,
        num_epochs=num_epochs_after,
        retraining=True,
        until=recipe.deadline,
        name="retraining",
        seed=seed,
    )
    history.append(Stage.of(trained, "retraining", "retraining"))
    return BaselineResult.of(trained, mask, history, data[0][:2])


def random_channels(
    make_network: Callable[[], nn.Module],
    data: tuple[Tensor, Tensor],
    *,
    recipe: Recipe,
    granularity: Sequence[str],
    num_epochs: float,
    num_epochs_after: float,
    num_parameters: int | None = None,
    num_macs: int | None = None,
    seed: int = 0,
) -> BaselineResult:
    """Train a network, keep random channels within a limit, and train it further: a control.

    Args:
        make_network: Makes the network with initial weights.
        data: ``x`` of shape ``(num_data, ...)`` and ``y`` of shape ``(num_data, ...)``.
        recipe: How it is trained.
        granularity: What is removed: inputs, units or channels.
        num_epochs: Epochs of the dense network, 0.4 of the time where the recipe has a deadline.
        num_epochs_after: Epochs after pruning.
        num_parameters: Largest number of parameters after pruning; or
        num_macs: largest number of multiply-accumulates for one example. Exactly one of them.
        seed: Seed of everything.

    Raises:
        ValueError: If not exactly one limit is given, or it cannot be reached.
    """
    the_limit(num_parameters, num_macs)  # before any work
    trained = recipe.train(
        seeded_network(make_network, seed),
        data,
        num_epochs=num_epochs,
        until=recipe.until(0.4),
        name="dense",
        seed=seed,
    )
    edges = find_edges(trained.network, example_input=data[0][:2], granularity=granularity)
    with seeded(substream(seed, "random channels")):
        scores = {group.name: torch.rand(group.shape) for group in edges}
    mask = masks.budget(scores, num_parameters=num_parameters, num_macs=num_macs, edges=edges)
    small = prune(trained.network, edges, mask, example_input=data[0][:2])
    after = recipe.train(
        small.network,
        data,
        num_epochs=num_epochs_after,
        retraining=True,
        until=recipe.deadline,
        name="retraining",
        seed=seed,
    )
    stages = [Stage.of(trained, "dense", "training"), Stage.of(after, "retraining", "retraining")]
    return BaselineResult.of(after, mask, stages, data[0][:2])


def prune_filters(
    network: nn.Module,
    example_input: Tensor,
    *,
    num_parameters: int | None = None,
    num_macs: int | None = None,
) -> tuple[nn.Module, Mask]:
    """Return a smaller network within a limit, and which channels it has.

    Args:
        network: The trained network; it is not changed.
        example_input: ``(num_data, *input_shape)`` input.
        num_parameters: Largest number of parameters after pruning; or
        num_macs: largest number of multiply-accumulates for one example. Exactly one of them.

    Raises:
        ImportError: If torch-pruning is not installed.
        ValueError: If not exactly one limit is given, or it cannot be reached.
    """
    limit = the_limit(num_parameters, num_macs)
    edges = find_edges(network, example_input=example_input, granularity="unit")

    def size(small: nn.Module) -> int:
        return (
            count_macs(small, example_input) if num_parameters is None else count_parameters(small)
        )

    # The largest share of each layer that fits, to a thousandth.
    fits, large = 999, 0
    small, mask = _without(network, edges, example_input, fits / 1000)
    if size(small) > limit:
        raise ValueError(
            f"Expected a limit that can be reached, but got {limit}: with one filter left in each "
            f"layer it is {size(small)}."
        )
    while fits - large > 1:
        middle = (fits + large) // 2
        smaller = _without(network, edges, example_input, middle / 1000)
        if size(smaller[0]) <= limit:
            fits, (small, mask) = middle, smaller
        else:
            large = middle
    return small, mask


def the_limit(num_parameters: int | None, num_macs: int | None) -> int:
    """Return the one limit that is given.

    Args:
        num_parameters: Most parameters, or ``None``.
        num_macs: Most multiply-accumulates, or ``None``.

    Raises:
        ValueError: If not exactly one of them is given.
    """
    given = [limit for limit in (num_parameters, num_macs) if limit is not None]
    if len(given) != 1:
        raise ValueError(
            f"Expected exactly one of num_parameters and num_macs, but got {num_parameters} and "
            f"{num_macs}."
        )
    return given[0]


def _without(
    network: nn.Module, edges: Edges, example_input: Tensor, share: float
) -> tuple[nn.Module, Mask]:
    """Prune a share of the filters of each layer; at least one is kept."""
    library = _library()
    small = copy.deepcopy(network).eval()
    graph = library.DependencyGraph().build_dependency(small, example_input)
    norm = library.importance.GroupMagnitudeImportance(p=1, group_reduction="first")
    steps, kept = [], {}
    # All norms are taken before the first pruning: "independent" pruning in the paper's words.
    for name, layer in _layers(small, edges).items():
        pruner = graph.get_pruner_of_module(layer).prune_out_channels
        everything = list(range(edges[name].num_edges))
        scores = norm(graph.get_pruning_group(layer, pruner, everything))
        amount = min(int(share * len(everything)), len(everything) - 1)
        smallest = scores.argsort(stable=True)[:amount]
        kept[name] = torch.ones(edges[name].shape, dtype=torch.bool)
        kept[name].view(-1)[smallest] = False
        steps.append((layer, pruner, smallest.tolist()))
    for layer, pruner, indices in steps:
        if indices:
            graph.get_pruning_group(layer, pruner, indices).prune()
    rule = f"keep all but the share {share:.3f} of each layer's filters, of the smallest L1 norm"
    return small, Mask(kept, rule=rule)


def _layers(network: nn.Module, edges: Edges) -> dict[str, Any]:
    """Return the layer that makes the channels of each group, where one layer alone does."""
    found = {}
    for group in edges:
        weights = [slot for slot in group.producers if len(edges.shapes[slot.tensor]) > 1]
        if len(weights) == 1 and weights[0].index is None and weights[0].dim == 0:
            layer: Any = network.get_submodule(weights[0].tensor.rpartition(".")[0])
            if layer.weight.shape[0] == group.num_edges:
                found[group.name] = layer
    return found


def _library() -> Any:
    try:
        return importlib.import_module("torch_pruning")
    except ImportError as error:
        raise ImportError(
            "Expected torch-pruning for filter pruning, but it is not installed. Run "
            "python -m pip install 'pyro-relevance[baselines]'."
        ) from error
