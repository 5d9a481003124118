"""One run of the training loop: steps, history, checkpoints, and the search for a failed loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyro_relevance._files import tensors_below
from pyro_relevance.errors import CheckpointError, DivergenceError
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.posterior.history import History, check_arrays
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.training.batches import Batches
from pyro_relevance.training.callbacks import Callback, TrainingState
from pyro_relevance.training.checkpoint import (
    Checkpoint,
    alone_with,
    read_checkpoint,
    write_checkpoint,
)
from pyro_relevance.training.divergence import all_finite, first_bad_site, first_bad_tensor
from pyro_relevance.training.programs.adam import Adam
from pyro_relevance.training.programs.chains import Program
from pyro_relevance.training.programs.replay import ReplayedProgram
from pyro_relevance.training.programs.sizes import SizeOfProgram
from pyro_relevance.training.programs.two_levels import TwoLevelProgram
from pyro_relevance.training.schedules import Schedules
from pyro_relevance.training.snapshots import (
    KeptState,
    check_snapshot,
    generator_state,
    load_optimizer,
    optimizer_state,
    set_generator_state,
    to_host,
)

__all__ = ["TrainingRun"]

NUM_RECORDS = 200
"""Records of a long run."""
MIN_INTERVAL, MIN_RECORDS = 50, 20
"""Steps between two records of a shorter run, and how many records a still shorter one has."""
DIVERGED = 1e3
"""A run has diverged when a record's loss exceeds the first record's by this factor."""


@dataclass(eq=False)
class TrainingRun:
    """The mutable state of a run; ``fit`` makes one, executes it, and makes a `Fit` of it.

    Args:
        program: The chains.
        optimizer: Over the program's parameters; its groups carry ``initial_lr``.
        batches: The data.
        schedules: Temperature, KL weight and learning-rate factor.
        num_steps: Length of the run.
        callbacks: Called after each step.
        checkpoint: Where the state is written, or ``None``.
        run: Fingerprint of the run.
        max_seconds: Wall time after which the run ends.
    """

    program: Program
    optimizer: Optimizer
    batches: Batches
    schedules: Schedules
    num_steps: int
    callbacks: Sequence[Callback] = ()
    checkpoint: Checkpoint | None = None
    run: str = ""
    max_seconds: float = math.inf
    step: int = 0
    history: History = field(init=False)
    seconds: float = 0.0
    stopped: bool = False

    def __post_init__(self) -> None:
        """Start with empty records."""
        self.device = self.batches.x.device
        self.history = History.empty(self.batches.num_chains)
        self._models: list[Any] = [module.model for module in self.program.modules]
        self._interval = interval_of_records(self.num_steps)
        num_records = self.num_steps // self._interval
        self._size = SizeOfProgram(self.program, self.batches.num_chains, num_records)
        self._parameters = self.program.named_parameters()
        self._update: Callable[[], Any] = self.optimizer.step
        if isinstance(self.optimizer, Adam):
            self._update = self.optimizer.update
        self._losses: list[Tensor] = []
        self._last_write = time.monotonic()
        self._written, self._is_kept = 0, False
        self._time_used = 0.0

    def execute(self) -> None:
        """Take the remaining steps; after an interrupt, the state of the last record is written.

        Raises:
            DivergenceError: If a loss or a parameter is not finite, or a loss explodes; the run is
                then back at its last good record.
            CheckpointError: If the checkpoint is damaged or belongs to another run.
            InUseError: If another process, or another run of this one, has the checkpoint.
            OSError: If the checkpoint cannot be written; the previous one is kept.
        """
        with self._alone():
            self._execute()

    def _alone(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.checkpoint is None else alone_with(self.checkpoint)

    def _execute(self) -> None:
        self._resume()
        levels = self.program.levels if isinstance(self.program, TwoLevelProgram) else ()
        for program in (self.program, *levels):
            if isinstance(program, ReplayedProgram):
                program.num_taken = self.step
        started, before = time.monotonic(), self.seconds
        self._time_used = before / self.max_seconds
        good = KeptState()
        self._keep(good)
        try:
            self._take_steps(good, started, before)
        except KeyboardInterrupt:
            self._write_last(good)
            raise
        self.seconds = before + time.monotonic() - started
        self._write(force=True)

    def _take_steps(self, good: KeptState, started: float, before: float) -> None:
        """Take the remaining steps, and keep the state of each record in ``good``."""
        while self.step < self.num_steps and not self.stopped:
            losses = self.take_step()
            self.step += 1
            self._losses.append(losses)
            self._time_used = (before + time.monotonic() - started) / self.max_seconds
            due = len(self._losses) == self._interval or self.step == self.num_steps
            if due:
                self._record(good)
            # Every callback sees every step, even when one of them asks to stop.
            state = self._state(losses)
            asked = [bool(callback(state)) for callback in self.callbacks]
            self.stopped = any(asked) or self._time_used >= 1
            self.agree()
            if self.stopped and not due:
                self._record(good)
            if due or self.stopped:
                self.seconds = before + time.monotonic() - started
                self._keep(good)
                self._write()

    def take_step(self) -> Tensor:
        """Take one step without waiting for the device, and return the losses ``(num_chains,)``."""
        factor, of_gates = self._anneal(self.step)
        for group in self.optimizer.param_groups:
            own = of_gates if group.get("gates") else 1.0
            group["lr"] = group["initial_lr"] * factor * own
            for parameter in group["params"]:
                parameter.grad = None
        x, y, per_chain = self.batches.next()
        losses = self.together(self.program.backward(x, y, per_chain, self._kl_weight))
        self._update()
        return losses

    def together(self, losses: Tensor) -> Tensor:
        """Change gradients and losses before the parameters move; here they are final."""
        return losses

    def agree(self) -> None:
        """Decide whether the run stops; here this process alone decides."""

    def _anneal(self, step: int) -> tuple[float, float]:
        """Set temperature and KL weight of a step; return the factors of its learning rates."""
        progress = min(1.0, max(step / max(1, self.num_steps - 1), self._time_used))
        self._temperature = self.schedules.temperature(progress)
        self._kl_weight = self.schedules.kl_weight(progress)
        for model in self._models:
            model.set_mode(temperature=self._temperature)
        of_gates = self.schedules.gate_learning_rate(progress)
        if isinstance(self.program, TwoLevelProgram):
            self.program.gates_move = of_gates > 0
        return self.schedules.learning_rate(progress), of_gates

    def make_posterior(self) -> Posterior:
        """Return a posterior of the present state of all chains."""
        guide: Any = self.program.modules[0].guide
        return Posterior(self._models[0], guide, self.program.state(), history=self.history)

    def snapshot(self) -> dict[str, Tensor]:
        """Return copies of everything that the rest of the run depends on, on the host."""
        return to_host(self._changing() | self._others()(), "")

    def _keep(self, good: KeptState) -> None:
        """Make the present state the one to fall back on.

        It is that of each record, so that it does not depend on the clock where a failed run ends.
        """
        self._is_kept = False  # an interrupt in between leaves parts of two states
        good.keep(self._changing(), self._others())
        self._is_kept = True

    def _changing(self) -> dict[str, Tensor]:
        """Return the part of the state that steps and callbacks change in place."""
        tensors = {f"program/{name}": t for name, t in self.program.views().items()}
        tensors |= {f"optimizer/{name}": t for name, t in optimizer_state(self.optimizer).items()}
        for index, callback in enumerate(self.stateful()):
            tensors |= {f"callback{index}/{name}": t for name, t in callback.state().items()}
        return tensors

    def _others(self) -> Callable[[], dict[str, Tensor]]:
        """Return a function that describes the rest of the state as it is now."""
        parts = {"batches": self.batches.state(), "generator": generator_state(self.device)}
        if isinstance(self.program, TwoLevelProgram):
            parts["held_out"] = self.program.held_out.state()
        history, step, seconds, stopped = self.history, self.step, self.seconds, self.stopped

        def describe() -> dict[str, Tensor]:
            tensors = {f"{part}/{n}": t for part, found in parts.items() for n, t in found.items()}
            arrays = history.to_arrays()
            tensors |= {f"history/{name}": torch.from_numpy(a) for name, a in arrays.items()}
            tensors["run/step"] = torch.tensor(step)
            tensors["run/seconds"] = torch.tensor(seconds, dtype=torch.float64)
            tensors["run/stopped"] = torch.tensor(stopped)
            return tensors

        return describe

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go back to a snapshot."""
        self.program.load(tensors_below("program/", tensors))
        load_optimizer(self.optimizer, tensors_below("optimizer/", tensors))
        self.batches.load(tensors_below("batches/", tensors))
        set_generator_state(self.device, tensors_below("generator/", tensors))
        if isinstance(self.program, TwoLevelProgram):
            self.program.held_out.load(tensors_below("held_out/", tensors))
        self.history = History.from_arrays(
            {name: tensor.numpy() for name, tensor in tensors_below("history/", tensors).items()}
        )
        for index, callback in enumerate(self.stateful()):
            state = tensors_below(f"callback{index}/", tensors)
            callback.load({name: t.to(self.device, copy=True) for name, t in state.items()})
        self.step = int(tensors["run/step"])
        self.seconds = float(tensors["run/seconds"])
        self.stopped = bool(tensors["run/stopped"])
        self._losses = []
        self._anneal(max(0, self.step - 1))

    def stateful(self) -> list[Any]:
        """Return the callbacks that have a state."""
        return [c for c in self.callbacks if hasattr(c, "state") and hasattr(c, "load")]

    def _state(self, losses: Tensor) -> TrainingState:
        model: RelevanceModel = self._models[0]
        return TrainingState(
            self.step,
            self.num_steps,
            losses,
            self._temperature,
            self._kl_weight,
            self.history,
            model,
            self.make_posterior,
            self._time_used,
        )

    def _record(self, good: KeptState) -> None:
        """Read the losses since the last record; this is where the loop waits for the device."""
        loss = torch.stack(self._losses, dim=1).double().mean(dim=1).cpu()
        if not self._is_sound(loss.tolist()):
            self._fail(good)
        self._losses = []
        self.history = self.history.append(
            step=self.step,
            loss=loss.numpy(),
            temperature=self._temperature,
            kl_weight=self._kl_weight,
            expected_size=self._size(),
        )

    def _is_sound(self, losses: Sequence[float]) -> bool:
        """Return whether the mean losses since the last record, and all parameters, are finite."""
        first = self.history.loss[:, 0].tolist() if self.history.step.size else losses
        for loss, start in zip(losses, first, strict=True):
            if not (math.isfinite(loss) and loss <= DIVERGED * max(abs(start), 1.0)):
                return False
        return all_finite(self._parameters)

    def _fail(self, good: KeptState) -> NoReturn:
        failed = self.step
        self.restore(good.tensors)
        name, what, chain, step = self._locate(failed)
        self.restore(good.tensors)
        self._write(force=True)
        where = f" of chain {chain}" if self.batches.num_chains > 1 else ""
        raise DivergenceError(
            f"Expected a finite, bounded loss, but {what} '{name}'{where} was not at step {step}. "
            f"The state of step {self.step} was kept (error.fit). Use a smaller learning rate, "
            "scale the inputs and targets, or start the KL weight lower.",
            site=name,
            step=step,
        )

    def _locate(self, failed: int) -> tuple[str, str, int, int]:
        """Repeat the steps since the last record; return the fault's name, kind, chain and step."""
        while True:
            before = self.program.state()
            generators, position = generator_state(self.device), self.batches.state()
            losses = self.take_step()
            sound = bool(torch.isfinite(losses).all())
            if not sound or self.step == failed - 1:
                break
            self.step += 1
        # Without a loss that is not finite, the largest one has exploded or broke the parameters.
        chain = int(torch.where(torch.isfinite(losses), losses, float("inf")).argmax())
        after = self.program.state()
        for step, states in ((self.step, before), *([(self.step + 1, after)] if sound else [])):
            for index in dict.fromkeys((chain, *range(self.batches.num_chains))):
                bad = first_bad_tensor((name, t[index]) for name, t in states.items())
                if bad is not None:
                    return bad, "parameter", index, step
        set_generator_state(self.device, generators)
        self.batches.load(position)
        x, y, per_chain = self.batches.next()
        pair = (x[chain], y[chain]) if per_chain else (x, y)
        state = {name: tensor[chain] for name, tensor in before.items()}
        site = first_bad_site(self.program.modules[0], state, *pair, self._kl_weight)
        return site or "loss", "site", chain, self.step

    def _resume(self) -> None:
        for callback in self.stateful():
            callback.load({})
        if self.checkpoint is None:
            return
        path = Path(self.checkpoint.path)
        found = self._found(path)
        if found is None:
            return
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        arrays = {n: t.numpy() for n, t in tensors_below("history/", found).items()}
        try:
            check_snapshot(found, self.snapshot(), parameters, self.num_steps)
            check_arrays(arrays, num_chains=self.batches.num_chains, path=path)
            self.restore(found)
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"Expected the state of this run in {path}, but it does not fit: {error}. Delete "
                "it to start again."
            ) from error

    def _found(self, path: Path) -> dict[str, Tensor] | None:
        """Return the state in the file, or ``None`` where there is none."""
        found = read_checkpoint(path, self.run)
        return None if found is None else found[0]

    def _write(self, *, force: bool = False) -> None:
        """Write the state where it is time to; only then is it copied to the host."""
        if self.checkpoint is None:
            return
        waited = time.monotonic() - self._last_write
        if self._is_due(force or waited >= self.checkpoint.interval):
            self._save(self.snapshot(), Path(self.checkpoint.path))
            self._written = self.step
            self._last_write = time.monotonic()

    def _is_due(self, due: bool) -> bool:
        return due

    def _save(self, state: dict[str, Tensor], path: Path) -> None:
        write_checkpoint(path, state, {"run": self.run, "step": int(state["run/step"])})

    def _write_last(self, good: KeptState) -> None:
        """Write the state of the last record, where it is whole and newer than the file."""
        if self.checkpoint is None or not self._is_kept:
            return
        tensors = to_host(good.tensors, "")
        if int(tensors["run/step"]) > self._written:
            self._save(tensors, Path(self.checkpoint.path))


def interval_of_records(num_steps: int) -> int:
    """Return the steps between two records of a run.

    It depends on the steps alone: with one by the clock, no two histories would be equal. A record
    costs about as much as two recorded steps of a small network, and less of a large one.

    Args:
        num_steps: Length of the run.
    """
    return max(1, num_steps // NUM_RECORDS, min(MIN_INTERVAL, num_steps // MIN_RECORDS))
