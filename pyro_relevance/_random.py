"""Seeded work, and Pyro's settings for the length of a block: global state comes back as it was."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyro
import torch

__all__ = ["local_pyro", "seeded", "substream"]

_TURN = threading.RLock()


def _new_turn() -> None:
    """Forget in a forked process that a thread of its parent was at work."""
    global _TURN
    _TURN = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_turn)


@contextmanager
def seeded(seed: int, device: torch.device | str | None = None) -> Iterator[None]:
    """Seed torch inside the block and restore its generators afterwards.

    Threads take turns: the block of one waits until that of another has ended.

    Only torch is seeded: neither Pyro nor this library draws from ``random`` or ``numpy.random``.

    Args:
        seed: Integer between -2**63 and 2**64 - 1.
        device: The generator of a CUDA device is seeded and restored too; by default that of the
            current one, where the process has used CUDA.

    Raises:
        ValueError: If ``seed`` is not such an integer.
    """
    number = _checked(seed)
    if device is None:
        device = "cuda" if torch.cuda.is_initialized() else "cpu"
    target = torch.device(device)
    cuda = [target] if target.type == "cuda" else []
    # One thread after the other: torch's generators and Pyro's handlers are the whole process's.
    with _TURN, torch.random.fork_rng(devices=cuda):
        # Not torch.manual_seed: it would reseed every accelerator of the process for good.
        torch.default_generator.manual_seed(number)
        if target.type == "cuda":
            with torch.cuda.device(target):
                torch.cuda.manual_seed(number)
        yield


def substream(seed: int, *path: int | str) -> int:
    """Return the seed of an independent stream of random numbers.

    Args:
        seed: As for `seeded`.
        path: What the stream is for.

    Returns:
        Integer between 0 and 2**63 - 1, the same in every process.

    Raises:
        ValueError: If ``seed`` is not an integer that fits.
    """
    text = "/".join(map(str, (_checked(seed), *path)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@contextmanager
def local_pyro() -> Iterator[None]:
    """Keep parameters in their modules and switch validation off; both are restored afterwards.

    Validation reads values of tensors at every site, which stalls an accelerator, and fails under
    ``torch.func.vmap``.
    """
    with (
        _TURN,
        pyro.settings.context(
            module_local_params=True,
            validate_distributions_pyro=False,
            validate_distributions_torch=False,
            validate_infer=False,
            validate_poutine=False,
        ),
    ):
        yield


def _checked(seed: int) -> int:
    if (
        isinstance(seed, bool)
        or not isinstance(seed, int | np.integer)
        or not -(2**63) <= seed < 2**64
    ):
        raise ValueError(
            f"Expected seed to be an integer between -2**63 and 2**64 - 1, but got {seed!r}."
        )
    return int(seed)
