"""Settings of the main job on a table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pyro_relevance import masks
from pyro_relevance.commands.table.recipe import Rule, TableRecipe
from pyro_relevance.masks import Mask
from pyro_relevance.posterior.posterior import Posterior

__all__ = ["TableSettings"]


@dataclass(frozen=True)
class TableSettings:
    """Settings of the main job.

    Args:
        recipe: Settings of each fit.
        noise_scales: Candidates for the training noise (fractions of the target's standard
            deviation), chosen by cross-validation; not used for classes.
        weight_scales: Candidates for classes: factors of the weights' prior scales, chosen by
            cross-validation. A narrow prior keeps logits small, and few rows of classes then pay
            for no gate.
        prior_log_odds: Candidates for classes, beside the recipe's own.
        rule: ``"median"`` keeps what is more likely relevant than not, ``"fdr"`` the largest set
            with a mean posterior probability of irrelevance of at most ``rate``.
        rate: False discovery rate of the holdout test of the inputs, and of ``"fdr"``.
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
    weight_scales: tuple[float, ...] = (1.0, 3.0, 8.0)
    prior_log_odds: tuple[float, ...] = (-3.0,)
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
        counts = {
            "num_chains": self.num_chains,
            "num_steps": self.recipe.num_steps,
            "batch_size": self.recipe.batch_size,
            "units of each hidden layer": min(self.recipe.hidden, default=1),
        }
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"Expected {name} >= 1, but got {count}.")
        for name in ("noise_scales", "weight_scales"):
            if not getattr(self, name):
                raise ValueError(f"Expected at least one candidate in {name}, but got none.")

    def candidates(self, task: str) -> list[TableRecipe]:
        """Return the recipes among which cross-validation chooses."""
        if task == "regression":
            return [replace(self.recipe, noise_scale=scale) for scale in self.noise_scales]
        odds = dict.fromkeys((self.recipe.prior_log_odds, *self.prior_log_odds))
        return [
            replace(self.recipe.widened(factor), prior_log_odds=value)
            for factor in self.weight_scales
            for value in odds
        ]

    def decide(self) -> Rule:
        """Return the rule as a function of the posterior of one chain."""
        if self.rule == "median":
            return masks.median_probability

        def decide(posterior: Posterior) -> Mask:
            # Probabilities without their posterior: the report says what they are worth.
            probability = {name: p[0] for name, p in posterior.inclusion_probability().items()}
            return masks.false_discovery_rate(probability, self.rate)

        return decide
