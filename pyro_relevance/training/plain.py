"""Training of a plain network, without gates, by the loop of ``fit``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from pyro_relevance.edges.edges import Edges
from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.model.priors import PointWeights
from pyro_relevance.training.batches import Data
from pyro_relevance.training.callbacks import Callback, TrainingState
from pyro_relevance.training.checkpoint import Checkpoint
from pyro_relevance.training.schedules import Schedules, cosine
from pyro_relevance.training.settings import (
    Execution,
    Optimisation,
    PlainKeywords,
    check_keywords,
)
from pyro_relevance.training.svi import Fit, fit

__all__ = ["FALLING", "PLAIN", "set_zeros", "train_plain", "with_zeros", "zero_entries"]

FALLING = Schedules(learning_rate=cosine(1.0, 0.01))
"""A learning rate that falls along a cosine to 1 %."""


PLAIN = Optimisation(schedules=FALLING)
"""How plain networks are trained by default."""


def train_plain(
    network: nn.Module,
    data: Data,
    *,
    likelihood: Likelihood,
    num_data: int,
    zeros: Mapping[str, Tensor] | None = None,
    weight_prior: PointWeights = PointWeights(),  # noqa: B008 (a frozen value)
    optimisation: Optimisation = PLAIN,
    execution: Execution = Execution(),  # noqa: B008 (a frozen value)
    augment: Callable[[Tensor], Tensor] | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
    seed: int = 0,
    **keywords: Unpack[PlainKeywords],
) -> Fit:
    """Train a network to the maximum of its posterior, with the settings of ``fit``.

    Args:
        network: The network; it is not changed.
        data: ``(x, y)`` tensors or a map-style data set.
        likelihood: Distribution of the target given the network's outputs.
        num_data: Number of training examples.
        zeros: Parameter -> booleans of its shape, True at entries that must stay zero, see
            `zero_entries`; ``None`` for none.
        weight_prior: Gaussian prior of the weights.
        optimisation: Epochs, batch size, learning rate, optimiser and schedules.
        execution: Device, precision, and whether steps are recorded and replayed.
        augment: Changes the inputs of each minibatch at random, as in ``fit``.
        callbacks: Called after each step.
        checkpoint: Where to write the state and to resume from.
        seed: Seed of minibatches and augmentation.
        keywords: Fields of the two settings, see `PlainKeywords`; each overrides the field of its
            name.

    Raises:
        TypeError, ValueError: As in ``fit``.
    """
    check_keywords("train_plain", keywords, PlainKeywords)
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
        optimisation=optimisation,
        execution=execution,
        augment=augment,
        callbacks=[*([_KeepZeros(zeros)] if zeros else []), *callbacks],
        checkpoint=checkpoint,
        progress=False,
        seed=seed,
        **keywords,
    )


def zero_entries(network: nn.Module) -> dict[str, Tensor]:
    """Return the positions of zeros in the matrices and kernels of a network that have some.

    Args:
        network: A pruned network.
    """
    return {
        name: parameter.detach() == 0
        for name, parameter in network.named_parameters()
        if parameter.ndim > 1 and not bool(parameter.detach().all())
    }


def with_zeros(network: nn.Module, zeros: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a network with zeros at given entries.

    Args:
        network: The network; it is not changed.
        zeros: Parameter -> booleans of its shape, True at the entries to set to zero.
    """
    network = copy.deepcopy(network)
    set_zeros(network, zeros)
    return network


def set_zeros(network: nn.Module, zeros: Mapping[str, Tensor]) -> None:
    """Set entries of a network's parameters to zero, in place.

    Args:
        network: The network.
        zeros: Parameter -> booleans of its shape, True at the entries to set to zero.
    """
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name, entries in zeros.items():
            parameters[name].masked_fill_(entries.to(parameters[name].device), 0.0)


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
