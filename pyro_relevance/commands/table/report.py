"""The main job's result in words: what was kept, how sure that is, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pyro_relevance.commands.table.run import TableRun

__all__ = ["table_report"]

INTERVAL = (0.055, 0.945)
"""Ends of the 89 % interval over chains."""


def table_report(run: TableRun) -> str:
    """Return the report of a run, several lines of plain text."""
    table, settings = run.table, run.settings
    num_chains = run.fit.posterior.num_chains
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
        f"Inclusion probabilities are means over {num_chains} chains with their 89 % interval; "
        f"chain {run.chain} (highest ELBO) was pruned.",
        *str(run.mask).splitlines()[-1:],
        "",
        *str(run.pruned.receipt).splitlines(),
        "",
        f"{run.seconds:.0f} s in all, seed {settings.seed}.",
    ]
    return "\n".join(lines)


def _notes(run: TableRun) -> list[str]:
    return list(dict.fromkeys([*run.table.notes, *run.encoder.notes]))


def _input_lines(run: TableRun) -> list[str]:
    """Return one line per input, most relevant first."""
    probability = run.fit.posterior.inclusion_probability()["inputs"].numpy()
    read = run.inputs_read()
    order = np.argsort(-probability.mean(0), kind="stable")
    rows = []
    for gate in order:
        kept = "kept" if read[gate] else "removed"
        rows.append((run.encoder.input_labels[gate], *_interval(probability[:, gate]), kept))
    return _columns(("input", "inclusion", "interval", ""), rows)


def _layer_lines(run: TableRun) -> list[str]:
    """Return one line per group of edges: mean inclusion probability, kept edges."""
    rows = []
    for name, p in run.fit.posterior.inclusion_probability().items():
        group = run.posterior.edges[name]
        kept = int(run.mask[name].sum())
        means = p.flatten(1).mean(1).numpy()
        rows.append((name, *_interval(means), f"{kept} of {group.num_edges} kept"))
    return _columns(("edges of", "inclusion", "interval", ""), rows)


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


def _interval(values: NDArray[np.floating]) -> tuple[str, str]:
    low, high = np.quantile(values, INTERVAL)
    return f"{values.mean():.2f}", f"{low:.2f} .. {high:.2f}"


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
