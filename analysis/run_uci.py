"""UCI regression sets: relevance of inputs and weights on the standard splits, beside yardsticks.

The candidates are cross-validated inside each training split (all candidates, splits and folds in
one vectorised run), the one with the best held-out log likelihood of the PRUNED network is refitted
on the whole training split, and the test rows are used once in a run. analysis/README.md says how
the candidates came about.

    python -m analysis.run_uci --dataset boston
    python -m analysis.run_uci --dataset all --root DATA
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis import yardsticks
from analysis.command import Command
from analysis.records import row, write_record
from analysis.rules import median_within
from analysis.splits import Split
from pyro_relevance import datasets, likelihoods
from pyro_relevance.commands.table.recipe import TableRecipe, evaluate, held_out, make_model, train
from pyro_relevance.comparison.records import write_json
from pyro_relevance.edges.size import masked_cost
from pyro_relevance.masks import Mask
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.training.callbacks import ProgressBar


@dataclass(frozen=True)
class Settings:
    """What the experiment does.

    Args:
        num_splits: Standard splits (5 for the protein set).
        hidden: Hidden units (100 for the protein set, as in the protocol).
        prior_log_odds: Candidates for the prior log-odds of every gate.
        noise_scale: Candidates for the noise scale in training.
        num_folds: Folds of the cross-validation; large sets use fewer (see ``folds``).
        num_steps: Steps of each fit.
        num_restarts: Chains of the final fit; the one with the highest evidence lower bound on its
            training rows is kept.
        max_parameters: Most parameters of the pruned network: weights, biases and noise.
        dropout_epochs: Epochs of MC dropout, as published.
        gaussian_steps: Steps of the mean-field Gaussian network.
        seed: Seed of everything.
    """

    num_splits: int = 20
    hidden: int = 50
    prior_log_odds: tuple[float, ...] = (-1.5,)
    noise_scale: tuple[float, ...] = (0.03, 0.06, 0.11, 0.2, 0.4, 0.8)
    num_folds: int = 5
    num_steps: int = 10_000
    num_restarts: int = 5
    max_parameters: int = 200
    dropout_epochs: int = 4000
    gaussian_steps: int = 6000
    seed: int = 0

    def candidates(self) -> list[TableRecipe]:
        """Return the recipes to choose from."""
        return [
            TableRecipe(
                hidden=(self.hidden,),
                prior_log_odds=odds,
                noise_scale=noise,
                num_steps=self.num_steps,
            )
            for noise in self.noise_scale
            for odds in self.prior_log_odds
        ]


BOSTON = Settings(prior_log_odds=(-1.0, -1.5, -2.0), noise_scale=(0.11,))
"""Candidates for Boston, whose noise is known from earlier rounds (see analysis/README.md)."""

NOISE = likelihoods.StudentT(4.0, noise_scale=0.2)
"""The noise model that is fitted on held-out rows: scale and degrees of freedom, two parameters."""


def rule_of(settings: Settings) -> Any:
    """Return the rule: the median probability model, within the budget of parameters."""

    def rule(posterior: Posterior) -> Mask:
        limit = settings.max_parameters - sum(p.numel() for p in NOISE.parameters())
        return median_within(posterior, limit)

    return rule


def folds(num_rows: int, settings: Settings) -> int:
    """Return the number of folds: fewer where one fold already has many rows."""
    return settings.num_folds if num_rows <= 2000 else 2


def relevance(splits: list[Split], settings: Settings, *, gated: bool) -> dict[str, Any]:
    """Choose, refit and test the library's network (or the dense one) on all splits."""
    started = time.perf_counter()
    sets = [(split.x, split.y) for split in splits]
    num_inputs = sets[0][0].shape[1]
    rule = rule_of(settings)
    candidates = [dataclasses.replace(r, gated=gated) for r in settings.candidates()]
    if not gated:
        candidates = candidates[:: len(settings.prior_log_odds)]

    def make(recipe: TableRecipe, num_rows: int) -> RelevanceModel:
        return make_model(recipe, num_data=num_rows, num_inputs=num_inputs, seed=settings.seed)

    held = held_out(
        candidates,
        make,
        sets,
        num_folds=folds(len(sets[0][0]), settings),
        rule=rule,
        seed=settings.seed,
        callbacks=[ProgressBar("cross-validation")],
    )
    scores = np.array([[h.score(NOISE) for h in of_recipe] for of_recipe in held])
    chosen = scores.argmax(axis=0)
    names = (
        "rmse",
        "test_log_likelihood",
        "rmse_posterior_mean",
        "test_log_likelihood_posterior_mean",
    )
    metrics: dict[str, list[float]] = {
        name: [float("nan")] * len(splits) for name in (*names, "num_parameters")
    }
    for index in sorted(set(chosen.tolist())):
        recipe = candidates[index]
        which = [i for i in range(len(splits)) if chosen[i] == index]
        model = make(recipe, len(sets[0][0]))
        fit = train(
            recipe,
            model,
            [sets[i] for i in which for _ in range(settings.num_restarts)],
            num_chains=len(which) * settings.num_restarts,
            seed=settings.seed,
            callbacks=[ProgressBar(f"fit {recipe.noise_scale} {recipe.prior_log_odds}")],
        )
        for k, i in enumerate(which):
            split = splits[i]
            restarts = range(k * settings.num_restarts, (k + 1) * settings.num_restarts)
            chain = split.best_chain(fit.posterior, restarts)
            draws = evaluate(chain, split.x_test, None, num_samples=50 if gated else 1)
            mask = rule(chain) if gated else None
            pruned = draws if mask is None else evaluate(chain, split.x_test, mask)
            noise = held[index][i].noise(NOISE, pruned=True)
            metrics["rmse"][i] = split.rmse(pruned)
            metrics["test_log_likelihood"][i] = split.log_likelihood(noise, pruned)
            metrics["rmse_posterior_mean"][i] = split.rmse(draws)
            sampled = held[index][i].noise(NOISE, pruned=False)
            metrics["test_log_likelihood_posterior_mean"][i] = split.log_likelihood(sampled, draws)
            num_kept = (
                sum(p.numel() for p in model.network.parameters())
                if mask is None
                else masked_cost(chain.edges, mask).num_nonzero
            )
            metrics["num_parameters"][i] = num_kept + sum(p.numel() for p in NOISE.parameters())
    return {
        "metrics": metrics,
        "seconds": time.perf_counter() - started,
        "settings": {
            "chosen": [dataclasses.asdict(candidates[i]) for i in chosen.tolist()],
            "held_out_log_likelihood_standardised": scores.T.tolist(),
        },
    }


def run(
    name: str,
    root: str | None,
    settings: Settings,
    folder: Path,
    *,
    command: str,
    only: str | None = None,
) -> Path:
    """Run all methods (or the one named) on one data set and write its record."""
    record = f"uci_{name}" + (f"_seed{settings.seed}" if settings.seed else "")
    if name == "protein":
        settings = dataclasses.replace(settings, num_splits=min(5, settings.num_splits), hidden=100)
    x, y = datasets.uci(name, root)
    raw = datasets.standard_splits(len(x), settings.num_splits)
    arrays = [(x[a], y[a], x[b], y[b]) for a, b in raw]
    splits = [Split.of(raw_split) for raw_split in arrays]
    seeds = list(range(len(splits)))
    methods: dict[str, Callable[[], dict[str, Any]]] = {
        "relevance, pruned network": lambda: relevance(splits, settings, gated=True),
        "dense, trained the same way": lambda: relevance(splits, settings, gated=False),
        "MC dropout": lambda: yardsticks.mc_dropout(
            arrays, hidden=settings.hidden, num_epochs=settings.dropout_epochs
        ),
        "mean-field Gaussian": lambda: yardsticks.mean_field_gaussian(
            arrays, hidden=settings.hidden, num_steps=settings.gaussian_steps
        ),
        "lasso": lambda: yardsticks.lasso(arrays),
        "gradient boosting": lambda: yardsticks.gradient_boosting(arrays),
    }
    # Each method's row is kept as soon as it is there: a killed run goes on with the next method.
    part = folder / f".{record}.part.json"
    known = {"settings": json.loads(json.dumps(dataclasses.asdict(settings))), "rows": []}
    if part.exists() and json.loads(part.read_text())["settings"] == known["settings"]:
        known = json.loads(part.read_text())
    rows = known["rows"]
    if only is not None:
        methods = {only: methods[only]}
    for method, compute in methods.items():
        if method not in [entry["method"] for entry in rows]:
            found = compute()
            values = found.get("metrics") or {
                key: found[key] for key in ("rmse", "test_log_likelihood", "num_parameters")
            }
            more = {"total_seconds": found["seconds"], "settings": found["settings"]}
            rows.append(row(method, name, seeds, values, **more))
            folder.mkdir(parents=True, exist_ok=True)
            write_json(part, known)
        report(next(entry for entry in rows if entry["method"] == method))
    part.unlink(missing_ok=True)
    return write_record(
        record,
        command=command,
        settings=dataclasses.asdict(settings),
        rows=rows,
        wall_seconds=sum(entry["total_seconds"] for entry in rows),
        folder=folder,
    )


def report(entry: dict[str, Any]) -> None:
    """Print one row."""
    metrics = entry["metrics"]
    rmse, likelihood, size = (
        metrics[name] for name in ("rmse", "test_log_likelihood", "num_parameters")
    )
    print(
        f"{entry['method']:32s} RMSE {rmse['mean']:.3f} +- {rmse['se']:.3f}   "
        f"log likelihood {likelihood['mean']:.3f} +- {likelihood['se']:.3f}   "
        f"parameters {size['mean']:.0f} (at most {max(size['values']):.0f})   "
        f"{entry['total_seconds']:.0f} s",
        flush=True,
    )


def main() -> None:
    """Read the command line and run."""
    command = Command("run_uci", __doc__, smoke="two splits, few steps")
    command.add_argument("--dataset", default="boston", choices=[*datasets.UCI_NAMES, "all"])
    command.add_root("uci/<name>.txt")
    command.add_argument("--seed", type=int, default=0, help="another seed, another record")
    command.add_only("one method, by its name in the record")
    arguments = command.parse_args()
    names = datasets.UCI_NAMES if arguments.dataset == "all" else (arguments.dataset,)
    for name in names:
        settings = BOSTON if name == "boston" else Settings()
        settings = dataclasses.replace(settings, seed=arguments.seed)
        if arguments.smoke:
            settings = smoke(settings)
        path = run(
            name,
            arguments.root,
            settings,
            arguments.out,
            command=command.line(),
            only=arguments.only,
        )
        print(f"{name}: {path}")


def smoke(settings: Settings) -> Settings:
    """Return settings that take seconds."""
    return dataclasses.replace(
        settings,
        num_splits=2,
        num_steps=60,
        num_folds=2,
        num_restarts=2,
        dropout_epochs=2,
        gaussian_steps=20,
        prior_log_odds=(-1.5,),
        noise_scale=(0.11,),
    )


if __name__ == "__main__":
    main()
