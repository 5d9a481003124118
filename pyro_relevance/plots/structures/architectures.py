"""The posterior over architectures: how often each combination of operations is drawn."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_relevance.plots._data import Array, one_chain, select, structure_of
from pyro_relevance.plots._style import (
    COLOURS,
    Width,
    axes_of,
    describe,
    inches,
    styled,
)

__all__ = ["architectures"]


@styled
def architectures(
    idata: Any,
    *,
    structure: str | None = None,
    chain: int | None = None,
    max_rows: int = 10,
    width: Width = "double",
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """The most frequent architectures among the draws, with two standard errors.

    A row names the operations in which the shown architectures differ; what they share is in the
    caption.

    Args:
        idata: What `to_arviz` returned of a model of operations.
        structure: Name of the structure; optional where there is only one.
        chain: One chain; ``None``: the draws of all.
        max_rows: Architectures that are shown.
        width: Columns of a paper.
        figsize: Width and height, inches.
        ax: Draw into these axes; their figure is returned.

    Raises:
        ValueError: If ``idata`` has no operations, or no such structure or chain.
    """
    edges, chosen, operations = _read(idata, structure, chain)
    counts = Counter(map(tuple, chosen.tolist())).most_common()
    shown = counts[:max_rows]
    differ = [e for e in range(len(edges)) if len({found[e] for found, _ in shown}) > 1]
    names = [
        ", ".join(f"{edges[e]}: {operations[found[e]]}" for e in differ) or "the only one"
        for found, _ in shown
    ]
    lines = max((name.count(",") // 3 + 1 for name in names), default=1)
    height = 0.7 + (0.12 + 0.1 * lines) * len(shown)
    figure, ax = axes_of(ax, inches(width), max(1.3, height), figsize)
    number = len(chosen)
    share = np.array([count for _, count in shown]) / number
    error = 2 * np.sqrt(share * (1 - share) / number)
    rows = np.arange(len(shown))
    ax.barh(rows, share, 0.6, color=COLOURS[0], alpha=0.8)
    ax.errorbar(share, rows, xerr=[np.minimum(error, share), error], fmt="none", color="black",
                elinewidth=0.8)  # fmt: skip
    ax.set_yticks(rows, [_wrapped(name) for name in names], fontsize=6)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_xlim(left=0)
    ax.set_xlabel("Posterior probability of the architecture")
    same = [f"{edges[e]}: {operations[shown[0][0][e]]}" for e in range(len(edges))
            if e not in differ]  # fmt: skip
    shared = f" All of them have {', '.join(same)}." if same and len(shown) > 1 else ""
    describe(
        figure,
        f"The {len(shown)} most frequent of {len(counts)} architectures in {number:,} draws, with "
        f"two standard errors; together they have {share.sum():.0%} of the draws.{shared}",
    )
    return figure


def _wrapped(name: str) -> str:
    """Three operations in a line."""
    parts = name.split(", ")
    return "\n".join(", ".join(parts[i : i + 3]) for i in range(0, len(parts), 3))


def _read(
    idata: Any, structure: str | None, chain: int | None
) -> tuple[list[str], Array, list[str]]:
    """Names of the edges, ``(num_draws, num_edges)`` operations chosen, names of operations."""
    suffix = "_operation_gate"
    dataset = select(idata, "relevance")
    structure = structure_of(dataset, structure, suffix)
    dataset = dataset if chain is None else one_chain(dataset, chain)
    gates = dataset[f"{structure}{suffix}"]
    values = gates.transpose("chain", "draw", "source", "target", "operation").to_numpy()
    sources, targets, operations = (
        [str(name) for name in gates.coords[dim].values]
        for dim in ("source", "target", "operation")
    )
    graph = json.loads(dataset.attrs["pyro_relevance_graphs"])[structure]
    decided = [(source, target) for source, target, only in graph["edges"] if only is None]
    chosen = [
        np.nan_to_num(values[:, :, sources.index(s), targets.index(t)], nan=-1.0).argmax(-1).ravel()
        for s, t in decided
    ]
    return [f"{s}→{t}" for s, t in decided], np.stack(chosen, 1), operations
