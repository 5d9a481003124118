"""Several runs as one training: what callbacks see, the records, the network that comes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from pyro_relevance.posterior.history import History
from pyro_relevance.surgery.pruned_network import PrunedNetwork
from pyro_relevance.training.callbacks import Callback, TrainingState
from pyro_relevance.training.svi import Fit

__all__ = ["OfPart", "joined", "trained_further"]


class OfPart:
    """A user's callback in a part of the training: steps and progress are those of all of it."""

    def __init__(self, callback: Callback, start: float, end: float) -> None:
        self.callback, self.start, self.end = callback, start, end

    def __call__(self, state: TrainingState) -> bool | None:
        """Show the callback the whole training."""
        share = self.end - self.start
        before = round(state.num_steps * self.start / share)
        return self.callback(
            dataclasses.replace(
                state,
                step=before + state.step,
                num_steps=max(before + state.step, round(state.num_steps / share)),
                time_used=self.start + share * state.time_used,
            )
        )

    def __getattr__(self, name: str) -> object:
        # Each part is a run: a bar would be closed, and a state loaded, three times.
        if name == "close" and self.end == 1.0:
            return getattr(self.callback, name)
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")


def trained_further(small: PrunedNetwork, last: Fit) -> PrunedNetwork:
    """Return a pruned network after its training, with a note.

    Args:
        small: What `prune` returned.
        last: Its training.
    """
    network = last.posterior.network()
    note = (
        f"Trained further for {last.num_steps} steps after pruning, as planned: no longer the "
        "function of the posterior at that moment."
    )
    receipt = dataclasses.replace(small.receipt, notes=(*small.receipt.notes, note))
    return PrunedNetwork(network, receipt)


def joined(histories: Sequence[History]) -> History:
    """Return the records of runs that follow each other.

    Args:
        histories: Their records.
    """
    steps, before = [], 0
    for history in histories:
        steps.append(history.step + before)
        before += int(history.step[-1]) if len(history.step) else 0
    return History(
        np.concatenate(steps),
        np.concatenate([h.loss for h in histories], axis=1),
        np.concatenate([h.temperature for h in histories]),
        np.concatenate([h.kl_weight for h in histories]),
        np.concatenate([h.expected_size for h in histories], axis=1),
    )
