"""What `import pyro_relevance` does to a process: nothing but offer its names."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pyro_relevance

ROOT = Path(__file__).parents[1]
COSTLY = ("arviz", "matplotlib", "torchvision", "sklearn", "pandas", "xarray", "tqdm")

PROGRAM = f"""
import random, sys, warnings
import numpy, torch, pyro

def state():
    return {{
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "settings": pyro.settings.get(),  # validation flags, local parameters
        "params": set(pyro.get_param_store().keys()),
        "handlers": len(pyro.poutine.runtime._PYRO_STACK),
        "filters": list(warnings.filters),
        "rng": (torch.get_rng_state().tolist(), random.getstate(), str(numpy.random.get_state())),
        "hook": sys.excepthook,
        "display": sys.displayhook,
        "path": list(sys.path),
    }}

before, loaded = state(), set(sys.modules)
import pyro_relevance
after = state()
changed = [name for name in before if before[name] != after[name]]
assert not changed, changed
added = {{name.split(".")[0] for name in set(sys.modules) - loaded}}
costly = added & set({COSTLY!r})
assert not costly, costly
"""

# Prints the names that cannot be resolved. A type without its module may be any public module's.
RESOLVE = """
import json, sys
import pyro_relevance as pr

def reached(name):
    value = pr
    for part in name.split("."):
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True

names, types = json.loads(sys.argv[1])
missing = [name for name in names if not reached(name)]
places = ["", *(name + "." for name in pr.__all__)]
missing += [name for name in types if not any(reached(place + name) for place in places)]
print(json.dumps(missing))
"""

# Each name is the first that a process asks for: one that has imported torch and Pyro, but not the
# library, forks for each of them.
FIRST = """
import os, sys
import pyro, torch
sys.dont_write_bytecode, sys.pycache_prefix = False, sys.argv[1]
assert "pyro_relevance" not in sys.modules
for name in sys.argv[2:]:
    child = os.fork()
    if child == 0:
        try:
            import pyro_relevance as pr
            for one in name.split(","):
                getattr(pr, one)
        except BaseException as error:
            print(f"{name}: {error!r}", flush=True)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        print(f"{name}: status {status}", flush=True)
"""


def fresh(program: str, *arguments: str) -> str:
    """Run a program in a process of its own and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path[:] = {sys.path!r}\n{program}", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.contract
def test_import_changes_nothing_and_is_cheap():
    assert fresh(PROGRAM) == ""


@pytest.mark.contract
def test_public_names():
    names = pyro_relevance.__all__
    assert len(names) == len(set(names))
    missing = [name for name in names if not hasattr(pyro_relevance, name)]
    assert not missing
    undocumented = [name for name in names if not getattr(pyro_relevance, name).__doc__]
    assert undocumented in ([], ["__version__"])


@pytest.mark.contract
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")
def test_every_name_may_be_the_first_that_is_used(tmp_path):
    # Functions and types of one room come from one import, so they share a process.
    together: dict[str, list[str]] = {}
    for name in pyro_relevance.__all__:
        value = getattr(pyro_relevance, name)
        home = name if inspect.ismodule(value) else value.__module__.split(".")[1]
        together.setdefault(home, []).append(name)
    assert fresh(FIRST, str(tmp_path), *map(",".join, together.values())) == ""


def documented_names() -> tuple[set[str], set[str]]:
    """Return the names behind ``pr.`` and public modules, and the types, that texts mention."""
    texts = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
    text = "\n".join(path.read_text(encoding="utf-8") for path in texts)
    names = set(re.findall(r"\bpr\.([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)", text))
    marked = re.findall(r"`([^`\n]+)`", text)
    public = {name: getattr(pyro_relevance, name) for name in pyro_relevance.__all__}
    modules = [name for name, value in public.items() if inspect.ismodule(value)]
    for word in marked:
        found = re.match(r"([a-z]\w*)\.[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(?![\w/])", word)
        if found and found[1] in modules:
            names.add(found[0].removesuffix(".py"))
    types = {word for word in marked if re.fullmatch(r"[A-Z][a-z]\w*[A-Z]\w*", word)}
    return names, types - {"InferenceData", "DataTree", "DistributedDataParallel"}  # of others


@pytest.mark.contract
def test_every_name_of_the_texts_exists():
    names, types = documented_names()
    # The search finds what it is for.
    assert {"find_edges", "tables.split_rows", "graphs.spaces.mlp_space"} <= names
    assert {"query_search.search_by_queries", "robustness.robustness"} <= names
    assert {"collapse.structure_report", "shared_weights.SharedWeights"} <= names
    assert {"HierarchicalPrior", "LocalExpectationELBO"} <= types
    assert json.loads(fresh(RESOLVE, json.dumps([sorted(names), sorted(types)]))) == []


@pytest.mark.contract
def test_a_public_call_has_at_most_twelve_keywords_of_its_own():
    calls = [getattr(pyro_relevance, name) for name in pyro_relevance.__all__]
    calls += [getattr(module, name) for module in calls for name in getattr(module, "__all__", ())]
    keywords = {
        f"{call.__module__}.{call.__qualname__}": [
            parameter.name
            for parameter in inspect.signature(call).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY
        ]
        for call in calls
        if inspect.isfunction(call)
    }
    assert "pyro_relevance.training.svi.fit" in keywords
    many = {name: names for name, names in keywords.items() if len(names) > 12}
    assert not many
