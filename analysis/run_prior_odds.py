"""Are masks under other prior odds, told from one fit, those of refits?

Two settings. A linear model whose exact posterior is enumerated: the odds told from the exact
posterior at one prior against the exact posterior at every other, for inputs of growing
correlation; here the approximation is all that can be wrong. And the table job's recipe on Boston:
told from one fit at the recipe's prior odds against fits with other ones, same seed; here the
weights are fitted anew as well.

    python -m analysis.run_prior_odds
"""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path

import torch
from torch import Tensor

from analysis.command import Command
from analysis.records import row, runs_row, write_record
from analysis.splits import standardised
from pyro_relevance import datasets, masks
from pyro_relevance.commands.table.recipe import TableRecipe, make_model, train
from pyro_relevance.posterior.before_pruning import prior_sensitivity

RECORD = "prior_odds"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the experiment does.

    Args:
        prior_odds: Odds of an edge being relevant before the data.
        correlations: Correlations of the inputs of the linear model.
        num_sets: Data sets at each correlation.
        num_rows: Rows of a data set.
        num_inputs: Inputs of the linear model, a third of them relevant.
        recipe: The recipe on Boston; its prior odds are those of the fit that is told from.
        seeds: Seeds of the fits on Boston.
    """

    prior_odds: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    correlations: tuple[float, ...] = (0.0, 0.5, 0.9)
    num_sets: int = 50
    num_rows: int = 60
    num_inputs: int = 9
    recipe: TableRecipe = TableRecipe(num_steps=6000, gate_learning_rate=3e-2, noise_scale=0.2)
    seeds: tuple[int, ...] = (0, 1)


def exact_log_odds(x: Tensor, y: Tensor, prior_odds: float) -> Tensor:
    """Posterior log-odds of each input of a linear model, over all sets of inputs.

    Args:
        x: ``(num_rows, num_inputs)`` inputs.
        y: ``(num_rows,)`` targets with noise of standard deviation 1; weights are N(0, 1).
        prior_odds: Prior odds of each input.
    """
    num_inputs = x.shape[1]
    sets = (torch.arange(2**num_inputs)[:, None] >> torch.arange(num_inputs)) & 1
    eye = torch.eye(num_inputs, dtype=torch.float64)
    gram, moment = x.T @ x, x.T @ y
    scores = []
    for on in sets.bool():
        # Woodbury: the evidence of a set needs the inverse of its own columns alone.
        precision = gram[on][:, on] + eye[on][:, on]
        half = torch.linalg.cholesky(precision)
        fitted = torch.linalg.solve_triangular(half, moment[on][:, None], upper=False)
        evidence = 0.5 * fitted.square().sum() - half.diagonal().log().sum()
        scores.append(evidence + on.sum() * math.log(prior_odds))
    total = torch.stack(scores)
    on = sets.bool().T
    return torch.stack([total[gate].logsumexp(0) - total[~gate].logsumexp(0) for gate in on])


def linear(settings: Settings, correlation: float) -> list[dict[str, float]]:
    """Errors of inclusion probabilities told from the odds of one, for each data set."""
    results = []
    for seed in range(settings.num_sets):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        common = normal(settings.num_rows, 1)
        own = normal(settings.num_rows, settings.num_inputs)
        x = math.sqrt(correlation) * common + math.sqrt(1 - correlation) * own
        effects = torch.zeros(settings.num_inputs, dtype=torch.float64)
        effects[: settings.num_inputs // 3] = 0.5
        y = x @ effects + normal(settings.num_rows)
        fitted = exact_log_odds(x, y, 1.0)
        found = {}
        for odds in settings.prior_odds:
            told = (fitted + math.log(odds)).sigmoid()
            again = exact_log_odds(x, y, odds).sigmoid()
            found |= errors(told, again, odds)
        results.append(found)
    return results


def errors(told: Tensor, again: Tensor, odds: float) -> dict[str, float]:
    """Mean and largest error of probabilities, and both sizes of the median probability mask."""
    difference = (told.double() - again.double()).abs()
    return {
        f"mean_error_{odds:g}": float(difference.mean()),
        f"largest_error_{odds:g}": float(difference.max()),
        f"size_told_{odds:g}": float((told > 0.5).sum()),
        f"size_refit_{odds:g}": float((again > 0.5).sum()),
    }


def boston(settings: Settings, seed: int) -> dict[str, dict[str, float]]:
    """Errors on Boston for inputs and for weights, from one fit against fits at other odds."""
    data = datasets.boston()
    x, y = data.features.to_numpy(dtype=float), data.target.to_numpy(dtype=float)
    inputs, targets = standardised((x, y, x[:1], y[:1]))[:2]
    recipes = [settings.recipe] + [
        dataclasses.replace(settings.recipe, prior_log_odds=math.log(odds))
        for odds in settings.prior_odds
    ]
    # One run each, so that all start from the same weights and see the same noise.
    chains = [
        train(
            recipe,
            make_model(recipe, num_data=len(inputs), num_inputs=inputs.shape[1], seed=seed),
            (inputs, targets),
            num_chains=1,
            seed=seed,
        ).posterior
        for recipe in recipes
    ]
    first = chains[0]
    told = prior_sensitivity(first, prior_odds=settings.prior_odds)
    found: dict[str, dict[str, float]] = {"inputs": {}, "weights": {}}
    for index, odds in enumerate(settings.prior_odds):
        again = chains[index + 1].inclusion_probability()
        for kind in found:
            names = [name for name in again if (name == "inputs") == (kind == "inputs")]
            parts = [
                torch.cat([p[name].flatten() for name in names])
                for p in (
                    {n: v[index] for n, v in told.inclusion_probability.items()},
                    {n: v[0] for n, v in again.items()},
                )
            ]
            found[kind] |= errors(parts[0], parts[1], odds)
        own = masks.median_probability(chains[index + 1])
        same = sum(int((told.masks[index][name] == own[name]).sum()) for name in own)
        found["weights"][f"masks_agree_{odds:g}"] = same / first.edges.num_edges
    return found


def run(settings: Settings, folder: Path, *, command: str) -> Path:
    """Run both settings and write the record."""
    started = time.perf_counter()
    rows = [
        runs_row(
            f"linear, exact, correlation {correlation:g}", "linear", linear(settings, correlation)
        )
        for correlation in settings.correlations
    ]
    fits = [boston(settings, seed) for seed in settings.seeds]
    for kind in ("inputs", "weights"):
        metrics = {name: [fit[kind][name] for fit in fits] for name in fits[0][kind]}
        rows.append(row(f"table recipe, {kind}", "boston", list(settings.seeds), metrics))
    return write_record(
        RECORD,
        command=command,
        settings=dataclasses.asdict(settings),
        rows=rows,
        wall_seconds=time.perf_counter() - started,
        folder=folder,
    )


def main() -> None:
    """Read the command line and run."""
    command = Command("run_prior_odds", __doc__, smoke="two data sets, few steps")
    arguments = command.parse_args()
    settings = Settings()
    if arguments.smoke:
        recipe = dataclasses.replace(settings.recipe, num_steps=30, hidden=(6,))
        settings = dataclasses.replace(
            settings, num_sets=2, num_inputs=4, recipe=recipe, prior_odds=(0.1, 10.0)
        )
    print(run(settings, arguments.out, command=command.line()))


if __name__ == "__main__":
    main()
