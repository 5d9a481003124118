"""What a search is given: a space and data by name, with the settings that suit them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from pyro_relevance.data import images, tables
from pyro_relevance.data.augmentation import InOrder, RandomCrop, RandomFlip
from pyro_relevance.data.tables import Table
from pyro_relevance.graphs import spaces
from pyro_relevance.model import likelihoods
from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.model.precision import Precision
from pyro_relevance.model.priors import DescriptionLengthPrior, IndependentPrior, OperationCostPrior
from pyro_relevance.posterior.evaluation import error_rate
from pyro_relevance.search.structure import SearchSettings

__all__ = [
    "DEFAULTS",
    "FULL",
    "SearchData",
    "SpaceSize",
    "default_settings",
    "image_data",
    "make_space",
    "score_network",
    "table_data",
]

SpaceSize = Literal["small", "full"]
_DARTS_SIZES = {"small": {False: (8, 5), True: (16, 8)}, "full": {False: (16, 8), True: (36, 20)}}
"""Channels and cells of the search (False) and of the final network (True)."""

_CELLS = SearchSettings(
    shared=True,
    num_epochs=20,
    num_epochs_after=12,
    warm_up=0.75,
    gate_learning_rate=1e-1,
    precision=Precision(autocast=torch.bfloat16, channels_last=True),
    augment=InOrder((RandomCrop(4), RandomFlip())),
)

DEFAULTS: dict[str, SearchSettings] = {
    "mlp": SearchSettings(
        num_epochs=1000,
        batch_size=100,
        learning_rate=1e-2,
        gate_prior=IndependentPrior(-1.5),
    ),
    "lenet": SearchSettings(
        num_epochs=20,
        num_epochs_after=2,
        gate_prior=DescriptionLengthPrior(0.2),
        operation_prior=OperationCostPrior(0.2),
        initial_log_odds=3.0,
        augment=RandomCrop(1),
    ),
    # As in analysis/run_nasbench201_shared, where it does better than paths in the same time.
    "nasbench201": dataclasses.replace(
        _CELLS,
        evaluation="mixture",
        num_epochs=10,
        warm_up=0.1,
        gate_learning_rate=1e-2,
        num_effective=30,
        finalists="probable",
        num_finalists=1,
    ),
    "darts": dataclasses.replace(_CELLS, num_epochs=15),
}
"""Settings of each space, for a CPU; the images of the last two are 32 x 32."""

FULL: dict[str, SearchSettings] = {
    "nasbench201": dataclasses.replace(_CELLS, num_epochs=250, num_epochs_after=200),
    "darts": dataclasses.replace(_CELLS, num_epochs=50, num_epochs_after=600, batch_size=96),
}
"""Settings of the spaces of cells in the sizes of their papers, for a GPU.

Epochs, sizes and the batch are those of NAS-Bench-201 (Dong and Yang 2020) and DARTS (Liu et al.
2019, appendix A); optimiser and augmentation are ours (no cutout, no drop-path, no auxiliary head).
"""


def default_settings(space: str, size: SpaceSize = "small") -> SearchSettings:
    """Return the settings of a space.

    Args:
        space: ``"mlp"``, ``"lenet"``, ``"nasbench201"`` or ``"darts"``.
        size: ``"small"``, or ``"full"`` for cells in the sizes of their papers.

    Raises:
        ValueError: If the space has no such size.
    """
    known = DEFAULTS if size == "small" else FULL
    if space not in known:
        raise ValueError(
            f"Expected a space with size {size!r} out of {list(known)}, got {space!r}."
        )
    return known[space]


@dataclass(frozen=True, eq=False)
class SearchData:
    """Examples of a search.

    Args:
        name: Name of the data in the record.
        train: Training examples.
        test: Test examples, read once.
        likelihood: Distribution of the target.
        num_outputs: Outputs of a network.
        scale: Standard deviation of the target, by which an RMSE is multiplied; None for classes.
    """

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    likelihood: Likelihood
    num_outputs: int
    scale: float | None

    def to(self, device: torch.device | str) -> SearchData:
        """Return the same data on a device.

        Args:
            device: Where the work is to be done.
        """
        (x, y), (x_test, y_test) = self.train, self.test
        return dataclasses.replace(
            self,
            train=(x.to(device), y.to(device)),
            test=(x_test.to(device), y_test.to(device)),
        )

    @property
    def error_name(self) -> str:
        """What `error` returns: ``"test_error"`` of classes, ``"rmse"`` of a quantity."""
        return "test_error" if self.scale is None else "rmse"

    def error(self, network: nn.Module, x: Tensor, y: Tensor) -> float:
        """Return percent wrong, or the RMSE in the unit of the target.

        Args:
            network: A network, in evaluation mode.
            x: ``(num_examples, ...)`` inputs.
            y: ``(num_examples,)`` classes or encoded targets.
        """
        with torch.no_grad():
            outputs = torch.cat([network(part) for part in x.split(500)])
        if self.scale is None:
            return 100.0 * error_rate(outputs, y)
        return float((outputs[:, 0] - y).square().mean().sqrt()) * self.scale


def table_data(table: Table, *, test_fraction: float = 0.1, seed: int = 0) -> SearchData:
    """Return the encoded rows of a table, split into training and test rows.

    Args:
        table: The table.
        test_fraction: Share of the rows to test on.
        seed: Seed of the split.
    """
    labels = table.target.to_numpy() if table.task == "classification" else None
    train, test = tables.split_rows(
        table.num_rows, test_fraction=test_fraction, seed=seed, labels=labels
    )
    encoder = tables.encode(table, train)
    x, y = encoder.transform(table.features, table.target)
    classes = len(encoder.classes)
    return SearchData(
        name=table.target_name,
        train=(x[train], y[train]),
        test=(x[test], y[test]),
        likelihood=likelihoods.Categorical() if classes else likelihoods.Gaussian(0.3),
        num_outputs=classes or 1,
        scale=None if classes else encoder.target_scale,
    )


def image_data(name: str, root: str | Path | None, *, num_data: int | None = None) -> SearchData:
    """Return MNIST or CIFAR-10.

    Args:
        name: ``"mnist"`` or ``"cifar10"``.
        root: Folder of the data; by default the environment variable ``PYRO_RELEVANCE_DATA``.
        num_data: Training images, at most.
    """
    load: Callable[..., tuple[Tensor, Tensor]] = getattr(images, name)
    x, y = load(root)
    test = load(root, train=False)
    train = images.some(x, y, num_data)
    return SearchData(name, train, test, likelihoods.Categorical(), 10, None)


def make_space(
    space: str, data: SearchData, *, size: SpaceSize = "small"
) -> Callable[[bool], nn.Module]:
    """Return what makes the relaxed network of a space for some data, where the data are.

    Args:
        space: ``"mlp"``, ``"lenet"``, ``"nasbench201"`` or ``"darts"``.
        data: The data.
        size: ``"small"`` for a CPU, or ``"full"``, the sizes of the papers (of the cells).

    Raises:
        ValueError: If the space does not fit the data.
    """
    x = data.train[0]
    if (space == "mlp") != (x.ndim == 2):
        kind = "a table" if x.ndim == 2 else "images"
        raise ValueError(
            f"Expected data for the space {space!r}, but got {kind}. Use the space 'mlp' for "
            "tables, the others for images."
        )
    channels, outputs = x.shape[1], data.num_outputs
    large = size == "full"
    makers: dict[str, Callable[[bool], nn.Module]] = {
        "mlp": lambda full: spaces.mlp_space(channels, outputs),
        "lenet": lambda full: spaces.lenet_space(outputs, in_channels=channels, size=x.shape[-1]),
        "nasbench201": lambda full: spaces.nasbench201_space(
            outputs,
            in_channels=channels,
            num_cells=5 if large else 1,
            affine=full,
            statistics=full,
        ),
        "darts": lambda full: spaces.DartsNetwork(
            outputs,
            in_channels=channels,
            channels=_DARTS_SIZES[size][full][0],
            num_cells=_DARTS_SIZES[size][full][1],
            affine=full,
            statistics=full,
        ),
    }
    return lambda full: makers[space](full).to(x.device)


def score_network(network: nn.Module, data: SearchData) -> dict[str, float]:
    """Return size and test error of a network: RMSE in the target's unit, or percent wrong.

    Args:
        network: The network.
        data: The data; only the test examples are read.
    """
    error = data.error(network.eval(), *data.test)
    size = float(sum(p.numel() for p in network.parameters()))
    return {data.error_name: error, "num_parameters": size}
