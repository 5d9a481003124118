"""Training images beside those that a finished network is judged by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from pyro_relevance.data.images import some
from pyro_relevance.data.splits import train_validation

__all__ = ["JudgedImages"]


@dataclass(frozen=True, eq=False)
class JudgedImages:
    """Training images, and those that a finished network is judged by.

    Args:
        x: Training images.
        y: Their classes.
        x_judged: Test or validation images.
        y_judged: Their classes.
        judged: ``"test"`` or ``"validation"``, for the names of the metrics.
    """

    x: Tensor
    y: Tensor
    x_judged: Tensor
    y_judged: Tensor
    judged: str

    @classmethod
    def load(
        cls,
        read: Callable[..., tuple[Tensor, Tensor]],
        root: str | None,
        *,
        num_data: int,
        num_validation: int,
        validate: bool,
    ) -> JudgedImages:
        """Read a data set; with ``validate`` its test images are left alone.

        Args:
            read: ``images.mnist`` or ``images.cifar10``.
            root: Folder of the data.
            num_data: Training images, at most.
            num_validation: Images that are carved from the training images.
            validate: Whether to judge by these.
        """
        x, y = read(root)
        if not validate:
            return cls(*some(x, y, num_data), *read(root, train=False), "test")
        train, valid = train_validation(len(x), num_validation, seed=0)
        return cls(*some(x[train], y[train], num_data), x[valid], y[valid], "validation")
