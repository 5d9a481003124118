"""Callbacks after a training step: progress bars, early stopping, and those of the user.

A callback is called after each step with a `TrainingState` and may return true to stop the run.
Reading ``loss`` waits for the device; ``every`` keeps that rare. A callback may also have

- ``state() -> dict[str, Tensor]`` and ``load(state)``: what a resumed run needs; ``load({})`` is
  called at the start of every run, so that a callback can be used again;
- ``close()``: called when the run ends, however it ends.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from pyro_relevance.model.inputs import check_finite
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.posterior.history import History
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.training.batches import as_tensors

__all__ = [
    "Callback",
    "EarlyStopping",
    "ProgressBar",
    "ScalarWriter",
    "TensorBoard",
    "TrainingState",
    "every",
    "innermost",
    "watched",
]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingState:
    """The state of a run that a callback is given.

    Args:
        step: Steps taken so far, counted from 1.
        num_steps: Steps of the whole run.
        losses: ``(num_chains,)`` negative ELBO of this step's minibatch in nats, on the device.
        temperature: Present temperature.
        kl_weight: Present weight of the KL.
        history: Records so far.
        model: The model of the first chain.
        make_posterior: Makes a posterior of the present state of all chains (copies the
            parameters).
        time_used: Share of the time of the run that is over, where it has a limit.
    """

    step: int
    num_steps: int
    losses: Tensor
    temperature: float
    kl_weight: float
    history: History
    model: RelevanceModel
    make_posterior: Callable[[], Posterior]
    time_used: float = 0.0

    @property
    def progress(self) -> float:
        """Share of the run that is over, by steps or by time: 1 after the last step."""
        return min(1.0, max(self.step / self.num_steps, self.time_used))

    @property
    def is_last(self) -> bool:
        """Whether this was the last step, as far as it does not depend on a callback."""
        return self.progress >= 1.0

    @property
    def loss(self) -> float:
        """Mean negative ELBO over chains, in nats; waits for the device."""
        return float(self.losses.mean())


LOGGER = logging.getLogger("pyro_relevance")
"""Progress of runs outside of terminals and notebooks, at the level INFO."""


class Callback(Protocol):
    """Called after each step; returns true to stop the run."""

    def __call__(self, state: TrainingState) -> bool | None:
        """Look at the state, and return true to stop the run."""
        ...


def every(num_steps: int, callback: Callback) -> Callback:
    """Return a callback that calls another one now and then, and after the last step.

    Args:
        num_steps: Steps between two calls.
        callback: The callback; its ``state``, ``load`` and ``close`` work as before.

    Raises:
        ValueError: If ``num_steps`` is not positive.
    """
    if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
        raise ValueError(
            f"Expected num_steps to be a positive integer, but got {num_steps!r}. Pass 1 or more."
        )
    return _Every(num_steps, callback)


def innermost(callback: Callback) -> Callback:
    """Return the callback that `every` was given, or the callback itself."""
    while isinstance(callback, _Every):
        callback = callback.callback
    return callback


class _Every:
    """See `every`."""

    def __init__(self, num_steps: int, callback: Callback) -> None:
        self.num_steps = num_steps
        self.callback = callback

    def __call__(self, state: TrainingState) -> bool | None:
        if state.step % self.num_steps == 0 or state.is_last:
            return self.callback(state)
        return None

    def __getattr__(self, name: str) -> Any:
        if name in ("state", "load", "close"):
            return getattr(self.callback, name)
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")


class ProgressBar:
    """A tqdm bar with the ELBO, the temperature and the expected number of kept parameters.

    It is written to the standard error stream where that is a terminal or a notebook. Elsewhere, in
    a file say, a bar would be one endless line: then the same figures go to the logger
    ``pyro_relevance`` (level INFO), one line a minute.

    Args:
        description: Text in front of the bar.
        num_updates: How often the figures are read for the bar, at most.
        bar: Whether a bar is shown; ``None``: in a terminal or a notebook.
        seconds: Time between two lines of the log.

    Raises:
        ValueError: If ``num_updates`` or ``seconds`` is not positive.
    """

    def __init__(
        self,
        description: str = "fit",
        *,
        num_updates: int = 100,
        bar: bool | None = None,
        seconds: float = 60.0,
    ) -> None:
        if num_updates < 1:
            raise ValueError(f"Expected num_updates >= 1, but got {num_updates}. Pass 1 or more.")
        if not seconds > 0.0:
            raise ValueError(f"Expected seconds > 0, but got {seconds}. Pass 60, say.")
        self.description = description
        self.num_updates = num_updates
        self.bar = bar
        self.seconds = seconds
        self._bar: Any = None
        self._started: tuple[float, int] | None = None
        self._logged = 0.0

    def __call__(self, state: TrainingState) -> None:
        """Move the bar, or write a line where it is time to."""
        if self._bar is not None or (watched() if self.bar is None else self.bar):
            self._move(state)
        else:
            self._log(state)

    def _log(self, state: TrainingState) -> None:
        now = time.monotonic()
        if self._started is None:
            self._started, self._logged = (now, state.step), now
        if now - self._logged < self.seconds:
            return
        self._logged = now
        started, first = self._started
        left = (now - started) * (state.num_steps - state.step) / max(1, state.step - first)
        figures = ", ".join(f"{name} {value}" for name, value in _figures(state).items())
        LOGGER.info(
            f"{self.description}: step {state.step} of {state.num_steps} "
            f"({state.progress:.0%}), {figures}, about {left:.0f} s to go"
        )

    def _move(self, state: TrainingState) -> None:
        if self._bar is None:
            from tqdm.auto import tqdm

            # A resumed run starts in the middle; its speed is that of the steps still to take.
            self._bar = tqdm(
                total=state.num_steps, desc=self.description, unit="step", initial=state.step - 1
            )
        if state.step % max(1, state.num_steps // self.num_updates) and not state.is_last:
            return
        self._bar.set_postfix(_figures(state), refresh=False)
        self._bar.update(state.step - self._bar.n)

    def close(self) -> None:
        """End the bar."""
        self._started = None
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class ScalarWriter(Protocol):
    """What is needed of a ``SummaryWriter``."""

    def add_scalar(self, tag: str, value: float, step: int, /) -> Any:
        """Keep one number of a step."""
        ...

    def close(self) -> Any:
        """Write what is left."""
        ...


class TensorBoard:
    """Writes losses, temperature, KL weight and expected sizes for TensorBoard.

    Args:
        where: Folder of the log, which needs the package tensorboard; or a writer with
            ``add_scalar(tag, value, step)`` and ``close()``, which is left open.
        interval: Steps between two entries; reading the losses waits for the device.

    Raises:
        ValueError: If ``interval`` is not positive.
        ImportError: If a folder is given and tensorboard is not installed.
    """

    def __init__(
        self, where: str | os.PathLike[str] | ScalarWriter, *, interval: int = 100
    ) -> None:
        if interval < 1:
            raise ValueError(f"Expected interval >= 1, but got {interval}. Pass 1 or more.")
        self.interval = interval
        self._own = isinstance(where, str | os.PathLike)
        self._writer: Any = where
        if self._own:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ImportError(
                    "Expected the package tensorboard, but it is not installed. Install "
                    "pyro-relevance[tensorboard], or pass a writer."
                ) from error
            self._writer = SummaryWriter(os.fspath(cast("str | os.PathLike[str]", where)))

    def __call__(self, state: TrainingState) -> None:
        """Write the numbers of a step, where it is time to."""
        if state.step % self.interval and not state.is_last:
            return
        for chain, loss in enumerate(state.losses.tolist()):
            self._writer.add_scalar(f"negative ELBO/chain {chain}", loss, state.step)
        self._writer.add_scalar("temperature", state.temperature, state.step)
        self._writer.add_scalar("KL weight", state.kl_weight, state.step)
        if state.history.step.size:
            for chain, size in enumerate(state.history.expected_size[:, -1].tolist()):
                if math.isfinite(size):
                    self._writer.add_scalar(f"expected size/chain {chain}", size, state.step)

    def close(self) -> None:
        """Close the log of a folder; a writer that was given stays open."""
        if self._own:
            self._writer.close()


def watched() -> bool:
    """Return whether someone looks at the standard error stream: a terminal or a notebook."""
    if "ipykernel" in sys.modules:
        return True
    try:
        return bool(sys.stderr.isatty())
    except (AttributeError, ValueError):  # no stream, or a closed one
        return False


def _figures(state: TrainingState) -> dict[str, str]:
    figures = {"ELBO": f"{-state.loss:.4g}", "temperature": f"{state.temperature:.2f}"}
    if state.history.step.size:
        size = state.history.expected_size[:, -1].mean()
        if math.isfinite(size):
            figures["parameters"] = f"{size:.0f}"
    return figures


class EarlyStopping:
    """Stops when the held-out ELBO (with hard gates) has not risen for a while.

    The gates are decided late, while the temperature falls, so nothing is evaluated before
    ``start``. ``fit`` returns the best state of each chain instead of the last one. The last step
    is always evaluated.

    Args:
        valid: Held-out data, a pair ``(x, y)`` or a data set.
        patience: Evaluations without improvement of any chain before a stop.
        interval: Steps between evaluations.
        start: Fraction of the run before the first evaluation.
        num_samples: Draws for each evaluation, the same random numbers each time.

    Raises:
        ValueError: If a number is out of range, or one of the data is not finite.
        TypeError: If the data are of an unknown kind.
    """

    def __init__(
        self,
        valid: Any,
        *,
        patience: int = 10,
        interval: int = 100,
        start: float = 0.5,
        num_samples: int = 16,
    ) -> None:
        if patience < 1 or interval < 1 or num_samples < 1:
            raise ValueError(
                "Expected patience, interval and num_samples >= 1, but got "
                f"{patience}, {interval}, {num_samples}."
            )
        if not 0.0 <= start < 1.0:
            raise ValueError(f"Expected start in [0, 1), a fraction of the run, but got {start}.")
        self.x, self.y = as_tensors(valid)
        check_finite(self.x, "x of valid", "held-out inputs")
        check_finite(self.y, "y of valid", "held-out targets")
        self.patience, self.interval = patience, interval
        self.start, self.num_samples = start, num_samples
        self.best_elbo: Tensor | None = None
        self.best_step: Tensor | None = None
        self.best_state: dict[str, Tensor] | None = None
        self._waited = 0

    def __call__(self, state: TrainingState) -> bool | None:
        """Evaluate if it is time to; return true if no chain has improved for long enough."""
        early = state.progress < self.start or state.step % self.interval
        if early and not state.is_last:
            return None
        posterior = state.make_posterior()
        value = posterior.elbo(self.x, self.y, num_samples=self.num_samples)
        value = torch.where(torch.isfinite(value), value, float("-inf"))
        steps = torch.full_like(value, state.step, dtype=torch.long)
        if self.best_elbo is None or self.best_state is None or self.best_step is None:
            self.best_elbo, self.best_step, self.best_state = value, steps, posterior.state
            return None
        better = value > self.best_elbo
        self.best_elbo = torch.where(better, value, self.best_elbo)
        self.best_step = torch.where(better, steps, self.best_step)
        for name, tensor in posterior.state.items():
            self.best_state[name][better] = tensor[better]
        self._waited = 0 if bool(better.any()) else self._waited + 1
        return self._waited >= self.patience

    def state(self) -> dict[str, Tensor]:
        """Return the state that an interrupted run needs to go on."""
        if self.best_elbo is None or self.best_state is None or self.best_step is None:
            return {}
        return {
            "elbo": self.best_elbo,
            "step": self.best_step,
            "waited": torch.tensor(self._waited),
            **{f"best/{name}": tensor for name, tensor in self.best_state.items()},
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned; nothing starts again.

        Raises:
            ValueError: If it is the state of something else.
        """
        fields = {n.partition("/")[0]: t for n, t in state.items()}
        if state:
            chains = len(fields.get("elbo", torch.empty(0)).reshape(-1))
            known = fields.keys() == {"elbo", "step", "waited", "best"} and not (
                fields["waited"].ndim or fields["step"].is_floating_point()
            )
            if not known or any(
                tensor.shape[:1] != (chains,) for n, tensor in state.items() if n != "waited"
            ):
                raise ValueError(
                    "Expected the state of EarlyStopping (elbo, step, waited, best), but got "
                    f"{sorted(fields)}."
                )
        self._waited = int(state["waited"]) if state else 0
        self.best_elbo, self.best_step = state.get("elbo"), state.get("step")
        best = {n.removeprefix("best/"): t for n, t in state.items() if n.startswith("best/")}
        self.best_state = best or None
