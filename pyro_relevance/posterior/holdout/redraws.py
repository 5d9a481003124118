"""Columns drawn anew given the other columns: what the holdout test compares the data with.

A redraw of a column has the column's distribution given the others, and nothing of the target. The
models here see inputs only. Each row is drawn from a model that did not see it (cross-fitting), so
that a redraw is not closer to the data than a new row would be.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = [
    "Conditional",
    "Redraw",
    "boosted_redraw",
    "ridge_redraw",
]

MAX_PATTERNS = 10
"""A number with at most so many different values is drawn as a category."""

MAX_LEVELS = 60
"""Most levels of a category that is drawn as one."""

NUM_FOLDS = 5

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


class Conditional(Protocol):
    """The distribution of some columns given all others, at the rows of a table."""

    @property
    def explained(self) -> float:
        """Share of the columns' variance (of a category: deviance) that the others explain."""

    def draw(self, rows: Rows, num_draws: int, generator: np.random.Generator) -> Floats:
        """Return new values, ``(num_draws, len(rows), num_columns)``."""


class Redraw(Protocol):
    """From columns to their conditional distribution; made once for a table of inputs."""

    def __call__(self, columns: Rows) -> Conditional:
        """Return the distribution of `columns` given all others."""


def ridge_redraw(x: Floats, *, normal_scores: bool = True, seed: int = 0) -> Redraw:
    """Return redraws by ridge regression with resampled residuals.

    Numbers are drawn as ``E[x_j | x_-j]`` plus the residual of a random row. The regressions of all
    columns come from one inverse of the regularised covariance S::

        E[x_j | x_-j] = x_-j S_-j,-j^-1 S_-j,j,        penalty chosen by held-out residuals.

    Categories (one-hot groups, numbers of few values) are drawn from a multinomial logistic
    regression on the others. Several columns are drawn together, with residuals of the same row;
    values of one-hot columns are then rounded to a level.

    Args:
        x: ``(num_rows, num_columns)`` inputs.
        normal_scores: Whether columns pass through their normal scores (a Gaussian copula), which
            keeps each column's own distribution and is robust to skewness and heavy tails.
        seed: Seed of the cross-fitting folds.
    """
    return _Ridge(np.asarray(x, dtype=np.float64), normal_scores, seed)


def boosted_redraw(x: Floats, *, seed: int = 0) -> Redraw:
    """Return redraws by histogram gradient boosting with resampled residuals.

    For columns that depend on the others in ways that are not linear. Costs two fits for each
    column and fold; ridge costs one inverse for all.

    Args:
        x: ``(num_rows, num_columns)`` inputs.
        seed: Seed of the folds and of the boosting.
    """
    return _Boosted(np.asarray(x, dtype=np.float64), seed)


def fold_of_rows(num_rows: int, seed: int, num_folds: int = NUM_FOLDS) -> Rows:
    """Return the cross-fitting fold of each row, ``(num_rows,)``."""
    order = np.random.default_rng(seed).permutation(num_rows)
    folds = np.empty(num_rows, dtype=np.int64)
    folds[order] = np.arange(num_rows) % min(num_folds, num_rows)
    return folds


class _Ridge:
    """Ridge regressions of all columns on the others."""

    def __init__(self, x: Floats, normal_scores: bool, seed: int) -> None:
        self.x = x
        self.folds = fold_of_rows(len(x), seed)
        self.quantiles = normal_scores
        scores = np.apply_along_axis(_normal_scores, 0, x) if normal_scores else x
        spread = scores.std(0)
        self.z = (scores - scores.mean(0)) / np.where(spread > 0, spread, 1.0)
        self.shift, self.spread = scores.mean(0), spread
        self.precisions = _precisions(self.z, self.folds)

    def __call__(self, columns: Rows) -> Conditional:
        """Return the distribution of `columns` given all others."""
        classes = _classes(self.x[:, columns])
        if classes is not None:
            others = np.delete(self.z, columns, axis=1)
            return _Classes.fit(others, *classes, self.folds, _logistic)
        mean = np.empty((len(self.z), len(columns)))
        for fold, precision in enumerate(self.precisions):
            rows = self.folds == fold
            # z_G minus its regression on the others is (z P)_G (P_GG)^-1.
            block = precision[np.ix_(columns, columns)]
            residual = np.linalg.solve(block, (self.z[rows] @ precision[:, columns]).T).T
            mean[rows] = self.z[np.ix_(rows, columns)] - residual
        return _Residuals(mean, self.z[:, columns] - mean, self._back(columns))

    def _back(self, columns: Rows) -> Callable[[Floats], Floats]:
        """Return the map from standardised scores to the columns' own values."""

        def back(z: Floats) -> Floats:
            values = np.empty_like(z)
            for k, column in enumerate(columns):
                score = z[..., k] * self.spread[column] + self.shift[column]
                values[..., k] = _quantiles(self.x[:, column], score) if self.quantiles else score
            return _to_levels(values, self.x[:, columns])

        return back


class _Boosted:
    """Boosted trees for each column given the others."""

    def __init__(self, x: Floats, seed: int) -> None:
        self.x = x
        self.seed = seed
        self.folds = fold_of_rows(len(x), seed, 3)

    def __call__(self, columns: Rows) -> Conditional:
        """Return the distribution of `columns` given all others."""
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        options: dict[str, Any] = {"random_state": self.seed, "early_stopping": True}
        others = np.delete(self.x, columns, axis=1)
        classes = _classes(self.x[:, columns])
        if classes is not None:

            def boosted() -> Any:
                return HistGradientBoostingClassifier(**options)

            return _Classes.fit(others, *classes, self.folds, boosted)
        mean = np.empty((len(self.x), len(columns)))
        for fold in range(self.folds.max() + 1):
            held = self.folds == fold
            for k, column in enumerate(columns):
                if not others.shape[1]:
                    mean[held, k] = self.x[~held, column].mean()
                    continue
                trees = HistGradientBoostingRegressor(**options)
                trees.fit(others[~held], self.x[~held, column])
                mean[held, k] = trees.predict(others[held])
        own = self.x[:, columns]
        return _Residuals(mean, own - mean, lambda values: _to_levels(values, own))


@dataclass(frozen=True, eq=False)
class _Residuals:
    """A mean and residuals of other rows, drawn together for all columns."""

    mean: Floats
    residuals: Floats
    back: Callable[[Floats], Floats]

    @property
    def explained(self) -> float:
        """Share of variance that the other columns explain; the column that is explained best."""
        total = (self.mean + self.residuals).var(0)
        left = self.residuals.var(0) / np.where(total > 0, total, np.inf)
        return float(np.clip(1.0 - left.min(), 0.0, 1.0))

    def draw(self, rows: Rows, num_draws: int, generator: np.random.Generator) -> Floats:
        """Return new values, ``(num_draws, len(rows), num_columns)``."""
        taken = generator.integers(len(self.residuals), size=(num_draws, len(rows)))
        return self.back(self.mean[rows] + self.residuals[taken])


@dataclass(frozen=True, eq=False)
class _Classes:
    """Probabilities of the levels of a category."""

    probability: Floats
    """``(num_rows, num_levels)``."""
    levels: Floats
    """``(num_levels, num_columns)`` values of each level."""
    level_of_row: Rows

    @classmethod
    def fit(
        cls,
        others: Floats,
        levels: Floats,
        level_of_row: Rows,
        folds: Rows,
        make: Callable[[], Any],
    ) -> _Classes:
        """Return cross-fitted probabilities."""
        share = np.bincount(level_of_row, minlength=len(levels)).astype(np.float64)
        share /= share.sum()
        probability = np.tile(share, (len(others), 1))
        for fold in range(folds.max() + 1):
            held = folds == fold
            if not others.shape[1] or len(np.unique(level_of_row[~held])) < 2:
                continue
            model = make()
            with warnings.catch_warnings():
                # A fit that ends at its limit of iterations is still a proposal that can be used.
                warnings.simplefilter("ignore")
                model.fit(others[~held], level_of_row[~held])
            probability[held] = 0.0
            probability[np.ix_(held, model.classes_)] = model.predict_proba(others[held])
        # A level that a fold did not have stays possible.
        weight = 1.0 / len(others)
        return cls((1 - weight) * probability + weight * share, levels, level_of_row)

    @property
    def explained(self) -> float:
        """Share of the entropy of the levels that the other columns explain (McFadden)."""
        share = np.bincount(self.level_of_row) / len(self.level_of_row)
        entropy = -np.sum(share[share > 0] * np.log(share[share > 0]))
        rows = np.arange(len(self.level_of_row))
        left = -np.log(self.probability[rows, self.level_of_row]).mean()
        return float(np.clip(1.0 - left / entropy, 0.0, 1.0)) if entropy > 0 else 0.0

    def draw(self, rows: Rows, num_draws: int, generator: np.random.Generator) -> Floats:
        """Return new values, ``(num_draws, len(rows), num_columns)``."""
        edges = self.probability[rows].cumsum(1)
        u = generator.random((num_draws, len(rows), 1)) * edges[:, -1:]
        level = (u > edges).sum(-1).clip(max=len(self.levels) - 1)
        return np.asarray(self.levels[level])


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1.0, max_iter=200)


def _classes(values: Floats) -> tuple[Floats, Rows] | None:
    """Return the levels of columns and the level of each row, or ``None`` where they are numbers.

    Several columns are one category where they are a one-hot code; a column is one where it has few
    values.
    """
    one_hot = values.shape[1] > 1 and _one_hot(values)
    if values.shape[1] > 1 and not one_hot:
        return None
    if values.shape[1] == 1 and len(np.unique(values[:200])) > MAX_PATTERNS:
        return None
    levels, level_of_row = np.unique(values, axis=0, return_inverse=True)
    if len(levels) > (MAX_LEVELS if one_hot else MAX_PATTERNS):
        return None
    return levels, level_of_row.reshape(-1)


def _one_hot(values: Floats) -> bool:
    """Whether each row has at most one entry that differs from the column's base value."""
    low = values.min(0)
    active = values > low
    two_valued = all(len(np.unique(column)) <= 2 for column in values.T)
    return two_valued and bool((active.sum(1) <= 1).all())


def _to_levels(values: Floats, own: Floats) -> Floats:
    """Return values with each column of few values rounded to one of those."""
    for k in range(own.shape[1]):
        if len(np.unique(own[:200, k])) > MAX_PATTERNS:
            continue
        known = np.unique(own[:, k])
        if len(known) <= MAX_PATTERNS:
            middle = (known[1:] + known[:-1]) / 2
            values[..., k] = known[np.searchsorted(middle, values[..., k])]
    return values


def _normal_scores(column: Floats) -> Floats:
    """Return the normal scores of a column; equal values have the score of their middle rank."""
    return np.asarray(stats.norm.ppf((stats.rankdata(column) - 0.5) / len(column)))


def _quantiles(column: Floats, score: Floats) -> Floats:
    """Return the values of a column at normal scores; the inverse of `_normal_scores`."""
    ordered = np.sort(column)
    place = stats.norm.cdf(score) * len(column) - 0.5
    place = np.clip(place, 0, len(column) - 1)
    if len(np.unique(ordered)) == len(ordered):
        return np.asarray(np.interp(place, np.arange(len(ordered)), ordered))
    # Values that occur several times are values, not places between which there are others.
    return np.asarray(ordered[np.rint(place).astype(np.int64)])


def _precisions(z: Floats, folds: Rows) -> list[Floats]:
    """Return for each fold the regularised precision of the rows outside it.

    One penalty serves all columns: the one with the smallest held-out residuals.
    """
    penalties = 10.0 ** np.arange(-6.0, 2.5)
    spectra, scores = [], np.zeros(len(penalties))
    for fold in range(folds.max() + 1):
        train = z[folds != fold]
        values, vectors = np.linalg.eigh(train.T @ train / len(train))
        spectra.append((values.clip(min=0.0), vectors))
    for i, penalty in enumerate(penalties):
        squares = np.zeros(z.shape[1])
        for fold, (values, vectors) in enumerate(spectra):
            held = z[folds == fold]
            inverse = (vectors / (values + penalty)) @ vectors.T
            squares += np.square(held @ inverse / np.diag(inverse)).sum(0)
        scores[i] = np.log(squares / len(z) + 1e-6).sum()
    best = penalties[int(scores.argmin())]
    return [(vectors / (values + best)) @ vectors.T for values, vectors in spectra]
