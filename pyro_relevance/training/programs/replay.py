"""A training step recorded once as a list of tensor operators, and replayed without Python.

The numbers are the same, bit by bit. The time that Pyro and the network spend in Python is saved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_relevance._random import seeded
from pyro_relevance.training.programs.chains import RecordableProgram, WrappedProgram
from pyro_relevance.training.programs.recording import record

__all__ = ["ReplayedProgram"]

_RECORD_AFTER = 20
"""Steps of one kind before it is recorded."""
_WORTH = 1000
"""Further steps of a kind that make a recording worth its time, that of about 200 steps."""

_Kind = tuple[tuple[int, ...], tuple[int, ...], bool, bool]


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


class ReplayedProgram(WrappedProgram):
    """Computes the first steps by the program itself, then records one and replays it.

    A recording is used only if it gives the same losses, gradients and buffers as the program, bit
    by bit, for two seeds, temperatures and KL weights. Otherwise, and where a step cannot be
    recorded (control flow that depends on values), the program computes all steps.

    Args:
        program: The chains, in one call.
        num_steps: Steps of the run. A kind of step is recorded only if a thousand more of it are
            expected after the first ones. ``None``: every kind is recorded.
    """

    program: RecordableProgram

    def __init__(self, program: RecordableProgram, num_steps: int | None = None) -> None:
        super().__init__(program)
        self._num_steps = num_steps
        self._num_seen = 0
        self._tensors = program.tensors()
        first = next(iter(self._tensors.values()))
        self._dtype = torch.promote_types(first.dtype, torch.float32)
        self._seen: dict[_Kind, int] = {}
        self._recordings: dict[_Kind, _Recording | None] = {}

    @property
    def num_recordings(self) -> int:
        """Number of kinds of step (shapes; with and without KL warm-up) that are replayed."""
        return sum(recording is not None for recording in self._recordings.values())

    def backward(self, x: Tensor, y: Tensor, per_chain: bool, kl_weight: float) -> Tensor:
        """See :class:`Program`; gradients replace those that the parameters have."""
        kind = (tuple(x.shape), tuple(y.shape), per_chain, kl_weight == 1.0)
        recording = self._recordings.get(kind)
        self._num_seen += 1
        if recording is None:
            seen = self._seen[kind] = self._seen.get(kind, 0) + 1
            if seen == _RECORD_AFTER and self._is_worth_it(seen):
                self._recordings[kind] = self._record(x, y, per_chain, kl_weight)
            return self.program.backward(x, y, per_chain, kl_weight)
        model: Any = self.modules[0].model
        return recording.run(self._arguments(x, y, model.temperature, kl_weight))

    def _is_worth_it(self, seen: int) -> bool:
        if self._num_steps is None:
            return True
        left = self._num_steps - self._num_seen
        return left * seen / self._num_seen >= _WORTH

    def _arguments(
        self, x: Tensor, y: Tensor, temperature: float, kl_weight: float
    ) -> tuple[Tensor, ...]:
        # On the host also where the rest is not: a kernel takes such a number without a copy.
        numbers = torch.tensor((temperature, kl_weight), dtype=self._dtype).unbind()
        return (*self._tensors.values(), x, y, *numbers)

    def _record(self, x: Tensor, y: Tensor, per_chain: bool, kl_weight: float) -> _Recording | None:
        """Return a recording that was found to be exact, or None."""
        named = self.program.named_parameters()
        model: Any = self.modules[0].model
        gradients = [parameter.grad for _, parameter in named]
        temperature, state = model.temperature, self.program.state()
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

        other = (0.7 * temperature, 1.0 if kl_weight == 1.0 else 0.6 * kl_weight)
        try:
            with seeded(0, x.device):
                arguments = self._arguments(x, y, temperature, kl_weight)
                recording = _Recording(record(step, [_leaf(a) for a in arguments]), tuple(used))
            for seed, numbers in enumerate(((temperature, kl_weight), other)):
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
                if not all(map(_same, *results)):
                    return None
            return recording
        except (RuntimeError, ValueError, TypeError, NotImplementedError):
            return None  # a failed recording is no fault: the program itself still works
        finally:
            self.program.load(state)
            for (_, parameter), gradient in zip(named, gradients, strict=True):
                parameter.grad = gradient


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
