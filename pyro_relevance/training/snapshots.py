"""The state that a run needs to go on, as tensors by name: on the host, or kept on its device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = [
    "KeptState",
    "generator_state",
    "load_optimizer",
    "optimizer_state",
    "set_generator_state",
    "to_host",
]


def to_host(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return copies in the memory of the host; that of an accelerator is for training.

    Args:
        tensors: Tensors by name.
        prefix: Put in front of each name.
    """
    return {
        f"{prefix}{name}": tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()
    }


class KeptState:
    """One copy of a state on its device, which is written over each time.

    Memory is taken once, and the copies are a few calls for all tensors: a small share of what the
    optimiser does in a single step.
    """

    def __init__(self) -> None:
        self._copies: dict[str, Tensor] = {}
        self._others: Callable[[], dict[str, Tensor]] = dict

    def keep(self, changing: Mapping[str, Tensor], others: Callable[[], dict[str, Tensor]]) -> None:
        """Take the place of what was kept before.

        Args:
            changing: Tensors that training changes in place, by name; they are copied.
            others: Returns the rest by name, the same whenever it is called; it is called only
                where the state is needed.
        """
        pairs: dict[torch.device, tuple[list[Tensor], list[Tensor]]] = {}
        for name in [name for name in self._copies if name not in changing]:
            del self._copies[name]
        for name, tensor in changing.items():
            kept = self._copies.get(name)
            if kept is None or kept.shape != tensor.shape or kept.dtype != tensor.dtype:
                self._copies[name] = tensor.detach().clone()
            else:
                into, source = pairs.setdefault(tensor.device, ([], []))
                into.append(kept)
                source.append(tensor)
        with torch.no_grad():
            for into, source in pairs.values():
                torch._foreach_copy_(into, source)
        self._others = others

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The state by name; the tensors are those that the next `keep` writes over."""
        return {**self._copies, **self._others()}


def optimizer_state(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the state of an optimiser as tensors, without copies.

    Args:
        optimizer: The optimiser.

    Raises:
        TypeError: If its state holds anything but tensors and numbers.
    """
    tensors: dict[str, Tensor] = {}
    # In the order of state_dict(), which takes longer.
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, parameter in enumerate(parameters):
        for name, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{index}/tensor/{name}"] = value
            elif isinstance(value, bool | int | float):
                tensors[f"{index}/number/{name}"] = torch.tensor(
                    value, dtype=torch.float64 if isinstance(value, float) else None
                )
            elif value is not None:
                raise TypeError(
                    "Expected an optimiser whose state is tensors and numbers, but "
                    f"{type(optimizer).__name__} keeps '{name}' as {type(value).__name__}. Use "
                    "another optimiser, such as torch.optim.Adam."
                )
    return tensors


def load_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore what `optimizer_state` returned.

    Args:
        optimizer: The optimiser, over parameters of the same shapes in the same order.
        tensors: Its state; the tensors are copied.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    states: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        index, kind, key = name.split("/", 2)
        value = tensor.clone() if kind == "tensor" else tensor.item()
        like = parameters[int(index)]
        if isinstance(value, Tensor) and value.shape == like.shape:
            # Fused kernels need a state with the memory layout of its parameter.
            value = torch.empty_like(like, dtype=value.dtype).copy_(value)
        states.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})


def generator_state(device: torch.device) -> dict[str, Tensor]:
    """Return the state of the random generators that training on ``device`` uses."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_generator_state(device: torch.device, states: Mapping[str, Tensor]) -> None:
    """Restore what `generator_state` returned."""
    torch.set_rng_state(states["cpu"].cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
