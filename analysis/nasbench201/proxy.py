"""The small proxy of NAS-Bench-201 by which searches on images compare cells.

One cell in each stage instead of five, images of 16 x 16 pixels instead of 32 x 32: what a
processor can train in minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_relevance import Edges, Precision, find_edges, likelihoods
from pyro_relevance._random import seeded, substream
from pyro_relevance.comparison.baselines import DartsSettings, Recipe
from pyro_relevance.comparison.baselines.darts import search_operations
from pyro_relevance.comparison.baselines.recipe import seeded_network
from pyro_relevance.data.augmentation import InOrder, RandomCrop, RandomFlip
from pyro_relevance.data.images import cifar10, some
from pyro_relevance.graphs import Architecture, spaces

__all__ = [
    "AUGMENT",
    "LEARNING_RATE",
    "PRECISION",
    "darts_network",
    "darts_probabilities",
    "make_network",
    "make_recipe",
    "small_images",
    "strongest_of_all",
]

PRECISION = Precision(autocast=torch.bfloat16, channels_last=True)
AUGMENT = InOrder((RandomCrop(2), RandomFlip()))
LEARNING_RATE = 3e-3
"""Step size of Adam for all weights but those of DARTS, whose step sizes are its paper's."""


def make_network(full: bool) -> nn.Module:
    """Return the relaxed proxy network.

    Args:
        full: Whether normalisation has statistics and an affine map of its own.
    """
    return spaces.nasbench201_space(10, num_cells=1, affine=full, statistics=full)


def make_recipe(learning_rate: float = LEARNING_RATE) -> Recipe:
    """Return the training of all networks.

    Args:
        learning_rate: Step size of Adam.
    """
    return Recipe(
        likelihoods.Categorical(),
        learning_rate=learning_rate,
        augment=AUGMENT,
        precision=PRECISION,
    )


def small_images(root: str | None, num_data: int) -> tuple[Tensor, Tensor]:
    """Return random training images of CIFAR-10, means of 2 x 2 pixels.

    Args:
        root: Folder of the data.
        num_data: How many images, at most.
    """
    x, y = some(*cifar10(root), num_data)
    return functional.avg_pool2d(x, 2), y


def darts_network(seed: int) -> tuple[nn.Module, Edges]:
    """Return the proxy network that DARTS starts from, and its operations.

    Args:
        seed: Seed of its weights.
    """
    network = seeded_network(lambda: make_network(False), substream(seed, "network"))
    return network, find_edges(network, granularity="operation")


def darts_probabilities(
    network: nn.Module,
    edges: Edges,
    data: tuple[Tensor, Tensor],
    recipe: Recipe,
    num_epochs: int,
    seed: int,
    watch: Callable[[int, Mapping[str, Tensor]], None] | None = None,
) -> dict[str, Tensor]:
    """Search with DARTS of first order; return the probabilities of the operations by edge.

    Args:
        network: The network of `darts_network`; it is trained in place.
        edges: Its operations.
        data: Images and classes.
        recipe: Batch size, augmentation and precision.
        num_epochs: Epochs over the half of the data from which the weights learn.
        seed: Seed of the search.
        watch: Called after each epoch with its number, from 1, and the probabilities.
    """
    with seeded(substream(seed, "darts")), torch.enable_grad():
        logits, _ = search_operations(
            network, edges, data, recipe, num_epochs, DartsSettings(), watch
        )
    return {name: value.softmax(-1) for name, value in logits.items()}


def strongest_of_all(edges: Edges, chances: Mapping[str, Tensor]) -> Architecture:
    """Return the architecture of the most probable operation of each edge, none included.

    Args:
        edges: The edges.
        chances: Probabilities of their operations.
    """
    return Architecture(
        {group.name: group.labels[int(chances[group.name].argmax())] for group in edges.operations}
    )
