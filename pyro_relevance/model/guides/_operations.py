"""The part that all explicit guides share: posterior of the operations of relaxed graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyro
import torch
from torch import Tensor, nn

from pyro_relevance.model.priors.operations import ABSENT

if TYPE_CHECKING:
    from pyro_relevance.model.model import RelevanceModel

__all__ = ["OperationPosterior"]


class OperationPosterior(nn.Module):
    r"""Each edge of a graph chooses its operation by itself: :math:`q(\gamma_e) = Categorical`.

    Args:
        model: The model; all operations of an edge start equally probable.
    """

    def __init__(self, model: RelevanceModel) -> None:
        super().__init__()
        values = {g.name: torch.zeros(g.shape) for g in model.edges.operations}
        start = model.edges.join_operations(values, ABSENT)
        self.logits = nn.Parameter(start.to(model.prior_operation_logits))

    def forward(self, model: RelevanceModel) -> Tensor:
        """Sample the site ``operation``."""
        value: Tensor = pyro.sample("operation", model.operation_distribution(self.logits))
        return value
