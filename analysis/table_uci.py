"""Table: all UCI records as text, one line per data set and method.

python -m analysis.table_uci
"""

from __future__ import annotations

from analysis.records import RESULTS, read_record

HEADER = (
    "| data set | method | test RMSE | test log likelihood | parameters (at most) | seconds |",
    "|---|---|---|---|---|---|",
)


def lines() -> list[str]:
    """Return the table in Markdown."""
    found = list(HEADER)
    for path in sorted(RESULTS.glob("uci_*.json")):
        record = read_record(path.stem)
        for entry in record["rows"]:
            rmse, density, size = (
                entry["metrics"][name] for name in ("rmse", "test_log_likelihood", "num_parameters")
            )
            found.append(
                f"| {entry['task']} | {entry['method']} | {rmse['mean']:.3f} ± {rmse['se']:.3f} | "
                f"{density['mean']:.3f} ± {density['se']:.3f} | {size['mean']:.0f} "
                f"({max(size['values']):.0f}) | {entry['total_seconds']:.0f} |"
            )
    return found


if __name__ == "__main__":
    print("\n".join(lines()))
