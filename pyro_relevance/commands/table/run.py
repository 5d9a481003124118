"""The main job on a table: choose settings, fit chains, decide, prune, test - as one value.

``run_table`` computes, ``table_report`` says it in words, ``write_run`` writes the run folder.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_relevance.commands.table.recipe import (
    HeldOut,
    TableRecipe,
    evaluate,
    held_out,
    make_model,
    train,
)
from pyro_relevance.commands.table.settings import TableSettings
from pyro_relevance.commands.table.verdict import fold_findings, run_diagnosis
from pyro_relevance.data.tables import Encoder, Table, encode, split_rows
from pyro_relevance.edges.size import masked_cost
from pyro_relevance.masks import Mask
from pyro_relevance.model import likelihoods
from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.model.noise import predictive_log_likelihood
from pyro_relevance.posterior.diagnosis import Diagnosis, Severity
from pyro_relevance.posterior.evaluation import error_rate
from pyro_relevance.posterior.holdout import HoldoutTest, holdout_test
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.posterior.relevance import expected_size
from pyro_relevance.surgery.pruning import PrunedNetwork, apply_mask, prune
from pyro_relevance.training.callbacks import ProgressBar
from pyro_relevance.training.svi import Checkpoint, Fit

__all__ = ["Score", "TableRun", "TableSettings", "run_table"]

MOST_TESTED_ROWS = 20_000
"""Held-out rows on which inputs are tested; more would cost time and find effects of no size."""

NOISE = likelihoods.StudentT(4.0, noise_scale=0.2)
"""Noise of new rows, fitted on held-out ones: Student-t, because tables have outliers."""


@dataclass(frozen=True, slots=True)
class Score:
    """Test result of one network.

    Args:
        error: RMSE in the target's units, or the share of rows classified wrongly.
        log_likelihood: Mean log predictive density of a test row, in nats (target's units).
        num_parameters: Parameters of the network; expected ones for the posterior mean.
    """

    error: float
    log_likelihood: float
    num_parameters: float


@dataclass(frozen=True, eq=False)
class TableRun:
    """Everything that the main job computed.

    Args:
        table: The table.
        encoder: How its columns became inputs.
        settings: The settings.
        recipe: The recipe that was chosen.
        fit: All chains.
        chain: The chain that was pruned (highest evidence lower bound).
        mask: The edges that were kept.
        pruned: The small network.
        noise: Noise of new rows around the small network's predictions (standardised target).
        tested: The holdout test of the inputs, on the networks of the cross-validation.
        diagnosis: Whether the fit worked.
        scores: ``"dense"``, ``"posterior mean"`` and ``"pruned"``.
        train: Encoded training rows.
        test: Encoded test rows.
        seconds: Wall time.
    """

    table: Table
    encoder: Encoder
    settings: TableSettings
    recipe: TableRecipe
    fit: Fit
    chain: int
    mask: Mask
    pruned: PrunedNetwork
    noise: Likelihood
    tested: HoldoutTest
    diagnosis: Diagnosis
    scores: Mapping[str, Score]
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    seconds: float

    @property
    def posterior(self) -> Posterior:
        """Posterior of the chain that was pruned."""
        return self.fit.posterior.chain(self.chain)

    def inputs_read(self) -> NDArray[np.bool_]:
        """Return which input gates the pruned network still reads, ``(num_gates,)``."""
        posterior = self.posterior
        network: Any = apply_mask(posterior.network(), posterior.edges, self.mask)
        columns = network[0].weight.detach().abs().sum(0).numpy() > 0
        left = np.zeros(len(self.encoder.input_labels), dtype=bool)
        np.logical_or.at(left, np.asarray(self.encoder.input_index), columns)
        return left


def run_table(
    table: Table,
    settings: TableSettings,
    *,
    progress: bool = True,
    checkpoint: Path | None = None,
) -> TableRun:
    """Run the main job.

    Args:
        table: The table.
        settings: The settings.
        progress: Whether progress bars are shown.
        checkpoint: Where the fit writes its state and resumes from.

    Raises:
        DataError: If the table cannot be encoded.
    """
    started = time.perf_counter()
    job = _Job.of(table, settings, progress=progress)
    recipe, held = job.choose()
    fit = job.train(
        recipe,
        settings.num_chains,
        f"fit, {settings.num_chains} chains",
        checkpoint=None if checkpoint is None else Checkpoint(checkpoint, interval=10.0),
    )
    chain = int(fit.posterior.elbo(*job.training).argmax())
    posterior = fit.posterior.chain(chain)
    mask = settings.decide()(posterior)
    pruned = prune(posterior.network(), posterior.edges, mask, example_input=job.test[0])
    dense, dense_held = job.choose_dense(recipe)
    return TableRun(
        table=table,
        encoder=job.encoder,
        settings=settings,
        recipe=recipe,
        fit=fit,
        chain=chain,
        mask=mask,
        pruned=pruned,
        noise=held.noise(job.noise, pruned=True),
        tested=job.test_inputs(held),
        diagnosis=run_diagnosis(fit, mask, held, dense_held),
        scores=job.scores(dense, dense_held, held, posterior, mask),
        train=job.training,
        test=job.test,
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True, eq=False)
class _Job:
    """The encoded data of a run and what is done with them."""

    settings: TableSettings
    encoder: Encoder
    training: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    progress: bool

    @classmethod
    def of(cls, table: Table, settings: TableSettings, *, progress: bool) -> _Job:
        """Split and encode a table; statistics come from the training rows alone."""
        labels = table.target.to_numpy() if table.task == "classification" else None
        train_rows, test_rows = split_rows(
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

    def choose(self) -> tuple[TableRecipe, HeldOut]:
        """Return the recipe with the best held-out log likelihood of the pruned network.

        Where its networks are no better than a constant, rarer and longer fits are tried too.
        """
        recipes = self.settings.candidates(self.encoder.task)
        held = self.cross_validate(recipes, "cross-validation")
        best = self._best(held)
        if any(f.severity is Severity.FAILED for f in fold_findings(held[best])):
            chosen = recipes[best]
            again = [
                replace(chosen, prior_log_odds=chosen.prior_log_odds - 3.0),
                replace(chosen, num_steps=2 * chosen.num_steps),
            ]
            recipes += again
            held += self.cross_validate(again, "cross-validation, other settings")
            best = self._best(held)
        return recipes[best], held[best]

    def choose_dense(self, recipe: TableRecipe) -> tuple[TableRecipe, HeldOut]:
        """Return the dense recipe with the best held-out log likelihood, and its predictions."""
        recipes = [replace(recipe, gated=False)]
        if self.encoder.task == "classification":
            dense = replace(self.settings.recipe, num_steps=recipe.num_steps, gated=False)
            recipes = [dense.widened(factor) for factor in self.settings.weight_scales]
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
            [fold[:most] for fold in held.folds],
            groups=columns,
            rate=self.settings.rate,
            seed=self.settings.seed,
        )

    def scores(
        self,
        dense: TableRecipe,
        dense_held: HeldOut,
        held: HeldOut,
        posterior: Posterior,
        mask: Mask,
    ) -> dict[str, Score]:
        """Test the dense network, trained the same way, the posterior mean and the pruned one."""
        network = self.train(dense, 1, "dense network").posterior
        probability = {name: p[0] for name, p in posterior.inclusion_probability().items()}
        expected = float(expected_size(probability, posterior.edges).num_parameters)
        size = sum(p.numel() for p in network.model.network.parameters())
        left = masked_cost(posterior.edges, mask).num_nonzero
        x, y = self.test

        def score(outputs: Tensor, noise: Likelihood, size: float) -> Score:
            return _score(outputs, noise, y, self.encoder, size)

        return {
            "dense": score(
                evaluate(network, x, None, num_samples=1),
                dense_held.noise(self.noise, pruned=False),
                size,
            ),
            "posterior mean": score(
                evaluate(posterior, x, None, num_samples=200),
                held.noise(self.noise, pruned=False),
                expected,
            ),
            "pruned": score(
                evaluate(posterior, x, mask), held.noise(self.noise, pruned=True), left
            ),
        }


def _score(outputs: Tensor, noise: Likelihood, y: Tensor, encoder: Encoder, size: float) -> Score:
    with torch.no_grad():
        density = float(predictive_log_likelihood(noise, outputs, y).mean())
        if noise.task == "classification":
            return Score(error_rate(outputs.softmax(-1).mean(0), y), density, size)
        mean = outputs[..., 0].mean(0)
        error = float((mean - y).square().mean().sqrt()) * encoder.target_scale
        return Score(error, density - float(np.log(encoder.target_scale)), size)
