"""A network as a flat graph of ATen operators, with the names of its parameters and buffers."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from pyro_relevance.errors import EdgeError

__all__ = ["Exported", "export_graph"]


@dataclass(frozen=True, slots=True)
class Exported:
    """What ``torch.export`` made of a network in evaluation mode.

    Args:
        graph: Operators of one call.
        names: Qualified name of the parameter or buffer behind a placeholder, by its node name;
            tied tensors go by their first name.
        constants: Tensors that ``forward`` makes from nothing, by the placeholder's name.
        tensors: The parameters and buffers by qualified name.
        inputs: Names of the placeholders of the inputs.
    """

    graph: fx.Graph
    names: Mapping[str, str]
    constants: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]


def export_graph(
    network: nn.Module, arguments: tuple[Any, ...], *, dynamic_batch: bool = False
) -> Exported:
    """Trace a network with ``torch.export``.

    Args:
        network: The network; a copy is traced, in evaluation mode.
        arguments: Its inputs.
        dynamic_batch: Whether the first axis of the inputs may have another size later.

    Returns:
        Its graph.

    Raises:
        EdgeError: If it cannot be traced.
    """
    traced = copy.deepcopy(network).eval()
    # Frozen parameters would let attention layers take a fused path that hides their weights.
    for parameter in traced.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    shapes: Any = None
    if dynamic_batch:
        batch = torch.export.Dim("batch", min=1)
        shapes = {"arguments": tuple({0: batch} for _ in arguments)}
        traced = _Positional(traced)
    with _quiet(), torch.enable_grad():
        try:
            program = torch.export.export(traced, arguments, dynamic_shapes=shapes, strict=False)
        except Exception as error:  # torch.export raises errors of many kinds
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise EdgeError(
                f"Expected a network that torch.export can trace, but tracing "
                f"{type(network).__name__} failed: {lines[0]}. Avoid control flow that depends on "
                "values in forward(), and check that example_input fits the network."
            ) from error
    signature = program.graph_signature
    prefix = "network." if dynamic_batch else ""
    names = {
        placeholder: str(name).removeprefix(prefix)
        for source in (signature.inputs_to_parameters, signature.inputs_to_buffers)
        for placeholder, name in source.items()
    }
    made = {
        placeholder: program.constants[name]
        for placeholder, name in signature.inputs_to_lifted_tensor_constants.items()
    }
    tensors = {
        **dict(network.named_parameters(remove_duplicate=False)),
        **dict(network.named_buffers(remove_duplicate=False)),
    }
    return Exported(program.graph, names, made, tensors, tuple(signature.user_inputs))


class _Positional(nn.Module):
    """Gives all inputs one name, so that their dynamic axes can be told."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *arguments: Tensor) -> Any:
        return self.network(*arguments)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the warnings and logs of tracing away, and the process as it was."""
    logger = logging.getLogger("torch")
    disabled = logger.disabled
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.disabled = True
        try:
            yield
        finally:
            logger.disabled = disabled
