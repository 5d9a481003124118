"""Image data sets that tests write."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np


def write_mnist_part(root: Path, prefix: str, pixels: np.ndarray, labels: list[int]) -> None:
    """Write the two files of one part in the idx format: magic number, sizes, bytes."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">iiii", 2051, *pixels.shape)
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
    header = struct.pack(">ii", 2049, len(labels))
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(header + bytes(labels))


def write_mnist(root: Path, *, num_train: int, num_test: int) -> None:
    """Write random images of all ten classes."""
    rng = np.random.default_rng(0)
    for prefix, count in (("train", num_train), ("t10k", num_test)):
        pixels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_mnist_part(root, prefix, pixels, [i % 10 for i in range(count)])
