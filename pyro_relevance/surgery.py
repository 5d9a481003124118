"""Cutting edges: `apply_mask` keeps all shapes and writes zeros, `prune` makes a smaller network.

Both are the same function. `prune` removes what the mask cut and all that is dead then: units that
nothing reads, inputs that nobody reads, and units that nothing makes, whose constant value moves
into the biases of their readers. The result is compared with the masked network before it is
returned.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from pyro_relevance.connectivity import is_constant, kept_positions, live_edges
from pyro_relevance.constant_folding import fold_constants, nonzero_entries, owner_of
from pyro_relevance.cost import count_cost, evaluating, latency
from pyro_relevance.edge_groups import EdgeGroup
from pyro_relevance.edge_set import Edges
from pyro_relevance.equivalence import largest_difference
from pyro_relevance.errors import SurgeryError
from pyro_relevance.plain_modules import Constant, SelectFeatures
from pyro_relevance.pruned_network import PrunedNetwork, load_pruned
from pyro_relevance.receipt import Receipt

__all__ = ["PrunedNetwork", "Receipt", "apply_mask", "load_pruned", "prune"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def apply_mask(network: nn.Module, edges: Edges, mask: Mapping[str, Tensor]) -> nn.Module:
    """Copy a network with zeros where a weight reads an edge that the mask cuts.

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
    masked = copy.deepcopy(network)
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
    on_empty: Literal["constant", "error"] = "constant",
) -> PrunedNetwork:
    """Make the small network that computes what the masked network computes.

    Args:
        network: The network that ``edges`` were found in; it is not touched.
        edges: Its edges.
        mask: For each group, booleans of ``group.shape``, True = kept.
        example_input: ``(num_data, *input_shape)`` input, or a tuple of inputs: for the comparison,
            and the batch at which latency is measured.
        on_empty: What to do where a layer or all inputs are cut: return the ``"constant"`` network
            that is left, or raise an ``"error"``.

    Returns:
        The small network with a receipt; its training flag is that of ``network``.

    Raises:
        ValueError: The mask or the network does not fit the edges, or ``on_empty`` is unknown.
        SurgeryError: The small network differs from the masked one, cannot run, or is empty and
            that is an error.
    """
    if on_empty not in ("constant", "error"):
        raise ValueError(f"Expected on_empty to be 'constant' or 'error', but got {on_empty!r}.")
    arguments = example_input if isinstance(example_input, tuple) else (example_input,)
    if any(len(argument) == 0 for argument in arguments):
        raise ValueError("Expected an example_input with at least one example, but got none.")
    masked = apply_mask(network, edges, mask)
    small = copy.deepcopy(masked)
    with evaluating(masked, small), torch.no_grad():
        added, notes = fold_constants(small, edges, arguments)
        connected = nonzero_entries(small)
        live = live_edges(edges.structure, connected, edges.unfoldable)
        notes += _removals(live)
        notes += _kept_for_shape(edges, mask)
        _check_empty(edges, live, mask, on_empty)
        kept = kept_positions(edges.structure, live, connected)
        kept |= {
            (bias, 0): kept[weight, 0] for weight, bias in added.items() if (weight, 0) in kept
        }
        if is_constant(edges.structure, live, edges.positions):
            small = Constant(masked(*(argument[:1] for argument in arguments))[0])
            notes.append("No input is read any more: the network is a constant.")
        else:
            _slice(small, kept)
            for group in edges.structure:
                if group.granularity == "input":
                    small = _select_inputs(small, group, kept)
    small.train(network.training)
    difference = largest_difference(masked, small, arguments)
    parameter = next(masked.parameters())
    receipt = Receipt(
        before=count_cost(network, example_input),
        after=count_cost(small, example_input),
        latency_before=latency(network, example_input),
        latency_after=latency(small, example_input),
        batch_size=len(arguments[0]),
        dtype=str(parameter.dtype).removeprefix("torch."),
        max_difference=difference,
        notes=tuple(notes),
    )
    return PrunedNetwork(small, receipt)


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
        f"{name}: {int(flags.sum())} of {len(flags)} left."
        for name, flags in live.items()
        if not bool(flags.all())
    ]


def _kept_for_shape(edges: Edges, mask: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{name}: all are cut; one that nothing reads stays, since the layer needs a unit."
        for name in edges.unfoldable
        if _is_cut(name, mask)
    ]


def _is_cut(name: str, mask: Mapping[str, Tensor]) -> bool:
    return name in mask and not bool(mask[name].any())


def _check_empty(
    edges: Edges, live: Mapping[str, Tensor], mask: Mapping[str, Tensor], on_empty: str
) -> None:
    empty = [name for name, flags in live.items() if not bool(flags.any())]
    empty += [name for name in edges.unfoldable if _is_cut(name, mask)]
    if empty and on_empty == "error":
        raise SurgeryError(
            f"Expected something left of each layer, but nothing is left of {', '.join(empty)}. "
            "Keep more edges, or accept what is left of it with on_empty='constant'."
        )


def _slice(network: nn.Module, kept: Mapping[tuple[str, int], Tensor]) -> None:
    """Cut parameters and buffers in place, and correct the sizes that modules remember."""
    touched = set()
    for (name, dim), flags in kept.items():
        if bool(flags.all()):
            continue
        module, key = owner_of(network, name), name.rpartition(".")[2]
        tensor = module._parameters.get(key, module._buffers.get(key))
        assert tensor is not None
        index = flags.nonzero()[:, 0].to(tensor.device)
        small = tensor.detach().index_select(dim, index)
        if isinstance(tensor, nn.Parameter):
            module._parameters[key] = nn.Parameter(small, requires_grad=tensor.requires_grad)
        else:
            module._buffers[key] = small
        touched.add(module)
    for module in touched:
        if isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
        elif isinstance(module, _CONVOLUTIONS):
            # A group goes as a whole, so the number of outputs of each stays.
            if module.groups > 1:
                module.groups = module.groups * len(module.weight) // module.out_channels
            module.out_channels = len(module.weight)
            module.in_channels = module.weight.shape[1] * module.groups
        elif isinstance(module, _TRANSPOSED):
            module.in_channels, module.out_channels = module.weight.shape[:2]
        elif isinstance(module, nn.PReLU):
            module.num_parameters = len(module.weight)
        elif isinstance(module, nn.GroupNorm):
            width = module.num_channels // module.num_groups
            module.num_channels = len(module.weight)
            module.num_groups = module.num_channels // width
        elif isinstance(module, nn.modules.batchnorm._NormBase):
            sizes = [module.weight, module.running_mean]
            module.num_features = next(len(tensor) for tensor in sizes if tensor is not None)


def _select_inputs(
    network: nn.Module, group: EdgeGroup, kept: Mapping[tuple[str, int], Tensor]
) -> nn.Module:
    """Put a choice of columns before each layer that reads the input but no longer all of it."""
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
