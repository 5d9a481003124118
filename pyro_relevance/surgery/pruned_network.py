"""The pruned network with its receipt, in memory and in one file."""

from __future__ import annotations

import os
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from pyro_relevance._files import (
    json_text,
    parse_json,
    read_safetensors,
    replacing,
    save_safetensors,
)
from pyro_relevance.edges.modules import example_arguments
from pyro_relevance.edges.packing import pack, packed_shapes, unpack
from pyro_relevance.errors import CheckpointError, SurgeryError
from pyro_relevance.surgery.building import build, check_state
from pyro_relevance.surgery.description import describe
from pyro_relevance.surgery.plain_modules import SelectFeatures
from pyro_relevance.surgery.receipt import Receipt
from pyro_relevance.surgery.rewriting.compared import as_operations
from pyro_relevance.surgery.steps import GraphNetwork

__all__ = ["PrunedNetwork", "check_finite", "load_pruned", "network_of"]

_FORMAT = "pyro_relevance.pruned_network"
_VERSION = 1


class PrunedNetwork(nn.Module):
    """A plain small network that takes the same inputs as the original network.

    Args:
        network: The small network.
        receipt: Sizes, times and the difference to the masked network.
        example_input: Inputs, for :meth:`save` of a network that must be traced to be written down.
            Their shapes are kept, and whole numbers in another order, but no number of the data.
    """

    def __init__(
        self,
        network: nn.Module,
        receipt: Receipt,
        example_input: Tensor | tuple[Tensor, ...] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.receipt = receipt
        self.example_input = None if example_input is None else _without_data(example_input)
        self.training = network.training

    def forward(self, *inputs: Tensor) -> Any:
        """Outputs of the small network for the same inputs as those of the original network."""
        return self.network(*inputs)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write architecture, tensors and receipt to one safetensors file.

        An old file of that name stays until the new one is whole. :func:`load_pruned` reads it.

        Without this library, safetensors gives the tensors, for a ``load_state_dict`` of the
        network's own code. The metadata lists the packed ones. A tensor with many zeros is packed
        into ``<name>::values``, its other entries in order, and ``<name>::bits``, one bit per
        position, the lowest bit of a byte first::

            import json, torch
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                state = {name: file.get_tensor(name) for name in file.keys()}
            for name, shape in json.loads(metadata["packed"]).items():
                values, bits = state.pop(name + "::values"), state.pop(name + "::bits")
                kept = (bits[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
                dense = torch.zeros(shape, dtype=values.dtype)
                dense.view(-1)[kept.view(-1)[: dense.numel()].bool()] = values
                state[name] = dense
            architecture = json.loads(metadata["architecture"])

        The architecture is a tree of types of ``torch.nn`` and their arguments, or a list of
        operations; :mod:`pyro_relevance.surgery.description` documents it. ``export_torch`` writes
        a file that runs with torch alone.

        Args:
            path: File to write, usually ``*.safetensors``.

        Raises:
            ValueError: A parameter is not finite, or neither are the modules of the network
                described by their settings nor can it be written down as a list of operations. Try
                ``export_torch``.
            CheckpointError: The file could not be written.
        """
        check_finite(self.network)
        network, description = self._described()
        tensors, packed = pack(network.state_dict())
        metadata = {
            "format": _FORMAT,
            "version": str(_VERSION),
            "architecture": json_text(description),
            "packed": packed,
            "receipt": json_text(self.receipt.to_dict()),
        }
        try:
            with replacing(path) as temporary:
                save_safetensors(temporary, tensors, metadata)
        except SafetensorError as error:
            raise CheckpointError(
                f"Expected to write {os.fspath(path)!r}, but it failed: {error}"
            ) from error

    def _described(self) -> tuple[nn.Module, dict[str, Any]]:
        """Return the network, or a list of operations that is the same function; described."""
        try:
            return self.network, describe(self.network)
        except ValueError as error:
            if self.example_input is None:
                raise
            device = next((p.device for p in self.network.parameters()), torch.device("cpu"))
            arguments = tuple(a.to(device) for a in self.example_input)
            try:
                network, _, _ = as_operations(self.network, self.network, arguments, {})
                return network, describe(network)
            except (SurgeryError, ValueError) as second:
                raise ValueError(
                    f"{error} It has no list of operations either: {second}"
                ) from error


def _without_data(example_input: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return inputs of the same shapes and types, of at most two examples."""
    generator = torch.Generator().manual_seed(0)
    kept = []
    for argument in example_arguments(example_input):
        few = argument[:2].detach().cpu()
        if few.is_floating_point():
            few = torch.randn(few.shape, generator=generator).to(few.dtype)
        else:
            order = torch.randperm(few.numel(), generator=generator)
            few = few.reshape(-1)[order].reshape(few.shape)
        kept.append(few)
    return tuple(kept)


def load_pruned(path: str | os.PathLike[str]) -> PrunedNetwork:
    """Read a network that :meth:`PrunedNetwork.save` wrote; no code in the file is run.

    Args:
        path: The file.

    Returns:
        The network on the CPU in evaluation mode, with its receipt.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is damaged, or not one of this library.
    """
    name = os.fspath(path)
    if not os.path.exists(name):
        raise FileNotFoundError(
            f"Expected a file of a pruned network, but {name!r} does not exist."
        )
    try:
        tensors, metadata = read_safetensors(name)
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(
            f"Expected a whole safetensors file, but {name!r} is damaged: {error}"
        ) from error
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(
            f"Expected a file written by PrunedNetwork.save, but {name!r} says format "
            f"{metadata.get('format')!r}."
        )
    if metadata.get("version") != str(_VERSION):
        raise CheckpointError(
            f"Expected version {_VERSION} of the file format, but {name!r} has "
            f"{metadata.get('version')!r}. "
            "Read it with the release of the library that wrote it."
        )
    try:
        network, receipt = network_of(tensors, metadata)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"Expected a consistent file, but {name!r} is damaged: {error}"
        ) from error
    network.requires_grad_(True)
    return PrunedNetwork(network.eval(), receipt).eval()


def network_of(tensors: dict[str, Tensor], metadata: dict[str, str]) -> tuple[nn.Module, Receipt]:
    """Return network and receipt, after a check that the architecture fits the tensors.

    Args:
        tensors: Tensors of a file.
        metadata: Its texts ``architecture``, ``packed`` and ``receipt``.

    Raises:
        KeyError, ValueError, TypeError, RuntimeError: They do not fit each other.
    """
    description = parse_json(metadata["architecture"])
    packed = metadata["packed"]
    check_state(description, packed_shapes(tensors, packed))
    network, state = build(description), unpack(tensors, packed)
    for key, made in network.state_dict().items():
        given = state[key]
        kinds = (made.is_floating_point(), made.is_complex())
        if kinds != (given.is_floating_point(), given.is_complex()) or (
            not any(kinds) and made.dtype != given.dtype
        ):
            raise ValueError(f"Expected {made.dtype} for {key!r}, but got {given.dtype}.")
        if isinstance(network.get_submodule(key.rpartition(".")[0]), SelectFeatures) and (
            bool((given < 0).any())
        ):
            raise ValueError(f"Expected numbers of columns in {key!r}, but got negative ones.")
    network.load_state_dict(state, assign=True)
    check_finite(network)
    return network, Receipt.from_dict(parse_json(metadata["receipt"]))


def check_finite(network: nn.Module) -> None:
    """Check parameters, and the statistics of standard modules; masks may be infinite.

    Args:
        network: The network.

    Raises:
        ValueError: A number is not finite.
    """
    for name, module in network.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if type(module) not in (nn.Module, GraphNetwork):
            own |= dict(module.named_buffers(recurse=False))
        for key, tensor in own.items():
            if not bool(tensor.detach().isfinite().all()):
                raise ValueError(f"Expected finite numbers in {key!r} of {name!r}, but got others.")
