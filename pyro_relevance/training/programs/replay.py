"""A training step recorded once as a list of tensor operators, and replayed without Python.

The numbers are the same, bit by bit. The time that Pyro and the network spend in Python is saved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_relevance._random import seeded
from pyro_relevance.training.programs.chains import (
    LoopProgram,
    RecordableProgram,
    WrappedProgram,
)
from pyro_relevance.training.programs.recording import record

__all__ = ["ReplayedProgram"]

_TRIES = 5
"""Steps of a kind that are computed, and timed, before it may be recorded."""
_FIRST_WORTH = 60
"""Further steps that make a program's first recording worth its time.

It takes as long as about thirty steps, and saves about half of each. Later ones were measured.
"""
_OWN_WORTH = 3000
"""Further steps after the warm-up that are worth a recording without the KL weight.

The one of the warm-up serves there too; without the weight it is about a twentieth faster.
"""
_TIMED = 100
"""Replays that are timed."""
_LEAST_SAVING = 0.1
"""Share of a step that a replay saves at least; less cannot be told from noise."""

_Shapes = tuple[tuple[int, ...], tuple[int, ...], bool]


@dataclass(frozen=True, slots=True)
class _Recording:
    """A recorded step, and which parameters it has gradients of."""

    replay: Callable[..., tuple[Tensor, ...]]
    parameters: tuple[Tensor, ...]

    def run(self, arguments: Sequence[Tensor]) -> Tensor:
        with torch.no_grad():
            losses, *gradients = self.replay(*arguments)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        return losses


@dataclass(slots=True)
class _Kind:
    """Steps of the same shapes, in or after the KL warm-up, and what is known of them."""

    first: int
    seen: int = 0
    seconds: float = float("inf")
    recording: _Recording | None = None
    tried: bool = False

    def expected(self, num_taken: int, num_left: int) -> float:
        """Return how many of the steps that are left are of this kind, as since its first one."""
        return num_left * self.seen / (num_taken - self.first + 1)


class ReplayedProgram(WrappedProgram):
    """Computes the first steps by the program itself, then records one and replays it.

    A recording is used only if it gives the same losses, gradients and buffers as the program, bit
    by bit, for two seeds, temperatures and KL weights. Otherwise, and where a step cannot be
    recorded (control flow that depends on values), the program computes all steps.

    Whether a kind of step is recorded is asked at each step that is computed: it is where the time
    that replays will save exceeds that of a recording. Both were measured where one recording has
    succeeded, and then the numbers do not depend on the answer. Before, only steps are counted, so
    that a model whose Python has effects of its own runs the same way each time.

    Args:
        program: The chains, in one call.
        num_steps: Steps of the run. ``None``: every kind is recorded.

    Attributes:
        num_taken: Steps taken so far; a resumed run starts with those of its first part.
        num_replayed: How many of the steps were replayed.
    """

    program: RecordableProgram

    def __init__(self, program: RecordableProgram, num_steps: int | None = None) -> None:
        super().__init__(program)
        self.num_taken = 0
        self.num_replayed = 0
        self._num_steps = num_steps
        self._tensors = program.tensors()
        self._is_single = isinstance(program, LoopProgram)
        first = next(iter(self._tensors.values()))
        self._dtype = torch.promote_types(first.dtype, torch.float32)
        self._kinds: dict[tuple[_Shapes, bool], _Kind] = {}
        self._cost: float | None = None
        self._saving = 0.0

    @property
    def num_recordings(self) -> int:
        """Number of kinds of step (shapes; with and without KL warm-up) that are replayed."""
        return sum(kind.recording is not None for kind in self._kinds.values())

    def views(self) -> dict[str, Tensor]:
        """See :class:`Program`; without a walk over all modules."""
        found = {name: tensor.detach() for name, tensor in self._tensors.items()}
        return {n: t.unsqueeze(0) for n, t in found.items()} if self._is_single else found

    def backward(self, x: Tensor, y: Tensor, per_chain: bool, kl_weight: float) -> Tensor:
        """See :class:`Program`; gradients replace those that the parameters have."""
        shapes = (tuple(x.shape), tuple(y.shape), per_chain)
        kind = self._kinds.get((shapes, kl_weight == 1.0))
        if kind is None:
            kind = self._kinds[shapes, kl_weight == 1.0] = _Kind(self.num_taken)
        if not kind.tried and self._is_worth_it(kind):
            self._try(kind, shapes, x, y, kl_weight)
        self.num_taken += 1
        kind.seen += 1
        if kind.recording is None:
            # The time of this thread: that of others' work on the same core does not count.
            started = time.thread_time()
            losses = self.program.backward(x, y, per_chain, kl_weight)
            kind.seconds = min(kind.seconds, time.thread_time() - started)
            return losses
        self.num_replayed += 1
        model: Any = self.modules[0].model
        timed = self.num_replayed < _TIMED
        started = time.thread_time() if timed else 0.0
        losses = kind.recording.run(self._arguments(x, y, model.temperature, kl_weight))
        if timed:
            self._saving = max(self._saving, kind.seconds - (time.thread_time() - started))
        return losses

    def _is_worth_it(self, kind: _Kind) -> bool:
        if kind.seen < _TRIES:
            return False
        if self._num_steps is None:
            return True
        expected = kind.expected(self.num_taken, self._num_steps - self.num_taken)
        if kind.recording is not None:
            return expected >= _OWN_WORTH
        if self._cost is None:
            return expected >= _FIRST_WORTH
        return expected * max(self._saving, _LEAST_SAVING * kind.seconds) > self._cost

    def _try(self, kind: _Kind, shapes: _Shapes, x: Tensor, y: Tensor, kl_weight: float) -> None:
        """Record a kind of step, and use the recording after the warm-up too where it is exact."""
        started = time.thread_time()
        kind.tried = True
        annealed = kl_weight != 1.0
        recording, exact_at_one = self._record(x, y, shapes[2], kl_weight)
        if recording is None:
            return
        kind.recording = recording
        self._cost = time.thread_time() - started
        if annealed and exact_at_one:
            later = self._kinds.setdefault((shapes, True), _Kind(self.num_taken))
            later.recording, later.seconds = later.recording or recording, kind.seconds

    def _arguments(
        self, x: Tensor, y: Tensor, temperature: float, kl_weight: float
    ) -> tuple[Tensor, ...]:
        # On the host also where the rest is not: a kernel takes such a number without a copy.
        numbers = torch.tensor((temperature, kl_weight), dtype=self._dtype).unbind()
        return (*self._tensors.values(), x, y, *numbers)

    def _record(
        self, x: Tensor, y: Tensor, per_chain: bool, kl_weight: float
    ) -> tuple[_Recording | None, bool]:
        """Return a recording that was found to be exact, or None, and if it is at KL weight 1."""
        named = self.program.named_parameters()
        model: Any = self.modules[0].model
        gradients = [parameter.grad for _, parameter in named]
        temperature, state = model.temperature, self.program.state()
        annealed = kl_weight != 1.0
        numbers = [(temperature, kl_weight), (0.7 * temperature, kl_weight * (1 - 0.4 * annealed))]
        try:
            recording = self._operators(x, y, per_chain, kl_weight)
            exact = [
                self._is_exact(recording, x, y, per_chain, pair, seed, state)
                for seed, pair in enumerate([*numbers, (temperature, 1.0)])
            ]
            return recording if all(exact[:2]) else None, all(exact)
        except (RuntimeError, ValueError, TypeError, NotImplementedError):
            return None, False  # a failed recording is no fault: the program itself still works
        finally:
            self.program.load(state)
            for (_, parameter), gradient in zip(named, gradients, strict=True):
                parameter.grad = gradient

    def _operators(self, x: Tensor, y: Tensor, per_chain: bool, kl_weight: float) -> _Recording:
        """Record one step at the present temperature."""
        named = self.program.named_parameters()
        model: Any = self.modules[0].model
        used: list[Tensor] = []

        def step(*arguments: Tensor) -> tuple[Tensor, ...]:
            *tensors, x, y, warmth, weight = arguments
            inputs = dict(zip(self._tensors, tensors, strict=True))
            with model.in_mode(temperature=warmth):
                losses = self.program.objective(
                    inputs, x, y, per_chain, 1.0 if kl_weight == 1.0 else weight
                )
            wanted = [inputs[name] for name, _ in named]
            found = torch.autograd.grad(losses.sum(), wanted, allow_unused=True)
            used[:] = [p for (_, p), g in zip(named, found, strict=True) if g is not None]
            return (losses.detach(), *_own_memory(wanted, found))

        with seeded(0, x.device):
            arguments = self._arguments(x, y, model.temperature, kl_weight)
            return _Recording(record(step, [_leaf(a) for a in arguments]), tuple(used))

    def _is_exact(
        self,
        recording: _Recording,
        x: Tensor,
        y: Tensor,
        per_chain: bool,
        numbers: tuple[float, float],
        seed: int,
        state: dict[str, Tensor],
    ) -> bool:
        """Compare a replay with the program's own step from the same state, bit by bit."""
        named = self.program.named_parameters()
        model: Any = self.modules[0].model
        results = []
        for replayed in (False, True):
            self.program.load(state)
            for _, parameter in named:
                parameter.grad = None
            with seeded(seed, x.device), model.in_mode(temperature=numbers[0]):
                losses = (
                    recording.run(self._arguments(x, y, *numbers))
                    if replayed
                    else self.program.backward(x, y, per_chain, numbers[1])
                )
            buffers = [t.clone() for t in self._tensors.values() if not t.requires_grad]
            results.append([losses, *(p.grad for _, p in named), *buffers])
        return all(map(_same, *results))


def _leaf(tensor: Tensor) -> Tensor:
    """Return the same memory outside of any graph."""
    return tensor.detach().requires_grad_(tensor.requires_grad)


def _own_memory(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> list[Tensor]:
    """Return gradients with the memory layout of their parameters, none of them shared."""
    seen: set[int] = set()
    result = []
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        address = gradient.untyped_storage().data_ptr()
        if address in seen or gradient.stride() != parameter.stride():
            gradient = torch.empty_like(parameter).copy_(gradient)  # noqa: PLW2901
        seen.add(address)
        result.append(gradient)
    return result


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)
