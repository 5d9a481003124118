"""The main job on a table: choose settings, fit chains, decide, prune, test - as one value.

``run_table`` computes, ``table_report`` says it in words, ``table_files`` writes the run folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_relevance import likelihoods, masks
from pyro_relevance.callbacks import ProgressBar
from pyro_relevance.cost import masked_cost
from pyro_relevance.likelihoods import Likelihood
from pyro_relevance.masks import Mask
from pyro_relevance.model import RelevanceModel
from pyro_relevance.noise import predictive_log_likelihood
from pyro_relevance.posterior import Posterior
from pyro_relevance.surgery import PrunedNetwork, prune
from pyro_relevance.svi import Checkpoint, Fit
from pyro_relevance.tables import Encoder, Table, encode, split_rows
from pyro_relevance.tabular import HeldOut, Recipe, Rule, evaluate, held_out, make_model, train

__all__ = ["Score", "TableRun", "TableSettings", "run_table"]

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
        test_fraction: Share of the rows that is used once, to test.
        seed: Seed of everything.

    Raises:
        ValueError: If a setting is out of range.
    """

    recipe: Recipe = Recipe(num_steps=4000)  # noqa: RUF009 (a frozen value)
    noise_scales: tuple[float, ...] = (0.08, 0.15, 0.3)
    rule: Literal["median", "fdr"] = "median"
    rate: float = 0.1
    num_chains: int = 8
    num_folds: int = 5
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
        mask: What was kept of it.
        pruned: The small network.
        noise: Noise of new rows around the small network's predictions (standardised target).
        scores: ``"dense"``, ``"posterior mean"`` and ``"pruned"``.
        train: Encoded training rows.
        test: Encoded test rows.
        seconds: Wall time.
    """

    table: Table
    encoder: Encoder
    settings: TableSettings
    recipe: Recipe
    fit: Fit
    chain: int
    mask: Mask
    pruned: PrunedNetwork
    noise: Likelihood
    scores: Mapping[str, Score]
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    seconds: float

    @property
    def posterior(self) -> Posterior:
        """Posterior of the chain that was pruned."""
        return self.fit.posterior.chain(self.chain)

    def inputs_left(self) -> NDArray[np.bool_]:
        """Return which input gates the pruned network still reads, ``(num_gates,)``."""
        from pyro_relevance.surgery import apply_mask

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
    classes = table.task == "classification"
    labels = table.target.to_numpy() if classes else None
    train_rows, test_rows = split_rows(
        table.num_rows, test_fraction=settings.test_fraction, seed=settings.seed, labels=labels
    )
    encoder = encode(table, train_rows)
    x, y = encoder.transform(table.features, table.target)
    training, test = (x[train_rows], y[train_rows]), (x[test_rows], y[test_rows])

    def make(recipe: Recipe, num_rows: int) -> RelevanceModel:
        return make_model(
            recipe,
            num_data=num_rows,
            num_inputs=encoder.num_columns,
            num_classes=encoder.num_outputs if classes else None,
            input_labels=encoder.input_labels,
            input_index=encoder.input_index,
            seed=settings.seed,
        )

    recipe, held = _choose(settings, make, training, classes=classes, progress=progress)
    bar = [ProgressBar(f"fit, {settings.num_chains} chains")] if progress else []
    fit = train(
        recipe,
        make(recipe, len(training[0])),
        training,
        num_chains=settings.num_chains,
        seed=settings.seed,
        callbacks=bar,
        checkpoint=None if checkpoint is None else Checkpoint(checkpoint, interval=10.0),
    )
    chain = int(fit.posterior.elbo(*training).argmax())
    posterior = fit.posterior.chain(chain)
    mask = settings.decide()(posterior)
    pruned = prune(posterior.network(), posterior.edges, mask, example_input=test[0])
    noise = _noise(held, fit.posterior.likelihood, pruned=True)
    scores = _scores(
        settings, recipe, make, posterior, mask, held, encoder, training, test, progress
    )
    return TableRun(
        table=table,
        encoder=encoder,
        settings=settings,
        recipe=recipe,
        fit=fit,
        chain=chain,
        mask=mask,
        pruned=pruned,
        noise=noise,
        scores=scores,
        train=training,
        test=test,
        seconds=time.perf_counter() - started,
    )


def _choose(
    settings: TableSettings,
    make: Callable[[Recipe, int], RelevanceModel],
    training: tuple[Tensor, Tensor],
    *,
    classes: bool,
    progress: bool,
) -> tuple[Recipe, HeldOut]:
    """Return the recipe with the best held-out log likelihood of the pruned network."""
    base = settings.recipe
    recipes = [base] if classes else [replace(base, noise_scale=s) for s in settings.noise_scales]
    held = held_out(
        recipes,
        make,
        [training],
        num_folds=settings.num_folds,
        rule=settings.decide(),
        seed=settings.seed,
        callbacks=[ProgressBar("cross-validation")] if progress else [],
    )
    scores = [of_recipe[0].score(_start(classes)) for of_recipe in held]
    best = int(np.argmax(scores))
    return recipes[best], held[best][0]


def _start(classes: bool) -> Likelihood:
    return likelihoods.Categorical() if classes else NOISE


def _noise(held: HeldOut, likelihood: Likelihood, *, pruned: bool) -> Likelihood:
    return held.noise(_start(likelihood.task == "classification"), pruned=pruned)


def _scores(
    settings: TableSettings,
    recipe: Recipe,
    make: Callable[[Recipe, int], RelevanceModel],
    posterior: Posterior,
    mask: Mask,
    held: HeldOut,
    encoder: Encoder,
    training: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    progress: bool,
) -> dict[str, Score]:
    """Test the dense network trained the same way, the posterior mean and the pruned network."""
    from pyro_relevance.relevance import expected_size

    dense_recipe = replace(recipe, gated=False)
    bar = [ProgressBar("dense network")] if progress else []
    ((dense_held,),) = held_out(
        [dense_recipe], make, [training], num_folds=settings.num_folds, seed=settings.seed
    )
    model = make(dense_recipe, len(training[0]))
    dense = train(
        dense_recipe, model, training, num_chains=1, seed=settings.seed, callbacks=bar
    ).posterior
    edges, likelihood = posterior.edges, posterior.likelihood
    expected = expected_size(
        {name: p[0] for name, p in posterior.inclusion_probability().items()}, edges
    )
    entries = {
        "dense": (
            evaluate(dense, test[0], None, num_samples=1),
            _noise(dense_held, likelihood, pruned=False),
            sum(p.numel() for p in model.network.parameters()),
        ),
        "posterior mean": (
            evaluate(posterior, test[0], None, num_samples=200),
            _noise(held, likelihood, pruned=False),
            float(expected.num_parameters),
        ),
        "pruned": (
            evaluate(posterior, test[0], mask),
            _noise(held, likelihood, pruned=True),
            masked_cost(edges, mask).num_nonzero,
        ),
    }
    return {
        name: _score(outputs, noise, test[1], encoder, size)
        for name, (outputs, noise, size) in entries.items()
    }


def _score(outputs: Tensor, noise: Likelihood, y: Tensor, encoder: Encoder, size: float) -> Score:
    with torch.no_grad():
        density = float(predictive_log_likelihood(noise, outputs, y).mean())
        if noise.task == "classification":
            predicted = outputs.softmax(-1).mean(0).argmax(-1)
            return Score(float((predicted != y).float().mean()), density, size)
        mean = outputs[..., 0].mean(0)
        error = float((mean - y).square().mean().sqrt()) * encoder.target_scale
        return Score(error, density - float(np.log(encoder.target_scale)), size)
