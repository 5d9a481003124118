"""One run of the training loop: steps, records, checkpoints, and what happens when a loss is not finite."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from pyro_relevance import relevance
from pyro_relevance.batches import Batches
from pyro_relevance.callbacks import Callback, TrainingState
from pyro_relevance.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from pyro_relevance.errors import DivergenceError
from pyro_relevance.history import History
from pyro_relevance.model import RelevanceModel
from pyro_relevance.posterior import Posterior
from pyro_relevance.programs import Program, first_bad_site
from pyro_relevance.schedules import Schedules

__all__ = ["TrainingRun"]

NUM_RECORDS = 200
DIVERGED = 1e3
"""A run has diverged when the loss exceeds this multiple of the largest loss of its first record."""


@dataclass(eq=False)
class TrainingRun:
    """The mutable state of a run; ``fit`` makes one, runs it, and keeps what is asked for.

    Args:
        program: The chains.
        optimizer: Over the program's parameters; its groups carry ``initial_lr``.
        batches: The data.
        schedules: Temperature, KL weight and learning-rate factor.
        num_steps: Length of the run.
        callbacks: Called after each step.
        checkpoint: Where the state is written, or ``None``.
        run: Fingerprint of the run.
    """

    program: Program
    optimizer: Optimizer
    batches: Batches
    schedules: Schedules
    num_steps: int
    callbacks: Sequence[Callback]
    checkpoint: Checkpoint | None
    run: str
    step: int = 0
    history: History = field(init=False)
    seconds: float = 0.0
    stopped: bool = False

    def __post_init__(self) -> None:
        """Start with empty records."""
        self.device = self.batches.x.device
        self.num_chains = self.batches.num_chains
        self.history = History.empty(self.num_chains)
        self._interval = max(1, self.num_steps // NUM_RECORDS)
        self._losses = torch.zeros((self.num_chains, self._interval), device=self.device)
        self._last_write = time.monotonic()

    @property
    def models(self) -> list[RelevanceModel]:
        """The models whose temperature is set: one per chain, or one for all."""
        models: list[Any] = [module.model for module in self.program.modules]
        return models

    def execute(self) -> None:
        """Take the remaining steps.

        Raises:
            DivergenceError: If a loss is not finite or explodes; the run is then back at its last good record.
        """
        self._resume()
        started, before = time.monotonic(), self.seconds
        good = self.snapshot()
        while self.step < self.num_steps and not self.stopped:
            losses = self._take_step()
            column = self.step % self._interval
            self._losses[:, column] = losses
            self.step += 1
            if column == self._interval - 1 or self.step == self.num_steps:
                block = self._losses[:, : column + 1].double().cpu().numpy()
                if not self._is_sound(block):
                    self._fail(good)
                self._record(block)
                self.seconds = before + time.monotonic() - started
                good = self.snapshot()
                self._write(good)
            # Every callback sees every step, even when one of them asks to stop.
            self.stopped = any([bool(callback(self._state(losses))) for callback in self.callbacks])
        self.seconds = before + time.monotonic() - started
        self._write(self.snapshot(), force=True)

    def _take_step(self) -> Tensor:
        progress = self.step / max(1, self.num_steps - 1)
        temperature, kl_weight = self.schedules.temperature(progress), self.schedules.kl_weight(progress)
        for model in self.models:
            model.temperature = temperature
        factor = self.schedules.learning_rate(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        x, y, per_chain = self.batches.next()
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.program.losses(x, y, per_chain, kl_weight)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self._temperature, self._kl_weight = temperature, kl_weight
        return losses.detach()

    def _record(self, block: Any) -> None:
        model = self.models[0]
        size = np.full(self.num_chains, np.nan)
        if not model.has_gates:
            size[:] = sum(p.numel() for p in model.network.parameters())
        elif (probability := self.program.gate_probability()) is not None:
            expected = relevance.expected_size(model.edges.split(probability.cpu()), model.edges)
            size = expected.num_parameters.numpy()
        self.history = self.history.append(
            step=self.step,
            loss=block.mean(axis=1),
            temperature=self._temperature,
            kl_weight=self._kl_weight,
            expected_size=size,
        )

    def _is_sound(self, block: Any) -> bool:
        if not np.isfinite(block).all():
            return False
        first = self.history.loss[:, 0] if self.history.step.size else block.mean(axis=1)
        return bool((block.mean(axis=1) <= DIVERGED * np.maximum(np.abs(first), 1.0)).all())

    def _fail(self, good: Mapping[str, Tensor]) -> NoReturn:
        """Go back to the last good record, repeat the steps since then one by one, and name the site."""
        failed = self.step
        self.restore(good)
        site, at = "loss", failed - 1
        while self.step < failed:
            generator = self._generator_state()
            before = self.program.state()
            position = self.batches.state()
            losses = self._take_step()
            if not bool(torch.isfinite(losses).all()):
                chain = int((~torch.isfinite(losses)).nonzero()[0])
                self._set_generator_state(generator)
                self.batches.load(position)
                x, y, per_chain = self.batches.next()
                state = {name: tensor[chain] for name, tensor in before.items()}
                pair = (x[chain], y[chain]) if per_chain else (x, y)
                name = first_bad_site(self.program.modules[0], state, *pair, self._kl_weight)
                site, at = f"{name or 'loss'} of chain {chain}", self.step
                break
            self.step += 1
        self.restore(good)
        self._write(good, force=True)
        raise DivergenceError(
            f"Expected a finite, bounded loss, but {site} was not at step {at}. The state of step {self.step} was "
            "kept (error.fit). Use a smaller learning rate, scale the inputs and targets, or start the KL weight lower.",
            site=site,
            step=at,
        )

    def make_posterior(self) -> Posterior:
        """Return a posterior of the present state of all chains."""
        module = self.program.modules[0]
        model: Any = module.model
        return Posterior(model, module.guide, self.program.state(), history=self.history)

    def _state(self, losses: Tensor) -> TrainingState:
        return TrainingState(
            self.step,
            self.num_steps,
            losses,
            self._temperature,
            self._kl_weight,
            self.history,
            self.models[0],
            self.make_posterior,
        )

    # Snapshots: everything that the rest of the run depends on, as tensors by name.

    def snapshot(self) -> dict[str, Tensor]:
        """Return copies of everything that the rest of the run depends on."""
        tensors = {f"program/{name}": tensor for name, tensor in self.program.state().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"optimizer/{index}/{name}"] = torch.as_tensor(value).clone()
        tensors |= {f"batches/{name}": tensor for name, tensor in self.batches.state().items()}
        tensors |= {f"generator/{name}": tensor for name, tensor in self._generator_state().items()}
        tensors |= {f"history/{name}": torch.from_numpy(a.copy()) for name, a in self.history.to_arrays().items()}
        for i, callback in enumerate(self.callbacks):
            state_of: Callable[[], dict[str, Tensor]] | None = getattr(callback, "state", None)
            if state_of is not None:
                tensors |= {f"callback{i}/{name}": tensor.clone() for name, tensor in state_of().items()}
        tensors["run/step"] = torch.tensor(self.step)
        tensors["run/seconds"] = torch.tensor(self.seconds, dtype=torch.float64)
        tensors["run/stopped"] = torch.tensor(self.stopped)
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go back to a snapshot."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

        self.program.load(part("program/"))
        description = self.optimizer.state_dict()
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in part("optimizer/").items():
            index, _, key = name.partition("/")
            states.setdefault(int(index), {})[key] = tensor.clone()
        self.optimizer.load_state_dict({**description, "state": states})
        self.batches.load(part("batches/"))
        self._set_generator_state(part("generator/"))
        self.history = History.from_arrays({n: t.numpy() for n, t in part("history/").items()})
        for i, callback in enumerate(self.callbacks):
            load: Callable[[Mapping[str, Tensor]], None] | None = getattr(callback, "load", None)
            if load is not None:
                load(part(f"callback{i}/"))
        self.step = int(tensors["run/step"])
        self.seconds = float(tensors["run/seconds"])
        self.stopped = bool(tensors["run/stopped"])

    def _generator_state(self) -> dict[str, Tensor]:
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return states

    def _set_generator_state(self, states: Mapping[str, Tensor]) -> None:
        torch.set_rng_state(states["cpu"].cpu())
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"].cpu(), self.device)

    def _resume(self) -> None:
        if self.checkpoint is None:
            return
        found = read_checkpoint(Path(self.checkpoint.path), self.run)
        if found is not None:
            self.restore({name: tensor.to(self._place(name)) for name, tensor in found[0].items()})

    def _place(self, name: str) -> torch.device:
        on_device = name.startswith(("program/", "optimizer/", "batches/order", "callback"))
        return self.device if on_device else torch.device("cpu")

    def _write(self, tensors: Mapping[str, Tensor], *, force: bool = False) -> None:
        if self.checkpoint is None:
            return
        if force or time.monotonic() - self._last_write >= self.checkpoint.interval:
            write_checkpoint(Path(self.checkpoint.path), tensors, {"run": self.run, "step": int(tensors["run/step"])})
            self._last_write = time.monotonic()
