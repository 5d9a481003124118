"""Checks and number formats shared by the distributions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["at_least_float32", "check_floating", "check_temperature", "log_temperature"]


def at_least_float32(value: Tensor) -> Tensor:
    """Return ``value`` in float32 where it came in a 16-bit format, else unchanged.

    Half-precision noise has at most 11 bits: the tails that decide a gate near 0 or 1 would be
    lost.

    Args:
        value: ``(*shape)`` floating-point tensor.

    Returns:
        ``(*shape)`` tensor of float32 or float64.
    """
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value


def check_floating(name: str, value: object) -> None:
    """Check that an argument is a floating-point tensor.

    Args:
        name: What the argument is called, for the message.
        value: The argument.

    Raises:
        TypeError: If it is anything else.
    """
    if not isinstance(value, Tensor):
        raise TypeError(
            f"Expected {name} to be a floating-point tensor, but got {type(value).__name__}. "
            f"Pass torch.as_tensor({name}, dtype=torch.float32)."
        )
    if not value.is_floating_point():
        raise TypeError(
            f"Expected {name} to be a floating-point tensor, but got dtype {value.dtype}. "
            f"Pass {name}.float()."
        )


def check_temperature(temperature: object) -> None:
    """Check the temperature of a relaxation without reading a tensor's value.

    The value of a tensor is not looked at: on an accelerator that would stall every training step.

    Args:
        temperature: Positive number, or tensor of shape ``()``.

    Raises:
        TypeError: If it is neither a number nor a floating-point tensor.
        ValueError: If a number is not positive and finite, or a tensor has a shape other than
            ``()``.
    """
    if isinstance(temperature, Tensor):
        check_floating("temperature", temperature)
        if temperature.dim() != 0:
            raise ValueError(
                "Expected temperature to be a float or a tensor of shape (), but got shape "
                f"{tuple(temperature.shape)}. Pass one temperature for all gates."
            )
    elif isinstance(temperature, (int, float)) and not isinstance(temperature, bool):
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(
                f"Expected temperature to be positive and finite, but got {temperature}. "
                "Anneal towards 0.1, never to 0."
            )
    else:
        raise TypeError(
            f"Expected temperature to be a float or a tensor of shape (), but got "
            f"{type(temperature).__name__}. Pass a float."
        )


def log_temperature(temperature: float | Tensor, dtype: torch.dtype) -> float | Tensor:
    """Return the natural logarithm of the temperature.

    Args:
        temperature: Positive number, or tensor of shape ``()``.
        dtype: Format in which a tensor's logarithm is taken.

    Returns:
        A float, or a tensor of shape ``()``.
    """
    if isinstance(temperature, Tensor):
        return temperature.to(dtype).log()
    return math.log(temperature)
