"""The record of a run: everything that its report says, as JSON.

``record.json`` is what is left of a run for programs: settings, versions and results. Its part
``report`` has the numbers and sentences of the report, so that a page can be written from the run
folder alone.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from pyro_relevance.commands.finished import identity
from pyro_relevance.commands.scoring.lines import baseline_sentences, decision_sentences
from pyro_relevance.commands.scoring.scores import Score
from pyro_relevance.commands.table.inputs import disagreements, order_of, relevant_line
from pyro_relevance.commands.table.job import NUM_DRAWS
from pyro_relevance.commands.table.predictor import describe_noise
from pyro_relevance.commands.table.run import TableRun
from pyro_relevance.comparison.records import make_record, row
from pyro_relevance.posterior import intervals
from pyro_relevance.posterior.relevance import over_chains

__all__ = ["INTERVAL", "run_record"]

INTERVAL = 0.89
"""Share of the posterior's draws inside an interval."""


def run_record(run: TableRun, command: str) -> dict[str, Any]:
    """Return the record of a run.

    Args:
        run: The run.
        command: The command that repeats it.
    """
    probability = run.fit.posterior.inclusion_probability()["inputs"]
    settings = dataclasses.asdict(run.settings)
    record = make_record(
        f"table_{run.table.target_name}",
        command=command,
        settings={**settings, "chosen_recipe": dataclasses.asdict(run.recipe)},
        rows=[_row(run, name, score) for name, score in {**run.scores, **run.baselines}.items()],
        wall_seconds=run.seconds,
        table=str(run.table.path),
        identity=identity(run.table, run.settings),
        notes=[*run.table.notes, *run.encoder.notes],
        target={"mean": run.encoder.target_mean, "scale": run.encoder.target_scale},
        noise=describe_noise(run.noise),
        predictive_noise=describe_noise(run.predictive),
        chain=run.chain,
        held_out_rule=run.mask.rule,
        inclusion_probability={
            label: [round(float(p), 6) for p in probability[:, gate]]
            for gate, label in enumerate(run.encoder.input_labels)
        },
        diagnosis=str(run.diagnosis),
        fit_failed=run.diagnosis.failed,
        holdout_test=run.tested.to_dict(),
        inputs_left=[
            label
            for label, read in zip(run.encoder.input_labels, run.inputs_read(), strict=True)
            if read
        ],
        receipt=run.pruned.receipt.to_dict(),
        report=_report(run),
    )
    finite: dict[str, Any] = _without_nan(record)
    return finite


def _row(run: TableRun, name: str, score: Score) -> dict[str, Any]:
    error = "test_error" if run.table.task == "classification" else "rmse"
    metrics = {
        error: [score.error],
        "test_log_likelihood": [score.log_likelihood],
        "num_parameters": [score.num_parameters],
    }
    known = {key: values for key, values in metrics.items() if not math.isnan(values[0])}
    more = {} if score.classes is None else {"classes": score.classes.to_dict()}
    return row(
        name,
        run.table.target_name,
        [run.settings.seed],
        known,
        kind="baseline" if name in run.baselines else "network",
        # Over test rows; that of the metrics is over seeds.
        se_over_test_rows={error: score.error_se, "test_log_likelihood": score.log_likelihood_se},
        **more,
    )


def _report(run: TableRun) -> dict[str, Any]:
    """Return the numbers and sentences of the report that the record does not have elsewhere."""
    return {
        "task": run.table.task,
        "target": run.table.target_name,
        "classes": [str(name) for name in run.encoder.classes],
        "num_train": len(run.train[0]),
        "num_test": len(run.test[0]),
        "num_chains": run.fit.posterior.num_chains,
        "interval": INTERVAL,
        "verdict": run.diagnosis.verdict,
        "findings": [
            {"severity": str(found.severity), "what": found.what, "advice": found.advice}
            for found in run.diagnosis.findings
        ],
        "checked": list(run.diagnosis.checked),
        "relevant": relevant_line(run.tested),
        "disagreements": disagreements(run.tested, run.inputs_read()),
        "inputs": _inputs(run),
        "groups": _groups(run),
        "baselines": baseline_sentences(run.scores.get("pruned"), run.baselines, len(run.test[0])),
        "decision": decision_sentences(run.decision),
        "decided": None if run.decision is None else run.decision.to_dict(),
        "risk": str(run.mask).splitlines()[-1],
        "expected": _expected(run),
    }


def _inputs(run: TableRun) -> list[dict[str, Any]]:
    """Return one entry an input, the strongest evidence first."""
    probability = run.fit.posterior.inclusion_probability()["inputs"]
    inclusion = over_chains({"inputs": probability})["inputs"]
    draws = run.fit.posterior.sample(NUM_DRAWS)
    effect = intervals.effect_interval(draws, run.posterior.edges, probability=INTERVAL)["inputs"]
    read, scale = run.inputs_read(), run.encoder.target_scale
    entries = []
    for place in order_of(run.tested):
        group = run.tested.groups[place]
        entries.append(
            {
                "name": group.name,
                "rise": group.root_rise * scale,
                "rise_se": group.root_standard_error * scale,
                "p_value": group.p_value,
                "verdict": str(group.verdict),
                "together": list(run.tested.companions(group.name)),
                "read": bool(read[place]),
                "inclusion": float(inclusion.mean[place]),
                "inclusion_lowest": float(inclusion.lowest[place]),
                "inclusion_highest": float(inclusion.highest[place]),
                "effect": float(effect.mean[place]),
                "effect_lower": float(effect.lower[place]),
                "effect_upper": float(effect.upper[place]),
            }
        )
    return entries


def _groups(run: TableRun) -> list[dict[str, Any]]:
    """Return one entry a group of edges: share that is on, and what the pruned network keeps."""
    entries = []
    for name, p in run.fit.posterior.inclusion_probability().items():
        means = p.flatten(1).mean(1)
        kept = run.inputs_read() if name == "inputs" else run.mask[name].numpy()
        entries.append(
            {
                "name": name,
                "inclusion": float(means.mean()),
                "inclusion_lowest": float(means.amin()),
                "inclusion_highest": float(means.amax()),
                "kept": int(kept.sum()),
                "edges": int(kept.size),
            }
        )
    return entries


def _expected(run: TableRun) -> dict[str, Any]:
    """Return what the cross-validation promised of the pruned network, in the target's units."""
    loss, error, scale = run.expected.loss, run.expected.error, run.encoder.target_scale
    shift = float(np.log(scale))
    return {
        "error": [float(error.lower) * scale, float(error.upper) * scale],
        "log_likelihood": [-float(loss.upper) - shift, -float(loss.lower) - shift],
        "probability": loss.probability,
    }


def _without_nan(value: Any) -> Any:
    """Return JSON-able content with ``null`` for numbers that are not there: JSON has no nan."""
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
