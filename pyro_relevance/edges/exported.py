"""A network as a flat graph of ATen operators, with the names of its parameters and buffers."""

from __future__ import annotations

import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import TreeSpec, tree_leaves, tree_map

from pyro_relevance.edges.modules import copy_of, first_line
from pyro_relevance.errors import EdgeError

__all__ = [
    "Exported",
    "Sizes",
    "export_any_batch",
    "export_graph",
    "is_free",
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
        guards: What was assumed about those sizes of the inputs that may differ.
    """

    graph: fx.Graph
    names: Mapping[str, str]
    constants: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor]
    outputs: TreeSpec
    guards: tuple[Any, ...] = ()


Sizes = Literal["example", "batch", "any"]
"""Sizes of inputs that a graph serves: those of the example, any number of examples, or any."""


def export_graph(
    network: nn.Module, arguments: tuple[Any, ...], *, sizes: Sizes = "example"
) -> Exported:
    """Trace a network with ``torch.export``.

    Args:
        network: The network; a copy is traced, in evaluation mode.
        arguments: Its inputs.
        sizes: Which sizes of inputs the graph serves. Under ``"any"`` the axes along which the code
            of the network needs a certain size keep that of ``arguments``.

    Returns:
        Its graph, without operators that write into a part of an earlier value.

    Raises:
        EdgeError: If it cannot be traced.
    """
    with quiet(), torch.enable_grad():
        try:
            program = _program(traceable_copy(network), arguments, sizes)
        except Exception as error:  # torch.export raises errors of many kinds
            raise EdgeError(
                f"Expected a network that torch.export can trace, but tracing "
                f"{type(network).__name__} failed: {first_line(error)} Avoid control flow that "
                "depends on values in forward(), and check that example_input fits the network."
            ) from error
    return _exported(program, network)


def _program(
    network: nn.Module, arguments: tuple[Any, ...], sizes: Sizes
) -> torch.export.ExportedProgram:
    try:
        if sizes == "any":
            program = _export_any_size(network, arguments)
        elif sizes == "batch":
            program, _ = export_any_batch(network, arguments)
        else:
            program = torch.export.export(network, arguments, strict=False)
    except RuntimeError as error:
        # Operators that write into a given tensor run without gradients alone.
        if "automatic differentiation" not in str(error) or not torch.is_grad_enabled():
            raise
        with torch.no_grad():
            return _program(network, arguments, sizes)
    return program.run_decompositions({}) if _needs_functions(program.graph) else program


def _exported(program: torch.export.ExportedProgram, network: nn.Module) -> Exported:
    signature = program.graph_signature
    tensors = {
        **dict(network.named_parameters(remove_duplicate=False)),
        **dict(network.named_buffers(remove_duplicate=False)),
    }
    first: dict[int, str] = {}
    for name, tensor in tensors.items():
        first.setdefault(id(tensor), name)
    names = {
        placeholder: first[id(tensors[str(name)])]
        for source in (signature.inputs_to_parameters, signature.inputs_to_buffers)
        for placeholder, name in source.items()
    }
    made = {
        placeholder: program.constants[name]
        for placeholder, name in signature.inputs_to_lifted_tensor_constants.items()
    }
    outputs = program.call_spec.out_spec
    assert outputs is not None
    return Exported(program.graph, names, made, tensors, outputs, _guards(program.graph))


def _guards(graph: fx.Graph) -> tuple[Any, ...]:
    """Return what was assumed about sizes of inputs that may differ, as expressions of sympy."""
    for node in graph.nodes:
        for value in tree_leaves(node.meta.get("val")):
            sizes = value.shape if isinstance(value, Tensor) else (value,)
            for size in sizes:
                if isinstance(size, torch.SymInt):
                    environment: Any = size.node.shape_env
                    return tuple(guard.expr for guard in environment.guards)
    return ()


_VIEW_WORDS = """
    alias as_strided chunk detach diagonal expand flatten getitem movedim narrow permute reshape
    select slice split split_with_sizes squeeze t transpose unbind unflatten unsqueeze view
"""
_VIEWS = frozenset(_VIEW_WORDS.split())


def _needs_functions(graph: fx.Graph) -> bool:
    """Whether there are blocks of code of their own, or writes into a part of an earlier value."""
    for node in graph.nodes:
        if node.op == "get_attr" or isinstance(node.target, torch._ops.HigherOrderOperator):
            return True
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None or not schema.is_mutable:
            continue
        written = [
            value
            for argument, value in zip(schema.arguments, node.args, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        written += [v for k, v in node.kwargs.items() if k == "out"]
        pointwise = torch.Tag.pointwise in node.target.tags or str(schema.name).endswith("dropout_")
        if not pointwise or len(written) != 1:
            return True
        for value in written:
            target = getattr(value.target, "_schema", None)
            name = str(getattr(target, "name", getattr(value.target, "__name__", "")))
            later = [user for user in value.users if user is not node and node < user]
            if name.removeprefix("aten::") in _VIEWS or value.op == "placeholder" or later:
                return True
    return False


def _export_any_size(
    network: nn.Module, arguments: tuple[Any, ...]
) -> torch.export.ExportedProgram:
    """Trace with a symbol for each size of each input."""
    if _cuts_windows(network, arguments):
        raise EdgeError(
            "Expected sizes that follow from each other in a few steps, but got a network that "
            "cuts images into windows: its images keep the size of the example."
        )
    traced = [_doubled(arguments), arguments]
    free = torch.export.Dim.AUTO
    last: Exception | None = None
    for example in traced:
        shapes = tuple(
            dict.fromkeys(range(a.ndim), free) if isinstance(a, Tensor) else None for a in example
        )
        bound = inspect.signature(network.forward).bind(*example).arguments
        named, rest = {}, list(shapes)
        for name, value in bound.items():
            several = isinstance(value, tuple)
            named[name] = tuple(rest[: len(value)]) if several else rest[0]
            rest = rest[len(value) if several else 1 :]
        try:
            program = torch.export.export(network, example, dynamic_shapes=named, strict=False)
        except Exception as error:  # torch.export raises errors of many kinds
            last = error
            continue
        if not _batch_is_free(program):
            # len(x), say, is a plain number, except where the code itself is read.
            try:
                read = torch.export.export(network, example, dynamic_shapes=named, strict=True)
            except Exception:
                return program
            return read if _batch_is_free(read) else program
        return program
    assert last is not None
    raise last


def _cuts_windows(network: nn.Module, arguments: tuple[Any, ...]) -> bool:
    """Whether images are cut into windows: tensors of six axes in between.

    Sizes that are divided and padded in each block take minutes to be followed with symbols.
    """
    if not any(isinstance(a, Tensor) and a.ndim == 4 for a in arguments):
        return False
    try:
        graph = torch.export.export(network, arguments, strict=False).graph
    except Exception:  # its errors are those of the trace that follows
        return False
    values = (value for node in graph.nodes for value in tree_leaves(node.meta.get("val")))
    return any(isinstance(value, Tensor) and value.ndim >= 6 for value in values)


def _doubled(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return at least two examples: a size of 1 would be taken for a fixed one."""
    return tuple(
        torch.cat((a, a)) if isinstance(a, Tensor) and a.ndim and len(a) == 1 else a
        for a in arguments
    )


def _batch_is_free(program: torch.export.ExportedProgram) -> bool:
    users = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.name in users and isinstance(value, Tensor) and value.ndim:
            return is_free(value.shape[0])
    return True


def is_free(size: Any) -> bool:
    """Return whether a size in a trace may differ; a symbol may have turned out to be a number."""
    return isinstance(size, torch.SymInt) and not size.node.expr.is_number


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
    traced = _doubled(arguments)
    batch = torch.export.Dim("batch", min=1)
    bound = inspect.signature(network.forward).bind(*traced).arguments
    shapes = {
        name: tuple({0: batch} for _ in value) if isinstance(value, tuple) else {0: batch}
        for name, value in bound.items()
    }
    with quiet():
        program = torch.export.export(network, traced, dynamic_shapes=shapes, strict=False)
    return program, shapes


def value_of(node: Any) -> Any:
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
    if not isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return value
    if value.node.hint is None:
        raise EdgeError(
            "Expected a network whose sizes follow from those of its inputs, but got one that "
            "takes a size from values. Avoid nonzero() and boolean masks as indices in forward()."
        )
    return value.node.hint


def traceable_copy(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode that shows all its operators when it is traced."""
    copied = copy_of(network).eval()
    for parameter in copied.parameters():
        # Frozen ones would let attention take a fused path, which hides its weights.
        parameter.requires_grad_(parameter.is_floating_point())
    return copied


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
