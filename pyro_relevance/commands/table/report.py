"""The main job's result in words: what was kept, how sure that is, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from pyro_relevance.commands.table.run import NUM_DRAWS, TableRun
from pyro_relevance.posterior import intervals, relevance

__all__ = ["table_report"]

INTERVAL = 0.89
"""Share of the posterior's draws inside an interval."""


def table_report(run: TableRun) -> str:
    """Return the report of a run, several lines of plain text."""
    table, settings = run.table, run.settings
    lines = [
        f"Relevance for {table.target_name} in {table.path}: {len(run.train[0])} rows to train on, "
        f"{len(run.test[0])} to test on, {table.task}.",
        *(f"Note: {note}." if not note.endswith(".") else f"Note: {note}" for note in _notes(run)),
        "",
        *_input_lines(run),
        "",
        *_layer_lines(run),
        "",
        *_score_lines(run),
        "",
        _expected_line(run),
        *_legend(run),
        *str(run.mask).splitlines()[-1:],
        "",
        *str(run.pruned.receipt).splitlines(),
        "",
        f"{run.seconds:.0f} s in all, seed {settings.seed}.",
    ]
    return "\n".join(lines)


def _notes(run: TableRun) -> list[str]:
    return list(dict.fromkeys([*run.table.notes, *run.encoder.notes]))


def _legend(run: TableRun) -> list[str]:
    """Return what the columns are: of all chains, or of the one that was pruned."""
    num_chains = run.fit.posterior.num_chains
    return [
        f"Inclusion is the mean over the draws of {num_chains} chains; its range over chains tells "
        "how far the fits agree and is no interval of the posterior.",
        f"The effect is the norm of the gated weights that read the input, with its {INTERVAL:.0%} "
        "interval over all draws of all chains; the posterior mean is that of all chains too.",
        f"Chain {run.chain} (highest ELBO) was pruned: the columns under its name are its own.",
    ]


def _input_lines(run: TableRun) -> list[str]:
    """Return one line per input, most relevant first."""
    posterior, edges = run.fit.posterior, run.posterior.edges
    chains = posterior.inclusion_probability()
    inclusion = relevance.over_chains({"inputs": chains["inputs"]})["inputs"]
    draws = posterior.sample(NUM_DRAWS)
    effect = intervals.effect_interval(draws, edges, probability=INTERVAL)["inputs"]
    read = run.inputs_read()
    rows = []
    for gate in np.argsort(-inclusion.mean.numpy(), kind="stable"):
        rows.append(
            (
                run.encoder.input_labels[gate],
                f"{inclusion.mean[gate]:.2f}",
                _span(inclusion.lowest[gate], inclusion.highest[gate]),
                f"{effect.mean[gate]:.2f}",
                _span(effect.lower[gate], effect.upper[gate]),
                f"{chains['inputs'][run.chain, gate]:.2f}",
                "kept" if read[gate] else "removed",
            )
        )
    header = ("input", "inclusion", "range over chains", "effect", f"{INTERVAL:.0%} interval")
    return _columns((*header, f"chain {run.chain}", "pruned"), rows)


def _layer_lines(run: TableRun) -> list[str]:
    """Return one line per group of edges: mean inclusion probability, kept edges."""
    rows = []
    for name, p in run.fit.posterior.inclusion_probability().items():
        group = run.posterior.edges[name]
        kept = int(run.mask[name].sum())
        means = p.flatten(1).mean(1)
        own = f"{means[run.chain]:.2f}"
        kept_of = f"{kept} of {group.num_edges} kept"
        rows.append((name, f"{means.mean():.2f}", _span(means.amin(), means.amax()), own, kept_of))
    header = ("edges of", "inclusion", "range over chains", f"chain {run.chain}", "pruned")
    return _columns(header, rows)


def _score_lines(run: TableRun) -> list[str]:
    """Return one line per network: size and test result."""
    error = "test error" if run.table.task == "classification" else "test RMSE"
    rows = []
    for name, score in run.scores.items():
        size = f"{score.num_parameters:.0f}"
        if name == "posterior mean":
            size = f"{size} expected"
        rows.append((name, size, f"{score.error:.4g}", f"{score.log_likelihood:.3f}"))
    return _columns(("network", "parameters", error, "test log likelihood"), rows)


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


def _span(low: Tensor, high: Tensor) -> str:
    return f"{low:.2f} .. {high:.2f}"


def _columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return aligned lines, the first column to the left and the others to the right."""
    table = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(header))]
    lines = []
    for line in table:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines
