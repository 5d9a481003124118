"""Families of data sets whose relevant inputs are known, for tests of relevance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

__all__ = ["FAMILIES", "KnownData"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class KnownData:
    """Rows with known relevant inputs.

    Args:
        x: ``(num_rows, num_columns)``, each column standardised.
        y: ``(num_rows,)`` standardised target, or classes 0 and 1.
        index: ``(num_columns,)`` input of each column; a category has several.
        relevant: ``(num_inputs,)`` whether the target depends on the input, given all others.
        classes: Whether the target is a class.
    """

    x: Floats
    y: Floats
    index: NDArray[np.int64]
    relevant: NDArray[np.bool_]
    classes: bool = False

    @property
    def groups(self) -> dict[str, list[int]]:
        """Name of each input -> its columns."""
        return {
            f"x{i}": np.flatnonzero(self.index == i).tolist() for i in range(len(self.relevant))
        }


def equicorrelated(generator: np.random.Generator, shape: tuple[int, int], rho: float) -> Floats:
    """Return normal columns with one common factor."""
    common = generator.normal(size=(shape[0], 1))
    return np.sqrt(rho) * common + np.sqrt(1 - rho) * generator.normal(size=shape)


def _known(x: Floats, y: Floats, relevant: list[int], num_inputs: int | None = None) -> KnownData:
    index = np.arange(x.shape[1])
    found = np.isin(np.arange(num_inputs or x.shape[1]), relevant)
    return KnownData((x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std(), index, found)


def _friedman_mean(u: Floats) -> Floats:
    curve = 10 * np.sin(np.pi * u[:, 0] * u[:, 1]) + 20 * (u[:, 2] - 0.5) ** 2
    return curve + 10 * u[:, 3] + 5 * u[:, 4]  # type: ignore[no-any-return]


def friedman(num_rows: int, seed: int, rho: float = 0.0) -> KnownData:
    """Return Friedman's first function: 5 of 15 uniform inputs, noise of standard deviation 2.

    References:
        Friedman, Multivariate adaptive regression splines, Annals of Statistics 1991.
    """
    generator = np.random.default_rng(seed)
    u = norm.cdf(equicorrelated(generator, (num_rows, 15), rho))
    y = _friedman_mean(u) + 2 * generator.normal(size=num_rows)
    return _known(u, y, [0, 1, 2, 3, 4])


def friedman_correlated(num_rows: int, seed: int) -> KnownData:
    """Return the same with a correlation of 0.5 between the normal scores of all inputs."""
    return friedman(num_rows, seed, 0.5)


def linear_blocks(num_rows: int, seed: int) -> KnownData:
    """Return a linear target of 4 inputs; 15 inputs in blocks of three with correlation 0.9."""
    generator = np.random.default_rng(seed)
    blocks = [equicorrelated(generator, (num_rows, 3), 0.9) for _ in range(5)]
    x = np.concatenate(blocks, axis=1)
    relevant = [0, 1, 3, 6]
    y = x[:, relevant].sum(1) + 1.5 * generator.normal(size=num_rows)
    return _known(x, y, relevant)


def classes(num_rows: int, seed: int) -> KnownData:
    """Return two classes: Friedman's function of 5 of 20 inputs is the log-odds."""
    generator = np.random.default_rng(seed)
    u = norm.cdf(equicorrelated(generator, (num_rows, 20), 0.2))
    log_odds = 0.5 * (_friedman_mean(u) - 14.4)
    y = (generator.random(num_rows) < 1 / (1 + np.exp(-log_odds))).astype(np.float64)
    x = (u - u.mean(0)) / u.std(0)
    return KnownData(x, y, np.arange(20), np.arange(20) < 5, classes=True)


def mixed(num_rows: int, seed: int) -> KnownData:
    """Return skewed, heavy-tailed, counted and categorical inputs, of which 5 of 15 matter."""
    generator = np.random.default_rng(seed)
    z = equicorrelated(generator, (num_rows, 15), 0.4)
    heavy = z[:, 3:6] / np.sqrt(generator.chisquare(3, size=(num_rows, 1)) / 3)
    counts = np.floor(np.exp(0.7 * z[:, 6:9] + 0.5))
    binary = (z[:, 9:11] > 0.4).astype(np.float64)
    level = (z[:, 11] > -0.4).astype(int) + (z[:, 11] > 0.6)
    one_hot = np.eye(3)[level]
    numbers = np.concatenate([np.exp(z[:, :3]), heavy, counts, binary], axis=1)
    x = np.concatenate([numbers, one_hot, np.exp(z[:, 12:14]), z[:, 14:]], axis=1)
    y = (
        1.2 * z[:, 0]
        + np.tanh(heavy[:, 0])
        + 0.8 * np.log1p(counts[:, 0])
        + 1.0 * binary[:, 0]
        + np.array([0.0, 1.2, 0.0])[level]
        + 0.7 * generator.standard_t(4, size=num_rows)
    )
    x = (x - x.mean(0)) / x.std(0)
    index = np.array([*range(11), 11, 11, 11, 12, 13, 14])
    relevant = np.isin(np.arange(15), [0, 3, 6, 9, 11])
    return KnownData(x, (y - y.mean()) / y.std(), index, relevant)


FAMILIES: dict[str, Callable[[int, int], KnownData]] = {
    "Friedman, rho 0": friedman,
    "Friedman, rho 0.5": friedman_correlated,
    "linear, blocks of rho 0.9": linear_blocks,
    "classes, 5 of 20": classes,
    "mixed types": mixed,
}
