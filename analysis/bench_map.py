"""Map of the code: modules, rooms, chains of imports, and the files that public calls enter.

Reads the imports of a checkout as text, and runs five public calls, each in a process of its own,
which notes every file of the package whose functions are called.

    python -m analysis.bench_map [--root CHECKOUT] [--name NAME]
"""

from __future__ import annotations

import ast
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from analysis.command import Command
from analysis.records import runs_row, write_record

PACKAGE = "pyro_relevance"
HERE = Path(__file__).resolve().parents[1]

NOTE = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch
import pyro_relevance as pr
root = pr.__path__[0] + "/"
entered = set()
def note(frame, event, argument):
    name = frame.f_code.co_filename
    called = frame.f_code.co_flags & 1 and frame.f_code.co_name != "__getattr__"
    if called and name.startswith(root):  # not a module or a class that is being read
        entered.add(name[len(root):])
"""
MODEL = """
network = pr.networks.MLP(5, [8], 1)
edges = pr.find_edges(network, granularity=("input", "weight"))
x = torch.randn(64, 5)
y = x[:, 0]
model = pr.RelevanceModel(
    network, edges, likelihood=pr.likelihoods.Gaussian(0.3), num_data=64
)
"""
CALLS = {
    "find_edges": """
network = pr.networks.MLP(5, [8], 1)
sys.setprofile(note)
pr.find_edges(network, granularity=("input", "unit", "weight"))
""",
    "find_edges(example_input=...)": """
network = pr.networks.ResNet20()
sys.setprofile(note)
pr.find_edges(network, example_input=torch.randn(1, 3, 32, 32))
""",
    "fit": MODEL + "sys.setprofile(note)\npr.fit(model, (x, y), num_epochs=2)\n",
    "to_arviz": MODEL
    + "fit = pr.fit(model, (x, y), num_epochs=2)\nsys.setprofile(note)\n"
    + "pr.to_arviz(fit.posterior, data=(x, y))\n",
    "pyro-relevance table": """
import contextlib, io, runpy
sys.argv = ["pyro-relevance", "table", "--steps", "60", "--chains", "2", "--folds", "2"]
sys.argv += ["--quiet", "--out", "run"]
sys.setprofile(note)
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    runpy.run_module("pyro_relevance", run_name="__main__")
""",
}
REPORT = "\nsys.setprofile(None)\nprint('ENTERED', json.dumps(sorted(entered)))\n"


def modules_of(root: Path) -> dict[str, Path]:
    """Return the path of each module of the package by its dotted name."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.AST) -> set[str]:
    """Return the dotted names that a file imports, inside functions too, but not for types."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        else:
            found |= imports(node)
    return found


def longest_chain(graph: dict[str, set[str]]) -> list[str]:
    """Return the longest path of a graph without cycles, from the top to the bottom."""
    tuple(TopologicalSorter(graph).static_order())  # a cycle is an error, not an endless search

    @cache
    def chain(name: str) -> tuple[str, ...]:
        longest: tuple[str, ...] = max((chain(n) for n in sorted(graph[name])), key=len, default=())
        return (name, *longest)

    return list(max((chain(name) for name in sorted(graph)), key=len))


def static_map(root: Path) -> dict[str, Any]:
    """Return what the files and their imports say."""
    modules = modules_of(root)
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in modules.items()}
    graph = {
        name: {
            other
            for other in imports(tree)
            if other in modules and other not in (name, PACKAGE) and not name.startswith(other)
        }
        for name, tree in trees.items()
    }
    rooms: dict[str, set[str]] = {}
    for name, others in graph.items():
        part = name.removeprefix(f"{PACKAGE}.").split(".")[0]
        below = {other.split(".")[1] for other in others} - {part}
        rooms[part] = rooms.get(part, set()) | below
    rooms = {name: {n for n in below if n in rooms} for name, below in rooms.items()}
    lines = [len(path.read_text(encoding="utf-8").splitlines()) for path in modules.values()]
    functions = [
        node.end_lineno - node.lineno + 1
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    ]
    top = list((root / PACKAGE).iterdir())
    return {
        "modules": len(modules),
        "lines": sum(lines),
        "folders_at_the_top": sum(p.is_dir() and (p / "__init__.py").exists() for p in top),
        "files_at_the_top": sum(p.is_file() for p in top),
        "most_files_in_a_folder": max(
            len(list(f.glob("*.py"))) for f in {p.parent for p in modules.values()}
        ),
        "lines_of_a_module_median": statistics.median(lines),
        "lines_of_a_module_max": max(lines),
        "lines_of_a_function_max": max(functions),
        "longest_chain_of_files": len(longest_chain(graph)),
        "longest_chain_at_the_top": len(longest_chain(rooms)),
    }


def entered_files(root: Path, call: str) -> list[str]:
    """Return the files of the package whose functions a call enters."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", NOTE + CALLS[call] + REPORT],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(root), "MPLBACKEND": "Agg"},
            capture_output=True,
            text=True,
            check=False,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("ENTERED ")]
    if not lines:
        sys.exit(f"Expected {call} to run in {root}, but got:\n{done.stderr}")
    files: list[str] = json.loads(lines[0].removeprefix("ENTERED "))
    return files


def main() -> None:
    """Measure a checkout and write the record."""
    command = Command("bench_map", __doc__)
    command.add_argument("--root", type=Path, default=HERE, help="a checkout (default: this one)")
    command.add_argument("--name", default="map", help="name of the record (default: map)")
    given = command.parse_args()
    started = time.perf_counter()
    root = given.root.resolve()
    entered = {call: entered_files(root, call) for call in CALLS}
    tops = {call: {name.split("/")[0] for name in files} for call, files in entered.items()}
    metrics = {
        **static_map(root),
        **{f"files entered by {call}": len(files) for call, files in entered.items()},
        **{f"places at the top entered by {call}": len(names) for call, names in tops.items()},
    }
    for name, value in metrics.items():
        print(f"{value:>8,}  {name}")
    path = write_record(
        given.name,
        command=f"python -m analysis.bench_map --name {given.name}",
        settings={"calls": CALLS},
        rows=[runs_row("code", PACKAGE, [metrics])],
        wall_seconds=time.perf_counter() - started,
        folder=given.out,
        entered=entered,
    )
    print(path)


if __name__ == "__main__":
    main()
