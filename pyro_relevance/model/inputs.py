"""What a network can be given: checked in one place, before any work, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["accepted", "as_targets", "check_finite", "check_rows", "checked_inputs", "checked_pair"]

_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


def checked_inputs(network: nn.Module, x: Tensor, label: str = "inputs") -> Tensor:
    """Return inputs after a check of what can be seen of them without calling the network.

    Args:
        network: The network.
        x: ``(num_examples, ...)``.
        label: What they are, for the message.

    Raises:
        TypeError: If they are no tensor.
        ValueError: If they have no axis of examples, or are of a type that is not the network's.
    """
    if not isinstance(x, Tensor):
        raise TypeError(
            f"Expected {label} as a tensor, but got {type(x).__name__}. Convert arrays with "
            "torch.as_tensor."
        )
    if x.ndim < 1:
        raise ValueError(f"Expected {label} with one row per example, but got a single number.")
    dtype = next((p.dtype for p in network.parameters()), x.dtype)
    if (x.is_floating_point() or x.is_complex()) and x.dtype != dtype:
        raise ValueError(
            f"Expected {label} of the network's type {dtype}, but got {x.dtype}. Pass "
            f"x.to({dtype}), or convert the network."
        )
    return x


def checked_pair(network: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of an evaluation after a check of what can be seen of them.

    Args:
        network: The network.
        x: ``(num_examples, ...)`` inputs.
        y: ``(num_examples, ...)`` targets.

    Raises:
        TypeError: If one of them is no tensor.
        ValueError: If lengths differ or a number is not finite, or as in `checked_inputs`.
    """
    if not isinstance(y, Tensor):
        raise TypeError(
            f"Expected targets as a tensor, but got {type(y).__name__}. Convert arrays with "
            "torch.as_tensor."
        )
    if checked_inputs(network, x).shape[:1] != y.shape[:1]:
        raise ValueError(
            f"Expected x and y with one row per example, but got {tuple(x.shape)} and "
            f"{tuple(y.shape)}. Pass as many targets as inputs."
        )
    check_finite(x, "x", "inputs")
    check_finite(y, "y", "targets")
    return x, as_targets(y)


@contextmanager
def accepted(network: nn.Module, x: Tensor, label: str = "inputs") -> Iterator[None]:
    """Say in words that a network cannot compute with its inputs, where it fails in the block.

    Args:
        network: The network that is called in the block.
        x: Its inputs.
        label: What they are, for the message.

    Raises:
        ValueError: In the place of an error of torch about shapes and types.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        if type(error).__module__ != "builtins" or not _ABOUT_INPUTS.search(str(error)):
            raise
        first = next((m for m in network.modules() if _reads(m)), None)
        about = "" if first is None else f" Its first layer with weights is {first}."
        advice = "a last minibatch of more than one example" if _ONE.search(str(error)) else "x"
        raise ValueError(
            f"Expected {label} that the network can compute with, but those of shape "
            f"{tuple(x.shape)} and type {x.dtype} failed: {str(error).splitlines()[0]}.{about} "
            f"Pass {advice} of the shape and type that it was made for."
        ) from error


# Errors of torch for inputs of another width, number of axes or type, and for batches of one.
_ABOUT_INPUTS = re.compile(
    r"shape|size|dimension|dtype|scalar type|same type|Expected \d|[Ee]xpected (input|tensor|more)"
    r"|channel|index out of range|not implemented for"
)
_ONE = re.compile("more than 1 value per channel")


def _reads(module: nn.Module) -> bool:
    return not any(True for _ in module.children()) and any(True for _ in module.parameters())


def check_rows(outputs: Tensor, x: Tensor, label: str = "inputs") -> None:
    """Check that a network has one row of outputs for each example.

    Args:
        outputs: What it returned.
        x: ``(num_examples, ...)`` inputs.
        label: What they are, for the message.

    Raises:
        ValueError: If it has not: inputs without an axis of examples, say.
    """
    if not isinstance(outputs, Tensor) or outputs.ndim < 2 or outputs.shape[0] != x.shape[0]:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(
            f"Expected a row of outputs for each of the {x.shape[0]} {label}, but inputs of shape "
            f"{tuple(x.shape)} gave {shape}. Pass inputs of shape (num_examples, ...): one example "
            "is x.unsqueeze(0)."
        )


def check_finite(values: Tensor, symbol: str, label: str) -> None:
    """Check that all numbers are finite.

    Args:
        values: The numbers.
        symbol: Name of the argument, for the message.
        label: What they are, for the message.

    Raises:
        ValueError: If one is not.
    """
    if values.is_floating_point() and not bool(torch.isfinite(values).all()):
        raise ValueError(
            f"Expected finite {label}, but {symbol} has NaN or infinite entries. Leave those rows "
            "out, or fill them in."
        )


def as_targets(y: Tensor) -> Tensor:
    """Return targets in a type that torch computes with: long for large unsigned integers.

    Args:
        y: ``(num_examples, ...)``.
    """
    return y.long() if y.dtype in _UNSIGNED else y
