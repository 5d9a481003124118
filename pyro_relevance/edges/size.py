"""What a network costs in parameters, multiply-accumulates, bytes and seconds.

Sizes are counted on a network; `masked_cost` computes them from a mask, without pruning.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pyro_relevance.edges.connectivity import is_constant, kept_positions, live_edges
from pyro_relevance.edges.modules import copy_of, evaluating, example_arguments
from pyro_relevance.edges.operators.registry import registered
from pyro_relevance.edges.packing import packed_bytes, packed_size

if TYPE_CHECKING:
    from pyro_relevance.edges.edges import Edges

__all__ = [
    "Cost",
    "Latency",
    "count_cost",
    "latency",
    "masked_cost",
    "num_bytes",
    "num_macs",
    "num_nonzero",
    "num_parameters",
]

# Once the runs took this long together, more repeats would add little.
_MAX_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Size of a network.

    Args:
        num_parameters: Stored entries of all parameters.
        num_nonzero: Those that are not zero.
        num_macs: Multiply-accumulates for one example.
        num_bytes: Bytes of all tensors in a file, zeros packed.
    """

    num_parameters: int
    num_nonzero: int
    num_macs: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of one forward pass.

    Args:
        median: Median over the repeats.
        lower: First quartile.
        upper: Third quartile.
    """

    median: float
    lower: float
    upper: float


def num_parameters(network: nn.Module) -> int:
    """Stored entries of all parameters, zeros included; tied parameters count once."""
    return sum(parameter.numel() for parameter in network.parameters())


def num_nonzero(network: nn.Module) -> int:
    """Entries of all parameters that are not zero; tied parameters count once."""
    return sum(int(parameter.detach().count_nonzero()) for parameter in network.parameters())


def num_bytes(network: nn.Module) -> int:
    """Bytes of all parameters and buffers in a file of this library, without its header.

    If at most nine tenths of a tensor's entries are not zero, the file stores these entries and
    one bit per position.
    """
    return sum(map(packed_bytes, network.state_dict().values()))


def num_macs(network: nn.Module, example_input: Tensor | tuple[Tensor, ...]) -> int:
    """Multiply-accumulates of linear layers, convolutions, matrix products for one example.

    Half of the floating point operations that ``torch.utils.flop_counter`` counts; biases,
    activations and normalisations are not counted, and zeros count like other weights.

    Args:
        network: The network.
        example_input: ``(num_data, *input_shape)`` input, or a tuple of inputs; the first example
            is used.

    Returns:
        Multiply-accumulates for one example.
    """
    arguments = tuple(argument.detach() for argument in example_arguments(example_input))
    first = tuple(argument[:1] for argument in arguments)
    try:
        return _counted(network, first)
    except (RuntimeError, ValueError):  # a network that is made for one number of examples
        return _counted(network, arguments) // len(arguments[0])


def _counted(network: nn.Module, arguments: tuple[Tensor, ...]) -> int:
    # The counter follows gradients of module outputs even under no_grad: it gets tensors without.
    # A copy: some networks keep what they computed in evaluation, and functional_call unties names.
    plain = copy_of(network).eval().requires_grad_(False)
    with (
        torch.no_grad(),
        _attention_in_parts(),
        FlopCounterMode(display=False, custom_mapping=_formulas()) as counter,
    ):
        plain(*arguments)
    return int(counter.get_total_flops()) // 2


def count_cost(network: nn.Module, example_input: Tensor | tuple[Tensor, ...]) -> Cost:
    """Count everything in a network.

    Args:
        network: The network.
        example_input: ``(num_data, *input_shape)`` input, or a tuple of inputs.

    Returns:
        Parameters, non-zero parameters, multiply-accumulates for one example, and bytes.
    """
    macs = num_macs(network, example_input)
    return Cost(num_parameters(network), num_nonzero(network), macs, num_bytes(network))


def latency(
    network: nn.Module, example_input: Tensor | tuple[Tensor, ...], *, repeats: int = 20
) -> Latency:
    """Measure the time of one forward pass in evaluation mode.

    Args:
        network: The network.
        example_input: ``(num_data, *input_shape)`` input, or a tuple of inputs; all of it is one
            pass.
        repeats: Number of timed passes, at least 2; fewer where they would take more than two
            seconds.

    Returns:
        Median and quartiles in seconds.

    Raises:
        ValueError: ``repeats`` is below 2.
    """
    if repeats < 2:
        raise ValueError(
            f"Expected repeats of at least 2, but got {repeats}. Quartiles need two passes."
        )
    arguments = example_arguments(example_input)
    seconds: list[float] = []
    with evaluating(network), torch.inference_mode():
        for _ in range(3):
            network(*arguments)
        while len(seconds) < 2 or (len(seconds) < repeats and sum(seconds) < _MAX_SECONDS):
            _synchronise(arguments)
            start = time.perf_counter()
            network(*arguments)
            _synchronise(arguments)
            seconds.append(time.perf_counter() - start)
    lower, median, upper = statistics.quantiles(seconds, n=4, method="inclusive")
    return Latency(median, lower, upper)


def masked_cost(edges: Edges, mask: Mapping[str, Tensor], *, entry_size: int | None = None) -> Cost:
    """Compute what a network costs after a mask, without building the pruned network.

    The same parts go as in ``prune``: units without weights that make or read them, inputs that
    nobody reads. Entries that stay count as not zero (no kept weight or bias is exactly 0), and no
    layer without a bias gets one.

    Args:
        edges: Edges of the network.
        mask: For each group, booleans of its shape, True = kept.
        entry_size: Bytes of an entry; by default those that the network has.

    Returns:
        The size of the pruned network.

    Raises:
        ValueError: The mask does not fit the edges, or the network has convolutions and the edges
            were found without an example.
    """
    connected = {
        name: torch.ones(shape, dtype=torch.bool)
        for name, shape in edges.shapes.items()
        if name not in edges.buffers
    }
    connected.update(edges.fold(connected, {name: keep.cpu() != 0 for name, keep in mask.items()}))
    live = live_edges(edges.structure, connected, edges.unfoldable)
    if is_constant(edges.structure, live, edges.positions):
        outputs = sum(g.num_edges for g in edges.structure if g.granularity == "output")
        entry = entry_size or max((size for size, *_ in edges.storage.values()), default=4)
        return Cost(outputs, outputs, 0, outputs * entry)
    kept = kept_positions(edges.structure, live, connected)
    is_list = _is_list(edges, live)
    parameters = nonzero = macs = size = 0
    for name, shape in edges.shapes.items():
        sizes = [int(kept[name, d].sum()) if (name, d) in kept else n for d, n in enumerate(shape)]
        entries = math.prod(sizes)
        found, whole, names = edges.storage.get(name, (4 if shape else 8, None, 1))
        entry = entry_size if entry_size is not None and shape else found
        if name in edges.buffers:
            untouched = entries == math.prod(shape) and entry == found and whole is not None
            size += whole if untouched and whole is not None else entries * entry
            continue
        stored = int(connected[name].sum()) if len(shape) > 1 else entries
        parameters += entries
        nonzero += stored
        size += packed_size(stored, entries, entry) * (1 if is_list else names)
        if len(shape) > 1:
            macs += entries * _positions(edges, name)
    for name, counts in edges.products.items():
        flags = live.get(name, torch.ones(len(counts), dtype=torch.bool))
        macs += int(torch.tensor(counts)[flags].sum())
    for group in edges.structure:
        if group.granularity == "input":
            for slot in group.consumers:
                columns = kept[slot.tensor, 1]
                if not bool(columns.all()):
                    # SelectFeatures stores the columns as int32; column number 0 is a zero entry.
                    size += packed_size(int(columns[1:].sum()), int(columns.sum()), 4)
    return Cost(parameters, nonzero, macs, size)


@contextmanager
def _attention_in_parts() -> Iterator[None]:
    """Attention as products that the counter knows, not as one operator of the whole layer."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _is_list(edges: Edges, live: Mapping[str, Tensor]) -> bool:
    """Whether the pruned network is a list of operations, which holds a tied tensor once."""
    return any(
        not bool(live[name][[*some]].all()) for name, some in edges.rewritten.items()
    ) or any(not bool(live[name].any()) for name in edges.unfoldable)


def _positions(edges: Edges, name: str) -> int:
    unknown = name not in edges.positions and bool(edges.positions)
    if unknown or (not edges.positions and len(edges.shapes[name]) > 2):
        raise ValueError(
            f"Expected edges that know how often {name!r} is applied, but they were found without "
            "an example. "
            "Pass example_input to find_edges."
        )
    return edges.positions.get(name, 1)


def _formulas() -> dict[Any, Callable[..., int]]:
    """Floating point operations of the operators whose entries say how they are counted."""
    return {
        _packet(name): lambda *args, _macs=entry.macs, **kwargs: 2 * _macs(*args, **kwargs)
        for entry in registered()
        if entry.macs is not None
        for name in entry.names
    }


def _packet(name: str) -> Any:
    namespace, _, key = name.rpartition("::")
    return getattr(getattr(torch.ops, namespace or "aten"), key)


def _synchronise(arguments: tuple[Tensor, ...]) -> None:
    if any(argument.is_cuda for argument in arguments):
        torch.cuda.synchronize()
