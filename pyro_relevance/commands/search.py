"""The job of ``pyro-relevance search``: search, test, run folder."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from pyro_relevance import plots
from pyro_relevance._files import replacing
from pyro_relevance.comparison.records import make_record, row, write_json
from pyro_relevance.graphs import free_edges
from pyro_relevance.posterior.arviz import convert as report
from pyro_relevance.posterior.files import save_posterior
from pyro_relevance.search.structure import (
    STATE_SUFFIX,
    SearchResult,
    SearchSettings,
    search_structure,
)
from pyro_relevance.search.tasks import SearchData, SpaceSize, make_space, score_network
from pyro_relevance.training.checkpoint import remove_checkpoints

__all__ = ["run_search"]


def run_search(
    space: str,
    data: SearchData,
    settings: SearchSettings,
    folder: Path,
    *,
    command: str,
    size: SpaceSize = "small",
    progress: bool = True,
) -> tuple[SearchResult, str]:
    """Search, test, and write the run folder.

    Files: ``posterior.nc`` (ArviZ), ``posterior.safetensors``, ``network.safetensors`` (the plain
    trained network), ``record.json``, ``report.txt``, a figure of each structure as PDF and PNG,
    and, until all is written, ``checkpoints/``, from which a search that was killed goes on.

    Args:
        space: Name of the space.
        data: The data.
        settings: The settings.
        folder: The folder; made where it is missing.
        command: The command that repeats the run.
        size: As of `make_space`.
        progress: Whether progress bars are shown.

    Returns:
        The result, and the report as a text.
    """
    started = time.perf_counter()
    checkpoints = folder / "checkpoints"
    result = search_structure(
        make_space(space, data, size=size),
        data.train,
        likelihood=data.likelihood,
        settings=settings,
        folder=checkpoints,
        progress=progress,
    )
    metrics, seconds = score_network(result.network, data), time.perf_counter() - started
    text = _report(space, data, result, settings, metrics, seconds)
    idata = report.to_arviz(result.posterior, num_samples=200)
    report.save(idata, folder / "posterior.nc")
    save_posterior(result.posterior, folder / "posterior.safetensors")
    result.network.save(folder / "network.safetensors")
    for structure in dict.fromkeys(g.name.split(".")[0] for g in result.posterior.edges.operations):
        plots.save(plots.cell(idata, structure=structure), folder / structure)
    with replacing(folder / "report.txt") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", errors="replace")
    record = make_record(
        f"search_{space}_{data.name}",
        command=command,
        settings=_plain(dataclasses.asdict(settings)),
        rows=[row("search", data.name, [settings.seed], {n: [v] for n, v in metrics.items()})],
        wall_seconds=seconds,
        device=data.train[0].device,
        **_described(result),
    )
    write_json(folder / "record.json", record)
    remove_checkpoints(checkpoints, STATE_SUFFIX)
    return result, text


def _described(result: SearchResult) -> dict[str, Any]:
    return {
        "architecture": dict(result.architecture.operations),
        "candidates": [[dict(a.operations), v] for a, v in result.candidates],
        "trials": [[dict(a.operations), n, v] for a, n, v in result.trials],
        "stages": result.seconds,
        "receipt": result.network.receipt.to_dict(),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return value if isinstance(value, bool | int | float | str | None) else repr(value)


def _report(
    space: str,
    data: SearchData,
    result: SearchResult,
    settings: SearchSettings,
    metrics: dict[str, float],
    seconds: float,
) -> str:
    if result.trials:
        number = len({architecture for architecture, _, _ in result.trials})
        how = f"Chosen by short trainings of {number} architectures:"
    elif settings.shared and settings.finalists == "probable":
        how = "Chosen as the most probable architecture with a path from input to output:"
    else:
        how = f"Chosen among {len(result.candidates)} candidates by held-out log likelihood:"
    lines = [
        f"space {space}, {len(data.train[0]):,} training and {len(data.test[0]):,} test examples",
        "",
        "Posterior over operations, most probable of each edge:",
        str(result.report),
        "",
        how,
        str(result.architecture),
    ]
    free = free_edges(result.posterior.model.network, result.architecture)
    if free:
        lines.append(f"free (no path uses them): {', '.join(free)}")
    lines += [
        f"  trained for {epochs} epochs: {value:.4f} nats, {_short(architecture)}"
        for architecture, epochs, value in result.trials
    ]
    lines += ["", str(result.network.receipt), ""]
    lines += [f"{name}: {value:,.4g}" for name, value in metrics.items()]
    parts = ", ".join(f"{name} {value:.0f}" for name, value in result.seconds.items())
    lines.append(f"{seconds:.0f} seconds in all ({parts})")
    return "\n".join(lines)


def _short(architecture: Any) -> str:
    return " ".join(architecture.operations.values())
