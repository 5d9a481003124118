"""Pyro's global settings as the library needs them, for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyro

__all__ = ["local_pyro"]


@contextmanager
def local_pyro() -> Iterator[None]:
    """Keep parameters in their modules and switch validation off; both are restored afterwards.

    Validation reads values of tensors at every site, which stalls an accelerator, and fails under
    ``torch.func.vmap``.
    """
    with pyro.settings.context(
        module_local_params=True,
        validate_distributions_pyro=False,
        validate_distributions_torch=False,
        validate_infer=False,
        validate_poutine=False,
    ):
        yield
