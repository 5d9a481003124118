"""The folder of the data sets: an argument, or one environment variable for all of them."""

from __future__ import annotations

import os
from pathlib import Path

from pyro_relevance.errors import DataError

__all__ = ["data_root"]

ROOT_VARIABLE = "PYRO_RELEVANCE_DATA"


def data_root(root: str | Path | None, what: str, advice: str = "") -> Path:
    """Return the folder given, or that of the environment variable ``PYRO_RELEVANCE_DATA``.

    Args:
        root: The folder, or ``None``.
        what: The data set that is looked for, for the message.
        advice: A sentence on where it comes from, for the message.

    Raises:
        DataError: If there is neither.
    """
    given = root if root is not None else os.environ.get(ROOT_VARIABLE)
    if not given:
        text = (
            f"Expected a data root for {what}, but got none. Pass root=, or set the environment "
            f"variable {ROOT_VARIABLE}. {advice}"
        )
        raise DataError(text.rstrip())
    return Path(given)
