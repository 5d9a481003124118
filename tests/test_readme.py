"""The README's quickstart runs as it is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.image_files import write_mnist

ROOT = Path(__file__).parents[1]


def block(name: str) -> str:
    found = re.search(
        rf"<!-- {name} -->\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S
    )
    assert found is not None
    return found.group(1)


def run(code: str, folder: Path) -> str:
    """Run code in a process of its own and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.contract
def test_the_quickstart_runs_and_prints_what_it_says(tmp_path: Path) -> None:
    code = block("quickstart")
    assert "num_epochs=400" in code
    shortened = code.replace("num_epochs=400", "num_epochs=3").replace(
        "num_chains=4", "num_chains=2"
    )
    printed = run(shortened, tmp_path)
    for expected in (
        "inputs_inclusion_probability[LSTAT]",
        "accepted risk",
        "parameters",
        "max |masked - pruned|",
    ):
        assert expected in printed
    assert {path.name for path in tmp_path.iterdir()} == {"relevance.pdf", "relevance.png"}


@pytest.mark.contract
def test_the_example_on_images_runs(tmp_path: Path) -> None:
    write_mnist(tmp_path / "data", num_train=130, num_test=10)
    code = block("images")
    assert "num_epochs=10," in code
    shortened = code.replace(", download=True", "").replace("num_epochs=10,", "num_epochs=1,")
    printed = run(shortened, tmp_path)
    assert "conv2.units" in printed
    assert "max |masked - pruned|" in printed
    assert (tmp_path / "small.pt2").exists()


@pytest.mark.contract
def test_the_example_of_baselines_runs(tmp_path: Path) -> None:
    printed = run(block("baselines"), tmp_path)
    assert printed.count("Cost(") == 4
    assert "a1 -> h1: " in printed


@pytest.mark.contract
def test_links_point_to_files_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert len(targets) > 10
    assert [target for target in targets if not (ROOT / target).exists()] == []


@pytest.mark.contract
def test_the_example_of_a_graph_runs(tmp_path: Path) -> None:
    code = block("graph")
    assert "num_epochs=300" in code
    printed = run(code.replace("num_epochs=300", "num_epochs=2"), tmp_path)
    assert "'graph.h.out': tensor(" in printed
    assert "max |masked - pruned|" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"graph.pdf", "graph.png"}
