"""The run folder of the main job: posterior, small network, figures, record, report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pyro_relevance import masks, plots
from pyro_relevance._files import replacing
from pyro_relevance.commands.table.job import NUM_DRAWS
from pyro_relevance.commands.table.record import run_record
from pyro_relevance.commands.table.report import table_report
from pyro_relevance.commands.table.run import TableRun
from pyro_relevance.comparison.records import sealed, write_json
from pyro_relevance.data.splits import Examples
from pyro_relevance.data.tables.columns import NumericColumn
from pyro_relevance.posterior.arviz import convert as report
from pyro_relevance.posterior.files import save_posterior
from pyro_relevance.surgery.publishing import ModelCard

__all__ = ["CHECKPOINT", "arviz_of", "write_run"]

CHECKPOINT = "checkpoint.safetensors"
"""Name of the file from which an interrupted run goes on."""

MOST_ROWS = 2000
"""Training rows and test rows of which the ArviZ file has predictions: 1,600 draws of each."""


def write_run(run: TableRun, folder: Path, *, command: str) -> list[Path]:
    """Write everything of a run into a folder; each file completely or not at all.

    Files: ``posterior.nc`` (ArviZ), ``network.safetensors`` (the small network),
    ``MODEL_CARD.md`` (what a reader of it has to know), ``fit.safetensors`` (the fitted posterior
    of all chains), ``encoder.json`` (how new rows become inputs), ``record.json``, ``report.txt``
    and the figures, each as PDF and PNG.

    Args:
        run: The run.
        folder: The folder; made where it is missing.
        command: The command that repeats the run.

    Returns:
        The paths of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    idata = arviz_of(run)
    paths = [folder / name for name in ("posterior.nc", "network.safetensors", "fit.safetensors")]
    report.save(idata, paths[0])
    run.pruned.save(paths[1])
    save_posterior(run.fit.posterior, paths[2])
    paths.append(folder / "MODEL_CARD.md")
    _card(run).write(run.pruned, paths[-1])
    texts = {"encoder.json": run.encoder.to_json(), "report.txt": table_report(run) + "\n"}
    for name, text in texts.items():
        with replacing(folder / name) as temporary:
            # The path of the table may have bytes that are no text.
            temporary.write_text(text, encoding="utf-8", errors="replace")
        paths.append(folder / name)
    write_json(folder / "record.json", sealed(run_record(run, command)))
    paths.append(folder / "record.json")
    for name, figure in _figures(run, idata).items():
        paths.extend(plots.save(figure, folder / name))
    return paths


def arviz_of(run: TableRun) -> report.ArvizData:
    """Return the posterior of a run for ArviZ, under the likelihood that the report states.

    Training rows are scored and replicated by the networks of the cross-validation that did not see
    them, one network for a row; test rows are predictions. Everything is in the unit of the target.
    Of long tables it has `MOST_ROWS` training rows at random and the first `MOST_ROWS` test rows.

    Args:
        run: The run.
    """
    encoder, held, data = run.encoder, run.held, run.train
    held_out = report.HeldOutDraws(held.rows, held.sampled[None])
    if len(held.rows) > MOST_ROWS:
        some = np.random.default_rng(0).permutation(len(held.rows))[:MOST_ROWS]
        data = (data[0][held.rows[some]], data[1][held.rows[some]])
        held_out = report.HeldOutDraws(np.arange(MOST_ROWS), held.sampled[None, :, some])
    return report.to_arviz(
        run.fit.posterior,
        data=data,
        num_samples=NUM_DRAWS,
        likelihood=run.predictive,
        target=report.TargetUnits(encoder.target_mean, encoder.target_scale),
        features=_features(run),
        held_out=held_out,
        predictions=_some(run.test),
    )


def _some(rows: Examples) -> Examples:
    return rows[0][:MOST_ROWS], rows[1][:MOST_ROWS]


def _features(run: TableRun) -> report.Features:
    """Return names and scales of the inputs; zeros and ones of categories are not scaled."""
    mean, scale = [], []
    for column in run.encoder.columns:
        for label in column.labels:
            moments = (0.0, 1.0)
            if isinstance(column, NumericColumn) and label == column.name:
                moments = (column.mean, column.scale)
            mean.append(moments[0])
            scale.append(moments[1])
    return report.Features(run.encoder.column_labels, mean, scale)


def _figures(run: TableRun, idata: Any) -> dict[str, Any]:
    kept = {name: mask.numpy() for name, mask in run.mask.items()}
    return {
        "relevance": plots.relevance(idata),
        "network": plots.network(idata, mask=kept, chain=run.chain),
        "training": plots.training(idata),
        "path": plots.path(_path(run), chosen=float(run.mask.density)),
    }


def _card(run: TableRun) -> ModelCard:
    """Return the card of a run's small network; nobody but the user knows its licence."""
    table, score = run.table, run.scores["pruned"]
    error = "share of wrong classes" if table.task == "classification" else "RMSE"
    relevant = ", ".join(run.tested.relevant) or "none"
    # The name of a file may have bytes that are no text.
    file = Path(table.path).name.encode("utf-8", "replace").decode("utf-8")
    return ModelCard(
        name=f"{table.target_name} from {file}",
        license="unknown",
        data=f"{file}: {len(run.train[0])} rows to train on, {len(run.test[0])} "
        f"to test on, drawn at random (seed {run.settings.seed}).",
        metrics={f"test {error}": score.error, "test log likelihood": score.log_likelihood},
        use=f"Predicts {table.target_name}. Columns relevant at a false discovery rate of "
        f"{run.settings.rate:g}: {relevant}.",
        limits="For rows like those that it was trained on. What it reads need not be what causes "
        f"the target, and need not be relevant. {run.diagnosis.verdict}",
        tags=(
            "tabular-classification" if table.task == "classification" else "tabular-regression",
        ),
    )


def _path(run: TableRun) -> Any:
    """Return the masks of a rule on the test rows, in the target's units."""
    classes, scale = run.table.task == "classification", run.encoder.target_scale
    dataset = report.rule_path(
        run.posterior,
        masks.path(run.posterior, num_points=15),
        _some(run.test),
        num_samples=50,
        metric="accuracy" if classes else "rmse",
    )
    if not classes:
        dataset["rmse"] = (dataset["rmse"] * scale).assign_attrs(units=run.table.target_name)
        shifted = dataset["log_likelihood"] - float(np.log(scale))
        dataset["log_likelihood"] = shifted.assign_attrs(units="nats per datum")
    return dataset
