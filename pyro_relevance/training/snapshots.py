"""The state that a run needs to go on, as tensors by name: on the host, or kept on its device."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = [
    "KeptState",
    "check_snapshot",
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


_OF_PARAMETER = frozenset(("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"))
_SAME = ("program/", "generator/")
_PARTS = (*_SAME, "batches/", "callback", "held_out/", "history/", "optimizer/", "run/")
_TWISTER, _NUM_WORDS = "<Qi4xQ", 624
"""Seed, words left and next word of torch's generator on the CPU, and its words."""


def check_snapshot(
    found: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    parameters: Sequence[Tensor],
    num_steps: int,
) -> None:
    """Check a state that was read from a file against the run that wants to go on from it.

    Shapes, types and positions are those of the run, so that no kernel reads beyond a tensor.

    Args:
        found: The state of the file.
        own: The state of the run before its first step.
        parameters: Those of the optimiser, in its order.
        num_steps: Length of the run.

    Raises:
        ValueError: If the state does not fit the run.
    """
    for name in found:
        if not name.startswith(_PARTS):
            raise ValueError(f"'{name}' is no part of a state")
    like = {n: t for n, t in own.items() if n.startswith((*_SAME, "run/"))}
    for name in sorted(like.keys() | {n for n in found if n.startswith((*_SAME, "run/"))}):
        if name.startswith("generator/") and name not in like:
            continue  # of a device that this run does not use
        if name not in found or name not in like:
            raise ValueError(f"'{name}' is {'unknown' if name in found else 'missing'}")
        _check_like(name, found[name], like[name])
    for name, tensor in found.items():
        _, best, key = name.partition("/best/")
        if name.startswith("callback") and best and f"program/{key}" in own:
            _check_like(name, tensor, own[f"program/{key}"])
    _check_optimizer(tensors_of(found), tensors_of(own), parameters)
    _check_twister(found["generator/cpu"])
    step, seconds = int(found["run/step"]), float(found["run/seconds"])
    if not 0 <= step <= num_steps or not 0 <= seconds < float("inf"):
        raise ValueError(f"step {step} of {num_steps} after {seconds} s")


def tensors_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the part of a state that is the optimiser's."""
    return {n: t for n, t in state.items() if n.startswith("optimizer/")}


def _check_like(name: str, tensor: Tensor, like: Tensor) -> None:
    if tensor.shape != like.shape or tensor.dtype != like.dtype:
        raise ValueError(
            f"expected {like.dtype} of shape {tuple(like.shape)} for '{name}', but got "
            f"{tensor.dtype} of shape {tuple(tensor.shape)}"
        )
    if bool(like.isfinite().all()) and not bool(tensor.isfinite().all()):
        raise ValueError(f"expected finite numbers in '{name}'")


def _check_optimizer(
    found: Mapping[str, Tensor], own: Mapping[str, Tensor], parameters: Sequence[Tensor]
) -> None:
    if own and own.keys() != found.keys():
        raise ValueError("the optimiser has other parts of a state")
    keys: dict[int, set[str]] = {}
    for name, tensor in found.items():
        index, kind, key = name.removeprefix("optimizer/").split("/", 2)
        if not index.isdecimal() or int(index) >= len(parameters):
            raise ValueError(f"'{name}' is of no parameter")
        if kind not in ("tensor", "number") or not key.isidentifier():
            raise ValueError(f"'{name}' is no part of an optimiser's state")
        keys.setdefault(int(index), set()).add(key)
        like = parameters[int(index)].detach()
        small = tensor.numel() == 1 and key not in _OF_PARAMETER
        if kind == "number" and tensor.ndim:
            raise ValueError(f"'{name}' is no number")
        if not small and key in _OF_PARAMETER:
            _check_like(name, tensor, like)
        elif not small and (key == "step" or not set(tensor.shape) <= {*like.shape, 1}):
            raise ValueError(f"'{name}' of shape {tuple(tensor.shape)} does not fit its parameter")
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"expected finite numbers in '{name}'")
    if len(set(map(frozenset, keys.values()))) > 1:
        raise ValueError("parameters have different parts of an optimiser's state")


def _check_twister(state: Tensor) -> None:
    """Check that torch's generator will read a word of its own next."""
    _, left, following = struct.unpack_from(_TWISTER, bytes(state.tolist()))
    fresh = (left, following) == (1, 0)
    if not fresh and not (0 < left <= _NUM_WORDS and left + following == _NUM_WORDS + 1):
        raise ValueError("the state of the random generator has no next word")
