"""Training a pruned network further: optional, after the method, and reported apart from it.

The pruned network computes exactly what the masked network computes. Further training can make it
better, but the result is another network: report it beside that of pruning, not instead of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Unpack

from torch import Tensor

from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.model.priors import PointWeights
from pyro_relevance.posterior.history import History
from pyro_relevance.surgery.pruned_network import PrunedNetwork
from pyro_relevance.training.batches import Data
from pyro_relevance.training.callbacks import Callback
from pyro_relevance.training.checkpoint import Checkpoint
from pyro_relevance.training.plain import FALLING, train_plain, zero_entries
from pyro_relevance.training.settings import (
    Execution,
    FitSettings,
    Optimisation,
    PlainKeywords,
    check_keywords,
)
from pyro_relevance.training.svi import Fit

__all__ = ["FineTuned", "fine_tune"]


@dataclass(frozen=True, slots=True, eq=False)
class FineTuned:
    """A pruned network that was trained further.

    Args:
        network: The network, with the receipt of pruning and a note that it was trained further.
        history: Losses on the way: the negative log posterior in nats.
        seconds: Wall time of the training alone.
    """

    network: PrunedNetwork
    history: History
    seconds: float


GENTLE = Optimisation(num_epochs=10, learning_rate=1e-4, schedules=FALLING)
"""How a pruned network is trained further by default: briefly, by small steps."""


def fine_tune(
    pruned: PrunedNetwork,
    data: Data,
    *,
    likelihood: Likelihood,
    num_data: int,
    weight_prior: PointWeights = PointWeights(),  # noqa: B008 (a frozen value)
    optimisation: Optimisation = GENTLE,
    execution: Execution = Execution(),  # noqa: B008 (a frozen value)
    augment: Callable[[Tensor], Tensor] | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
    seed: int = 0,
    **keywords: Unpack[PlainKeywords],
) -> FineTuned:
    """Train a pruned network further, with the settings of ``fit`` and without gates.

    Weights that pruning set to zero stay zero. Normalisation statistics are updated as in any
    training. A network that ``prune`` wrote down as a list of operations has its dropout layers,
    but no dropout inside of attention and no stochastic depth.

    Args:
        pruned: What ``prune`` returned; it is not changed.
        data: ``(x, y)`` tensors or a map-style data set.
        likelihood: As of the model that was pruned.
        num_data: Number of training examples.
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
        TypeError: If ``pruned`` is no pruned network, or as in ``fit``.
        ValueError: If it has nothing to train, or as in ``fit``.
    """
    check_keywords("fine_tune", keywords, PlainKeywords)
    _check_trainable(pruned)
    settings = FitSettings(optimisation, execution=execution).updated(keywords)
    fitted = train_plain(
        pruned.network,
        data,
        likelihood=likelihood,
        num_data=num_data,
        zeros=zero_entries(pruned.network),
        weight_prior=weight_prior,
        optimisation=settings.optimisation,
        execution=settings.execution,
        augment=augment,
        callbacks=callbacks,
        checkpoint=checkpoint,
        seed=seed,
    )
    most = "" if settings.optimisation.max_seconds == math.inf else "at most "
    return _with_note(pruned, fitted, f"{most}{settings.optimisation.num_epochs} epochs")


def _check_trainable(pruned: PrunedNetwork) -> None:
    if not isinstance(pruned, PrunedNetwork):
        raise TypeError(
            f"Expected what prune() or load_pruned() returned, but got {type(pruned).__name__}. "
            "Train an uncut network as usual."
        )
    if not any(True for _ in pruned.network.parameters()):
        raise ValueError("Expected a network with parameters, but nothing was left by pruning.")


def _with_note(pruned: PrunedNetwork, fitted: Fit, length: str) -> FineTuned:
    network = fitted.posterior.network()
    network.train(pruned.network.training)
    note = (
        f"Trained further for {length} ({fitted.seconds:.0f} s) after pruning: no longer the "
        "function that the posterior promised."
    )
    receipt = replace(pruned.receipt, notes=(*pruned.receipt.notes, note))
    return FineTuned(PrunedNetwork(network, receipt), fitted.history, fitted.seconds)
