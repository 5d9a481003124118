"""The main job's result in words: what was kept, how sure that is, and what it costs."""

from __future__ import annotations

import numpy as np

from pyro_relevance.commands.scoring.lines import (
    baseline_sentences,
    class_lines,
    decision_sentences,
    score_lines,
)
from pyro_relevance.commands.table.columns import aligned, span
from pyro_relevance.commands.table.inputs import (
    disagreements,
    input_lines,
    posterior_lines,
    relevant_line,
)
from pyro_relevance.commands.table.job import NUM_DRAWS
from pyro_relevance.commands.table.record import INTERVAL
from pyro_relevance.commands.table.run import TableRun
from pyro_relevance.posterior import intervals

__all__ = ["table_report"]


def table_report(run: TableRun) -> str:
    """Return the report of a run, several lines of plain text."""
    table, settings = run.table, run.settings
    read = run.inputs_read()
    lines = [
        f"Relevance for {table.target_name} in {table.path}: {len(run.train[0])} rows to train on, "
        f"{len(run.test[0])} to test on, {table.task}.",
        *(f"Note: {note}." if not note.endswith(".") else f"Note: {note}" for note in _notes(run)),
        "",
        *str(run.diagnosis).splitlines(),
        "",
        relevant_line(run.tested),
        "",
        *input_lines(
            run.tested,
            run.fit.posterior.inclusion_probability()["inputs"].numpy(),
            read,
            scale=run.encoder.target_scale,
        ),
        "",
        *disagreements(run.tested, read),
        *_explanation(run),
        "",
        *_posterior_lines(run),
        "",
        *_layer_lines(run),
        "",
        *_score_lines(run),
        "",
        _expected_line(run),
        *_size_lines(run),
        "",
        f"{run.seconds:.0f} s in all, seed {settings.seed}.",
    ]
    return "\n".join(lines)


def _notes(run: TableRun) -> list[str]:
    return list(dict.fromkeys([*run.table.notes, *run.encoder.notes]))


def _explanation(run: TableRun) -> list[str]:
    """Return what the columns of the first table mean."""
    squared = run.tested.loss == "squared"
    loss = f"RMSE (in {run.table.target_name})" if squared else "log loss (nats)"
    return [
        f"rise: of the held-out {loss} when the column is drawn anew given the others, over "
        f"{run.tested.num_rows} rows; p: rank of the data among redraws (holdout randomisation "
        "test). 'not shown' is not 'irrelevant'.",
        f"network: what the pruned network (chain {run.chain}) reads; inclusion: posterior "
        f"probability that the network uses the input, mean over {run.fit.posterior.num_chains} "
        "chains. It describes the fit; it is not a tested statement about the data.",
    ]


def _posterior_lines(run: TableRun) -> list[str]:
    """Return what the posterior says of each input, of all chains and of the pruned one."""
    draws = run.fit.posterior.sample(NUM_DRAWS)
    effect = intervals.effect_interval(draws, run.posterior.edges, probability=INTERVAL)["inputs"]
    return [
        *posterior_lines(
            run.encoder.input_labels,
            run.fit.posterior.inclusion_probability()["inputs"],
            effect,
            chain=run.chain,
        ),
        "",
        "over chains: lowest and highest chain, which tells how far the fits agree and is no "
        "interval of the posterior; effect: norm of the gated weights that read the input, with "
        f"its {INTERVAL:.0%} interval over all draws of all chains.",
    ]


def _layer_lines(run: TableRun) -> list[str]:
    """Return one line per group of edges: expected share that is on, edges of the pruned chain."""
    rows = []
    for name, p in run.fit.posterior.inclusion_probability().items():
        group = run.posterior.edges[name]
        means = p.flatten(1).mean(1)
        if name == "inputs":
            read = run.inputs_read()
            kept = f"{int(read.sum())} of {len(read)} read"
        else:
            kept = f"{int(run.mask[name].sum())} of {group.num_edges} kept"
        own = f"{means[run.chain]:.2f}"
        rows.append((name, f"{means.mean():.2f}", span(means.amin(), means.amax()), own, kept))
    header = ("edges of", "inclusion", "over chains", f"chain {run.chain}", "pruned")
    return aligned(header, rows)


def _size_lines(run: TableRun) -> list[str]:
    """Return what was pruned and what it saves; nothing of it is a result where the fit failed."""
    if run.diagnosis.failed:
        return ["Sizes and speed of the pruned network are left out: the fit failed."]
    return [
        f"Chain {run.chain} (highest ELBO of {run.fit.posterior.num_chains}) was pruned.",
        *str(run.mask).splitlines()[-1:],
        "",
        *str(run.pruned.receipt).splitlines(),
    ]


def _score_lines(run: TableRun) -> list[str]:
    """Return the test results of all networks and baselines, and what they mean."""
    lines = score_lines(run.scores, run.baselines, classes=run.table.task == "classification")
    sentences = baseline_sentences(run.scores.get("pruned"), run.baselines, len(run.test[0]))
    lines += ["", *sentences] if sentences else []
    of_classes = class_lines({**run.scores, **run.baselines}, _class_names(run))
    lines += ["", *of_classes] if of_classes else []
    return [*lines, *decision_sentences(run.decision)]


def _class_names(run: TableRun) -> list[str]:
    return [str(name) for name in run.encoder.classes]


def _expected_line(run: TableRun) -> str:
    """Return what the cross-validation promised of the pruned network, before the test."""
    loss, error = run.expected.loss, run.expected.error
    encoder, share = run.encoder, f"{run.expected.loss.probability:.0%}"
    name = "an error" if run.table.task == "classification" else "an RMSE"
    ends = [f"{float(end) * encoder.target_scale:.3g}" for end in (error.lower, error.upper)]
    # A density in the target's unit; the smallest loss is the largest likelihood.
    shift = float(np.log(encoder.target_scale))
    densities = [f"{-float(end) - shift:.3g}" for end in (loss.upper, loss.lower)]
    return (
        f"Before the test, cross-validation promised the pruned network {name} of "
        f"{ends[0]} .. {ends[1]} and a log likelihood of {densities[0]} .. {densities[1]} "
        f"({share} predictive intervals for {len(run.test[0])} rows)."
    )
