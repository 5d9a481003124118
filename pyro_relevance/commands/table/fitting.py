"""The middle of the main job: choose settings, fit chains, test the inputs, decide.

The command goes on to test rows and a report; an estimator needs no more than this.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pyro_relevance.commands.table.job import Job
from pyro_relevance.commands.table.recipe import HeldOut, TableRecipe
from pyro_relevance.masks import Mask
from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.posterior.holdout import HoldoutTest
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.surgery.pruning import PrunedNetwork, prune
from pyro_relevance.training.svi import Checkpoint, Fit

__all__ = ["TableFit", "fit_table"]


@dataclass(frozen=True, eq=False)
class TableFit:
    """What is known of the training rows alone.

    Args:
        recipe: The recipe that was chosen.
        held: Held-out predictions of its networks in the cross-validation.
        together: Held-out predictions of all candidates that are like it, as one posterior.
        fit: All chains.
        tested: The holdout test of the inputs.
        chain: The chain to prune (highest evidence lower bound).
        mask: The edges of it that are kept.
        noise: Noise of new rows around the pruned network's predictions (standardised target).
    """

    recipe: TableRecipe
    held: HeldOut
    together: HeldOut
    fit: Fit
    tested: HoldoutTest
    chain: int
    mask: Mask
    noise: Likelihood

    @property
    def posterior(self) -> Posterior:
        """Posterior of the chain to prune."""
        return self.fit.posterior.chain(self.chain)

    def pruned(self, example_input: Tensor) -> PrunedNetwork:
        """Return the small network.

        Args:
            example_input: ``(num_rows, num_columns)`` encoded rows to compare and to time on.
        """
        posterior = self.posterior
        return prune(posterior.network(), posterior.edges, self.mask, example_input=example_input)


def fit_table(job: Job, checkpoint: Checkpoint | None = None) -> TableFit:
    """Choose the recipe, fit the chains, test the inputs and decide what is kept.

    Args:
        job: The encoded data; its test rows are not looked at, and there may be none.
        checkpoint: Where the fit writes its state and resumes from.
    """
    settings = job.settings
    recipe, held, together = job.choose()
    text = f"fit, {settings.num_chains} chains"
    fit = job.train(recipe, settings.num_chains, text, checkpoint=checkpoint)
    tested = job.test_inputs(held)
    chain = job.best_chain(fit.posterior)
    mask = settings.decide()(fit.posterior.chain(chain))
    noise = held.noise(job.noise, pruned=True)
    return TableFit(recipe, held, together, fit, tested, chain, mask, noise)
