"""Figure: realised against nominal false discovery rate, power, and calibration.

Double column, 6.9 x 2.4 in. Caption facts: 10 of 100 correlated inputs matter, 50 data sets, bars
are two standard errors over data sets; calibration pools all inputs of all data sets, bins with
at least 5 inputs are shown (nearly all lie at the two ends). Realised proportions step because
sharp probabilities let the rule add whole inputs up to the nominal rate: 1 of 11, 2 of 12. Dotted:
power of boosting with permutation importance that is given the number of relevant inputs, ten.
Dashed grey: nominal and perfect calibration. Open squares: the fraction of relevant inputs is
learned, not given.

    python -m analysis.fig_synthetic
"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figure_files import save_figure
from analysis.records import read_record
from pyro_relevance import plots

LEARNED = " with a learned rate"


def draw() -> Figure:
    """Return the figure."""
    record = read_record("synthetic_truth")
    figure = Figure(figsize=(plots.DOUBLE_COLUMN, 2.4), layout="constrained")
    realised, power, calibration = figure.subplots(1, 3)
    tasks = list(dict.fromkeys(r["task"] for r in record["rows"]))
    for task, colour, shift in zip(tasks, ("#0072B2", "#D55E00"), (-0.002, 0.002), strict=False):
        of_task = [r for r in record["rows"] if r["task"] == task]
        for learned in (False, True):
            rows = [r for r in of_task if "nominal" in r and (LEARNED in r["method"]) == learned]
            look: dict[str, Any] = {"color": colour, "ms": 4, "fmt": "s--" if learned else "o-"}
            if learned:
                look["mfc"] = "white"
            nominal = [r["nominal"] + shift + 0.006 * learned for r in rows]
            for ax, name in ((realised, "false_discovery_proportion"), (power, "power")):
                means = [r["metrics"][name]["mean"] for r in rows]
                bars = [2 * r["metrics"][name]["se"] for r in rows]
                label = f"{task}, {'rate learned' if learned else 'rate given'}"
                ax.errorbar(nominal, means, yerr=bars, label=label, **look)
            table = record["calibration"][task + (LEARNED if learned else "")]
            draw_calibration(calibration, table, {**look, "fmt": look["fmt"][0]})
        given = next(r for r in of_task if r["method"] == "boosting, best 10")
        power.axhline(given["metrics"]["power"]["mean"], ls=":", color=colour, lw=1)
    top = 0.25
    realised.plot([0, top], [0, top], "--", color="0.5", lw=1)
    realised.set(xlabel="Nominal false discovery rate", ylabel="Realised proportion")
    realised.set(xlim=(0, top), ylim=(0, top))
    power.legend(fontsize=6, frameon=False, loc="lower right")
    power.set(xlabel="Nominal false discovery rate", ylabel="Power (fraction found)")
    power.set(xlim=(0, top), ylim=(0, 1.02))
    calibration.plot([0, 1], [0, 1], "--", color="0.5", lw=1)
    calibration.set(xlabel="Inclusion probability", ylabel="Fraction that matters")
    calibration.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    return figure


def draw_calibration(ax: Axes, table: dict[str, Any], look: dict[str, Any]) -> None:
    """Draw the fraction of inputs that matter over their mean inclusion probability."""
    used = [i for i, count in enumerate(table["count"]) if count >= 5]
    observed = [table["observed"][i] for i in used]
    pairs = [
        (fraction, 2 * table["standard_error"][i])
        for i, fraction in zip(used, observed, strict=True)
    ]
    # fractions stay in [0, 1]
    bars = [[min(e, o) for o, e in pairs], [min(e, 1 - o) for o, e in pairs]]
    ax.errorbar([table["predicted"][i] for i in used], observed, yerr=bars, **look)


if __name__ == "__main__":
    save_figure(draw, "synthetic_truth")
