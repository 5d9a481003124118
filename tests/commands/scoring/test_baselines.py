"""Simple models on the rows of a table."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import pyro_relevance as pr
from pyro_relevance.commands.scoring.baselines import ABOUT, baseline_scores
from pyro_relevance.commands.scoring.lines import baseline_sentences, class_lines, score_lines
from pyro_relevance.commands.scoring.scores import Score
from pyro_relevance.commands.table.job import Job
from pyro_relevance.commands.table.settings import TableSettings


def job_of(tmp_path, target: str, num_rows: int = 200, *, few: int = 0) -> Job:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(num_rows, 3))
    frame = pd.DataFrame(x, columns=["a", "b", "c"])
    value = 3.0 * x[:, 0] + np.abs(x[:, 1]) * 4.0 + 0.1 * generator.normal(size=num_rows)
    frame["value"] = value
    frame["kind"] = np.where(value > np.median(value), "high", "low")
    if few:
        frame.loc[: few - 1, "kind"] = "rare"
    frame = frame[["a", "b", "c", target]]
    file = tmp_path / "table.csv"
    frame.to_csv(file, index=False)
    return Job.of(pr.tables.read_table(file, target=target), TableSettings())


@pytest.mark.exact
def test_regression_baselines_are_as_good_as_their_kind(tmp_path) -> None:
    job = job_of(tmp_path, "value")
    before = list(warnings.filters)
    found = job.baseline_scores()
    assert warnings.filters == before
    assert list(found) == ["constant", "ridge", "boosting"]
    scale, (train, test) = job.encoder.target_scale, (job.training[1], job.test[1])
    constant = float((test - train.mean()).square().mean().sqrt()) * scale
    assert found["constant"].error == pytest.approx(constant, rel=1e-5)
    # Half of the target is linear; the trees find the rest of it, too.
    assert found["boosting"].error < found["ridge"].error < found["constant"].error
    assert found["ridge"].num_parameters == 4
    assert math.isnan(found["boosting"].num_parameters)
    assert all(score.error_se > 0 and score.classes is None for score in found.values())


@pytest.mark.exact
def test_the_ridge_is_that_of_ordinary_least_squares_where_rows_abound(tmp_path) -> None:
    job = job_of(tmp_path, "value")
    found = job.baseline_scores()["ridge"]
    x = np.c_[job.training[0].numpy(), np.ones(len(job.training[0]))]
    solution = np.linalg.lstsq(x, job.training[1].numpy(), rcond=None)[0]
    predicted = np.c_[job.test[0].numpy(), np.ones(len(job.test[0]))] @ solution
    error = np.sqrt(((predicted - job.test[1].numpy()) ** 2).mean()) * job.encoder.target_scale
    assert found.error == pytest.approx(error, rel=0.02)


@pytest.mark.exact
def test_class_baselines_have_all_measures(tmp_path) -> None:
    job = job_of(tmp_path, "kind")
    found = job.baseline_scores()
    assert list(found) == ["constant", "logistic", "boosting"]
    share = np.bincount(job.training[1].numpy(), minlength=2) / len(job.training[1])
    wanted = np.log(share)[job.test[1].numpy()].mean()
    assert found["constant"].log_likelihood == pytest.approx(wanted, rel=1e-5)
    assert found["constant"].classes is not None
    assert found["constant"].classes.auc == 0.5
    assert found["boosting"].classes is not None
    assert found["boosting"].classes.auc > 0.9
    assert found["logistic"].num_parameters == 4


@pytest.mark.contract
def test_a_class_that_some_folds_lack_is_no_obstacle(tmp_path) -> None:
    job = job_of(tmp_path, "kind", few=3)
    for score in job.baseline_scores().values():
        assert math.isfinite(score.log_likelihood)
        assert score.classes is not None
        assert len(score.classes.confusion) == 3


@pytest.mark.contract
def test_the_same_rows_give_the_same_numbers(tmp_path) -> None:
    job = job_of(tmp_path, "value", 60)
    first, second = (
        baseline_scores(job.training, job.test, job.noise, job.encoder, seed=3) for _ in range(2)
    )
    assert first == second
    assert torch.get_num_threads() >= 1


@pytest.mark.contract
def test_lines_say_which_model_to_use() -> None:
    pruned = Score(1.0, -2.0, 5.0, 0.1, 0.1, densities=np.array([-2.0, -2.1, -1.9]))
    better = Score(0.5, -1.0, 3.0, 0.1, 0.1, densities=np.array([-1.0, -1.1, -0.9]))
    lines = score_lines({"pruned": pruned}, {"ridge": better}, classes=True)
    assert lines[0].split("  ")[0] == "network"
    assert "test error" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["pruned", "baseline", "ridge"]
    sentences = baseline_sentences(pruned, {"ridge": better}, 3)
    assert ABOUT["ridge"] in sentences[0]
    assert "best baseline (ridge), row by row: -1.000 +- " in sentences[1]
    assert sentences[2].startswith("Ridge predicts better than the pruned network")
    assert len(baseline_sentences(better, {"ridge": pruned}, 3)) == 2
    assert baseline_sentences(pruned, {}, 3) == []
    assert class_lines({"pruned": pruned}, ()) == []
