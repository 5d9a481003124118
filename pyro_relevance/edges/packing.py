"""Compact storage of tensors with many zeros: their other entries, and one bit per position."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pyro_relevance._files import parse_json

__all__ = [
    "MAX_PACKED_DENSITY",
    "pack",
    "packed_bytes",
    "packed_shapes",
    "packed_size",
    "storage_of",
    "unpack",
]

MAX_PACKED_DENSITY = 0.9
_VALUES, _BITS = "::values", "::bits"


def packed_size(num_nonzero: int, num_entries: int, entry_size: int) -> int:
    """Bytes that a tensor takes in a file.

    Args:
        num_nonzero: Entries that are not zero.
        num_entries: All entries.
        entry_size: Bytes of one entry.

    Returns:
        Bytes of the smaller of dense and packed storage; packed only at a density of at most 0.9.
    """
    dense = num_entries * entry_size
    packed = num_nonzero * entry_size + (num_entries + 7) // 8
    return packed if num_nonzero <= MAX_PACKED_DENSITY * num_entries and packed < dense else dense


def packed_bytes(tensor: Tensor) -> int:
    """Bytes that a tensor takes in a file."""
    return packed_size(int(tensor.count_nonzero()), tensor.numel(), tensor.element_size())


def pack(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Replace tensors with many zeros by their other entries and a bit mask.

    Args:
        tensors: Tensors by name.

    Returns:
        Contiguous tensors on the CPU that share no memory, and a JSON text for :func:`unpack` that
        names the packed tensors and their shapes.
    """
    packed, shapes = {}, {}
    for name, tensor in tensors.items():
        flat = tensor.detach().cpu().reshape(-1)
        nonzero = flat != 0
        dense = flat.numel() * flat.element_size()
        if packed_size(int(nonzero.sum()), flat.numel(), flat.element_size()) < dense:
            shapes[name] = list(tensor.shape)
            packed[name + _VALUES] = flat[nonzero].clone()
            packed[name + _BITS] = _to_bits(nonzero)
        else:
            packed[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return packed, json.dumps(shapes)


def unpack(tensors: Mapping[str, Tensor], packed: str) -> dict[str, Tensor]:
    """Undo :func:`pack`.

    Args:
        tensors: First result of :func:`pack`.
        packed: Second result of :func:`pack`.

    Returns:
        The dense tensors by name.

    Raises:
        ValueError: A packed tensor is missing or does not fit its mask.
    """
    shapes = _shapes(packed)
    dense = {
        name: tensor for name, tensor in tensors.items() if not name.endswith((_VALUES, _BITS))
    }
    for name, shape in shapes.items():
        if name + _VALUES not in tensors or name + _BITS not in tensors:
            raise ValueError(
                f"Expected values and bits of the packed tensor {name!r}, but they are missing."
            )
        values, bits = tensors[name + _VALUES], tensors[name + _BITS]
        if bits.dtype is not torch.uint8 or bits.shape != (-(-shape.numel() // 8),):
            raise ValueError(
                f"Expected a bit for each of {shape.numel()} entries of {name!r}, but got "
                f"{bits.dtype} of shape {tuple(bits.shape)}."
            )
        if values.ndim != 1 or values.numel() > shape.numel() or name in dense:
            raise ValueError(
                f"Expected at most {shape.numel()} values of {name!r}, once and in one dimension, "
                f"but got shape {tuple(values.shape)}."
            )
        nonzero = _from_bits(bits, shape.numel())
        if int(nonzero.sum()) != values.numel():
            raise ValueError(
                f"Expected {int(nonzero.sum())} values of {name!r}, but got {values.numel()}."
            )
        flat = values.new_zeros(shape.numel())
        flat[nonzero] = values
        dense[name] = flat.reshape(shape)
    if len(tensors) != len(dense) + len(shapes):
        raise ValueError("Expected values and bits of listed tensors only, but got further ones.")
    return dense


def packed_shapes(tensors: Mapping[str, Tensor], packed: str) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor that :func:`unpack` would make.

    Args:
        tensors: First result of :func:`pack`.
        packed: Second result of :func:`pack`.

    Raises:
        ValueError: The text is damaged.
    """
    dense = {
        name: tuple(tensor.shape)
        for name, tensor in tensors.items()
        if not name.endswith((_VALUES, _BITS))
    }
    return {**dense, **{name: tuple(shape) for name, shape in _shapes(packed).items()}}


def _shapes(packed: str) -> dict[str, torch.Size]:
    content = parse_json(packed)
    if not isinstance(content, dict):
        raise ValueError(f"Expected shapes of packed tensors, but got {packed[:60]!r}.")
    for name, shape in content.items():
        known = isinstance(shape, list) and len(shape) <= 64
        if not known or not all(type(size) is int and 0 <= size < 2**40 for size in shape):
            raise ValueError(f"Expected a shape of {name!r}, but got {repr(shape)[:60]}.")
        if math.prod(shape) >= 2**60:
            raise ValueError(f"Expected a tensor {name!r} in memory, but got shape {shape}.")
    return {name: torch.Size(shape) for name, shape in content.items()}


def _to_bits(flags: Tensor) -> Tensor:
    """``(n,)`` booleans as ``(ceil(n / 8),)`` bytes; the first flag is the lowest bit."""
    padded = torch.nn.functional.pad(flags.to(torch.uint8), (0, -len(flags) % 8))
    return (padded.reshape(-1, 8) << torch.arange(8, dtype=torch.uint8)).sum(1).to(torch.uint8)


def _from_bits(bits: Tensor, num_flags: int) -> Tensor:
    flags = (bits.reshape(-1, 1) >> torch.arange(8, dtype=torch.uint8)) & 1
    return flags.reshape(-1)[:num_flags].bool()


def storage_of(network: nn.Module) -> dict[str, tuple[int, int, int]]:
    """Return for each tensor bytes of an entry, bytes of the whole in a file, number of names.

    Args:
        network: The network; what is not saved takes no bytes in a file.
    """
    saved = network.state_dict(keep_vars=True)
    names = Counter(map(id, saved.values()))
    return {
        name: (
            tensor.element_size(),
            packed_bytes(tensor.detach()) if name in saved else 0,
            max(names[id(tensor)], 1),
        )
        for name, tensor in (*network.named_parameters(), *network.named_buffers())
    }
