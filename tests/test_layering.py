"""Imports go one way: a room knows the rooms below it, never those above."""

from __future__ import annotations

import ast
import functools
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "pyro_relevance"
ROOT = Path(__file__).resolve().parents[1] / PACKAGE

# From the bottom to the top. A room may import the rooms before it. Files directly in the package
# (errors, atomic writes, seeds) are below all rooms and import none of them.
ROOMS = (
    *("edges", "surgery", "masks", "graphs", "model", "posterior", "training", "search"),
    *("comparison", "commands"),
)
# What anyone may import, and what imports nothing but each other.
LEAVES = ("data", "plots")
ABOVE = frozenset({"__main__"})

# Takes tensors, returns tensors. These never sample a model, train or touch a disk.
PURE = ("masks", "model.distributions", "model.relaxations", "posterior.relevance", "edges.size")
PURE_MAY_NOT_IMPORT = frozenset(
    {"io", "logging", "os", "pathlib", "pickle", "shutil", "tempfile"}
    | {"pyro.infer", "pyro.optim", "torch.optim", "torch.utils.data", f"{PACKAGE}._files"}
)
PLOTS_MAY_NOT_IMPORT = frozenset({"torch", "pyro"})
MOST_ROOMS, MOST_FILES_AT_TOP, MOST_FILES, MOST_LINES, MOST_LINES_OF_FUNCTION = 12, 7, 15, 400, 60
LEAST_STORY = 3
"""Lines of a room's docstring."""


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _imports(tree: ast.AST) -> set[str]:
    """Return the dotted names that a file imports when it runs, inside functions too."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if _is_type_checking(node):
            continue  # a type is a word, not a dependency
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        else:
            found |= _imports(node)
    return found


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@functools.cache
def _imported(module: str) -> frozenset[str]:
    return frozenset(_imports(_tree(module)))


def _imported_of(module: str, names: frozenset[str]) -> list[str]:
    return sorted(name for name in _imported(module) if _starts_with(name, names))


def _require_none(faults: dict[str, list[str]], what: str) -> None:
    """Fail with all that is wrong, so that one run shows all of it."""
    lines = [f"{module}: {', '.join(wrong)}" for module, wrong in faults.items() if wrong]
    if lines:
        pytest.fail("\n".join([what, *lines]), pytrace=False)


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1  # with its docstring


def _own_imports(module: str) -> set[str]:
    return {name for name in _imported(module) if name in MODULES and name != module}


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _starts_with(name: str, prefixes: frozenset[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def _below(room: str) -> set[str]:
    """Rooms that a room may import."""
    if room in ROOMS:
        return {*ROOMS[: ROOMS.index(room) + 1], *LEAVES}
    return set(LEAVES) if room in LEAVES else set()


@pytest.mark.contract
def test_every_room_has_a_place_in_the_order():
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()}
    assert folders == {*ROOMS, *LEAVES}


@pytest.mark.contract
def test_rooms_import_rooms_below():
    faults = {}
    for module in MODULES:
        if "." in module and _room(module) not in ABOVE:
            rooms = {_room(name) for name in _own_imports(module)} & {*ROOMS, *LEAVES}
            faults[module] = sorted(rooms - _below(_room(module)))
    _require_none(faults, "These modules import rooms that are above them:")


@pytest.mark.contract
def test_imports_have_no_cycle():
    # A package's own __init__ offers what is inside: it comes after its files, not before them.
    graph = {module: _own_imports(module) - {PACKAGE} for module in MODULES}
    for module, names in graph.items():
        graph[module] = {name for name in names if not module.startswith(name + ".")}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"Import cycle: {' -> '.join(error.args[1])}")


@pytest.mark.contract
def test_the_map_stays_small():
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"]
    files = [path for path in ROOT.iterdir() if path.is_file()]
    assert len(folders) <= MOST_ROOMS
    assert len(files) <= MOST_FILES_AT_TOP, sorted(path.name for path in files)
    for folder in {path.parent for path in MODULES.values()}:
        held = [path.name for path in folder.glob("*.py")]
        assert len(held) <= MOST_FILES, f"{folder} holds {len(held)} files. Make a folder in it."


@pytest.mark.contract
def test_files_and_functions_can_be_read_in_one_go():
    faults = {}
    for module, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        lines = len(text.splitlines())
        faults[module] = [f"{lines} lines"] if lines > MOST_LINES else []
        for node in ast.walk(_tree(module)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = _length(node)
                if length > MOST_LINES_OF_FUNCTION:
                    faults[module].append(f"{node.name} has {length} lines")
    _require_none(faults, "These are too long to be read in one go:")


@pytest.mark.contract
def test_mathematics_neither_trains_nor_touches_disk():
    pure = frozenset(f"{PACKAGE}.{name}" for name in PURE)
    inside = [module for module in MODULES if _starts_with(module, pure)]
    assert len(inside) > len(PURE)
    faults = {module: _imported_of(module, PURE_MAY_NOT_IMPORT) for module in inside}
    _require_none(faults, "Mathematics imports what trains or touches a disk:")


@pytest.mark.contract
def test_plots_never_see_torch():
    inside = [module for module in MODULES if _room(module) == "plots"]
    faults = {module: _imported_of(module, PLOTS_MAY_NOT_IMPORT) for module in inside}
    _require_none(faults, "Plots import:")


@pytest.mark.contract
def test_only_one_folder_knows_arviz():
    others = [name for name in MODULES if not name.startswith(f"{PACKAGE}.posterior.arviz")]
    faults = {name: _imported_of(name, frozenset({"arviz"})) for name in others}
    _require_none(faults, "ArviZ is imported outside of its folder:")


@pytest.mark.contract
def test_every_room_tells_its_story():
    """A docstring of three lines or more, and the public names of a room that imports any."""
    faults = {}
    for room in (*ROOMS, *LEAVES):
        tree = _tree(f"{PACKAGE}.{room}")
        story = [line for line in (ast.get_docstring(tree) or "").splitlines() if line.strip()]
        listed = any(
            isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            for node in tree.body
        )
        faults[room] = [f"a docstring of {len(story)} lines"] if len(story) < LEAST_STORY else []
        if not listed and _own_imports(f"{PACKAGE}.{room}"):
            faults[room].append("no __all__")
    _require_none(faults, "These rooms do not say what they are:")
