"""The table of a comparison, as text, LaTeX and JSON, with the stability of what was chosen."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyro_relevance.comparison.records import make_record, row
from pyro_relevance.comparison.runs import Comparison
from pyro_relevance.graphs import Architecture
from pyro_relevance.graphs.spaces import architecture_to_string
from pyro_relevance.masks import Mask
from pyro_relevance.posterior.diagnostics import stability

__all__ = ["comparison_record", "latex_table", "text_table"]

Results = Mapping[str, Mapping[int, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table: heading, LaTeX heading, and how its numbers are written."""

    heading: str
    latex: str
    digits: int


COLUMNS = {
    "num_parameters": Column("parameters", "Parameters", 0),
    "num_macs": Column("MACs", "MACs", 0),
    "num_bytes": Column("bytes", "Bytes", 0),
    "minutes": Column("minutes", "Minutes", 2),
    "rmse": Column("RMSE", "RMSE", 3),
    "test_error": Column("error, %", r"Error, \%", 2),
    "test_log_likelihood": Column("log likelihood", "Log likelihood", 3),
    "benchmark_accuracy": Column("benchmark, %", r"Benchmark, \%", 2),
    "weight_noise": Column("weights + noise", "Weights + noise", 2),
    "input_noise": Column("inputs + noise", "Inputs + noise", 2),
    "fgsm": Column("FGSM", "FGSM", 2),
    "pgd": Column("PGD", "PGD", 2),
}


def comparison_record(
    comparison: Comparison,
    results: Results,
    *,
    failures: Mapping[str, str],
    command: str,
    wall_seconds: float,
) -> dict[str, Any]:
    """Return the record: one row for each method, metrics with standard errors, stability.

    Args:
        comparison: What is compared.
        results: What ``finished`` returned.
        failures: Why runs have found no network, by their names.
        command: The command that repeats it.
        wall_seconds: Wall time of all runs together.
    """
    rows = []
    benchmark = _benchmark(comparison.table)
    for name, by_seed in results.items():
        seeds = sorted(by_seed)
        metrics = [dict(by_seed[seed]["metrics"]) for seed in seeds]
        if benchmark:
            for each, seed in zip(metrics, seeds, strict=True):
                cell = Architecture(by_seed[seed]["choice"]["architecture"])
                each["benchmark_accuracy"] = benchmark[architecture_to_string(cell)]
        shared = [key for key in metrics[0] if all(key in each for each in metrics)]
        rows.append(
            row(
                name,
                comparison.task,
                seeds,
                {key: [each[key] for each in metrics] for key in shared},
                stability=choice_stability([by_seed[seed]["choice"] for seed in seeds]),
                plans=[by_seed[seed]["plan"] for seed in seeds],
            )
        )
    settings = {
        **comparison.about(),
        "methods": list(comparison.methods),
        "num_seeds": comparison.num_seeds,
    }
    return make_record(
        f"compare_{comparison.task}",
        command=command,
        settings=settings,
        rows=rows,
        wall_seconds=wall_seconds,
        device=comparison.device,
        failures=dict(failures),
    )


def _benchmark(table: str | None) -> dict[str, float]:
    """Return what the benchmark says of each cell: test accuracy after 200 epochs, in percent."""
    if table is None:
        return {}
    with open(table, encoding="utf-8", newline="") as file:
        return {line["arch"]: float(line["test_acc_200ep"]) for line in csv.DictReader(file)}


def choice_stability(choices: Sequence[Mapping[str, Any] | None]) -> dict[str, float] | None:
    """Return the stability index of what was chosen over seeds, with its interval.

    Args:
        choices: For each seed, what was chosen, with its mask as JSON.

    Returns:
        Index and ends of the 95 % interval; ``None`` where nothing is chosen or there is one seed.
    """
    masks = [Mask.from_json(choice["mask"]) for choice in choices if choice is not None]
    if len(masks) < 2 or len(masks) < len(choices):
        return None
    found = stability(masks)
    return {"index": found.index, "lower": found.lower, "upper": found.upper}


def text_table(record: Mapping[str, Any]) -> str:
    """Return the table as a text.

    Args:
        record: What `comparison_record` returned.
    """
    names, cells = _cells(record, "{mean} ± {se}", "{index:.2f} [{lower:.2f}, {upper:.2f}]")
    lines = [["method", *(COLUMNS[_short(name)].heading for name in names), "stability"], *cells]
    widths = [max(len(line[position]) for line in lines) for position in range(len(lines[0]))]
    written = [
        "  ".join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True)]
        ).rstrip()
        for line in lines
    ]
    written += [f"failed: {name}: {why}" for name, why in record.get("failures", {}).items()]
    return "\n".join(written)


def latex_table(record: Mapping[str, Any]) -> str:
    r"""Return the table for a paper; it needs ``\usepackage{booktabs}``.

    Args:
        record: What `comparison_record` returned.
    """
    names, cells = _cells(
        record, r"${mean} \pm {se}$", "{index:.2f} [{lower:.2f}, {upper:.2f}]", thousands="{,}"
    )
    headings = ["Method", *(COLUMNS[_short(name)].latex for name in names), "Stability"]
    lines = [
        r"\begin{tabular}{l" + "r" * (len(headings) - 1) + "}",
        r"\toprule",
        " & ".join(headings) + r" \\",
        r"\midrule",
        *(" & ".join(line) + r" \\" for line in cells),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _cells(
    record: Mapping[str, Any], numbers: str, index: str, *, thousands: str = ","
) -> tuple[list[str], list[list[str]]]:
    """Return the metrics that are columns, and the written cells of each row."""
    known = [
        name
        for wanted in COLUMNS
        for name in dict.fromkeys(key for r in record["rows"] for key in r["metrics"])
        if _short(name) == wanted
    ]
    lines = []
    for each in record["rows"]:
        cells = [each["method"]]
        for name in known:
            found = each["metrics"].get(name)
            cells.append("-" if found is None else _number(found, name, numbers, thousands))
        chosen = each["stability"]
        cells.append("-" if chosen is None else index.format(**chosen))
        lines.append(cells)
    return known, lines


def _number(found: Mapping[str, Any], name: str, numbers: str, thousands: str) -> str:
    digits = COLUMNS[_short(name)].digits
    mean, se = (f"{found[key]:,.{digits}f}".replace(",", thousands) for key in ("mean", "se"))
    if len(found["values"]) < 2:
        se = "?"  # one seed has no standard error
    return numbers.replace("{mean}", mean).replace("{se}", se)


def _short(name: str) -> str:
    """Return the metric without the score that it is measured in."""
    for score in ("rmse_", "test_error_"):
        if name.startswith(score):
            return name.removeprefix(score)
    return name
