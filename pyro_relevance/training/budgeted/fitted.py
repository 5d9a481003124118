"""What a training to a budget returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pyro_relevance.edges.edges import Edges
from pyro_relevance.masks import Mask
from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.posterior.before_pruning import network_loss_interval
from pyro_relevance.posterior.history import History
from pyro_relevance.posterior.intervals import LossInterval
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.surgery.pruned_network import PrunedNetwork

__all__ = ["BudgetedFit"]


@dataclass(frozen=True, slots=True, eq=False)
class BudgetedFit:
    """The result of a training to a budget.

    Args:
        posterior: The posterior at the moment when the structure was decided; ``pruned`` was
            trained further since.
        edges: The edges that could be removed: those of the model, or its single weights.
        mask: Which of them are kept, within the budget.
        pruned: The small network after the training, with the receipt of its pruning.
        likelihood: The likelihood with what it learned beside the small network.
        history: Losses on the way, of the three parts one after another.
        num_steps: Steps taken.
        seconds: Wall time of all of it.
        num_epochs: Epochs of the three parts.
    """

    posterior: Posterior
    edges: Edges
    mask: Mask
    pruned: PrunedNetwork
    likelihood: Likelihood
    history: History
    num_steps: int
    seconds: float
    num_epochs: tuple[float, float, float]

    def loss_interval(
        self, held_out: tuple[Tensor, Tensor], *, num_rows: int | None = None
    ) -> LossInterval:
        """Return 90 % predictive intervals of the small network's loss and error.

        They are a Bayesian bootstrap of the rows, which is rather too narrow for few of them: from
        91 rows of Boston 16 of 20 held the test loss (``analysis/results/budget.json``).

        Args:
            held_out: Examples that were not trained on; another choice of intervals is
                `network_loss_interval`.
            num_rows: Examples of the test to come; ``None`` for the mean over all there are.
        """
        return network_loss_interval(
            self.pruned.network, self.likelihood, held_out, num_rows=num_rows
        )
