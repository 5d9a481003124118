"""The command ``predict``, tried as a user would: a file, a run folder, a file of predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pyro_relevance as pr
from pyro_relevance.commands.main import main
from pyro_relevance.commands.table.files import write_run
from pyro_relevance.commands.table.recipe import TableRecipe
from pyro_relevance.commands.table.run import TableRun, run_table
from pyro_relevance.commands.table.settings import TableSettings
from tests.commands.test_main import write_table

SETTINGS = TableSettings(
    recipe=TableRecipe(hidden=(6,), num_steps=20),
    noise_scales=(0.1,),
    weight_scales=(1.0,),
    prior_log_odds=(),
    num_chains=2,
    num_folds=2,
    dense=False,
)


@pytest.fixture(scope="module", params=["regression", "classification"])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TableRun, Path]:
    """Return a run in memory, and its folder."""
    folder = tmp_path_factory.mktemp("predict")
    file = write_table(folder / "things.csv", classes=request.param == "classification")
    run = run_table(pr.tables.read_table(file, target="y"), SETTINGS, progress=False)
    run.predictor.save(folder / "run")
    replace(run.predictor, failed=True).save(folder / "failed")
    return run, folder


@pytest.mark.exact
def test_the_file_has_the_predictions_of_the_run_in_memory(
    made: tuple[TableRun, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder = made
    frame = run.table.features
    new = tmp_path / "new.csv"
    frame.assign(other=1)[["weight", "other", "colour", "size"]].to_csv(new, index=False)
    assert main(["predict", str(folder / "failed"), str(new), "--probability", "0.5"]) == 3
    assert "do not use these predictions" in capsys.readouterr().err
    assert main(["predict", str(folder / "run"), str(new), "--probability", "0.5"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    out = pd.read_csv(tmp_path / "new-predictions.csv")
    assert f"Predictions for 'y' of {len(frame)} rows" in printed.out
    assert {path.name for path in tmp_path.iterdir()} == {"new.csv", "new-predictions.csv"}
    assert out["row"].tolist() == list(range(1, len(frame) + 1))
    # In the target's units, by the network of the run in memory.
    outputs = run.pruned(run.encoder.transform_features(frame)).detach()
    if run.table.task == "regression":
        expected = run.encoder.target_mean + run.encoder.target_scale * outputs[:, 0].numpy()
        np.testing.assert_allclose(out["prediction"], expected, rtol=1e-5)
        ends = run.predictor.predict_interval(frame, 0.5)
        np.testing.assert_allclose(out[["lower", "upper"]], ends, rtol=1e-6)
    else:
        shares = outputs.softmax(-1).numpy()
        np.testing.assert_allclose(out[["P(no)", "P(yes)"]], shares, rtol=1e-5)
        assert out["prediction"].tolist() == [run.encoder.classes[k] for k in shares.argmax(1)]


@pytest.mark.contract
def test_the_command_table_leaves_what_predict_reads(made: tuple[TableRun, Path]) -> None:
    """The record of the run folder gives the noise and the verdict of the run."""
    run, folder = made
    if run.table.task == "classification":
        pytest.skip("one run folder with its figures is enough")
    write_run(run, folder / "whole", command="none")
    loaded = pr.load_run(folder / "whole")
    assert loaded.failed == run.diagnosis.failed
    frame = run.table.features
    np.testing.assert_allclose(
        loaded.predict_interval(frame), run.predictor.predict_interval(frame), rtol=1e-6
    )


@pytest.mark.contract
def test_new_levels_are_told(
    made: tuple[TableRun, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = made
    new = tmp_path / "new.csv"
    new.write_text("size,colour,weight\n1,pink,2\n,red,1\n")
    out = str(tmp_path / "out.csv")
    assert main(["predict", str(folder / "run"), str(new), "--out", out]) == 0
    printed = capsys.readouterr().out
    assert "Note: 'pink' of 'colour' did not occur in the training rows" in printed
    assert "Note: 1 missing value of 'size', which had none in the training rows" in printed
    assert len(pd.read_csv(out)) == 2


@pytest.mark.contract
def test_wrong_input_is_told_in_one_line(
    made: tuple[TableRun, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = made
    new = tmp_path / "new.csv"
    new.write_text("size,weight\n1,2\n")
    run = str(folder / "run")
    for arguments, message in (
        ([run, str(new)], "without 'colour'"),
        ([str(tmp_path), str(new)], "has no encoder.json"),
        ([run, str(tmp_path / "no.csv")], "found none at"),
        ([run, str(new), "--out", str(new)], "Expected --out to be another file"),
    ):
        assert main(["predict", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("pyro-relevance: ")
        assert message in error
    assert {path.name for path in tmp_path.iterdir()} == {"new.csv"}
