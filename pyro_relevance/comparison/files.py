"""The results of a comparison as files: table, record and figure beside the files of its runs."""

from __future__ import annotations

from pathlib import Path

from pyro_relevance import plots
from pyro_relevance._files import replacing
from pyro_relevance.comparison.records import write_json
from pyro_relevance.comparison.runs import Comparison, failures, finished
from pyro_relevance.comparison.tables import comparison_record, latex_table, text_table

__all__ = ["write_comparison"]


def write_comparison(comparison: Comparison, folder: Path, *, command: str) -> str:
    """Write the table, the record and the figure of the finished runs.

    Args:
        comparison: What is compared.
        folder: The folder, with the files of the runs in ``runs/``.
        command: The command that repeats it.

    Returns:
        The table as a text.

    Raises:
        ValueError: If no run is finished.
    """
    results = finished(comparison, folder / "runs")
    if not results:
        raise ValueError(f"Expected finished runs in {folder / 'runs'}, but there are none.")
    seconds = sum(
        60 * run["metrics"]["minutes"] for by_seed in results.values() for run in by_seed.values()
    )
    record = comparison_record(
        comparison,
        results,
        failures=failures(comparison, folder / "runs"),
        command=command,
        wall_seconds=seconds,
    )
    write_json(folder / "record.json", record)
    text = text_table(record)
    for name, content in {"table.txt": text + "\n", "table.tex": latex_table(record)}.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    plots.save(plots.pareto(record), folder / "pareto")
    return text
