"""Pages of the API, written from the public names: a new name is on the site without an edit."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pyro_relevance

NAME = "pyro_relevance"
# The order in which data flow; modules that are not named here come last.
ORDER = (
    *("find_edges", "Edges", "RelevanceModel", "fit", "Fit", "Posterior", "diagnose"),
    *("holdout_test", "to_arviz", "rule_path", "Mask", "prune", "apply_mask", "PrunedNetwork"),
    *("load_pruned", "fine_tune", "derive", "search_structure", "load_run"),
)
MODULES = (
    *("sklearn", "tables", "datasets", "images", "augmentation", "networks", "graphs"),
    *("operators", "priors", "likelihoods", "relaxations", "guides", "distributions"),
    *("schedules", "callbacks", "relevance", "intervals", "diagnostics", "holdout"),
    *("before_pruning", "report", "masks", "plots", "query_search", "shared_weights", "collapse"),
    *("baselines", "comparison", "robustness", "errors"),
)


def write_api(folder: Path) -> None:
    """Write one page for the names of the library itself and one for each public module.

    Args:
        folder: Where pages go; files of modules that are no longer public are removed.
    """
    names = sorted(pyro_relevance.__all__, key=lambda name: (_place(name, ORDER), name))
    values = {name: getattr(pyro_relevance, name) for name in names}
    own = [name for name, value in values.items() if not inspect.ismodule(value)]
    modules = sorted(set(values) - set(own), key=lambda name: (_place(name, MODULES), name))
    pages = {"index": _index(own, modules)}
    for name in modules:
        pages[name] = _page(name, values[name])
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.rst"):
        if path.stem not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text("utf-8") != text:  # else all is built again
            path.write_text(text, "utf-8")


def _place(name: str, order: tuple[str, ...]) -> int:
    return order.index(name) if name in order else len(order)


def _index(own: list[str], modules: list[str]) -> str:
    lines = [*_title("API"), f".. automodule:: {NAME}", "   :no-members:", ""]
    lines += _table([f"{NAME}.{name}" for name in own])
    lines += [*_title("Modules", "-"), ".. list-table::", "   :widths: 20 80", ""]
    for name in modules:
        story = _first_sentence(getattr(pyro_relevance, name))
        lines += [f"   * - :doc:`{name}`", f"     - {story}"]
    lines += ["", ".. toctree::", "   :hidden:", ""]
    lines += [*(f"   {name}" for name in modules), ""]
    lines += _title("Names", "-")
    for name in own:
        lines += _entry(f"{NAME}.{name}", getattr(pyro_relevance, name))
    return "\n".join(lines) + "\n"


def _page(name: str, module: ModuleType) -> str:
    lines = [*_title(name), f".. automodule:: {module.__name__}", "   :no-members:", ""]
    lines += _listed(f"{NAME}.{name}", module)
    for inner in _public(module):
        value = getattr(module, inner)
        if inspect.ismodule(value):
            path = f"{NAME}.{name}.{inner}"
            lines += [*_title(f"{name}.{inner}", "-"), f".. automodule:: {value.__name__}"]
            lines += ["   :no-members:", "", *_listed(path, value)]
    return "\n".join(lines) + "\n"


def _public(module: ModuleType) -> list[str]:
    return list(getattr(module, "__all__", ()))


def _listed(path: str, module: ModuleType) -> list[str]:
    """Return the table of a module's names and their entries; modules in it come apart."""
    values = {name: getattr(module, name) for name in _public(module)}
    values = {name: value for name, value in values.items() if not inspect.ismodule(value)}
    described = [name for name, value in values.items() if callable(value)]
    lines = _table([f"{path}.{name}" for name in described])
    for name, value in values.items():
        entry = _entry(f"{path}.{name}", value)
        if getattr(pyro_relevance, name, None) is value:  # one target for one object
            entry.insert(1, "   :no-index:")
        lines += entry
    return lines


def _entry(path: str, value: Any) -> list[str]:
    if inspect.isclass(value):
        return [f".. autoclass:: {path}", ""]
    if inspect.isfunction(value):
        return [f".. autofunction:: {path}", ""]
    shown = repr(value) if isinstance(value, int | float | str | tuple) else ""
    lines = [f".. py:data:: {path}", f"   :type: {type(value).__name__}"]
    return [*lines, *([f"   :value: {shown}"] if 0 < len(shown) < 200 else []), ""]


def _table(paths: list[str]) -> list[str]:
    # Names are spelled in full, so no module may be the current one.
    lines = [".. py:currentmodule:: None", "", ".. autosummary::", "   :nosignatures:", ""]
    return [*lines, *(f"   ~{path}" for path in paths), ""]


def _title(text: str, line: str = "=") -> list[str]:
    return [text, line * len(text), ""]


def _first_sentence(module: ModuleType) -> str:
    first = (module.__doc__ or "").strip().split("\n\n")[0]
    return " ".join(first.split())
