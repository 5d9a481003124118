"""The code of README and documentation runs as it is written, and what its comments say is so."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pyro_relevance as pr
from pyro_relevance.commands.main import _parser
from tests.image_files import write_mnist
from tests.two_processes import in_two_processes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("docs/*.md"))}
TEXTS = "\n".join([README, *PAGES.values()])
BLOCKS = ("short", "sklearn", "first", "quickstart", "relevant", "images", "graph", "baselines")
BLOCKS += ("scores", "gates", "budget", "distributed")


def block(name: str) -> str:
    found = re.findall(rf"<!-- {name} -->\n```python\n(.*?)```", TEXTS, re.S)
    assert len(found) == 1
    return str(found[0])


def replaced(code: str, **values: tuple[str, str]) -> str:
    """Return code with other numbers; those that are replaced must be there."""
    for name, (old, new) in values.items():
        assert f"{name}={old}" in code
        code = code.replace(f"{name}={old}", f"{name}={new}")
    return code


def run(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run code in a folder and return its variables."""
    monkeypatch.chdir(folder)
    variables: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, "README.md", "exec"), variables)
    return variables


@pytest.mark.contract
def test_every_block_of_python_is_run_here() -> None:
    marked = re.findall(r"^<!-- (\w+) -->\n```python$", TEXTS, re.M)
    assert sorted(marked) == sorted(BLOCKS)
    assert len(re.findall(r"^```python$", TEXTS, re.M)) == len(BLOCKS)


@pytest.mark.contract
def test_the_readme_is_read_in_one_go() -> None:
    assert len(README.splitlines()) <= 250


@pytest.mark.contract
def test_the_short_program_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = run(block("short"), tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"relevance.pdf", "relevance.png"}
    for text in ("kept", "risk, if the posterior is right", "MACs per example", "max |masked"):
        assert text in printed
    assert "The fit failed" not in printed
    assert made["small"].receipt.max_difference < 1e-5
    x, y, rows = made["x"], made["y"], made["test"]
    with torch.no_grad():
        error = (made["small"](x[rows])[:, 0] - y[rows]).square().mean()
    assert float(error) < 0.5 * float(y[rows].var())


@pytest.mark.contract
def test_the_first_program_finds_the_strongest_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = run(block("first"), tmp_path, monkeypatch)["model"]
    assert {"LSTAT", "RM"} <= set(model.feature_names_in_[model.relevant_])
    assert {path.name for path in tmp_path.iterdir()} == {"boston"}


@pytest.mark.contract
def test_a_training_to_a_budget_ends_within_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = replaced(block("budget"), num_epochs=("200", "20"))
    fitted = run(code, tmp_path, monkeypatch)["fitted"]
    assert 297 <= fitted.pruned.receipt.after.num_nonzero <= 300


@pytest.mark.contract
def test_scores_of_ones_own_prune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run(block("scores"), tmp_path, monkeypatch)
    assert int(made["mask"]["0.units"].sum()) == 4
    assert made["small"].receipt.max_difference < 1e-5


@pytest.mark.statistical
def test_what_comes_in_the_place_of_gates_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run(block("gates"), tmp_path, monkeypatch)
    assert made["mask"]["inputs"].tolist() == [True, True, False, False, False, False]
    assert made["small"].receipt.max_difference < 1e-5


@pytest.mark.contract
def test_the_quickstart_finds_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = run(block("quickstart"), tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"relevance.pdf", "relevance.png"}
    # The table: one line for each input, a probability with its spread.
    rows = re.findall(r"^inputs_inclusion_probability\[(\w+)\] +([\d.]+)", printed, re.M)
    assert [name for name, _ in rows] == list(made["encoder"].input_labels)
    assert all(0 <= float(mean) <= 1 for _, mean in rows)
    assert float(dict(rows)["LSTAT"]) > 0.9
    # What is kept, and the risk as the posterior sees it.
    mask, edges, small = made["mask"], made["edges"], made["small"]
    assert f"{sum(int(keep.sum()) for keep in mask.values())} / {edges.num_edges} kept" in printed
    expected = sum(
        float((1 - p[0])[mask[name]].sum())
        for name, p in made["posterior"].inclusion_probability().items()
    )
    assert f"risk, if the posterior is right: {expected:.3g} of the kept edges" in printed
    # Parameters, MACs, bytes, latency before and after, max |difference|.
    for text in (
        "parameters",
        "MACs per example",
        "bytes on disk",
        "ms per pass of",
        "max |masked",
    ):
        assert text in printed
    assert small.receipt.max_difference < 1e-5
    assert small.receipt.compression_ratio > 2
    # It predicts: half of the variance is less than any of many runs leaves.
    x, y, rows_held = made["x"], made["y"], made["test_rows"]
    with torch.no_grad():
        error = (small(x[rows_held])[:, 0] - y[rows_held]).square().mean()
    assert float(error) < 0.5 * float(y[rows_held].var())


@pytest.mark.statistical
def test_the_example_of_relevant_inputs_finds_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tested = run(block("relevant"), tmp_path, monkeypatch)["tested"]
    assert tested.relevant == ("b",)
    assert tested.inseparable == (("a", "copy of a"),)
    assert "a or copy of a: cannot be told apart" in capsys.readouterr().out


@pytest.mark.contract
def test_the_example_of_estimators_predicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = run(block("sklearn"), tmp_path, monkeypatch)
    assert "The fit failed" not in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"boston"}
    X, y = made["X"].iloc[made["test_rows"]], made["y"].iloc[made["test_rows"]]
    model = made["model"]
    assert model.score(X, y) > 0.7
    assert {"LSTAT", "RM"} <= set(model.feature_names_in_[model.relevant_])
    loaded = pr.sklearn.RelevanceRegressor.load(tmp_path / "boston")
    for other in (made["run"], model):
        np.testing.assert_allclose(loaded.predict(X), other.predict(X), rtol=1e-9)


@pytest.mark.contract
def test_the_example_on_images_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mnist(tmp_path / "data", num_train=130, num_test=10)
    code = replaced(block("images").replace(", download=True", ""), num_epochs=("10,", "1,"))
    made = run(code, tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    for text in ("conv1.units", "conv2.units", "hidden1.units", "max |masked - "):
        assert text in printed
    exported = torch.export.load(tmp_path / "small.pt2").module()
    x = made["x"][:128]
    torch.testing.assert_close(exported(x), made["better"].eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.contract
def test_the_example_of_baselines_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = run(block("baselines"), tmp_path, monkeypatch)
    assert capsys.readouterr().out.count("Cost(") == 5
    for name in ("han", "gradual", "ticket"):  # density 0.2
        kept = sum(int(keep.sum()) for keep in made[name].choice.values())
        assert kept == round(0.2 * (8 * 30 + 30))
    assert sum(stage.kind == "search" for stage in made["found"].history) == 12
    for name in ("darts", "found"):
        assert "mlp.a1.h1" in made[name].choice.operations
    x, y = made["x"], made["y"]
    for name in ("han", "gradual", "ticket", "darts", "found"):
        result = made[name]
        assert {"search", "training", "retraining"} == set(result.seconds)
        assert sum(p.numel() for p in result.network.parameters()) == result.cost.num_parameters
        with torch.no_grad():
            error = (result.network(x)[:, 0] - y).square().mean()
        assert float(error) < float(y.var())


# The example of a graph gives a primitive a name, once in a process.

MEASURED = """
import json
print(json.dumps({
    "probability": {name: p.tolist() for name, p in probability.items()},
    "labels": {group.name: group.labels for group in edges.operations},
    "best": best.operations,
    "difference": small.receipt.max_difference,
    "gates": [name for name, _ in small.named_buffers() if "gate" in name],
    "dims": idata["relevance"]["graph_operation_probability"].dims,
}))
"""


def graph_example(code: str, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", code + MEASURED],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("{'graph.left.h': tensor(")
    assert {path.name for path in folder.iterdir()} == {"graph.pdf", "graph.png"}
    found: dict[str, Any] = json.loads(lines[-1])
    assert found["difference"] < 1e-5  # equal to the graph with hard gates
    assert found["gates"] == []
    assert found["dims"][-3:] == ["source", "target", "operation"]
    return found


@pytest.mark.contract
def test_the_example_of_a_graph_runs(tmp_path: Path) -> None:
    found = graph_example(replaced(block("graph"), num_epochs=("300", "2")), tmp_path)
    assert found["labels"]["graph.right.h"] == ["none", "linear_relu", "attention"]
    assert set(found["best"]) == {"graph.left.h", "graph.right.h", "graph.h.out"}


@pytest.mark.statistical
@pytest.mark.slow  # the test above runs the same lines with 2 epochs in the place of 300
def test_the_example_of_a_graph_finds_that_the_right_does_not_matter(tmp_path: Path) -> None:
    code = block("graph")
    assert "# none on right -> h: 0.998;" in code
    found = graph_example(code, tmp_path)
    probability = found["probability"]
    # Not 0.998 to the digit: other processors round otherwise, and 300 epochs are many.
    assert probability["graph.right.h"][0] > 0.97
    assert probability["graph.left.h"][0] < 0.03
    assert found["best"]["graph.right.h"] == "none"
    assert found["best"]["graph.left.h"] != "none"


# Commands


def commands() -> list[str]:
    """Return the command lines of the texts: those of their blocks, and those between words."""
    blocks = re.findall(r"^```bash\n(.*?)```", TEXTS, re.S | re.M)
    lines = [part for text in blocks for line in text.splitlines() for part in line.split("&&")]
    lines += re.findall(r"`([^`\n]+)`", TEXTS)
    return [line.strip() for line in lines if "pyro-relevance " in line]


@pytest.mark.contract
def test_commands_are_understood_by_the_parser() -> None:
    parser, understood = _parser(), []
    for line in commands():
        words = shlex.split(line, comments=True)
        words = words[words.index("pyro-relevance") + 1 :]
        if "--help" in words or "..." in words:
            continue
        if len(words) == 1 and words[0] != "table":  # a command that is named, not one to type
            assert words[0] in ("predict", "search", "compare")
            continue
        given = parser.parse_args(words)
        assert callable(given.run)
        understood.append(words[0])
    assert len(understood) >= 10
    assert set(understood) == {"table", "predict", "search", "compare"}


@pytest.mark.contract
def test_options_and_modules_of_the_text_exist() -> None:
    parser = _parser()
    (action,) = (a for a in parser._actions if getattr(a, "choices", None))
    options = {o for sub in action.choices.values() for a in sub._actions for o in a.option_strings}
    text = "\n".join(commands() + re.findall(r"`(--[^`\n]+)`", README + PAGES["commands.md"]))
    text = re.sub(r"torchrun.*?pyro-relevance", "", text)  # its own options
    text += " ".join(re.findall(r"#.*", "\n".join(commands())))
    mentioned = set(re.findall(r"(?<!\S)--[a-z][\w-]*", text))
    assert {"--target", "--space", "--budget-minutes", "--device"} <= mentioned
    assert mentioned <= options
    modules = re.findall(r"python -m ((?!pip|pytest|sphinx)[\w.]+)", TEXTS)
    assert [name for name in modules if find_spec(name) is None] == []


@pytest.mark.contract
@pytest.mark.parametrize("name", ["README.md", *(f"docs/{name}" for name in PAGES)])
def test_links_point_to_files_that_exist(name: str) -> None:
    path = ROOT / name
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)", path.read_text("utf-8"))
    assert name != "README.md" or len(targets) > 10
    assert [target for target in targets if not (path.parent / target).exists()] == []


@pytest.mark.contract
def test_the_script_for_several_processes_runs_in_two(tmp_path: Path) -> None:
    code = replaced(block("distributed"), num_epochs=("100", "3"))
    (tmp_path / "train.py").write_text(code)
    in_two_processes("train.py", folder=tmp_path)
    posterior = pr.load_posterior(tmp_path / "posterior.safetensors")
    assert posterior.num_chains == 1
    assert (tmp_path / "distributed.safetensors").exists()
