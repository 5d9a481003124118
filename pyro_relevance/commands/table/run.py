"""The main job on a table: choose settings, fit chains, decide, prune, test - as one value.

``run_table`` computes, ``table_report`` says it in words, ``write_run`` writes the run folder.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_relevance import masks
from pyro_relevance.commands.table.recipe import (
    HeldOut,
    Rule,
    TableRecipe,
    evaluate,
    held_out,
    make_model,
    mixture,
    train,
)
from pyro_relevance.data.tables import Encoder, Table, encode, split_rows
from pyro_relevance.edges.size import masked_cost
from pyro_relevance.masks import Mask
from pyro_relevance.model import likelihoods
from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.model.noise import predictive_log_likelihood
from pyro_relevance.posterior.before_pruning import cross_validated_loss_interval
from pyro_relevance.posterior.evaluation import error_rate
from pyro_relevance.posterior.intervals import LossInterval
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.posterior.relevance import expected_size
from pyro_relevance.surgery.pruning import PrunedNetwork, apply_mask, prune
from pyro_relevance.training.callbacks import ProgressBar
from pyro_relevance.training.svi import Checkpoint, Fit

__all__ = ["NUM_DRAWS", "Score", "TableRun", "TableSettings", "run_table"]

NUM_DRAWS = 200
"""Draws of each chain, with seed 0, in the report and in the ArviZ file: the same ones."""

NOISE = likelihoods.StudentT(4.0, noise_scale=0.2)
"""Noise of new rows, fitted on held-out ones: Student-t, because tables have outliers."""


@dataclass(frozen=True)
class TableSettings:
    """Settings of the main job.

    Args:
        recipe: Settings of each fit.
        noise_scales: Candidates for the training noise (fractions of the target's standard
            deviation), chosen by cross-validation; not used for classes.
        rule: ``"median"`` keeps what is more likely relevant than not, ``"fdr"`` the largest set
            with a mean posterior probability of irrelevance of at most ``rate``.
        rate: Rate of ``"fdr"``.
        num_chains: Independent fits.
        num_folds: Folds of the cross-validation.
        dense: Whether a dense network is trained too, to compare with.
        test_fraction: Share of the rows that is used once, to test.
        seed: Seed of everything.

    Raises:
        ValueError: If a setting is out of range.
    """

    recipe: TableRecipe = TableRecipe(num_steps=6000, gate_learning_rate=3e-2)
    noise_scales: tuple[float, ...] = (0.1, 0.2)
    rule: Literal["median", "fdr"] = "median"
    rate: float = 0.1
    num_chains: int = 8
    num_folds: int = 5
    dense: bool = True
    test_fraction: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what the parts do not check themselves."""
        if self.rule not in ("median", "fdr"):
            raise ValueError(f"Expected rule to be 'median' or 'fdr', but got {self.rule!r}.")
        if not 0.0 < self.rate < 1.0:
            raise ValueError(f"Expected rate in (0, 1), but got {self.rate}.")
        if self.num_chains < 1:
            raise ValueError(f"Expected num_chains >= 1, but got {self.num_chains}.")
        if not self.noise_scales:
            raise ValueError("Expected at least one candidate in noise_scales, but got none.")

    def decide(self) -> Rule:
        """Return the rule as a function of the posterior of one chain."""
        if self.rule == "median":
            return masks.median_probability
        return lambda posterior: masks.false_discovery_rate(posterior, self.rate)


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
        predictive: Noise of new rows around the predictions of the posterior, all chains together
            (standardised target).
        held: Held-out predictions for training rows, by the networks of the cross-validation with
            the chosen recipe.
        expected: Loss (nats) and error of the pruned network on as many new rows as there are test
            rows, expected before the test: 90 % predictive intervals from the cross-validation, on
            the standardised target.
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
    predictive: Likelihood
    held: HeldOut
    expected: LossInterval
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
    rows: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    progress: bool = True,
    checkpoint: Path | None = None,
) -> TableRun:
    """Run the main job.

    Args:
        table: The table.
        settings: The settings.
        rows: Numbers of the training and of the test rows; ``None`` for a random split by the
            settings' ``test_fraction`` and ``seed``.
        progress: Whether progress bars are shown.
        checkpoint: Where the fit writes its state and resumes from.

    Raises:
        DataError: If the table cannot be encoded.
    """
    started = time.perf_counter()
    job = _Job.of(table, settings, rows, progress=progress)
    recipe, held, both = job.choose()
    predictive = both.noise(job.noise, pruned=False)
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
    noise = held.noise(job.noise, pruned=True)
    return TableRun(
        table=table,
        encoder=job.encoder,
        settings=settings,
        recipe=recipe,
        fit=fit,
        chain=chain,
        mask=mask,
        pruned=pruned,
        noise=noise,
        predictive=predictive,
        held=held,
        expected=job.expected(held, posterior, mask, noise),
        scores=job.scores(recipe, held, fit.posterior, chain, mask, predictive),
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
    def of(
        cls,
        table: Table,
        settings: TableSettings,
        rows: tuple[NDArray[np.int64], NDArray[np.int64]] | None,
        *,
        progress: bool,
    ) -> _Job:
        """Split and encode a table; statistics come from the training rows alone."""
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

        Beside it, its held-out predictions and those of all candidates together.
        """
        recipes = [self.settings.recipe]
        if self.encoder.task == "regression":
            recipes = [replace(recipes[0], noise_scale=s) for s in self.settings.noise_scales]
        held = self.cross_validate(recipes, "cross-validation")
        best = int(np.argmax([candidate.score(self.noise) for candidate in held]))
        return recipes[best], held[best], mixture(held)

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

    def scores(
        self,
        recipe: TableRecipe,
        held: HeldOut,
        chains: Posterior,
        chain: int,
        mask: Mask,
        predictive: Likelihood,
    ) -> dict[str, Score]:
        """Test the dense network, trained the same way, the posterior mean and the pruned one.

        The posterior is the mixture of all chains; one of them is pruned.
        """
        posterior = chains.chain(chain)
        expected = expected_size(chains.inclusion_probability(), chains.edges).num_parameters
        left = masked_cost(posterior.edges, mask).num_nonzero
        x, y = self.test

        def score(outputs: Tensor, noise: Likelihood, size: float) -> Score:
            return _score(outputs, noise, y, self.encoder, size)

        found = {}
        if self.settings.dense:
            recipe = replace(recipe, gated=False)
            (dense_held,) = self.cross_validate([recipe], "dense, held out")
            network = self.train(recipe, 1, "dense network").posterior
            found["dense"] = score(
                evaluate(network, x, None, num_samples=1),
                dense_held.noise(self.noise, pruned=False),
                sum(p.numel() for p in network.model.network.parameters()),
            )
        return found | {
            "posterior mean": score(
                chains.predict(x, num_samples=NUM_DRAWS).outputs.flatten(0, 1),
                predictive,
                float(expected.mean()),
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
