"""The table of a comparison: numbers as they are, for reading and for a paper."""

from __future__ import annotations

import json

import pytest
import torch

from pyro_relevance.comparison import Comparison, comparison_record, latex_table, text_table
from pyro_relevance.comparison.tables import choice_stability
from pyro_relevance.masks import Mask
from pyro_relevance.posterior.diagnostics import stability


def mask(*kept):
    return Mask({"hidden1.units": torch.tensor(kept).bool()})


def results():
    def run(rmse, size, choice):
        metrics = {
            "rmse": rmse,
            "num_parameters": size,
            "minutes": 0.5,
            "rmse_pgd": 2 * rmse,
            "minutes_search": 0.1,
        }
        chosen = None if choice is None else {"mask": choice.to_json()}
        return {"metrics": metrics, "choice": chosen, "plan": {"num_epochs": 3}}

    return {
        "dense": {0: run(3.0, 12_345, None), 1: run(5.0, 12_345, None)},
        "magnitude": {0: run(2.0, 100, mask(1, 1, 0, 0)), 1: run(2.5, 200, mask(1, 0, 1, 0))},
        "filters": {0: run(2.0, 100, mask(1, 1, 0, 0))},
    }


@pytest.fixture
def record():
    comparison = Comparison("boston", ("dense", "magnitude", "filters"), 0.5, num_seeds=2)
    made = comparison_record(
        comparison,
        results(),
        failures={"darts-first, seed 1": "no path"},
        command="c",
        wall_seconds=7.0,
    )
    return json.loads(json.dumps(made))


@pytest.mark.exact
def test_the_record_has_means_errors_and_stability(record):
    rows = {row["method"]: row for row in record["rows"]}
    assert rows["dense"]["metrics"]["rmse"]["mean"] == 4.0
    assert rows["dense"]["metrics"]["rmse"]["se"] == pytest.approx(1.0)
    assert rows["magnitude"]["seeds"] == [0, 1]
    expected = stability([mask(1, 1, 0, 0), mask(1, 0, 1, 0)])
    assert rows["magnitude"]["stability"]["index"] == expected.index
    assert rows["dense"]["stability"] is None
    assert rows["filters"]["stability"] is None
    assert record["settings"]["budget_minutes"] == 0.5
    assert record["settings"]["methods"] == ["dense", "magnitude", "filters"]


@pytest.mark.exact
def test_the_table_can_be_read(record):
    lines = text_table(record).splitlines()
    assert len({len(line.split("  ")[0]) for line in lines}) > 0
    heading = lines[0]
    for name in ("method", "parameters", "minutes", "RMSE", "PGD", "stability"):
        assert name in heading
    assert "search" not in heading
    assert "12,345 ± 0" in lines[1]
    assert "4.000 ± 1.000" in lines[1]
    assert lines[1].endswith("-")
    assert "2.250 ± 0.250" in lines[2]
    assert "4.50 ± 0.50" in lines[2]
    assert "100 ± ?" in lines[3]
    assert lines[4:] == ["failed: darts-first, seed 1: no path"]


@pytest.mark.exact
def test_the_table_goes_into_a_paper(record):
    text = latex_table(record)
    lines = text.splitlines()
    assert lines[0] == r"\begin{tabular}{lrrrrr}"
    assert [lines[1], lines[3], lines[-2], lines[-1]] == [
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert lines[4] == (
        r"dense & $12{,}345 \pm 0$ & $0.50 \pm 0.00$ & $4.000 \pm 1.000$ & $8.00 \pm 2.00$ & - \\"
    )
    assert all(line.count("&") == 5 for line in lines[4:-2])


@pytest.mark.contract
def test_cells_are_looked_up_in_the_benchmark(tmp_path):
    from pyro_relevance.graphs.spaces import architecture_from_string

    cell = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    (tmp_path / "table.csv").write_text(f"arch,test_acc_200ep\n{cell},12.5\n")
    content = results()["filters"][0]
    content["choice"]["architecture"] = dict(architecture_from_string(cell).operations)
    comparison = Comparison("nasbench201", ("darts-first",), 1.0, table=str(tmp_path / "table.csv"))
    found = {"darts-first": {0: content}}
    made = comparison_record(comparison, found, failures={}, command="c", wall_seconds=1.0)
    assert made["rows"][0]["metrics"]["benchmark_accuracy"]["mean"] == 12.5
    assert "benchmark_accuracy" not in content["metrics"]
    assert "12.50 ± ?" in text_table(made)


@pytest.mark.exact
def test_stability_needs_a_choice_of_each_seed():
    chosen = {"mask": mask(1, 0, 0, 1).to_json()}
    assert choice_stability([chosen, None]) is None
    assert choice_stability([chosen]) is None
    assert choice_stability([chosen, chosen])["index"] == 1.0
