"""Checks of the tensors of a mask, and its bits as text."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "check_same_groups",
    "packed",
    "span",
    "unpacked",
    "validated_kept",
    "validated_probability",
]


def validated_kept(kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of `kept`, checked to be bool tensors with at least one edge in all."""
    if not isinstance(kept, Mapping):
        raise TypeError(
            "Expected kept as a mapping of group name to bool tensor, but got "
            f"{type(kept).__name__}."
        )
    for name, keep in kept.items():
        if not isinstance(keep, Tensor) or keep.dtype is not torch.bool:
            got = keep.dtype if isinstance(keep, Tensor) else type(keep).__name__
            raise TypeError(
                f"Expected kept[{name!r}] as a bool tensor (True = kept), but got {got}. Compare "
                "a score with a number first, e.g. score > 0.5."
            )
    if not any(keep.numel() for keep in kept.values()):
        raise ValueError(
            f"Expected at least one edge, but got the groups {list(kept)} without any."
        )
    return {name: keep.detach().clone() for name, keep in kept.items()}


def validated_probability(
    probability: Mapping[str, Tensor], like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Copies of `probability`, checked to be numbers in [0, 1] of the shapes of `like`."""
    for name, p in probability.items():
        if name not in like or p.shape != like[name].shape:
            expected = (
                tuple(like[name].shape) if name in like else f"one of the groups {list(like)}"
            )
            raise ValueError(
                f"Expected inclusion_probability[{name!r}] of shape {expected}, but got "
                f"{tuple(p.shape)}. Pass one probability per edge: one chain, without draws."
            )
        if not bool(((p >= 0) & (p <= 1)).all()):
            raise ValueError(
                f"Expected probabilities in [0, 1], but group {name!r} has {span(p)}. For scores "
                "that are no probabilities use threshold, top_fraction or budget."
            )
    return {name: p.detach().clone() for name, p in probability.items()}


def span(values: Tensor) -> str:
    """Smallest and largest of `values` in words, or that there is a NaN."""
    if bool(torch.isnan(values).any()):
        return "NaN"
    return f"values from {float(values.min()):.4g} to {float(values.max()):.4g}"


def packed(keep: Tensor) -> str:
    """One bit per edge, row by row, as base64."""
    bits = np.packbits(keep.cpu().numpy().reshape(-1))
    return base64.b64encode(bits.tobytes()).decode("ascii")


def unpacked(name: str, *, shape: list[int], kept: str) -> Tensor:
    """Bool tensor of `shape` written by `packed`."""
    bits = np.frombuffer(base64.b64decode(kept, validate=True), dtype=np.uint8)
    size = math.prod(shape)
    if bits.size != -(-size // 8):
        raise ValueError(f"group {name!r} has {bits.size} bytes instead of {-(-size // 8)}")
    return torch.from_numpy(np.unpackbits(bits, count=size).astype(bool).reshape(shape))


def check_same_groups(
    left: Mapping[str, Tensor], right: Mapping[str, Tensor], operator: str
) -> None:
    """Raise an error that names the difference where two masks cannot be combined."""
    differences = [
        f"group {n!r} only on the {side}"
        for side, a, b in (("left", left, right), ("right", right, left))
        for n in a
        if n not in b
    ]
    for name in left:
        shapes = [tuple(kept[name].shape) for kept in (left, right) if name in kept]
        if len(set(shapes)) > 1:
            differences.append(f"group {name!r} of shapes {shapes[0]} and {shapes[1]}")
    if differences:
        raise ValueError(
            f"Expected two masks of the same groups and shapes for {operator}, but got "
            f"{'; '.join(differences)}. Make both from the same edges; mask.completed(edges) adds "
            "missing groups as kept whole."
        )
