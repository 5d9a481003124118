"""Chains as one program: several independent fits whose gradients are computed together.

``LoopProgram`` holds one module per chain and calls them one after another; it works for every
network, guide and ELBO. ``VectorisedProgram`` stacks the parameters of all chains and runs the Pyro
model once under ``torch.func.vmap``: for small networks the cost of a step is that of Python, and
it is then paid once for all chains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from pyro.infer.elbo import ELBOModule
from torch import Tensor
from torch.func import functional_call, vmap

from pyro_relevance.model.annealing import AnnealMessenger
from pyro_relevance.model.guides.protocol import RelevanceGuide, answers

__all__ = ["LoopProgram", "Program", "RecordableProgram", "VectorisedProgram", "WrappedProgram"]


class Program(Protocol):
    """What the training loop asks of a set of chains."""

    @property
    def modules(self) -> Sequence[ELBOModule]:
        """The modules that are called: one per chain, or one for all."""
        ...

    def losses(self, x: Tensor, y: Tensor, per_chain: bool, kl_weight: float) -> Tensor:
        """Return the negative ELBO of each chain, ``(num_chains,)`` in nats."""
        ...

    def backward(self, x: Tensor, y: Tensor, per_chain: bool, kl_weight: float) -> Tensor:
        """Add the gradients of the losses, and return the losses without a graph."""
        ...

    def named_parameters(self) -> list[tuple[str, Tensor]]:
        """Return the tensors to optimise, with their names in the module."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return copies of all parameters and buffers, ``(num_chains, ...)`` each."""
        ...

    def views(self) -> dict[str, Tensor]:
        """Return what `state` does, without copies where there is one tensor for all chains."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned."""
        ...

    def gate_probability(self) -> Tensor | None:
        """Return each gate's probability, ``(num_chains, num_edges)``, where guides know it."""
        ...

    def operation_probability(self) -> Tensor | None:
        """Return ``(num_chains, num_groups, num_operations)``, where guides know it."""
        ...


class RecordableProgram(Program, Protocol):
    """A program whose step is one function of tensors."""

    def tensors(self) -> dict[str, Tensor]:
        """Return all parameters and buffers, the tensors themselves."""
        ...

    def objective(
        self,
        tensors: Mapping[str, Tensor],
        x: Tensor,
        y: Tensor,
        per_chain: bool,
        kl_weight: float | Tensor,
    ) -> Tensor:
        """Return the negative ELBO of each chain for given parameters and buffers."""
        ...


class LoopProgram:
    """One module per chain, called one after another.

    Args:
        modules: ELBO modules, one per chain.
        num_particles: Draws of the guide in each step.
    """

    def __init__(self, modules: Sequence[ELBOModule], num_particles: int) -> None:
        self.modules = list(modules)
        self.num_particles = num_particles

    def losses(self, x: Tensor, y: Tensor, per_chain: bool, kl_weight: float) -> Tensor:
        """Return the negative ELBO of each chain."""
        return torch.stack(
            [self._loss(i, x, y, per_chain, kl_weight) for i in range(len(self.modules))]
        )

    def backward(self, x: Tensor, y: Tensor, per_chain: bool, kl_weight: float) -> Tensor:
        """Add the gradients chain by chain, so that one graph lives at a time."""
        losses = []
        for index in range(len(self.modules)):
            loss = self._loss(index, x, y, per_chain, kl_weight)
            loss.backward()
            losses.append(loss.detach())
        return torch.stack(losses)

    def _loss(self, index: int, x: Tensor, y: Tensor, per_chain: bool, kl_weight: float) -> Tensor:
        if per_chain:
            x, y = x[index], y[index]
        return _objective(self.modules[index], x, y, kl_weight, self.num_particles)

    def tensors(self) -> dict[str, Tensor]:
        """Return parameters and buffers of the only chain."""
        return _tensors(self.modules[0])

    def objective(
        self,
        tensors: Mapping[str, Tensor],
        x: Tensor,
        y: Tensor,
        per_chain: bool,
        kl_weight: float | Tensor,
    ) -> Tensor:
        """Return the negative ELBO of the only chain for given parameters and buffers."""
        if per_chain:
            x, y = x[0], y[0]
        named = {f"module.{name}": tensor for name, tensor in tensors.items()}
        arguments = (x, y, kl_weight, self.num_particles)
        value: Tensor = functional_call(_Objective(self.modules[0]), named, arguments)
        return value.unsqueeze(0)

    def named_parameters(self) -> list[tuple[str, Tensor]]:
        """Return the parameters of all chains that require gradients."""
        return [
            (name, parameter)
            for module in self.modules
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        ]

    def state(self) -> dict[str, Tensor]:
        """Return copies of all parameters and buffers, stacked over chains."""
        tensors = [_tensors(module) for module in self.modules]
        return {name: torch.stack([t[name].detach() for t in tensors]) for name in tensors[0]}

    def views(self) -> dict[str, Tensor]:
        """Return the tensors of a single chain with a leading dimension, or copies of several."""
        if len(self.modules) > 1:
            return self.state()
        return {name: t.detach().unsqueeze(0) for name, t in _tensors(self.modules[0]).items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore parameters and buffers."""
        with torch.no_grad():
            for index, module in enumerate(self.modules):
                for name, tensor in _tensors(module).items():
                    tensor.copy_(state[name][index])

    def gate_probability(self) -> Tensor | None:
        """Return the probability of each gate."""
        return _each(torch.sigmoid, [answers(m.guide).inclusion_log_odds() for m in self.modules])

    def operation_probability(self) -> Tensor | None:
        """Return the probability of each operation."""
        return _each(_softmax, [answers(m.guide).choice_logits() for m in self.modules])


class WrappedProgram:
    """A program that takes its steps another way; all else is that of the program inside.

    Args:
        program: The chains.
    """

    def __init__(self, program: Program) -> None:
        self.program = program

    @property
    def modules(self) -> Sequence[ELBOModule]:
        """See :class:`Program`."""
        return self.program.modules

    def losses(self, x: Tensor, y: Tensor, per_chain: bool, kl_weight: float) -> Tensor:
        """See :class:`Program`."""
        return self.program.losses(x, y, per_chain, kl_weight)

    def named_parameters(self) -> list[tuple[str, Tensor]]:
        """See :class:`Program`."""
        return self.program.named_parameters()

    def state(self) -> dict[str, Tensor]:
        """See :class:`Program`."""
        return self.program.state()

    def views(self) -> dict[str, Tensor]:
        """See :class:`Program`."""
        return self.program.views()

    def load(self, state: Mapping[str, Tensor]) -> None:
        """See :class:`Program`."""
        self.program.load(state)

    def gate_probability(self) -> Tensor | None:
        """See :class:`Program`."""
        return self.program.gate_probability()

    def operation_probability(self) -> Tensor | None:
        """See :class:`Program`."""
        return self.program.operation_probability()


class VectorisedProgram:
    """All chains in one call.

    Args:
        modules: ELBO modules, one per chain, alike but for the values of parameters and buffers.
        num_particles: Draws of the guide in each step.
    """

    def __init__(self, modules: Sequence[ELBOModule], num_particles: int) -> None:
        self.modules = [modules[0]]
        self.num_particles = num_particles
        self._objective = _Objective(modules[0])
        parameters = [dict(module.named_parameters()) for module in modules]
        buffers = [dict(module.named_buffers()) for module in modules]
        self._parameters = {
            name: torch.stack([p[name].detach() for p in parameters]).requires_grad_(
                value.requires_grad
            )
            for name, value in parameters[0].items()
        }
        self._buffers = {name: torch.stack([b[name] for b in buffers]) for name in buffers[0]}
        self._tensors = self._parameters | self._buffers

    def losses(self, x: Tensor, y: Tensor, per_chain: bool, kl_weight: float) -> Tensor:
        """Return the negative ELBO of each chain."""
        return self.objective(self._tensors, x, y, per_chain, kl_weight)

    def tensors(self) -> dict[str, Tensor]:
        """Return the stacked parameters and buffers."""
        return self._tensors

    def objective(
        self,
        tensors: Mapping[str, Tensor],
        x: Tensor,
        y: Tensor,
        per_chain: bool,
        kl_weight: float | Tensor,
    ) -> Tensor:
        """Return the negative ELBO of each chain for given stacked parameters and buffers."""

        def loss(tensors: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            arguments = (x, y, kl_weight, self.num_particles)
            value: Tensor = functional_call(self._objective, tensors, arguments)
            return value

        data = 0 if per_chain else None
        batched = vmap(loss, in_dims=(0, data, data), randomness="different")
        values: Tensor = batched({f"module.{name}": t for name, t in tensors.items()}, x, y)
        return values

    def backward(self, x: Tensor, y: Tensor, per_chain: bool, kl_weight: float) -> Tensor:
        """Add the gradients of all chains at once: no loss depends on another chain's tensors."""
        losses = self.losses(x, y, per_chain, kl_weight)
        losses.sum().backward()
        return losses.detach()

    def named_parameters(self) -> list[tuple[str, Tensor]]:
        """Return the stacked parameters that require gradients."""
        return [(name, p) for name, p in self._parameters.items() if p.requires_grad]

    def state(self) -> dict[str, Tensor]:
        """Return copies of the stacked parameters and buffers."""
        return {name: tensor.detach().clone() for name, tensor in self._tensors.items()}

    def views(self) -> dict[str, Tensor]:
        """Return the stacked parameters and buffers."""
        return {name: tensor.detach() for name, tensor in self._tensors.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore parameters and buffers."""
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                tensor.copy_(state[name])

    def gate_probability(self) -> Tensor | None:
        """Return the probability of each gate."""
        return self._answer(torch.sigmoid, lambda guide: guide.inclusion_log_odds())

    def operation_probability(self) -> Tensor | None:
        """Return the probability of each operation."""
        return self._answer(_softmax, lambda guide: guide.choice_logits())

    def _answer(
        self, transform: Callable[[Tensor], Tensor], ask: Callable[[RelevanceGuide], Tensor | None]
    ) -> Tensor | None:
        """Ask the guide of every chain the same question; ``None`` where it has no answer."""
        guide: Any = self.modules[0].guide
        if ask(answers(guide)) is None:
            return None
        module = _Answer(guide, ask)
        stacked = {n: t.detach() for n, t in self._parameters.items() if n.startswith("guide.")}
        values: Tensor = vmap(lambda tensors: functional_call(module, tensors, ()))(stacked)
        return transform(values)


def _objective(
    module: ELBOModule, x: Tensor, y: Tensor, kl_weight: float | Tensor, num_particles: int
) -> Tensor:
    """Return the annealed negative ELBO; only the first particle moves BatchNorm statistics."""
    if isinstance(kl_weight, float) and kl_weight == 1.0 and num_particles == 1:
        value: Tensor = module(x, y)
        return value
    model: Any = module.model
    total: Any = 0.0
    moving = model.mode.update_statistics
    with AnnealMessenger(kl_weight):
        for particle in range(num_particles):
            with model.in_mode(update_statistics=moving and particle == 0):
                total = total + module(x, y)
    mean: Tensor = total / num_particles if num_particles > 1 else total
    return mean


class _Objective(torch.nn.Module):
    """`_objective` as a module, so that ``functional_call`` can swap the tensors under it."""

    def __init__(self, module: ELBOModule) -> None:
        super().__init__()
        self.module = module

    def forward(
        self, x: Tensor, y: Tensor, kl_weight: float | Tensor, num_particles: int
    ) -> Tensor:
        return _objective(self.module, x, y, kl_weight, num_particles)


class _Answer(torch.nn.Module):
    """A guide's answer to one question, under the names of an ELBO module."""

    def __init__(
        self, guide: torch.nn.Module, ask: Callable[[RelevanceGuide], Tensor | None]
    ) -> None:
        super().__init__()
        self.guide = guide
        self.ask = ask

    def forward(self) -> Tensor | None:
        return self.ask(answers(self.guide))


def _each(transform: Callable[[Tensor], Tensor], given: Sequence[Tensor | None]) -> Tensor | None:
    """Stack what the guides of all chains answered; ``None`` where they have no answer."""
    known = [value for value in given if value is not None]
    return transform(torch.stack(known)) if len(known) == len(given) else None


def _softmax(logits: Tensor) -> Tensor:
    return torch.softmax(logits, dim=-1)


def _tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
