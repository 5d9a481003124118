"""The command line, tried as a user would: real files, few steps."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_relevance import load_posterior, load_pruned, tables
from pyro_relevance.commands.main import main
from pyro_relevance.posterior.arviz import convert as report

QUICK = [
    *("--quiet", "--steps", "20", "--chains", "2", "--folds", "2", "--hidden", "6"),
    *("--workers", "1"),
]
FILES = {
    "posterior.nc",
    "network.safetensors",
    "MODEL_CARD.md",
    "fit.safetensors",
    "encoder.json",
    "record.json",
    "report.txt",
    *(
        f"{name}.{kind}"
        for name in ("relevance", "network", "training", "path")
        for kind in ("pdf", "png")
    ),
}


def write_table(path: Path, *, classes: bool = False, num_rows: int = 60) -> Path:
    generator = np.random.default_rng(0)
    lines = ["size,colour,weight,y"]
    for _ in range(num_rows):
        size, weight = generator.normal(size=2)
        colour = generator.choice(["red", "green", "blue"])
        value = 2 * size + (colour == "red")
        target = ("yes" if value > 0 else "no") if classes else f"{value:.4f}"
        lines.append(f"{size:.4f},{colour},{weight:.4f},{target}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``things.csv`` and the run folder ``out`` that the command made."""
    folder = tmp_path_factory.mktemp("run")
    file = write_table(folder / "things.csv")
    command = ["table", str(file), "--target", "y", "--out", str(folder / "out"), *QUICK]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main([*command, "--seed", "3"]) == 0
    (folder / "printed.txt").write_text(printed.getvalue())
    return folder


@pytest.mark.contract
def test_regression_from_a_file_to_a_run_folder(folder: Path) -> None:
    out, text = folder / "out", (folder / "printed.txt").read_text()
    for expected in (
        "size",
        "colour",
        "weight",
        "hidden1.weight",
        "dense",
        "posterior mean",
        "pruned",
        "RMSE",
    ):
        assert expected in text
    assert {path.name for path in out.iterdir()} == FILES
    idata = report.load(out / "posterior.nc")
    names = idata.relevance["inputs_inclusion_probability"].coords["inputs_edge"].values.tolist()
    assert names == ["size", "colour", "weight"]
    record = json.loads((out / "record.json").read_text())
    assert [row["method"] for row in record["rows"]] == [
        *("dense", "posterior mean", "pruned"),
        *("constant", "ridge", "boosting"),
    ]
    assert set(record["inclusion_probability"]) == {"size", "colour", "weight"}


@pytest.mark.exact
def test_the_file_for_arviz_and_the_report_say_the_same(folder: Path) -> None:
    """One likelihood: the report's numbers can be computed from posterior.nc alone."""
    out = folder / "out"
    idata = report.load(out / "posterior.nc")
    record = json.loads((out / "record.json").read_text())
    rows = {row["method"]: row["metrics"] for row in record["rows"]}["posterior mean"]
    predictions, new = idata["predictions"], idata["predictions_constant_data"]
    truth = new["y"].to_numpy()
    density = np.exp(predictions["log_likelihood"].to_numpy()).mean((0, 1))
    stated = rows["test_log_likelihood"]["values"][0]
    assert np.log(density).mean() == pytest.approx(stated, abs=1e-5)
    mean = predictions["y_mean"].to_numpy().mean((0, 1))
    rmse = np.sqrt(((mean - truth) ** 2).mean())
    assert rmse == pytest.approx(rows["rmse"]["values"][0], rel=1e-4)
    # Targets, inputs and noise are in the units of the table, not of the network.
    table = tables.read_table(folder / "things.csv", target="y")
    _, test_rows = tables.split_rows(table.num_rows, seed=3)
    np.testing.assert_allclose(truth, table.target.to_numpy()[test_rows], rtol=1e-4, atol=1e-4)
    sizes = table.features["size"].to_numpy()[test_rows]
    np.testing.assert_allclose(new["x"].sel(feature="size"), sizes, rtol=1e-3, atol=1e-3)
    noise = float(idata["point_estimates"]["noise_scale"][0])
    standardised = record["predictive_noise"]["noise_scale"]
    assert noise == pytest.approx(standardised * record["target"]["scale"], rel=1e-5)
    assert (
        "Before the test, cross-validation promised the pruned network an RMSE of"
        in (out / "report.txt").read_text()
    )
    # Training rows are those that cross-validation held out, each once.
    assert idata["observed_data"].sizes["obs"] == 54
    assert idata["log_likelihood"]["y"].sizes == {"chain": 1, "draw": 100, "obs": 54}
    assert idata["posterior"]["gate"].sizes["chain"] == 2


@pytest.mark.contract
def test_the_card_says_what_the_record_says(folder: Path) -> None:
    card = (folder / "out" / "MODEL_CARD.md").read_text(encoding="utf-8")
    record = json.loads((folder / "out" / "record.json").read_text())
    (pruned,) = (row["metrics"] for row in record["rows"] if row["method"] == "pruned")
    assert "things.csv: 54 rows to train on, 6 to test on, drawn at random (seed 3)" in card
    assert f"| test RMSE | {pruned['rmse']['values'][0]:.4g} |" in card
    assert f"| test log likelihood | {pruned['test_log_likelihood']['values'][0]:.4g} |" in card
    assert f"{record['receipt']['after']['num_parameters']:,} |" in card
    assert 'license: "unknown"' in card


@pytest.mark.exact
def test_the_small_network_and_the_encoder_predict_new_rows(folder: Path) -> None:
    """What is on disk is enough to predict, and equals the posterior that was kept on disk."""
    file, out = folder / "things.csv", folder / "out"
    encoder = tables.Encoder.from_json((out / "encoder.json").read_text())
    table = tables.read_table(file, target="y")
    x = encoder.transform_features(table.features)
    small = load_pruned(out / "network.safetensors")
    record = json.loads((out / "record.json").read_text())
    posterior = load_posterior(out / "fit.safetensors").chain(record["chain"])
    from pyro_relevance import apply_mask, masks

    masked = apply_mask(posterior.network(), posterior.edges, masks.median_probability(posterior))
    with torch.no_grad():
        assert torch.allclose(small(x), masked(x), atol=1e-5)


@pytest.mark.contract
def test_classes_are_recognised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_table(tmp_path / "things.csv", classes=True)
    out = tmp_path / "out"
    # Twenty steps learn nothing: the command says so and does not praise the small network.
    command = ["table", str(file), "--target", "y", "--out", str(out), *QUICK, "--rule", "fdr"]
    assert main(command) == 3
    text = capsys.readouterr().out
    assert "classification" in text
    assert "test error" in text
    assert "The fit failed: do not use its relevances." in text
    assert "  ratio" not in text
    assert (out / "report.txt").read_text() in text


@pytest.mark.exact
def test_the_same_seed_gives_the_same_report(folder: Path, tmp_path: Path) -> None:
    command = ["table", str(folder / "things.csv"), "--target", "y", "--out", str(tmp_path)]
    # The dense network in a process of its own makes no difference.
    main([*command, *QUICK, "--seed", "3", "--workers", "2"])
    reports = []
    for run in (folder / "out", tmp_path):
        lines = (run / "report.txt").read_text().splitlines()
        # Wall times differ.
        timed = ("ms per pass", " s in all")
        reports.append(
            [" ".join(ln.split()) for ln in lines if not any(part in ln for part in timed)]
        )
    assert reports[0] == reports[1]


@pytest.mark.contract
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.csv", "--target", "y"], "missing.csv"),
        (["things.csv"], "Expected --target"),
        (["things.csv", "--target", "z"], "Expected a target among the columns"),
        (["--target", "y"], "Expected FILE beside --target y"),
        (["things.csv", "--target", "y", "--chains", "0"], "Expected num_chains >= 1"),
        (["things.csv", "--target", "y", "--steps", "0"], "Expected num_steps >= 1"),
        (["things.csv", "--target", "y", "--rate", "2"], "Expected rate in (0, 1)"),
        (["things.csv", "--target", "y", "--folds", "1"], "Expected 2 <= num_folds"),
    ],
)
def test_wrong_input_is_told_in_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_table(tmp_path / "things.csv")
    monkeypatch.chdir(tmp_path)
    assert main(["table", "--quiet", "--steps", "5", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("pyro-relevance: ")
    assert message in error
    assert "Traceback" not in error


@pytest.mark.contract
def test_bad_sizes_are_refused_by_the_parser(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["table", "--hidden", "many"])
    assert stopped.value.code == 2
    assert "expected positive numbers such as 50" in capsys.readouterr().err


@pytest.mark.contract
def test_python_m_is_the_same_command() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    shown = subprocess.run(
        [sys.executable, "-m", "pyro_relevance", "table", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    ).stdout
    for option in ("--target", "--out", "--rule", "--chains", "--seed", "--task", "FILE"):
        assert option in shown


@pytest.mark.contract
def test_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--task", "boston", "--methods", "list"]) == 0
    names = capsys.readouterr().out
    assert "lottery-ticket" in names
    assert "gradual-magnitude    gradual magnitude pruning in one training" in names
    command = ["compare", "--task", "boston", "--methods", "dense", "filters", "--seeds", "2"]
    command += ["--budget-minutes", "0.01", "--out", str(tmp_path), "--quiet"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "filters" in text
    assert (tmp_path / "table.txt").read_text() in text
    for name in ("table.tex", "record.json", "pareto.pdf", "pareto.png", "runs/dense-1.json"):
        assert (tmp_path / name).exists()
    before = (tmp_path / "runs" / "dense-1.json").stat().st_mtime_ns
    assert main(command) == 0
    assert (tmp_path / "runs" / "dense-1.json").stat().st_mtime_ns == before
    capsys.readouterr()
    assert main([*command[:4], "magic", "--out", str(tmp_path)]) == 2
    assert "Expected methods out of" in capsys.readouterr().err
