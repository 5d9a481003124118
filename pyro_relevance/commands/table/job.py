"""The work of the main job: encoded data, cross-validation, fits, tests and scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_relevance.commands.scoring.baselines import baseline_scores
from pyro_relevance.commands.scoring.imbalance import Decision, decision_of
from pyro_relevance.commands.scoring.scores import Score, score_outputs
from pyro_relevance.commands.table.recipe import (
    MOST_OUTPUTS,
    HeldOut,
    TableRecipe,
    evaluate,
    held_out,
    make_model,
    mixture,
    train,
)
from pyro_relevance.commands.table.settings import TableSettings
from pyro_relevance.commands.table.verdict import fold_findings
from pyro_relevance.data.tables import Encoder, Table, encode, split_rows
from pyro_relevance.edges.size import masked_cost
from pyro_relevance.masks import Mask
from pyro_relevance.model import likelihoods
from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.posterior.before_pruning import cross_validated_loss_interval
from pyro_relevance.posterior.diagnosis import Severity
from pyro_relevance.posterior.holdout import HoldoutTest, holdout_test
from pyro_relevance.posterior.intervals import LossInterval
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.posterior.relevance import expected_size
from pyro_relevance.training.callbacks import ProgressBar
from pyro_relevance.training.svi import Checkpoint, Fit

__all__ = ["NOISE", "NUM_DRAWS", "Job", "one_thread"]

NUM_DRAWS = 200
"""Draws of each chain, with seed 0, in the report and in the ArviZ file: the same ones."""

MOST_TESTED_ROWS = 20_000
"""Held-out rows on which inputs are tested; more would cost time and find effects of no size."""

NOISE = likelihoods.StudentT(4.0, noise_scale=0.2)
"""Noise of new rows, fitted on held-out ones: Student-t, because tables have outliers."""


@dataclass(frozen=True, eq=False)
class Job:
    """The encoded data of a run and what is done with them."""

    settings: TableSettings
    encoder: Encoder
    training: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    progress: bool

    @classmethod
    def of(
        cls,
        table: Table,
        settings: TableSettings,
        rows: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
        *,
        progress: bool = False,
    ) -> Job:
        """Split and encode a table; statistics come from the training rows alone.

        Args:
            table: The table.
            settings: The settings.
            rows: Numbers of the training and of the test rows; there may be no test rows where
                nothing is scored. ``None`` for a random split.
            progress: Whether progress bars are shown.

        Raises:
            DataError: If the table cannot be encoded.
        """
        labels = table.target.to_numpy() if table.task == "classification" else None
        train_rows, test_rows = rows or split_rows(
            table.num_rows, test_fraction=settings.test_fraction, seed=settings.seed, labels=labels
        )
        encoder = encode(table, train_rows)
        x, y = encoder.transform(table.features, table.target)
        training, test = (x[train_rows], y[train_rows]), (x[test_rows], y[test_rows])
        return cls(settings, encoder, training, test, progress)

    @property
    def noise(self) -> Likelihood:
        """The noise model of new rows, before it is fitted on held-out ones."""
        return NOISE if self.encoder.task == "regression" else likelihoods.Categorical()

    def bars(self, text: str) -> list[ProgressBar]:
        """Return a progress bar, if one is wanted."""
        return [ProgressBar(text)] if self.progress else []

    def make(self, recipe: TableRecipe, num_rows: int) -> RelevanceModel:
        """Return the model of a recipe."""
        return make_model(
            recipe,
            num_data=num_rows,
            num_inputs=self.encoder.num_columns,
            num_classes=len(self.encoder.classes) or None,
            input_labels=self.encoder.input_labels,
            input_index=self.encoder.input_index,
            seed=self.settings.seed,
        )

    def train(
        self, recipe: TableRecipe, num_chains: int, text: str, checkpoint: Checkpoint | None = None
    ) -> Fit:
        """Fit chains on all training rows."""
        return train(
            recipe,
            self.make(recipe, len(self.training[0])),
            self.training,
            num_chains=num_chains,
            seed=self.settings.seed,
            callbacks=self.bars(text),
            checkpoint=checkpoint,
        )

    def cross_validate(self, recipes: Sequence[TableRecipe], text: str) -> list[HeldOut]:
        """Return the held-out predictions of each recipe."""
        found = held_out(
            recipes,
            self.make,
            [self.training],
            num_folds=self.settings.num_folds,
            rule=self.settings.decide(),
            seed=self.settings.seed,
            callbacks=self.bars(text),
        )
        return [of_recipe[0] for of_recipe in found]

    def choose(self) -> tuple[TableRecipe, HeldOut, HeldOut]:
        """Return the recipe with the best held-out log likelihood of the pruned network.

        Beside it, its held-out predictions and those of all candidates of the noise together. Where
        its networks are no better than a constant, rarer and longer fits are tried too.
        """
        recipes = self.settings.candidates(self.encoder.task)
        held = self.cross_validate(recipes, "cross-validation")
        # Candidates for classes are unlike each other, and the chosen one alone is fitted.
        alike = held if self.encoder.task == "regression" else []
        best = self._best(held)
        if any(f.severity is Severity.FAILED for f in fold_findings(held[best])):
            chosen = recipes[best]
            again = [
                replace(chosen, prior_log_odds=chosen.prior_log_odds - 3.0),
                replace(chosen, num_steps=2 * chosen.num_steps),
            ]
            recipes = recipes + again
            held = held + self.cross_validate(again, "cross-validation, other settings")
            best = self._best(held)
        return recipes[best], held[best], mixture(alike if best < len(alike) else [held[best]])

    def choose_dense(self) -> tuple[TableRecipe, HeldOut]:
        """Return the dense recipe with the best held-out log likelihood, and its predictions."""
        candidates = self.settings.candidates(self.encoder.task)
        # Without gates their prior makes no difference.
        same = self.settings.recipe.prior_log_odds
        recipes = [replace(recipe, gated=False, prior_log_odds=same) for recipe in candidates]
        recipes = list(dict.fromkeys(recipes))
        held = self.cross_validate(recipes, "dense, held out")
        best = self._best(held)
        return recipes[best], held[best]

    def _best(self, held: Sequence[HeldOut]) -> int:
        return int(np.argmax([candidate.score(self.noise) for candidate in held]))

    def test_inputs(self, held: HeldOut) -> HoldoutTest:
        """Return which columns of the table are relevant, by the networks of the folds."""
        columns: dict[str, list[int]] = {name: [] for name in self.encoder.input_labels}
        for column, gate in enumerate(self.encoder.input_index):
            columns[self.encoder.input_labels[gate]].append(column)
        most = max(1, MOST_TESTED_ROWS // len(held.folds))
        return holdout_test(
            held.networks,
            self.training,
            [fold.held_out[:most].numpy() for fold in held.folds],
            groups=columns,
            rate=self.settings.rate,
            seed=self.settings.seed,
        )

    def best_chain(self, chains: Posterior) -> int:
        """Return the chain with the highest evidence lower bound, by some rows of long tables."""
        x, y = self.training
        some = torch.randperm(len(x), generator=torch.Generator().manual_seed(self.settings.seed))
        rows = some[:MOST_TESTED_ROWS] if len(x) > MOST_TESTED_ROWS else torch.arange(len(x))
        return int(chains.elbo(x[rows], y[rows]).argmax())

    def expected(
        self, held: HeldOut, posterior: Posterior, mask: Mask, noise: Likelihood
    ) -> LossInterval:
        """Return what the cross-validation promises of the pruned network on new rows."""
        x, y = self.training
        return cross_validated_loss_interval(
            held.folds,
            evaluate(posterior, x, mask),
            y,
            noise,
            num_rows=len(self.test[0]),
            seed=self.settings.seed,
        )

    def score(self, outputs: Tensor, noise: Likelihood, size: float) -> Score:
        """Return the test result of outputs for the test rows."""
        return score_outputs(outputs, noise, self.test[1], self.encoder, size)

    def dense_score(self) -> tuple[dict[str, Score], HeldOut]:
        """Return the test result of a dense network and its held-out predictions.

        It is trained like the gated one; its recipe is chosen among the same candidates.
        """
        dense, held = self.choose_dense()
        network = self.train(dense, 1, "dense network").posterior
        outputs = evaluate(network, self.test[0], None, num_samples=1)
        size = sum(p.numel() for p in network.model.network.parameters())
        noise = held.noise(self.noise, pruned=False)
        return {"dense": self.score(outputs, noise, size)}, held

    def baseline_scores(self) -> dict[str, Score]:
        """Return the test results of simple models on the same rows."""
        return baseline_scores(
            self.training,
            self.test,
            self.noise,
            self.encoder,
            num_folds=self.settings.num_folds,
            seed=self.settings.seed,
        )

    def decision(self, held: HeldOut, posterior: Posterior, mask: Mask) -> Decision | None:
        """Return how classes are decided; ``None`` where the target is a quantity."""
        if not self.encoder.classes:
            return None
        tested = evaluate(posterior, self.test[0], mask)
        return decision_of(
            self.encoder.classes,
            self.training[1].numpy(),
            (held.pruned[0].softmax(-1).double().numpy(), held.y.numpy()),
            (tested[0].softmax(-1).double().numpy(), self.test[1].numpy()),
        )

    def posterior_score(self, chains: Posterior, predictive: Likelihood) -> Score:
        """Return the test result of the posterior, the mixture of all chains."""
        expected = expected_size(chains.inclusion_probability(), chains.edges).num_parameters
        most = max(5, MOST_OUTPUTS // (len(self.test[0]) * chains.num_chains))
        number = min(NUM_DRAWS, most)
        outputs = chains.predict(self.test[0], num_samples=number).outputs.flatten(0, 1)
        return self.score(outputs, predictive, float(expected.mean()))

    def pruned_score(self, posterior: Posterior, mask: Mask, noise: Likelihood) -> Score:
        """Return the test result of the pruned network of one chain."""
        left = masked_cost(posterior.edges, mask).num_nonzero
        return self.score(evaluate(posterior, self.test[0], mask), noise, left)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread; the number of threads is restored afterwards.

    The tensors of a table are small: a second thread waits more than it works.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
