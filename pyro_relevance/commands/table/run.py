"""The main job on a table: choose settings, fit chains, decide, prune, test - as one value.

``run_table`` computes, ``table_report`` says it in words, ``write_run`` writes the run folder.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pyro_relevance.commands.scoring.imbalance import Decision
from pyro_relevance.commands.scoring.scores import Score
from pyro_relevance.commands.table.background import others
from pyro_relevance.commands.table.fitting import fit_table
from pyro_relevance.commands.table.job import Job
from pyro_relevance.commands.table.predictor import Predictor
from pyro_relevance.commands.table.recipe import HeldOut, TableRecipe
from pyro_relevance.commands.table.settings import TableSettings
from pyro_relevance.commands.table.verdict import run_diagnosis
from pyro_relevance.data.tables import Encoder, Table
from pyro_relevance.masks import Mask
from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.posterior.diagnosis import Diagnosis
from pyro_relevance.posterior.holdout import HoldoutTest
from pyro_relevance.posterior.intervals import LossInterval
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.surgery.pruning import PrunedNetwork, apply_mask
from pyro_relevance.training.svi import Checkpoint, Fit

__all__ = ["TableRun", "run_table"]


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
        tested: The holdout test of the inputs, on the networks of the cross-validation.
        diagnosis: Whether the fit worked.
        scores: ``"dense"``, ``"posterior mean"`` and ``"pruned"``.
        baselines: Simple models on the same rows: ``"constant"``, ``"ridge"`` or ``"logistic"``,
            ``"boosting"``.
        decision: How classes are decided; ``None`` where the target is a quantity.
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
    tested: HoldoutTest
    diagnosis: Diagnosis
    scores: Mapping[str, Score]
    baselines: Mapping[str, Score]
    decision: Decision | None
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    seconds: float

    @property
    def posterior(self) -> Posterior:
        """Posterior of the chain that was pruned."""
        return self.fit.posterior.chain(self.chain)

    @property
    def predictor(self) -> Predictor:
        """What predicts new rows; ``load_run`` reads the same from the run folder."""
        return Predictor(self.encoder, self.pruned, self.noise, self.diagnosis.failed)

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
    workers: int = 1,
    progress: bool = True,
    checkpoint: Path | None = None,
) -> TableRun:
    """Run the main job.

    Args:
        table: The table.
        settings: The settings.
        rows: Numbers of the training and of the test rows; ``None`` for a random split by the
            settings' ``test_fraction`` and ``seed``.
        workers: Processes; with two, the dense network has its own (a script that asks for two
            needs ``if __name__ == "__main__":``).
        progress: Whether progress bars are shown.
        checkpoint: Where the fit writes its state and resumes from.

    Raises:
        DataError: If the table cannot be encoded.
    """
    started = time.perf_counter()
    job = Job.of(table, settings, rows, progress=progress)
    kept = None if checkpoint is None else Checkpoint(checkpoint, interval=10.0)
    with others(job, workers) as wait:
        done = fit_table(job, kept)
        compared = wait()
    scores = dict(compared.scores)
    predictive = done.together.noise(job.noise, pruned=False)
    scores["posterior mean"] = job.posterior_score(done.fit.posterior, predictive)
    scores["pruned"] = job.pruned_score(done.posterior, done.mask, done.noise)
    return TableRun(
        table=table,
        encoder=job.encoder,
        settings=settings,
        recipe=done.recipe,
        fit=done.fit,
        chain=done.chain,
        mask=done.mask,
        pruned=done.pruned(job.test[0]),
        noise=done.noise,
        predictive=predictive,
        held=done.held,
        expected=job.expected(done.held, done.posterior, done.mask, done.noise),
        tested=done.tested,
        diagnosis=run_diagnosis(done.fit, done.mask, done.held, compared.held),
        scores=scores,
        baselines=compared.baselines,
        decision=job.decision(done.held, done.posterior, done.mask),
        train=job.training,
        test=job.test,
        seconds=time.perf_counter() - started,
    )
