from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")
from analysis.splits import RawSplit, standardised
from analysis.yardsticks import gradient_boosting, lasso
from analysis.yardsticks import mc_dropout as _mc_dropout
from analysis.yardsticks import mean_field_gaussian as _mean_field_gaussian
from analysis.yardsticks.dropout_networks import DropoutNetworks

Yardstick = Callable[..., dict[str, Any]]
NOISE = 2.0


def mc_dropout(splits: list[RawSplit], **options: Any) -> dict[str, Any]:
    small = {"hidden": 30, "num_epochs": 240, "dropout_rates": (0.01, 0.1), "num_samples": 30}
    return _mc_dropout(splits, **{**small, **options})


def mean_field_gaussian(splits: list[RawSplit], **options: Any) -> dict[str, Any]:
    small = {"hidden": 8, "prior_scales": (2.0,), "num_steps": 80, "num_samples": 20}
    return _mean_field_gaussian(splits, **{**small, **options})


def boosting(splits: list[RawSplit]) -> dict[str, Any]:
    return gradient_boosting(splits, max_depths=(2,))


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.yardsticks.boosting.MAX_TREES", 60)


ALL = pytest.mark.parametrize(
    "yardstick", [mc_dropout, mean_field_gaussian, lasso, boosting], ids=lambda f: f.__name__
)


def make_splits(num_splits: int = 2, num_rows: int = 100) -> list[RawSplit]:
    """Splits of a linear problem with a target far from the standard scale."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(num_rows, 3)) * [1.0, 50.0, 0.01] + [0.0, 300.0, 1.0]
    y = 100 + 20 * x[:, 0] + NOISE * generator.normal(size=num_rows)
    cut = int(0.8 * num_rows)
    splits = []
    for _ in range(num_splits):
        rows = generator.permutation(num_rows)
        splits.append((x[rows[:cut]], y[rows[:cut]], x[rows[cut:]], y[rows[cut:]]))
    return splits


@cache
def result_of(yardstick: Yardstick) -> dict[str, Any]:
    return yardstick(make_splits())


@ALL
def test_results_are_lists_over_splits_in_original_units(yardstick: Yardstick) -> None:
    splits = make_splits()
    result = result_of(yardstick)
    assert set(result) == {
        "rmse", "test_log_likelihood", "num_parameters", "seconds", "settings",
    }  # fmt: skip
    for name in ("rmse", "test_log_likelihood", "num_parameters"):
        assert len(result[name]) == len(splits)
        assert all(math.isfinite(value) for value in result[name])
    trivial = [split[3].std() for split in splits]
    assert all(r < 0.7 * t for r, t in zip(result["rmse"], trivial, strict=True))
    assert all(r > 0.3 * NOISE for r in result["rmse"])
    # No density can be much better than that of the true noise.
    assert max(result["test_log_likelihood"]) < -math.log(NOISE * math.sqrt(2 * math.pi))


@ALL
def test_same_seed_gives_same_numbers(yardstick: Yardstick) -> None:
    first, second = result_of(yardstick), yardstick(make_splits())
    for name in ("rmse", "test_log_likelihood", "num_parameters", "settings"):
        assert first[name] == second[name]


@ALL
def test_test_rows_choose_and_scale_nothing(yardstick: Yardstick) -> None:
    splits = make_splits()
    far = [(x, y, x_test, y_test + 1e4) for x, y, x_test, y_test in splits]
    first, second = result_of(yardstick), yardstick(far)
    assert first["settings"] == second["settings"]
    assert first["num_parameters"] == second["num_parameters"]
    assert second["rmse"] == pytest.approx([1e4] * 2, rel=0.02)


def test_statistics_are_those_of_the_training_rows() -> None:
    x, y, x_test, y_test = make_splits()[0]
    parts = standardised((x, y, x_test, y_test))
    again = standardised((x, y, 3 * x_test + 7, 3 * y_test + 7))
    assert torch.equal(parts[0], again[0])
    assert torch.equal(parts[1], again[1])
    assert np.allclose(parts[2], (x_test - x.mean(0)) / x.std(0), atol=1e-4)
    assert np.allclose(parts[3], (y_test - y.mean()) / y.std(), atol=1e-4)


@pytest.mark.parametrize("yardstick", [mc_dropout, lasso, boosting])
def test_each_test_row_is_predicted_by_itself(yardstick: Yardstick) -> None:
    splits = make_splits()
    halves = [[(x, y, a[s], b[s]) for x, y, a, b in splits] for s in (slice(10), slice(10, None))]
    whole = result_of(yardstick)
    parts = [yardstick(half) for half in halves]
    mean = np.mean([part["test_log_likelihood"] for part in parts], axis=0)
    # Masks differ between the runs; leaked statistics would shift every prediction.
    assert whole["test_log_likelihood"] == pytest.approx(mean.tolist(), abs=0.1)


@ALL
def test_units_of_the_target_shift_the_density_only(yardstick: Yardstick) -> None:
    splits = make_splits()
    scaled = [(x, 8 * y, x_test, 8 * y_test) for x, y, x_test, y_test in splits]
    first, second = result_of(yardstick), yardstick(scaled)
    shifted = [value - math.log(8) for value in first["test_log_likelihood"]]
    # Not exactly: the published weight decay of dropout depends on the units of the target.
    assert second["test_log_likelihood"] == pytest.approx(shifted, abs=0.05)
    assert second["rmse"] == pytest.approx([8 * value for value in first["rmse"]], rel=0.05)


@pytest.mark.parametrize("yardstick", [mc_dropout, mean_field_gaussian])
def test_splits_of_different_shapes_are_refused(yardstick: Yardstick) -> None:
    splits = make_splits()
    splits[1] = (splits[1][0][:-1], splits[1][1][:-1], *splits[1][2:])
    with pytest.raises(ValueError, match="Expected splits of the same shapes, but got 2"):
        yardstick(splits)


def networks(rate: float, hidden: int = 50) -> DropoutNetworks:
    generator = torch.Generator().manual_seed(0)
    return DropoutNetworks(make_splits(), hidden, torch.full((2,), rate), generator)


def test_dropout_is_active_when_predicting() -> None:
    dropped, plain = networks(0.1), networks(0.0)
    outputs = torch.stack([dropped.forward(dropped.x_test) for _ in range(20)])
    assert (outputs.std(0) > 0).all()
    assert torch.equal(plain.forward(plain.x_test), plain.forward(plain.x_test))


@pytest.mark.statistical
def test_masks_keep_the_stated_share_and_have_mean_one() -> None:
    rate = 0.05
    mask = networks(rate).mask(torch.Size((2, 500, 501)))
    assert sorted(mask.unique().tolist()) == pytest.approx([0.0, 1 / (1 - rate)])
    error = math.sqrt(rate * (1 - rate) / mask.numel())
    assert abs(float((mask == 0).double().mean()) - rate) < 5 * error + 2**-17


@pytest.mark.exact
def test_score_is_the_density_of_a_mixture() -> None:
    taus = torch.tensor([[0.01, 0.1], [0.02, 0.2]], dtype=torch.float64)
    rmse, log_likelihood = networks(0.1).score(taus, 7)
    again = networks(0.1)
    outputs = torch.stack([again.forward(again.x_test) for _ in range(7)]).detach()
    outputs = outputs * again.scale + again.centre
    mixture = torch.distributions.Normal(outputs[..., None], taus[:, None].rsqrt())
    expected = mixture.log_prob(again.y_test[..., None]).exp().mean(0).log().mean(1)
    assert torch.allclose(log_likelihood, expected, rtol=1e-4)
    assert torch.allclose(rmse, (outputs.mean(0) - again.y_test).square().mean(1).sqrt())


@pytest.mark.exact
def test_first_step_is_that_of_a_plain_network() -> None:
    stacked = networks(0.0, hidden=5)
    before = [p.detach().clone() for p in stacked.parameters]
    taus = torch.tensor([1e-6, 1e-3], dtype=torch.float64)  # so small that the decay matters
    assert stacked.train(taus, 1, max_steps=1) == 1
    for i, tau in enumerate(taus.tolist()):
        w1, w2, b1, b2 = (p[i].clone().requires_grad_() for p in before)
        output = (stacked.x[i] @ w1 + b1).relu() @ w2 + b2
        decay = 1e-4 / (2 * len(stacked.x[i]) * tau) * (w1.square().sum() + w2.square().sum())
        ((output[:, 0] - stacked.y[i]).square().mean() + decay).backward()
        plain = torch.optim.Adam([w1, w2, b1, b2], lr=1e-3, eps=1e-7)
        plain.step()
        for ours, theirs in zip(stacked.parameters, (w1, w2, b1, b2), strict=True):
            assert torch.allclose(ours[i], theirs, atol=1e-5)


def test_lasso_counts_what_is_left() -> None:
    noise = np.random.default_rng(1).normal(size=(100, 60))
    wide = [
        (np.hstack([x, noise[: len(x)]]), y, np.hstack([x_test, noise[len(x) :]]), y_test)
        for x, y, x_test, y_test in make_splits()
    ]
    assert all(2 <= count < 30 for count in lasso(wide)["num_parameters"])


def test_boosting_of_many_rows_uses_binned_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.yardsticks.boosting.LARGE", 50)
    monkeypatch.setattr("analysis.yardsticks.boosting.MAX_TREES", 10)
    result = boosting(make_splits())
    assert all(count > 0 for count in result["num_parameters"])
