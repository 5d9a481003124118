"""Pruning: `apply_mask` keeps all shapes and writes zeros, `prune` makes a smaller network.

Both are the same function. `prune` removes what the mask removes and all that is dead then: units
that nothing reads, inputs that nobody reads, and units that nothing makes, whose constant value
moves into the biases of their readers. The result is compared with the masked network before it
is returned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from pyro_relevance.edges.connectivity import is_constant, kept_positions, live_edges
from pyro_relevance.edges.edges import Edges
from pyro_relevance.edges.groups import EdgeGroup
from pyro_relevance.edges.modules import (
    copy_of,
    evaluating,
    example_arguments,
    not_accepted,
)
from pyro_relevance.edges.operators.registry import find_module
from pyro_relevance.errors import SurgeryError
from pyro_relevance.surgery.constants import fold_constants, nonzero_entries, owner_of
from pyro_relevance.surgery.equivalence import largest_difference
from pyro_relevance.surgery.plain_modules import Constant, SelectFeatures
from pyro_relevance.surgery.pruned_network import PrunedNetwork, load_pruned
from pyro_relevance.surgery.receipt import Receipt
from pyro_relevance.surgery.rewriting.compared import as_operations

__all__ = ["PrunedNetwork", "Receipt", "apply_mask", "load_pruned", "prune"]

OnEmpty = Literal["remove", "keep", "error"]


def apply_mask(network: nn.Module, edges: Edges, mask: Mapping[str, Tensor]) -> nn.Module:
    """Copy a network with zeros where a weight reads an edge that the mask removes.

    Args:
        network: The network that ``edges`` were found in; it is not touched.
        edges: Its edges.
        mask: For each group, booleans of ``group.shape``, True = kept.

    Returns:
        A network of the same shapes.

    Raises:
        ValueError: The mask or the network does not fit the edges.
    """
    _check(network, edges, mask)
    masked = copy_of(network)
    parameters = dict(masked.named_parameters())
    gates = {name: mask[name].to(_device(parameters)) for name in edges.names}
    with torch.no_grad():
        for name, folded in edges.fold(parameters, gates).items():
            parameters[name].copy_(folded)
    for parameter in parameters.values():
        parameter.grad = None
    return masked


def prune(
    network: nn.Module,
    edges: Edges,
    mask: Mapping[str, Tensor],
    *,
    example_input: Tensor | tuple[Tensor, ...],
    on_empty: OnEmpty = "remove",
) -> PrunedNetwork:
    """Make the small network that computes what the masked network computes.

    Args:
        network: The network that ``edges`` were found in; it is not touched.
        edges: Its edges.
        mask: For each group, booleans of ``group.shape``, True = kept.
        example_input: ``(num_data, *input_shape)`` input or a tuple of inputs, to compare the
            networks and to measure latency on.
        on_empty: What happens where a whole layer or all inputs are removed. ``"remove"`` removes
            the layer and everything that only it read, so that its readers become constants;
            ``"keep"`` keeps one unit of it that nothing reads; ``"error"`` raises an error.

    Returns:
        The small network with a receipt; its training flag is that of ``network``. It consists of
        the modules of ``network``. Where a number in its ``forward()`` has to change (heads of
        attention), it is a list of operations that computes what ``network`` computes in evaluation
        mode, and the receipt says so.

    Raises:
        ValueError: The mask or the network does not fit the edges, or ``on_empty`` is unknown.
        SurgeryError: The small network differs from the masked one, cannot run, or is empty and
            that is an error.
    """
    arguments = _checked_arguments(example_input, on_empty)
    masked = apply_mask(network, edges, mask)
    folded = copy_of(masked)
    with evaluating(masked, folded), torch.no_grad():
        _try(masked, arguments)
        added, notes = fold_constants(folded, edges, arguments)
        live, kept = _kept(folded, edges, added, keep_one=on_empty == "keep")
        empty = _empty(edges, live, mask)
        if empty and on_empty == "error":
            raise SurgeryError(
                f"Expected at least one kept edge in each group, but none is kept in "
                f"{', '.join(empty)}. Keep more edges, or accept it with on_empty='remove' or "
                "'keep'."
            )
        notes += _removals(live)
        if is_constant(edges.structure, live, edges.positions):
            small: nn.Module = Constant(masked(*(argument[:1] for argument in arguments))[0])
            notes.append("No input is read any more: the network is a constant.")
            difference = largest_difference(masked, small, arguments)
        else:
            pair = (masked, folded)
            small, written, difference = _prune(pair, edges, live, kept, arguments)
            notes += written
    small.train(network.training)
    receipt = Receipt.measured(
        network, small, example_input, max_difference=difference, notes=notes
    )
    return PrunedNetwork(small, receipt, example_input)


def _checked_arguments(
    example_input: Tensor | tuple[Tensor, ...], on_empty: str
) -> tuple[Tensor, ...]:
    if on_empty not in get_args(OnEmpty):
        raise ValueError(
            f"Expected on_empty from {list(get_args(OnEmpty))}, but got {on_empty!r}. 'remove' "
            "takes a layer that is pruned whole out of the network."
        )
    arguments = example_arguments(example_input)
    if any(len(argument) == 0 for argument in arguments):
        raise ValueError("Expected an example_input with at least one example, but got none.")
    return arguments


def _try(masked: nn.Module, arguments: tuple[Tensor, ...]) -> None:
    """Call the network once: what it does not accept is told before any work."""
    try:
        with torch.random.fork_rng(devices=[]):
            masked(*arguments)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise SurgeryError(not_accepted(arguments, error)) from error


def _check(network: nn.Module, edges: Edges, mask: Mapping[str, Tensor]) -> None:
    shapes = {
        name: tuple(t.shape) for name, t in (*network.named_parameters(), *network.named_buffers())
    }
    wrong = [name for name, shape in edges.shapes.items() if shapes.get(name) != shape]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"Expected the network in which the edges were found, with {name!r} of shape "
            f"{edges.shapes[name]}, but got "
            f"{shapes.get(name, 'none')}. Pass the same network, or find its edges again."
        )
    if set(mask) != set(edges.names):
        raise ValueError(
            f"Expected a mask of the groups {list(edges.names)}, but got {list(mask)}. Keep a "
            "group whole with ones."
        )
    for group in edges:
        keep = mask[group.name]
        if keep.dtype != torch.bool or keep.shape != group.shape:
            raise ValueError(
                f"Expected mask[{group.name!r}] with booleans of shape {group.shape}, but got "
                f"{keep.dtype} of shape "
                f"{tuple(keep.shape)}. True keeps an edge."
            )


def _removals(live: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{name}: {int(flags.sum())} of {len(flags)} kept."
        for name, flags in live.items()
        if not bool(flags.all())
    ]


def _kept(
    network: nn.Module, edges: Edges, added: Mapping[str, str], *, keep_one: bool
) -> tuple[dict[str, Tensor], dict[tuple[str, int], Tensor]]:
    """Find the live edges and the kept positions of each tensor, added biases included."""
    connected = nonzero_entries(network)
    live = live_edges(edges.structure, connected, edges.unfoldable, keep_one=keep_one)
    kept = kept_positions(edges.structure, live, connected)
    kept |= {(bias, 0): kept[weight, 0] for weight, bias in added.items() if (weight, 0) in kept}
    return live, kept


def _empty(edges: Edges, live: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> list[str]:
    """Groups that are empty after pruning, also where one unit is kept for the layer."""
    empty = [name for name, flags in live.items() if not bool(flags.any())]
    removed = [name for name, keep in mask.items() if name in live and not bool(keep.any())]
    return list(dict.fromkeys((*empty, *removed)))


def _prune(
    networks: tuple[nn.Module, nn.Module],
    edges: Edges,
    live: Mapping[str, Tensor],
    kept: Mapping[tuple[str, int], Tensor],
    arguments: tuple[Tensor, ...],
) -> tuple[nn.Module, list[str], float]:
    """Prune the tensors of a network, in its own modules if these run with the kept sizes.

    Args:
        networks: The masked network, and the same after constants were folded.
        edges: Its edges.
        live: Result of :func:`live_edges`.
        kept: For (tensor, axis), the kept positions.
        arguments: Inputs.

    Returns:
        The small network, notes, and its largest difference from the masked one.
    """
    masked, network = networks
    changed = [
        name for name, some in edges.rewritten.items() if not bool(live[name][[*some]].all())
    ]
    gone = [name for name in edges.unfoldable if not bool(live[name].any())]
    failed: SurgeryError | None = None
    if not changed and not gone:
        small = copy_of(network)
        try:
            _slice(small, kept)
            for group in edges.structure:
                if group.granularity == "input":
                    small = _select_inputs(small, group, kept)
            return small, [], largest_difference(masked, small, arguments)
        except SurgeryError as error:
            failed = error  # its code may hold sizes that no longer fit
    why = [f"{name} changed numbers in it" for name in changed]
    why += [f"{name} is removed" for name in gone]
    try:
        written, notes, difference = as_operations(masked, network, arguments, kept)
    except SurgeryError as error:
        if failed is not None and "differ by" in str(failed):
            raise failed from error  # it ran: nothing is the matter with its code
        raise
    reason = ", ".join(why) or "it has sizes of its own"
    note = f"forward() is now a list of operations, as in evaluation mode: {reason}."
    return written, [*notes, note], difference


def _slice(network: nn.Module, kept: Mapping[tuple[str, int], Tensor]) -> None:
    """Slice parameters and buffers in place, and correct the sizes that modules store."""
    owners: dict[int, list[tuple[dict[str, Any], str, nn.Module]]] = {}
    for module in network.modules():
        for holder in (module._parameters, module._buffers):
            for key, tensor in holder.items():
                owners.setdefault(id(tensor), []).append((holder, key, module))
    touched: dict[nn.Module, None] = {}
    for (name, dim), flags in kept.items():
        if bool(flags.all()):
            continue
        module, key = owner_of(network, name), name.rpartition(".")[2]
        tensor = module._parameters.get(key, module._buffers.get(key))
        assert tensor is not None
        index = flags.nonzero()[:, 0].to(tensor.device)
        small: Any = tensor.detach().index_select(dim, index)
        if isinstance(tensor, nn.Parameter):
            small = nn.Parameter(small, requires_grad=tensor.requires_grad)
        tied = owners.pop(id(tensor))
        owners[id(small)] = tied
        for holder, tied_key, owner in tied:
            holder[tied_key] = small
            touched[owner] = None
    for module in touched:
        resize = find_module(module).resize
        if resize is not None:
            resize(module)


def _select_inputs(
    network: nn.Module, group: EdgeGroup, kept: Mapping[tuple[str, int], Tensor]
) -> nn.Module:
    """Insert a selection of columns before each layer that reads only a part of the input."""
    for slot in group.consumers:
        flags = kept[slot.tensor, 1]
        if bool(flags.all()):
            continue
        name = slot.tensor.rpartition(".")[0]
        reader = network.get_submodule(name)
        select = SelectFeatures(flags.nonzero()[:, 0].tolist()).to(next(reader.parameters()).device)
        if not name:
            return nn.Sequential(select, reader)
        parent, _, key = name.rpartition(".")
        setattr(network.get_submodule(parent), key, nn.Sequential(select, reader))
    return network


def _device(parameters: Mapping[str, Tensor]) -> torch.device:
    return next(iter(parameters.values())).device
