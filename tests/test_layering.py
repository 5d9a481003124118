"""Imports go one way: a file knows the files below it in the path, never those above."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "pyro_relevance"
ROOT = Path(__file__).resolve().parents[1] / PACKAGE

# From the bottom to the top. A file may import files of its own layer (without a cycle) and of the
# layers below. Names are the files and folders directly in the package; what is inside a folder
# belongs to the layer of the folder.
LAYERS: dict[str, str] = {
    "errors and files": "errors _files",
    "mathematics and small types": """
        distributions relaxations schedules annealing latents
        relevance _gating masks _stability cost connectivity packing
        labels draws history batches augmentation random_state pyro_state tracing elementwise
        plain_modules networks plots checkpoint records snapshots
    """,
    "edges, priors, likelihoods, guides, elbo": """
        edges edge_groups edge_set flow unit_flow input_gates gate_factor graphs
        coupling coupled_units exported disjoint_sets label_tensors
        priors likelihoods guides elbo operation_elbo precision programs two_levels recording
        replay noise
    """,
    "model and surgery": """
        model guide_draws
        surgery derivation collapse resizing architecture receipt pruned_network
        constant_folding equivalence
    """,
    "posterior": "posterior evaluation architecture_posterior shared_weights",
    "training": """
        svi training callbacks preparation data_checks divergence plain_training fine_tuning
    """,
    "diagnostics, io, export": "diagnostics io export robustness",
    "searches": "query_search structure_search",
    "report": "report _report_memory _report_operations _report_structure _rule_path",
    "programs of the user": """
        tables data_root datasets images tabular table_run table_files table_report
        baselines search_run comparison
        cli __main__
    """,
}
LEVELS = {part: i for i, parts in enumerate(LAYERS.values()) for part in parts.split()}

# Mathematics: takes tensors, returns tensors. These never sample a model, train or touch a disk.
PURE = frozenset({"distributions", "relaxations", "schedules", "relevance", "masks", "cost"})
PURE_MAY_NOT_IMPORT = frozenset(
    {"io", "logging", "os", "pathlib", "pickle", "shutil", "tempfile"}
    | {"pyro.infer", "pyro.optim", "torch.optim", "torch.utils.data", f"{PACKAGE}._files"}
)
PLOTS_MAY_NOT_IMPORT = frozenset({"torch", "pyro"})


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


def _imported(module: str) -> set[str]:
    return _imports(ast.parse(MODULES[module].read_text(encoding="utf-8")))


def _own_imports(module: str) -> set[str]:
    return {name for name in _imported(module) if name in MODULES and name != module}


def _part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _layer(module: str) -> int:
    return LEVELS.get(_part(module), len(LAYERS))  # the package itself is above everything


def _starts_with(name: str, prefixes: frozenset[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


@pytest.mark.contract
def test_every_file_has_one_layer():
    listed = [part for parts in LAYERS.values() for part in parts.split()]
    assert len(listed) == len(set(listed))
    unlisted = {_part(module) for module in MODULES} - set(listed) - {""}
    assert not unlisted, f"Add {sorted(unlisted)} to LAYERS, as low as their imports allow."


@pytest.mark.contract
@pytest.mark.parametrize("module", [name for name in MODULES if "." in name])
def test_imports_go_down(module):
    upward = {
        name for name in _own_imports(module) if _layer(name) > _layer(module) and "." in name
    }
    assert not upward, f"{module} imports {sorted(upward)}, which are in a layer above"


@pytest.mark.contract
def test_imports_have_no_cycle():
    graph = {module: _own_imports(module) - {PACKAGE} for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"Import cycle: {' -> '.join(error.args[1])}")


@pytest.mark.contract
@pytest.mark.parametrize("module", [name for name in MODULES if _part(name) in PURE])
def test_mathematics_neither_trains_nor_touches_disk(module):
    forbidden = {name for name in _imported(module) if _starts_with(name, PURE_MAY_NOT_IMPORT)}
    assert not forbidden, f"{module} imports {sorted(forbidden)}"


@pytest.mark.contract
@pytest.mark.parametrize("module", [name for name in MODULES if _part(name) == "plots"])
def test_plots_never_see_torch(module):
    forbidden = {name for name in _imported(module) if _starts_with(name, PLOTS_MAY_NOT_IMPORT)}
    assert not forbidden, f"{module} imports {sorted(forbidden)}"


@pytest.mark.contract
@pytest.mark.parametrize("module", [name for name in MODULES if _part(name) != "report"])
def test_only_the_report_knows_arviz(module):
    assert not any(_starts_with(name, frozenset({"arviz"})) for name in _imported(module))
