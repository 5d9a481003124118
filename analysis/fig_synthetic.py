"""Figure: realised against nominal false discovery rate, power, and calibration.

Double column, 6.9 x 2.4 in. Caption facts: 10 of 100 correlated inputs matter, 50 data sets, bars
are two standard errors over data sets; calibration pools all inputs of all data sets, bins with
at least 5 inputs are shown (nearly all lie at the two ends).

    python -m analysis.fig_synthetic
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from analysis.records import read_record
from pyro_relevance import plots

FIGURES = Path(__file__).parent / "figures"


def draw() -> Figure:
    """Return the figure."""
    record = read_record("synthetic_truth")
    figure = Figure(figsize=(plots.DOUBLE_COLUMN, 2.4), layout="constrained")
    realised, power, calibration = figure.subplots(1, 3)
    colours = ("#0072B2", "#D55E00")
    tasks = list(record["calibration"])
    for task, colour, shift in zip(tasks, colours, (-0.002, 0.002), strict=False):
        rows = [r for r in record["rows"] if r["task"] == task and "nominal" in r]
        nominal = [r["nominal"] + shift for r in rows]
        for ax, name in ((realised, "false_discovery_proportion"), (power, "power")):
            means = [r["metrics"][name]["mean"] for r in rows]
            bars = [2 * r["metrics"][name]["se"] for r in rows]
            ax.errorbar(nominal, means, yerr=bars, fmt="o-", ms=4, color=colour, label=task)
        table = record["calibration"][task]
        used = [i for i, count in enumerate(table["count"]) if count >= 5]
        calibration.errorbar(
            [table["predicted"][i] for i in used],
            [table["observed"][i] for i in used],
            yerr=[2 * table["standard_error"][i] for i in used],
            fmt="o",
            ms=4,
            color=colour,
        )
    top = 0.25
    realised.plot([0, top], [0, top], "--", color="0.5", lw=1, label="nominal")
    realised.set(xlabel="Nominal false discovery rate", ylabel="Realised proportion")
    realised.set(xlim=(0, top), ylim=(0, top))
    realised.legend(fontsize=7)
    power.set(xlabel="Nominal false discovery rate", ylabel="Power (fraction found)")
    power.set(xlim=(0, top), ylim=(0, 1.02))
    calibration.plot([0, 1], [0, 1], "--", color="0.5", lw=1)
    calibration.set(xlabel="Inclusion probability", ylabel="Fraction that matters")
    calibration.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    return figure


def main() -> None:
    """Draw and save."""
    FIGURES.mkdir(exist_ok=True)
    with matplotlib.rc_context(
        {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
    ):
        paths = plots.save(draw(), FIGURES / "synthetic_truth")
    print(*paths)


if __name__ == "__main__":
    main()
