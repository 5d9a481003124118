"""Training of a plain network, without gates: what every comparison has in common."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from pyro_relevance.edges.edges import Edges
from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.model.precision import Precision
from pyro_relevance.model.priors import PointWeights
from pyro_relevance.training.batches import Data
from pyro_relevance.training.callbacks import Callback, TrainingState
from pyro_relevance.training.checkpoint import Checkpoint
from pyro_relevance.training.schedules import Schedules, cosine
from pyro_relevance.training.svi import Fit, fit

__all__ = ["FALLING", "train_plain", "with_zeros", "zero_entries"]

FALLING = Schedules(learning_rate=cosine(1.0, 0.01))
"""A learning rate that falls along a cosine to 1 %."""


def train_plain(
    network: nn.Module,
    data: Data,
    *,
    likelihood: Likelihood,
    num_data: int,
    num_epochs: int,
    batch_size: int | None = 128,
    learning_rate: float = 1e-3,
    zeros: Mapping[str, Tensor] | None = None,
    weight_prior: PointWeights = PointWeights(),  # noqa: B008 (a frozen value)
    schedules: Schedules = FALLING,
    augment: Callable[[Tensor], Tensor] | None = None,
    precision: Precision = Precision(),  # noqa: B008 (a frozen value)
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Fit:
    """Train a network to the maximum of its posterior, with the settings of ``fit``.

    Args:
        network: The network; it is not changed.
        data: ``(x, y)`` tensors or a map-style data set.
        likelihood: Distribution of the target given the network's outputs.
        num_data: Number of training examples.
        num_epochs: Passes over the data.
        batch_size: Examples in a step; ``None`` for all.
        learning_rate: Step size of Adam at the start.
        zeros: For each parameter of which entries must stay zero, booleans of its shape, True at
            these, see `zero_entries`; ``None`` for none.
        weight_prior: Gaussian prior of the weights.
        schedules: Learning-rate factor by progress.
        augment: Changes the inputs of each minibatch at random, as in ``fit``.
        precision: How the network is computed while it is trained.
        callbacks: Called after each step.
        checkpoint: Where to write the state and to resume from.
        seed: Seed of minibatches and augmentation.
        device: Where to train; by default where the network is.

    Raises:
        ValueError: As in ``fit``.
    """
    model = RelevanceModel(
        network,
        _no_edges(network),
        likelihood=likelihood,
        num_data=num_data,
        gate_prior=None,
        weight_prior=weight_prior,
    )
    return fit(
        model,
        data,
        num_epochs=num_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        schedules=schedules,
        augment=augment,
        precision=precision,
        callbacks=[*([_KeepZeros(zeros)] if zeros else []), *callbacks],
        checkpoint=checkpoint,
        seed=seed,
        device=device,
    )


def zero_entries(network: nn.Module) -> dict[str, Tensor]:
    """Return where matrices and kernels of a network are zero, for those that have zeros.

    Args:
        network: The network, cut before.
    """
    return {
        name: parameter.detach() == 0
        for name, parameter in network.named_parameters()
        if parameter.ndim > 1 and not bool(parameter.detach().all())
    }


def with_zeros(network: nn.Module, zeros: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a network with zeros at given places.

    Args:
        network: The network; it is not changed.
        zeros: For each of some parameters, booleans of its shape, True where it is to be zero.
    """
    network = copy.deepcopy(network)
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name, places in zeros.items():
            parameters[name].masked_fill_(places.to(parameters[name].device), 0.0)
    return network


def _no_edges(network: nn.Module) -> Edges:
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in (*network.named_parameters(), *network.named_buffers())
    }
    return Edges((), (), shapes, tuple(name for name, _ in network.named_buffers()))


class _KeepZeros:
    """Writes zeros again after each step."""

    def __init__(self, zeros: Mapping[str, Tensor]) -> None:
        self.zeros = dict(zeros)

    def __call__(self, state: TrainingState) -> None:
        parameters = dict(state.model.network.named_parameters())
        with torch.no_grad():
            for name, zeros in self.zeros.items():
                if zeros.device != parameters[name].device:
                    zeros = self.zeros[name] = zeros.to(parameters[name].device)  # noqa: PLW2901
                parameters[name].masked_fill_(zeros, 0.0)
