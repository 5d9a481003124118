"""Does the holdout test keep its false discovery rate, and what does it find?

Five families of data sets with known relevant inputs. The networks are those of the command
``table``: its recipe, its candidates, its folds; sets of a part are trained in one vectorised run.
Beside it, on the same rows: the same test on boosted trees, knockoffs with the lasso (hidimstat),
the lasso's non-zero coefficients, a random forest above shuffled inputs, boosting with permutation
on held-out rows. A claim is an input, or a set of inputs that cannot be told apart; a set is
false where no member matters, and finds the members that do.

    python -m analysis.run_holdout

Nothing was chosen on these data sets: recipe and candidates are the command's, the test's settings
are its defaults.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LassoCV, LogisticRegressionCV
from torch import Tensor

import pyro_relevance as pr
from analysis.command import Command
from analysis.families import FAMILIES, KnownData
from analysis.parts import Parts
from analysis.records import row, write_record
from pyro_relevance.commands.table.job import NOISE
from pyro_relevance.commands.table.recipe import TableRecipe, held_out, make_model
from pyro_relevance.commands.table.settings import TableSettings
from pyro_relevance.data.splits import cross_validation_folds
from pyro_relevance.model import likelihoods
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.posterior.holdout import HoldoutTest

RATES = (0.05, 0.1, 0.2)

Claims = list[tuple[int, ...]]
"""Inputs, or sets of them, that are said to be relevant."""


@dataclass(frozen=True)
class Settings:
    """What the experiment does.

    Args:
        num_rows: Rows of a data set, training rows all of them.
        num_sets: Data sets of each family and size.
        sets_together: Data sets trained in one run; a part of the experiment.
        table: Settings of the command.
        first_seed: Seed of the first data set.
    """

    num_rows: tuple[int, ...] = (200, 500, 2000)
    num_sets: int = 50
    sets_together: int = 10
    table: TableSettings = TableSettings()
    first_seed: int = 0


def tensors(data: KnownData) -> tuple[Tensor, Tensor]:
    """Return the rows as the networks read them."""
    y = torch.as_tensor(data.y)
    return torch.as_tensor(data.x).float(), y.long() if data.classes else y.float()


def tests_of_recipe(sets: Sequence[KnownData], settings: Settings) -> list[list[HoldoutTest]]:
    """Return for each set the test at each rate, on the networks of the command's folds."""
    first, table = sets[0], settings.table

    def make(recipe: TableRecipe, num_rows: int) -> RelevanceModel:
        return make_model(
            recipe,
            num_data=num_rows,
            num_inputs=first.x.shape[1],
            num_classes=2 if first.classes else None,
            input_index=first.index.tolist(),
            input_labels=list(first.groups),
        )

    recipes = table.candidates("classification" if first.classes else "regression")
    data = [tensors(one) for one in sets]
    found = held_out(recipes, make, data, num_folds=table.num_folds, rule=table.decide())
    noise = likelihoods.Categorical() if first.classes else NOISE
    tests = []
    for i, one in enumerate(sets):
        held = max((of_recipe[i] for of_recipe in found), key=lambda held: held.score(noise))
        folds = [fold.held_out.numpy() for fold in held.folds]
        tests.append(tests_of(held.networks, data[i], folds, one.groups))
    return tests


def tests_of(
    networks: Sequence[Any],
    data: tuple[Tensor, Tensor],
    folds: Sequence[NDArray[np.int64]],
    groups: Mapping[str, Sequence[int]],
) -> list[HoldoutTest]:
    """Return the test at each rate."""
    # The smallest rate asks for the most redraws; its p-values serve the others.
    test = pr.holdout_test(networks, data, folds, groups=groups, rate=min(RATES))
    return [test.at_rate(rate) for rate in RATES]


def tests_of_boosting(data: KnownData, settings: Settings) -> list[HoldoutTest]:
    """Return the same test on boosted trees of the same number of folds."""
    folds, rest = cross_validation_folds(len(data.x), settings.table.num_folds)
    networks = []
    for rows in rest:
        if data.classes:
            trees = HistGradientBoostingClassifier(random_state=0).fit(data.x[rows], data.y[rows])
            networks.append(
                lambda x, trees=trees: torch.as_tensor(trees.predict_proba(x.numpy())).log()
            )
        else:
            trees = HistGradientBoostingRegressor(random_state=0).fit(data.x[rows], data.y[rows])
            networks.append(lambda x, trees=trees: torch.as_tensor(trees.predict(x.numpy())))
    return tests_of(networks, tensors(data), folds, data.groups)


def claims_of(test: HoldoutTest) -> Claims:
    """Return what a test says to be relevant."""
    names = [group.name for group in test.groups]
    alone: Claims = [(names.index(name),) for name in test.relevant]
    return alone + [tuple(names.index(name) for name in found) for found in test.inseparable]


def of_columns(chosen: NDArray[np.bool_], data: KnownData) -> Claims:
    """Return the inputs of chosen columns."""
    return [(int(i),) for i in np.unique(data.index[chosen])]


def lasso(data: KnownData) -> Claims:
    """Return the inputs with a non-zero coefficient of a cross-validated lasso."""
    if data.classes:
        model = LogisticRegressionCV(
            Cs=10, cv=5, penalty="l1", solver="liblinear", scoring="neg_log_loss", random_state=0
        )
        coefficient = model.fit(data.x, data.y).coef_[0]
    else:
        coefficient = LassoCV(cv=5, random_state=0).fit(data.x, data.y).coef_
    return of_columns(np.abs(coefficient) > 1e-9, data)


def forest(data: KnownData) -> Claims:
    """Return the inputs more important to a forest than each of their shuffled copies."""
    shuffled = np.random.default_rng(0).permuted(data.x, axis=0)
    kind = RandomForestClassifier if data.classes else RandomForestRegressor
    model = kind(200, random_state=0).fit(np.hstack([data.x, shuffled]), data.y)
    real, copies = np.split(model.feature_importances_, 2)
    return of_columns(real > copies.max(), data)


def permutation(data: KnownData) -> Claims:
    """Return the inputs whose permutation hurts boosting by two standard deviations and more."""
    folds, rest = cross_validation_folds(len(data.x), 5)
    kind = HistGradientBoostingClassifier if data.classes else HistGradientBoostingRegressor
    rises = []
    for fold, rows in zip(folds, rest, strict=True):
        trees = kind(random_state=0).fit(data.x[rows], data.y[rows])
        found = permutation_importance(
            trees, data.x[fold], data.y[fold], n_repeats=5, random_state=0
        )
        rises.append(found.importances_mean)
    rise = np.mean(rises, axis=0)
    error = np.std(rises, axis=0, ddof=1) / len(rises) ** 0.5
    return of_columns(rise > 2 * error, data)


def knockoffs(data: KnownData, rate: float) -> Claims:
    """Return what Gaussian knockoffs with the lasso select."""
    from hidimstat import ModelXKnockoff

    model = ModelXKnockoff(random_state=0)
    model.fit_importance(data.x, data.y)
    return of_columns(np.asarray(model.fdr_selection(fdr=rate)) > 0, data)


PLAIN: dict[str, Callable[[KnownData], Claims]] = {
    "lasso, non-zero": lasso,
    "random forest above shuffled inputs": forest,
    "boosting, permutation above 2 SE": permutation,
}


def metrics_of(claims: Claims, data: KnownData) -> dict[str, float]:
    """Return false discovery proportion, power, and the number of claims."""
    false = sum(not data.relevant[list(claim)].any() for claim in claims)
    found = {i for claim in claims for i in claim if data.relevant[i]}
    return {
        "false_discovery_proportion": false / max(1, len(claims)),
        "power": len(found) / int(data.relevant.sum()),
        "num_claims": float(len(claims)),
    }


def part(family: str, num_rows: int, seeds: Sequence[int], settings: Settings) -> dict[str, Any]:
    """Return the metrics of all methods on some sets, and the p-values of irrelevant inputs."""
    sets = [FAMILIES[family](num_rows, seed) for seed in seeds]
    rows: dict[str, list[dict[str, float]]] = {}
    p_values: dict[str, list[float]] = {}

    def keep(method: str, tests: Sequence[HoldoutTest], data: KnownData) -> None:
        for rate, test in zip(RATES, tests, strict=True):
            name = f"{method}, rate {rate}"
            rows.setdefault(name, []).append(metrics_of(claims_of(test), data))
        found = [g.p_value for g, r in zip(tests[0].groups, data.relevant, strict=True) if not r]
        p_values.setdefault(method, []).extend(found)

    for data, tests in zip(sets, tests_of_recipe(sets, settings), strict=True):
        keep("holdout test, networks of the recipe", tests, data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rivals that end at their limit of iterations
        for data in sets:
            keep("holdout test, boosted trees", tests_of_boosting(data, settings), data)
            for name, method in PLAIN.items():
                rows.setdefault(name, []).append(metrics_of(method(data), data))
            for rate in RATES:
                name = f"knockoffs with the lasso, rate {rate}"
                rows.setdefault(name, []).append(metrics_of(knockoffs(data, rate), data))
    return {"rows": rows, "p_values": p_values}


def run(settings: Settings, folder: Path, *, command: str, families: Sequence[str]) -> Path:
    """Run what is not there yet, and write the record."""
    started = time.perf_counter()
    parts = Parts.of("holdout_test", folder)
    rows, calibration = [], {}
    seeds = [settings.first_seed + i for i in range(settings.num_sets)]
    for num_rows in settings.num_rows:
        for family in families:
            task = f"{family}, {num_rows} rows"
            merged: dict[str, list[dict[str, float]]] = {}
            p_values: dict[str, list[float]] = {}
            for first in range(0, len(seeds), settings.sets_together):
                some = seeds[first : first + settings.sets_together]
                about = {"settings": dataclasses.asdict(settings), "seeds": some}
                about["settings"].pop("num_sets")
                about["settings"].pop("num_rows")
                made = parts.once(
                    f"{task} {first}",
                    about,
                    lambda f=family, n=num_rows, s=some: part(f, n, s, settings),
                )
                for name, found in made["rows"].items():
                    merged.setdefault(name, []).extend(found)
                for name, values in made["p_values"].items():
                    p_values.setdefault(name, []).extend(values)
            for name, found in merged.items():
                metrics = {key: [one[key] for one in found] for key in found[0]}
                rows.append(row(name, task, seeds, metrics))
                print(f"{task:40s} {name:50s}", *_shown(rows[-1]), flush=True)
            calibration[task] = {name: _shares(values) for name, values in p_values.items()}
    return write_record(
        "holdout_test",
        command=command,
        settings=dataclasses.asdict(settings),
        rows=rows,
        wall_seconds=time.perf_counter() - started,
        folder=folder,
        null_p_values_below=calibration,
    )


def _shown(entry: Mapping[str, Any]) -> list[str]:
    return [f"{name} {m['mean']:.3f} +- {m['se']:.3f}" for name, m in entry["metrics"].items()]


def _shares(values: Sequence[float]) -> dict[str, Any]:
    below = {str(level): float(np.mean(np.asarray(values) <= level)) for level in (*RATES, 0.5)}
    return {"number": len(values), **below}


def main() -> None:
    """Read the command line and run."""
    command = Command("run_holdout", __doc__, smoke="two families, two sets, few steps")
    command.add_argument("--rows", type=int, nargs="+", help="sizes (default: 200 500 2000)")
    command.add_argument("--sets", type=int, help="data sets of each family (default: 50)")
    arguments = command.parse_args()
    settings, families = Settings(), list(FAMILIES)
    if arguments.sets:
        settings = dataclasses.replace(settings, num_sets=arguments.sets)
    if arguments.rows:
        settings = dataclasses.replace(settings, num_rows=tuple(arguments.rows))
    if arguments.smoke:
        families = ["classes, 5 of 20", "mixed types"]
        table = dataclasses.replace(
            settings.table, recipe=dataclasses.replace(settings.table.recipe, num_steps=20)
        )
        settings = dataclasses.replace(
            settings, num_rows=(80,), num_sets=2, sets_together=1, table=table
        )
    torch.set_num_threads(1)
    print(run(settings, arguments.out, command=command.line(), families=families))


if __name__ == "__main__":
    main()
