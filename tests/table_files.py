"""Small CSV files, and what is said of wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from pyro_relevance.data.tables import (
    read_table,
)
from pyro_relevance.errors import DataError

Write = Callable[..., Path]
SIZE = 40


def columns_written(folder: Path) -> Write:
    """Return what writes columns a (random numbers), then the given ones, then y, to a file."""

    def write_columns(
        separator: str = ",", name: str = "table.csv", rows: int = SIZE, **columns: Sequence[object]
    ) -> Path:
        generator = np.random.default_rng(0)
        content: dict[str, Sequence[object]] = {"a": generator.normal(size=rows).round(4).tolist()}
        content["y"] = generator.normal(size=rows).round(4).tolist()
        content |= columns
        lines = [separator.join(content)]
        lines += [separator.join(map(str, row)) for row in zip(*content.values(), strict=True)]
        path = folder / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write_columns


def message(path: str | Path, target: str = "y", **options: object) -> str:
    with pytest.raises(DataError) as caught:
        read_table(path, target=target, **options)  # type: ignore[arg-type]
    return str(caught.value)
