"""What is done to any module before it is looked at: example inputs, its mode, new weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

__all__ = [
    *("copy_of", "evaluating", "example_arguments", "first_line"),
    *("modules_that_make_units", "not_accepted", "reinitialise"),
]


def example_arguments(example_input: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the arguments of ``forward()``: a single input becomes a tuple of one.

    Raises:
        TypeError: If one of them is no tensor.
    """
    arguments = example_input if isinstance(example_input, tuple) else (example_input,)
    for argument in arguments:
        if not isinstance(argument, Tensor):
            raise TypeError(
                "Expected example_input as a tensor or a tuple of tensors, but got "
                f"{type(argument).__name__}. Convert arrays with torch.as_tensor."
            )
    return arguments


def not_accepted(arguments: tuple[Tensor, ...], error: Exception) -> str:
    """Return what to say where a network failed with its example.

    Args:
        arguments: The example.
        error: What the network raised.
    """
    given = ", ".join(f"{tuple(argument.shape)} of {argument.dtype}" for argument in arguments)
    cause = error.__cause__ or error  # of a node of a graph
    return (
        f"Expected an example_input that the network accepts, but shape {given} failed: "
        f"{first_line(cause)}"
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error, without torch's advice about its settings."""
    text = next(iter(str(error).splitlines()), type(error).__name__).strip()
    return text if text.endswith(".") else f"{text}."


def copy_of(network: nn.Module) -> nn.Module:
    """Return a deep copy, also of tensors that a hook computed from parameters and left behind."""
    memo: dict[int, Any] = {}
    for module in network.modules():
        for value in vars(module).values():
            items = value.values() if type(value) is dict else (value,)
            for item in items:
                if isinstance(item, Tensor) and not item.is_leaf:
                    memo[id(item)] = item.detach().clone()
    return copy.deepcopy(network, memo)


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; every module gets its own training flag back afterwards."""
    flags = [(module, module.training) for network in networks for module in network.modules()]
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for module, training in flags:
            module.training = training


def modules_that_make_units(network: nn.Module) -> list[str]:
    """Return the names of the modules with a matrix of parameters of their own, each once."""
    owners: dict[int, str] = {}
    for name, tensor in network.named_parameters():
        if tensor.ndim > 1:
            # What computes a weight is part of the module that has the weight.
            owners[id(tensor)] = name.rpartition(".")[0].partition(".parametrizations")[0]
    return list(dict.fromkeys(owners.values()))


def reinitialise(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Draw the weights of each layer again by its ``reset_parameters``, in place.

    Args:
        network: The network; torch's global generator is used.

    Returns:
        Name and module of those that have parameters of their own and no ``reset_parameters``;
        these stay as they are.
    """
    without = []
    for name, module in network.named_modules():
        # nn.MultiheadAttention has the method under a private name.
        reset = getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))
        if callable(reset):
            reset()
        elif any(True for _ in module.parameters(recurse=False)):
            without.append((name, module))
    return without
