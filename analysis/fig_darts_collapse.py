"""Figure: what DARTS thinks of the operations of the NAS-Bench-201 cell, epoch by epoch.

Double column, 6.9 x 2.4 in. Caption facts: first order, step sizes, minibatches of 64 and halves of
the data as published, small proxy (one cell a stage, images of 16 x 16). Left: probability of each
operation, mean over the six edges of the cell; one line for each seed. Right: test accuracy, from
the table, of the cell that would be derived after each epoch (strongest operation other than none);
dotted: random search by the benchmark's own queries, 93.70, and the published end of DARTS, a cell
of skip connections, 54.30.

    python -m analysis.fig_darts_collapse
"""

from __future__ import annotations

from matplotlib.figure import Figure

from analysis.figure_files import save_figure
from analysis.records import read_record
from analysis.run_darts_collapse import ROWS
from pyro_relevance import plots

COLOURS = ("0.6", "#D55E00", "#56B4E9", "#0072B2", "#009E73")
SHORT = {
    "none": "none",
    "skip_connect": "skip",
    "nor_conv_1x1": "conv 1x1",
    "nor_conv_3x3": "conv 3x3",
    "avg_pool_3x3": "average pool",
}


def draw() -> Figure:
    """Return the figure."""
    record = read_record("darts_collapse")
    figure = Figure(figsize=(plots.DOUBLE_COLUMN, 2.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, (seed, course) in enumerate(record["probability"].items()):
        epochs = range(1, len(course) + 1)
        for label, colour, *values in zip(record["labels"], COLOURS, *course, strict=True):
            shown = SHORT[label] if index == 0 else None
            left.plot(epochs, values, color=colour, lw=1.2, ls=("-", "--")[index % 2], label=shown)
        accuracy = record["test_accuracy_by_pass"][ROWS["some"]][seed]
        look = {"ls": ("-", "--")[index % 2], "color": "0.2"}
        right.plot(epochs, accuracy, lw=1.2, label=f"seed {seed}", **look)
    left.axhline(0.2, color="0.8", lw=0.8, zorder=0)
    left.set(xlabel="Epoch", ylabel="Mean probability")
    left.legend(fontsize=6, frameon=False)
    for level in (93.70, 54.30):
        right.axhline(level, color="0.5", lw=0.8, ls=":")
    right.set(xlabel="Epoch", ylabel="Test accuracy of the cell (%)", ylim=(50, 96))
    right.legend(fontsize=6, frameon=False, loc="center right")
    return figure


if __name__ == "__main__":
    save_figure(draw, "darts_collapse")
