"""Units with a constant value are folded into the biases of their readers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pyro_relevance.edges.connectivity import made, read
from pyro_relevance.edges.edges import Edges
from pyro_relevance.edges.modules import copy_of

__all__ = ["fold_constants", "nonzero_entries", "owner_of"]


def fold_constants(
    network: nn.Module, edges: Edges, arguments: tuple[Tensor, ...]
) -> tuple[dict[str, str], list[str]]:
    """Move the value of constant units into the biases of their readers.

    That can make a reader's units constant in turn. It is repeated until no constant unit remains.

    Args:
        network: Network in evaluation mode; its weights and biases are changed in place.
        edges: Its edges.
        arguments: Inputs; the first example is used.

    Returns:
        Names of biases that were added, by the name of the weight beside them, and notes for the
        receipt.
    """
    unfoldable = edges.unfoldable
    units = [
        group
        for group in edges.structure
        if group.granularity == "unit" and group.name not in unfoldable
    ]
    added: dict[str, str] = {}
    counts: dict[str, int] = {}
    while True:
        connected = nonzero_entries(network)
        constant = {group.name: ~made(group, connected) & read(group, connected) for group in units}
        if not any(bool(flags.any()) for flags in constant.values()):
            break
        tensors = [slot.tensor for group in units for slot in group.consumers]
        readers = {tensor: owner_of(network, tensor) for tensor in tensors}
        copied = copy_of(network)  # some networks keep what they computed in evaluation
        run = {tensor: owner_of(copied, tensor) for tensor in tensors}
        values = _first_inputs(copied, run, arguments)
        for group in units:
            counts[group.name] = counts.get(group.name, 0) + int(constant[group.name].sum())
            for slot in group.consumers:
                flags = slot.spread(constant[group.name], False)
                if _absorb(readers[slot.tensor], values[slot.tensor], flags):
                    added[slot.tensor] = slot.tensor.removesuffix("weight") + "bias"
    notes = [f"{name}: {n} constant, moved into biases." for name, n in counts.items() if n]
    return added, notes


def _absorb(reader: nn.Module, value: Tensor, flags: Tensor) -> bool:
    """Put ``weight[:, flags] @ value[flags]`` into the bias, clear the weights; is a bias new?"""
    assert isinstance(reader, nn.Linear)
    flags = flags.to(reader.weight.device)
    share = reader.weight[:, flags].double() @ value[flags].double()
    reader.weight[:, flags] = 0
    if not bool(share.any()):
        return False
    missing = reader.bias is None
    if missing:
        reader.bias = nn.Parameter(reader.weight.new_zeros(reader.out_features))
    reader.bias.copy_((reader.bias.double() + share).to(reader.bias.dtype))
    return missing


def _first_inputs(
    network: nn.Module, readers: Mapping[str, nn.Module], arguments: tuple[Tensor, ...]
) -> dict[str, Tensor]:
    """``(in_features,)`` input of each reader for the first example (its first position)."""
    values: dict[str, Tensor] = {}

    def hook(name: str) -> Any:
        def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values[name] = inputs[0].reshape(-1, inputs[0].shape[-1])[0]

        return keep

    handles = [module.register_forward_pre_hook(hook(name)) for name, module in readers.items()]
    try:
        network(*(argument[:1] for argument in arguments))
    finally:
        for handle in handles:
            handle.remove()
    return values


def nonzero_entries(network: nn.Module) -> dict[str, Tensor]:
    """For each parameter, booleans of its shape on the CPU, True = not zero."""
    return {name: parameter.detach().cpu() != 0 for name, parameter in network.named_parameters()}


def owner_of(network: nn.Module, tensor: str) -> nn.Module:
    """The module that holds a parameter or buffer."""
    return network.get_submodule(tensor.rpartition(".")[0])
