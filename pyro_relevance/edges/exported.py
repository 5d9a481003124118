"""A network as a flat graph of ATen operators, with the names of its parameters and buffers."""

from __future__ import annotations

import copy
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import TreeSpec, tree_map

from pyro_relevance.errors import EdgeError

__all__ = [
    "Exported",
    "export_any_batch",
    "export_graph",
    "first_line",
    "quiet",
    "traceable_copy",
    "value_of",
]


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of ``torch.export`` for a network in evaluation mode.

    Args:
        graph: Operators of one call.
        names: Qualified name of the parameter or buffer behind a placeholder, by its node name;
            tied tensors go by their first name.
        constants: Tensors that ``forward`` makes from nothing, by the placeholder's name.
        tensors: The parameters and buffers by qualified name.
        outputs: How the network puts its outputs together.
    """

    graph: fx.Graph
    names: Mapping[str, str]
    constants: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor]
    outputs: TreeSpec


def export_graph(
    network: nn.Module, arguments: tuple[Any, ...], *, any_batch: bool = False
) -> Exported:
    """Trace a network with ``torch.export``.

    Args:
        network: The network; a copy is traced, in evaluation mode.
        arguments: Its inputs.
        any_batch: Whether the graph serves any number of examples (the first axis of each input)
            and not only that of ``arguments``.

    Returns:
        Its graph.

    Raises:
        EdgeError: If it cannot be traced.
    """
    with quiet(), torch.enable_grad():
        try:
            copied = traceable_copy(network)
            if any_batch:
                program, _ = export_any_batch(copied, arguments)
            else:
                program = torch.export.export(copied, arguments, strict=False)
        except Exception as error:  # torch.export raises errors of many kinds
            raise EdgeError(
                f"Expected a network that torch.export can trace, but tracing "
                f"{type(network).__name__} failed: {first_line(error)} Avoid control flow that "
                "depends on values in forward(), and check that example_input fits the network."
            ) from error
    signature = program.graph_signature
    names = {
        placeholder: str(name)
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
    outputs = program.call_spec.out_spec
    assert outputs is not None
    return Exported(program.graph, names, made, tensors, outputs)


def export_any_batch(
    network: nn.Module, arguments: tuple[Any, ...]
) -> tuple[torch.export.ExportedProgram, dict[str, Any]]:
    """Trace a network for any number of examples.

    Args:
        network: The network; it is traced as it is, without a copy.
        arguments: Its inputs, whose first axis counts examples.

    Returns:
        The program, and for each argument of ``forward`` that its first axis is of any size. What
        ``torch.export`` raises is passed on.
    """
    # A size of 1 would be taken for a fixed one.
    traced = tuple(a if len(a) > 1 else torch.cat((a, a)) for a in arguments)
    batch = torch.export.Dim("batch", min=1)
    bound = inspect.signature(network.forward).bind(*traced).arguments
    shapes = {
        name: tuple({0: batch} for _ in value) if isinstance(value, tuple) else {0: batch}
        for name, value in bound.items()
    }
    with quiet(), torch.enable_grad():
        program = torch.export.export(network, traced, dynamic_shapes=shapes, strict=False)
    return program, shapes


def value_of(node: fx.Node) -> Any:
    """Return the value of a node in the trace, without data; sizes of the batch are numbers.

    Args:
        node: A node of an exported graph.

    Returns:
        Tensors on the meta device, numbers, or containers of them.
    """

    def concrete(value: Any) -> Any:
        if isinstance(value, Tensor):
            shape = [_number(size) for size in value.shape]
            return torch.empty(shape, dtype=value.dtype, device="meta")
        return _number(value)

    return tree_map(concrete, node.meta.get("val"))


def _number(value: Any) -> Any:
    is_symbol = isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool))
    return value.node.hint if is_symbol else value


def traceable_copy(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode that shows all its operators when it is traced."""
    copied = copy.deepcopy(network).eval()
    for parameter in copied.parameters():
        # Frozen ones would let attention take a fused path, which hides its weights.
        parameter.requires_grad_(parameter.is_floating_point())
    return copied


def first_line(error: Exception) -> str:
    """Return the first line of an error, without torch's advice about its settings."""
    text = next(iter(str(error).splitlines()), type(error).__name__).strip()
    return text if text.endswith(".") else f"{text}."


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings, logs and prints of other packages: a user cannot act on them."""
    disabled, said = logging.root.manager.disable, io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(said), redirect_stderr(said):
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(disabled)
