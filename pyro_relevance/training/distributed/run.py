"""One fit in several processes: each has a share of the examples, and noise of its own.

The gradients are averaged over the processes after each step, so that parameters and optimiser are
the same everywhere. That is what ``DistributedDataParallel`` does; it is not used itself, because a
step is not a call of a module: chains are vectorised, and recorded steps are replayed.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_relevance._files import tensors_below
from pyro_relevance._random import substream
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.training.callbacks import ProgressBar, innermost
from pyro_relevance.training.checkpoint import alone_with
from pyro_relevance.training.distributed.ranks import Ranks
from pyro_relevance.training.run import TrainingRun
from pyro_relevance.training.snapshots import KeptState

__all__ = ["DistributedRun"]

_OWN = ("batches/", "generator/", "held_out/")
"""Parts of a state that each process has for itself."""


class DistributedRun(TrainingRun):
    """A run of several processes; the first one writes, shows and decides.

    Chains start from the parameters of the first process. Draws of gates, weights and minibatches
    are each process's own. Statistics of BatchNorm are those of the first process.
    """

    ranks: Ranks
    may_stop: bool

    @classmethod
    def of(cls, ranks: Ranks, seed: int, *arguments: Any, **keywords: Any) -> DistributedRun:
        """Return a run before its first step, with this process's own random numbers.

        Args:
            ranks: The processes.
            seed: Seed of the run.
            arguments: As of `TrainingRun`.
            keywords: As of `TrainingRun`.

        Raises:
            ValueError: If the processes made different calls.
        """
        run = cls(*arguments, **keywords)
        run.ranks = ranks
        run.program.load(ranks.first_says(run.program.state()))
        others = [c for c in run.callbacks if not isinstance(innermost(c), ProgressBar)]
        stops = bool(others) or run.max_seconds < math.inf
        calls = ranks.gathered((run.num_steps, run.checkpoint is None, stops))
        if len({call[:2] for call in calls}) > 1:
            raise ValueError(
                "Expected the same call in all processes, but their steps, and whether there is no "
                f"checkpoint, are {[call[:2] for call in calls]}."
            )
        run.may_stop = any(call[2] for call in calls)
        if ranks.rank > 0:
            run.callbacks = others
            torch.manual_seed(substream(seed, f"process {ranks.rank}"))
        return run

    def together(self, losses: Tensor) -> Tensor:
        """Average gradients and losses over the processes."""
        groups: dict[torch.dtype, list[Tensor]] = {losses.dtype: [losses]}
        for _, parameter in self._parameters:
            if parameter.grad is not None:
                groups.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        for tensors in groups.values():
            self.ranks.average(tensors)
        return losses

    def agree(self) -> None:
        """Take over the clock of the first process, and its wish to stop."""
        if self.may_stop:
            self._time_used, self.stopped = self.ranks.first_says((self._time_used, self.stopped))

    def result_of_first(
        self, posterior: Posterior, held_out: Tensor | None
    ) -> tuple[Posterior, Tensor | None]:
        """Return the first process's result, which early stopping has chosen by its own draws.

        Args:
            posterior: This process's.
            held_out: Its best held-out ELBO.
        """
        state, held_out = self.ranks.first_says((dict(posterior.state), held_out))
        self.ranks.leave()
        posterior = Posterior(posterior.model, posterior.guide, state, history=self.history)
        return posterior, held_out

    def _alone(self) -> AbstractContextManager[Any]:
        if self.checkpoint is None or self.ranks.rank > 0:
            return nullcontext()
        return alone_with(self.checkpoint)

    def _keep(self, good: KeptState) -> None:
        trained = {name for name, _ in self._parameters}
        views = self.program.views()
        if buffers := [tensor for name, tensor in views.items() if name not in trained]:
            self.ranks.copy_first(buffers)
            self.program.load(views)  # these are copies where chains are apart
        super()._keep(good)

    def _found(self, path: Path) -> dict[str, Tensor] | None:
        """Read the state in the first process, and take this one's part of it."""
        found = self.ranks.first_does(lambda: super(DistributedRun, self)._found(path))
        if found is None:
            return None
        own = tensors_below(f"process{self.ranks.rank}/", found)
        shared = {n: t for n, t in found.items() if not n.startswith(("process", *_OWN))}
        return shared | own

    def _is_due(self, due: bool) -> bool:
        """The clock of the first process decides."""
        return self.ranks.first_says(due)

    def _save(self, state: dict[str, Tensor], path: Path) -> None:
        """Write the states of all processes in the first one."""
        own = {name: tensor for name, tensor in state.items() if name.startswith(_OWN)}
        shared = {name: tensor for name, tensor in state.items() if name not in own}
        for rank, of_rank in enumerate(self.ranks.gathered(own)):
            shared |= {f"process{rank}/{name}": tensor for name, tensor in of_rank.items()}
        self.ranks.first_does(lambda: super(DistributedRun, self)._save(shared, path))

    def _write_last(self, good: KeptState) -> None:
        """Write nothing: an interrupt may have reached this process alone."""
