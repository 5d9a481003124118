r"""DARTS: weights and a mixture over operations learned in turn by gradients, on two data sets.

The weights :math:`w` learn from one half of the data, the logits :math:`\alpha` of the operations
from the other:

.. math::
    \alpha \leftarrow \alpha - \nabla_\alpha L_{val}(w - \xi \nabla_w L_{train}(w, \alpha), \alpha)

with :math:`\xi = 0` in first order and the step size of the weights in second order, where the
gradient is taken through the unrolled step exactly (the paper approximates the product with the
Hessian by a finite difference, eq. 8).

References:
    Liu, Simonyan, Yang, DARTS: differentiable architecture search, ICLR 2019, algorithm 1 and
    section 3.1.1 (step sizes).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pyro_relevance._random import seeded, substream
from pyro_relevance.comparison.baselines.recipe import Recipe, seeded_network
from pyro_relevance.comparison.baselines.result import BaselineResult, Stage
from pyro_relevance.comparison.baselines.searching import train_architecture
from pyro_relevance.data.splits import split_examples
from pyro_relevance.edges.edges import Edges
from pyro_relevance.edges.find import find_edges
from pyro_relevance.graphs.architectures import Architecture
from pyro_relevance.model.likelihoods import moved

__all__ = [
    "DartsSettings",
    "Order",
    "darts",
    "search_gradient",
    "search_operations",
    "strongest_operations",
]

Order = Literal["first", "second"]


@dataclass(frozen=True)
class DartsSettings:
    """Settings of the search, by default those of the paper.

    Args:
        order: ``"first"`` or ``"second"``.
        learning_rate: Step size of the weights at the start; a cosine takes it to a twenty-fifth.
        momentum: Of the weights.
        weight_decay: Of the weights.
        max_norm: Gradients of the weights are clipped to this norm.
        operation_learning_rate: Step size of Adam for the logits of the operations.
        operation_weight_decay: Of these logits.
        held_out: Share of the data from which the logits learn.

    Raises:
        ValueError: If the order is unknown or a share is not in (0, 1).
    """

    order: Order = "first"
    learning_rate: float = 0.025
    momentum: float = 0.9
    weight_decay: float = 3e-4
    max_norm: float = 5.0
    operation_learning_rate: float = 3e-4
    operation_weight_decay: float = 1e-3
    held_out: float = 0.5

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise ValueError(f"Expected order from {list(get_args(Order))}, got {self.order!r}.")
        if not 0 < self.held_out < 1:
            raise ValueError(f"Expected held_out in (0, 1), but got {self.held_out}.")


def strongest_operations(edges: Edges, probability: Mapping[str, Tensor]) -> Architecture:
    """Return the architecture of the most probable operation other than ``none`` on each edge.

    Args:
        edges: Its operations.
        probability: Group -> ``(num_operations,)``.
    """
    chosen = {}
    for group in edges.operations:
        ranked = [
            (float(chance), label)
            for chance, label in zip(probability[group.name], group.labels, strict=True)
            if label != "none"
        ]
        chosen[group.name] = max(ranked, key=lambda pair: pair[0])[1]
    return Architecture(chosen)


def darts(
    make_network: Callable[[bool], nn.Module],
    data: tuple[Tensor, Tensor],
    *,
    recipe: Recipe,
    num_epochs: float,
    num_epochs_after: int,
    settings: DartsSettings = DartsSettings(),  # noqa: B008 (a frozen value)
    rule: Callable[[Edges, Mapping[str, Tensor]], Architecture] = strongest_operations,
    seed: int = 0,
) -> BaselineResult:
    """Search by gradients, derive the architecture and train it from initial weights.

    Args:
        make_network: Makes the relaxed network, as of ``search_structure``.
        data: ``x`` of shape ``(num_data, ...)`` and ``y`` of shape ``(num_data, ...)``.
        recipe: How the derived network is trained; batch size, augmentation and precision are
            those of the search too.
        num_epochs: Epochs of the search over the part from which the weights learn; they need not
            be whole.
        num_epochs_after: Epochs of the derived network over all data.
        settings: Settings of the search.
        rule: From probabilities to an architecture; ``graphs.spaces.top_edges`` for the space of
            the paper.
        seed: Seed of everything.

    Returns:
        The derived network and its architecture.

    Raises:
        ArchitectureError: If the architecture leaves no path from input to output.
    """
    started = time.perf_counter()
    network = seeded_network(lambda: make_network(False), substream(seed, "network"))
    edges = find_edges(network, granularity="operation")
    with seeded(substream(seed, "darts")), torch.enable_grad():
        logits, loss = search_operations(network, edges, data, recipe, num_epochs, settings)
    probability = {name: logits[name].softmax(-1) for name in logits}
    architecture = rule(edges, probability)
    stage = Stage("darts", "search", num_epochs, time.perf_counter() - started, loss)
    return train_architecture(
        make_network,
        architecture,
        data,
        recipe=recipe,
        num_epochs=num_epochs_after,
        history=[stage],
        seed=seed,
    )


def search_operations(
    network: nn.Module,
    edges: Edges,
    data: tuple[Tensor, Tensor],
    recipe: Recipe,
    num_epochs: float,
    settings: DartsSettings,
    watch: Callable[[int, Mapping[str, Tensor]], None] | None = None,
) -> tuple[dict[str, Tensor], float]:
    """Train weights and logits in turn.

    Args:
        network: The relaxed network; it is trained in place.
        edges: Its operations.
        data: ``x`` of shape ``(num_data, ...)`` and ``y`` of shape ``(num_data, ...)``.
        recipe: Batch size, augmentation and precision.
        num_epochs: Epochs over the part from which the weights learn; they need not be whole.
        settings: Settings of the search.
        watch: Called after each epoch with its number, from 1, and the probabilities of the
            operations by group.

    Returns:
        The logits of the operations by group, and the last loss of the held-out half.
    """
    train, held_out = split_examples(data, settings.held_out)
    supernet = _Supernet(network, edges, recipe, train[0].device)
    of_weights, of_operations = _optimizers(supernet, settings)
    held = _batches(*held_out, recipe)
    steps_per_epoch = math.ceil(len(train[0]) / recipe.batch_size)
    num_steps = max(1, round(num_epochs * steps_per_epoch))
    last = torch.tensor(float("nan"))
    for step, batch in zip(range(num_steps), _batches(*train, recipe), strict=False):
        rate = settings.learning_rate * (
            0.04 + 0.96 * 0.5 * (1 + math.cos(math.pi * step / num_steps))
        )
        for group in of_weights.param_groups:
            group["lr"] = rate
        last, gradients = search_gradient(
            supernet.loss,
            supernet.weights,
            supernet.logits,
            batch,
            next(held),
            unrolled=rate if settings.order == "second" else 0.0,
        )
        for name, tensor in supernet.logits.items():
            tensor.grad = gradients[name]
        of_operations.step()
        of_weights.zero_grad()
        supernet.loss(supernet.weights, supernet.fixed_logits(), *batch).backward()
        nn.utils.clip_grad_norm_(supernet.weights.values(), settings.max_norm)
        of_weights.step()
        if watch is not None and (step + 1) % steps_per_epoch == 0:
            chances = {name: t.softmax(-1) for name, t in supernet.fixed_logits().items()}
            watch((step + 1) // steps_per_epoch, chances)
    return supernet.fixed_logits(), float(last)


class _Supernet:
    """A relaxed network with its weights, and logits of its operations that are near zero."""

    def __init__(
        self, network: nn.Module, edges: Edges, recipe: Recipe, device: torch.device
    ) -> None:
        self.network, self.edges, self.recipe = network.train(), edges, recipe
        self.likelihood = moved(recipe.likelihood, device)
        self.weights = dict(network.named_parameters())
        self.logits = {
            g.name: torch.zeros(g.num_edges, device=device, requires_grad=True)
            for g in edges.operations
        }
        for tensor in self.logits.values():
            tensor.data.normal_(std=1e-3)

    def fixed_logits(self) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in self.logits.items()}

    def loss(
        self, weights: Mapping[str, Tensor], logits: Mapping[str, Tensor], x: Tensor, y: Tensor
    ) -> Tensor:
        """Mean negative log likelihood in nats."""
        gates = {name: value.softmax(-1) for name, value in logits.items()}
        tensors = {**weights, **self.edges.fold_operations(gates)}
        precision = self.recipe.precision
        with precision.context(x.device):
            outputs = functional_call(self.network, tensors, (precision.arrange(x),))
        return -self.likelihood(outputs.float()).log_prob(y).mean()


def _optimizers(
    supernet: _Supernet, settings: DartsSettings
) -> tuple[torch.optim.SGD, torch.optim.Adam]:
    """Optimisers of the weights and of the operations."""
    of_weights = torch.optim.SGD(
        supernet.weights.values(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    of_operations = torch.optim.Adam(
        supernet.logits.values(),
        lr=settings.operation_learning_rate,
        betas=(0.5, 0.999),
        weight_decay=settings.operation_weight_decay,
    )
    return of_weights, of_operations


def search_gradient(
    loss: Callable[[Mapping[str, Tensor], Mapping[str, Tensor], Tensor, Tensor], Tensor],
    weights: Mapping[str, Tensor],
    logits: Mapping[str, Tensor],
    train: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
    *,
    unrolled: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Return the held-out loss and its gradient with respect to the logits of the operations.

    .. math::
        \nabla_\alpha L_{val}(w - \xi \nabla_w L_{train}(w, \alpha), \alpha)

    Args:
        loss: Mean loss of ``(weights, logits, x, y)``.
        weights: The weights :math:`w` by name.
        logits: The logits :math:`\alpha` by group.
        train: A minibatch from which the weights learn.
        held_out: A minibatch from which the logits learn.
        unrolled: :math:`\xi`, the step size of the unrolled step of the weights; 0 for first order.
    """
    moved: Mapping[str, Tensor] = {name: tensor.detach() for name, tensor in weights.items()}
    if unrolled:
        inner = loss(weights, logits, *train)
        gradients = torch.autograd.grad(
            inner, list(weights.values()), create_graph=True, allow_unused=True
        )
        moved = {
            name: tensor if gradient is None else tensor - unrolled * gradient
            for (name, tensor), gradient in zip(weights.items(), gradients, strict=True)
        }
    outer = loss(moved, logits, *held_out)
    found = torch.autograd.grad(outer, list(logits.values()))
    return outer.detach(), dict(zip(logits, found, strict=True))


def _batches(x: Tensor, y: Tensor, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield augmented minibatches without end."""
    while True:
        for rows in torch.randperm(len(x), device=x.device).split(recipe.batch_size):
            images = x[rows]
            yield images if recipe.augment is None else recipe.augment(images), y[rows]
