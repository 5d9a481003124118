"""Redraws against the conditional distributions that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from pyro_relevance.posterior.holdout import boosted_redraw, ridge_redraw
from pyro_relevance.posterior.holdout.redraws import fold_of_rows
from tests.bounds import assert_frequency

COVARIANCE = np.array([[1.0, 0.8, 0.3], [0.8, 1.0, 0.5], [0.3, 0.5, 1.0]])


def gaussian(num_rows: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(num_rows, 3)) @ np.linalg.cholesky(COVARIANCE).T


def drawn(redraw: object, columns: list[int], rows: np.ndarray, number: int = 400) -> np.ndarray:
    conditional = redraw(np.array(columns))  # type: ignore[operator]
    return conditional.draw(rows, number, np.random.default_rng(1))  # type: ignore[no-any-return]


@pytest.mark.statistical
@pytest.mark.parametrize("normal_scores", [True, False])
@pytest.mark.parametrize("columns", [[0], [0, 1]])
def test_gaussian_columns_have_the_conditional_mean_and_covariance(
    normal_scores: bool, columns: list[int]
) -> None:
    x = gaussian(20_000)
    rows = np.arange(200)
    values = drawn(ridge_redraw(x, normal_scores=normal_scores), columns, rows)
    others = [k for k in range(3) if k not in columns]
    inner = np.linalg.inv(COVARIANCE[np.ix_(others, others)])
    slope = COVARIANCE[np.ix_(columns, others)] @ inner
    mean = x[np.ix_(rows, others)] @ slope.T
    left = COVARIANCE[np.ix_(columns, columns)] - slope @ COVARIANCE[np.ix_(others, columns)]
    error = values - mean
    # 80,000 draws of 20,000 residuals: five standard errors are below 0.04.
    assert np.abs(error.mean((0, 1))).max() < 0.04
    found = np.cov(error.reshape(-1, len(columns)).T).reshape(left.shape)
    assert np.abs(found - left).max() < 0.05
    # The mean follows the row, not only on average.
    assert np.abs(error.mean(0)).max() < 0.3


@pytest.mark.statistical
def test_redraws_keep_a_skewed_column_its_own_distribution() -> None:
    x = np.exp(2 * gaussian(4000))
    values = drawn(ridge_redraw(x), [0], np.arange(4000), 20)
    assert values.min() >= x[:, 0].min()
    assert values.max() <= x[:, 0].max()
    # Kolmogorov-Smirnov with the rows as the sample size.
    assert stats.ks_2samp(values[0, :, 0], x[:, 0]).pvalue > 1e-6
    rank = stats.spearmanr(values[0, :, 0], x[:, 1]).statistic
    assert abs(rank - stats.spearmanr(x[:, 0], x[:, 1]).statistic) < 0.08


@pytest.mark.statistical
@pytest.mark.parametrize("make", [ridge_redraw, boosted_redraw])
def test_a_category_has_the_probabilities_given_the_others(make: object) -> None:
    generator = np.random.default_rng(2)
    other = generator.integers(2, size=6000)
    table = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    level = (generator.random((6000, 1)) > table[other].cumsum(1)).sum(1)
    one_hot = np.eye(3)[level][:, 1:]  # the first level is zero in all columns
    x = np.column_stack([one_hot, other])
    rows = np.flatnonzero(other == 1)[:300]
    values = drawn(make(x), [0, 1], rows, 100)  # type: ignore[operator]
    assert set(map(tuple, values.reshape(-1, 2))) == {(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)}
    # The table of 3,000 rows is itself estimated: it is what redraws are compared with.
    known = [np.mean(level[other == 1] == k) for k in (1, 2)]
    hits = torch.as_tensor(values.reshape(-1, 2)[::17])
    assert_frequency(hits, torch.tensor(known))


@pytest.mark.exact
def test_numbers_of_few_values_and_ties_stay_values_of_the_column() -> None:
    generator = np.random.default_rng(3)
    base = generator.normal(size=500)
    few = np.round(base).clip(-1, 1)
    zeros = np.where(base < 0.5, 0.0, base)
    x = np.column_stack([base + generator.normal(size=500), few, zeros])
    redraw = ridge_redraw(x)
    rows = np.arange(500)
    assert set(np.unique(drawn(redraw, [1], rows, 5))) == {-1.0, 0.0, 1.0}
    assert set(np.unique(drawn(redraw, [1, 2], rows, 5)[..., 0])) <= {-1.0, 0.0, 1.0}
    together = drawn(redraw, [2], rows, 5)
    assert set(np.unique(together)) <= set(np.unique(zeros))
    assert abs((together == 0).mean() - (zeros == 0).mean()) < 0.1


@pytest.mark.exact
def test_a_row_is_drawn_by_a_model_that_did_not_see_its_value() -> None:
    x = gaussian(60)
    changed = x.copy()
    changed[7, 0] = 50.0
    first = boosted_redraw(x)(np.array([0]))
    second = boosted_redraw(changed)(np.array([0]))
    fold = fold_of_rows(60, 0, 3)
    same = (first.mean == second.mean).all(1)  # type: ignore[attr-defined]
    assert same[fold == fold[7]].all()
    assert not same[fold != fold[7]].any()


@pytest.mark.exact
@pytest.mark.parametrize("make", [ridge_redraw, boosted_redraw])
def test_chance_is_not_explained(make: object) -> None:
    # In-sample, 29 of 40 degrees of freedom would explain three quarters.
    x = np.random.default_rng(4).normal(size=(40, 30))
    explained = [make(x)(np.array([k])).explained for k in range(4)]  # type: ignore[operator]
    assert max(explained) < 0.25


@pytest.mark.exact
def test_what_is_explained_is_told() -> None:
    x = gaussian(3000)
    copy = np.column_stack([x, x[:, 0]])
    redraw = ridge_redraw(copy)
    assert redraw(np.array([3])).explained > 0.99
    assert ridge_redraw(x)(np.array([2])).explained == pytest.approx(0.27, abs=0.06)
    alone = np.random.default_rng(0).normal(size=(500, 2))
    assert ridge_redraw(alone)(np.array([0])).explained < 0.05
    level = (x[:, 0] > 0).astype(float)
    assert ridge_redraw(np.column_stack([level, x]))(np.array([0])).explained > 0.8


@pytest.mark.exact
def test_a_single_group_of_all_columns_is_drawn_from_the_rows() -> None:
    x = gaussian(50)
    for redraw in (ridge_redraw(x), boosted_redraw(x)):
        values = drawn(redraw, [0, 1, 2], np.arange(50), 3)
        assert values.shape == (3, 50, 3)
        assert np.isfinite(values).all()
    category = (x[:, :1] > 0).astype(float)
    values = drawn(ridge_redraw(category), [0], np.arange(50), 200)
    assert abs(values.mean() - category.mean()) < 0.05


@pytest.mark.property
def test_draws_depend_on_the_generator_alone() -> None:
    x = gaussian(50)
    first = drawn(ridge_redraw(x), [1], np.arange(50), 3)
    assert np.array_equal(first, drawn(ridge_redraw(x), [1], np.arange(50), 3))
