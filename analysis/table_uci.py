"""Table: all UCI records as text, one line per data set, method and seed.

Where a method was run with several seeds, a further line averages them in each split first.

    python -m analysis.table_uci
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.records import RESULTS, read_record, row

METRICS = ("rmse", "test_log_likelihood", "num_parameters")

HEADER = (
    "| data set | method | test RMSE | test log likelihood | parameters (at most) | seconds |",
    "|---|---|---|---|---|---|",
)


def lines() -> list[str]:
    """Return the table in Markdown."""
    found: list[str] = []
    runs: dict[tuple[str, str], list[tuple[int, dict[str, Any]]]] = {}
    for path in sorted(RESULTS.glob("uci_*.json")):
        record = read_record(path.stem)
        for entry in record["rows"]:
            same = runs.setdefault((entry["task"], entry["method"]), [])
            same.append((record["settings"]["seed"], entry))
    for (_, method), entries in runs.items():
        several = len(entries) > 1
        for seed, entry in sorted(entries, key=lambda pair: pair[0]):
            found.append(line(entry, f"{method}, seed {seed}" if several else method))
        if several:
            found.append(line(mean_over_seeds([e for _, e in entries]), f"{method}, mean of seeds"))
    return [*HEADER, *found]


def mean_over_seeds(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one row whose values are means over seeds in each split."""
    values = {
        name: np.mean([e["metrics"][name]["values"] for e in entries], axis=0).tolist()
        for name in METRICS
    }
    seconds = sum(entry["total_seconds"] for entry in entries)
    first = entries[0]
    mean: dict[str, Any] = row(
        first["method"], first["task"], first["seeds"], values, total_seconds=seconds
    )
    return mean


def line(entry: dict[str, Any], method: str) -> str:
    """Return one line of the table."""
    rmse, density, size = (entry["metrics"][name] for name in METRICS)
    return (
        f"| {entry['task']} | {method} | {rmse['mean']:.3f} ± {rmse['se']:.3f} | "
        f"{density['mean']:.3f} ± {density['se']:.3f} | {size['mean']:.0f} "
        f"({max(size['values']):.0f}) | {entry['total_seconds']:.0f} |"
    )


if __name__ == "__main__":
    print("\n".join(lines()))
