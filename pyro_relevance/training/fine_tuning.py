"""Training what a cut left, if wanted: optional, after the method, and reported apart from it.

The cut network computes what the posterior promised. Further training can make it better, but then
it is another network: its result belongs beside that of the cut, not in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.model.precision import Precision
from pyro_relevance.model.priors import PointWeights
from pyro_relevance.posterior.history import History
from pyro_relevance.surgery.pruned_network import PrunedNetwork
from pyro_relevance.training.batches import Data
from pyro_relevance.training.callbacks import Callback
from pyro_relevance.training.checkpoint import Checkpoint
from pyro_relevance.training.plain import FALLING, train_plain, zero_entries
from pyro_relevance.training.schedules import Schedules

__all__ = ["FineTuned", "fine_tune"]


@dataclass(frozen=True, slots=True, eq=False)
class FineTuned:
    """A cut network that was trained further.

    Args:
        network: The network, with the receipt of the cut and a note that it was trained since.
        history: Losses on the way: the negative log posterior in nats.
        seconds: Wall time of the training alone.
    """

    network: PrunedNetwork
    history: History
    seconds: float


def fine_tune(
    pruned: PrunedNetwork,
    data: Data,
    *,
    likelihood: Likelihood,
    num_data: int,
    num_epochs: int = 10,
    batch_size: int | None = 128,
    learning_rate: float = 1e-4,
    weight_prior: PointWeights = PointWeights(),  # noqa: B008 (a frozen value)
    schedules: Schedules = FALLING,
    augment: Callable[[Tensor], Tensor] | None = None,
    precision: Precision = Precision(),  # noqa: B008 (a frozen value)
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> FineTuned:
    """Train a cut network further, with the settings of ``fit`` and without gates.

    Weights that the cut left at zero stay zero, and normalisation statistics move as in any
    training. A network that ``prune`` had to write down as operations keeps its dropout layers, but
    no dropout inside of attention and no stochastic depth.

    Args:
        pruned: What ``prune`` returned; it is not changed.
        data: ``(x, y)`` tensors or a map-style data set.
        likelihood: As of the model that was cut.
        num_data: Number of training examples.
        num_epochs: Passes over the data.
        batch_size: Examples in a step; ``None`` for all.
        learning_rate: Step size of Adam at the start.
        weight_prior: Gaussian prior of the weights.
        schedules: Learning-rate factor by progress; by default a cosine to 1 %.
        augment: Changes the inputs of each minibatch at random, as in ``fit``.
        precision: How the network is computed while it is trained.
        callbacks: Called after each step.
        checkpoint: Where to write the state and to resume from.
        seed: Seed of minibatches and augmentation.
        device: Where to train; by default where the network is.

    Returns:
        The network that was trained further.

    Raises:
        TypeError: If ``pruned`` is no pruned network.
        ValueError: If it has nothing to train, or as in ``fit``.
    """
    if not isinstance(pruned, PrunedNetwork):
        raise TypeError(
            f"Expected what prune() or load_pruned() returned, but got {type(pruned).__name__}. "
            "Train an uncut network as usual."
        )
    if not any(True for _ in pruned.network.parameters()):
        raise ValueError("Expected a network with parameters, but nothing was left by the cut.")
    fitted = train_plain(
        pruned.network,
        data,
        likelihood=likelihood,
        num_data=num_data,
        num_epochs=num_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        zeros=zero_entries(pruned.network),
        weight_prior=weight_prior,
        schedules=schedules,
        augment=augment,
        precision=precision,
        callbacks=callbacks,
        checkpoint=checkpoint,
        seed=seed,
        device=device,
    )
    network = fitted.posterior.network()
    network.train(pruned.network.training)
    note = (
        f"Trained further for {num_epochs} epochs ({fitted.seconds:.0f} s) after the cut: no longer"
        " the function that the posterior promised."
    )
    receipt = replace(pruned.receipt, notes=(*pruned.receipt.notes, note))
    return FineTuned(PrunedNetwork(network, receipt), fitted.history, fitted.seconds)
