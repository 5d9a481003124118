"""NAS-Bench-201 in the experiments: its table, repeated searches, choices by probability."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from analysis.nasbench201 import repeated
from analysis.nasbench201.proxy import make_network, strongest_of_all
from analysis.nasbench201.repeated import repeat
from analysis.nasbench201.table import Table, cell_edges, has_path
from pyro_relevance import find_edges
from pyro_relevance.graphs import spaces

CONVOLUTIONS = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
    "+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
)
DEAD = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|"


@pytest.fixture
def table(tmp_path: Path) -> Table:
    lines = [
        "arch,valid_acc_12ep,test_acc_200ep,macs_m",
        f"{CONVOLUTIONS},80.5,93.76,153.2",
        f"{DEAD},10.0,9.9,60.0",
    ]
    path = tmp_path / "cells.csv"
    path.write_text("\n".join(lines) + "\n")
    return Table.read(path)


@pytest.mark.exact
def test_the_table_is_read_by_cell(table: Table) -> None:
    cell = spaces.architecture_from_string(CONVOLUTIONS)
    assert table.validation_accuracy(cell) == 80.5
    assert table.column(cell, "macs_m") == 153.2
    assert table.reported_accuracy(CONVOLUTIONS) == 93.76
    row = table.largest_cell_row()
    assert row["metrics"]["test_accuracy"]["values"] == [93.76]


@pytest.mark.exact
def test_a_cell_without_a_path_has_the_accuracy_of_chance(table: Table) -> None:
    assert has_path(CONVOLUTIONS)
    assert not has_path(DEAD)
    assert table.reported_accuracy(DEAD) == 10.0


@pytest.mark.exact
def test_searches_are_repeated_and_timed_by_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(repeated.time, "perf_counter", lambda: clock[0])

    def search(name: str) -> Any:
        def run(seed: int) -> Any:
            clock[0] += 1.0 + seed
            return SimpleNamespace(label=f"{name}{seed}")

        return run

    found = repeat({"a": search("a"), "b": search("b")}, 3)
    assert {name: [one.result.label for one in runs] for name, runs in found.items()} == {
        "a": ["a0", "a1", "a2"],
        "b": ["b0", "b1", "b2"],
    }
    assert [one.seconds for one in found["b"]] == [1.0, 2.0, 3.0]


@pytest.mark.exact
def test_the_strongest_of_all_may_be_none() -> None:
    edges = cell_edges()
    chances = {group.name: torch.full((group.num_edges,), 0.1) for group in edges.operations}
    for group in edges.operations:
        chances[group.name][group.labels.index("none")] = 0.6
    assert set(strongest_of_all(edges, chances).operations.values()) == {"none"}


@pytest.mark.contract
def test_the_proxy_has_the_operations_of_the_cell() -> None:
    proxy = find_edges(make_network(False), granularity="operation")
    cell = cell_edges()
    assert [g.labels for g in proxy.operations] == [g.labels for g in cell.operations]
