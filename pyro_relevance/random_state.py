"""Seeded work that leaves the global random state as it found it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["seeded"]


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch inside the block and restore its generators afterwards.

    Only torch is seeded: neither Pyro nor this library draws from ``random`` or ``numpy.random``.

    Args:
        seed: Any integer.
        device: The generator of a CUDA device is seeded and restored too.

    Raises:
        ValueError: If ``seed`` is not an integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"Expected seed to be an integer, but got {seed!r}.")
    place = torch.device(device)
    devices = [place] if place.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
