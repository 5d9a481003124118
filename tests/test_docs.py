"""The scripts of the documentation, and the check of its links; its build runs the scripts."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import pyro_relevance

pytestmark = pytest.mark.contract

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SCRIPTS = sorted(DOCS.glob("*/plot_*.py"))
PARTS = ("prior", "guide", "likelihood", "primitive", "rule", "operator")


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_a_page_for_each_part_of_ones_own() -> None:
    names = {path.stem for path in DOCS.glob("parts/plot_*.py")}
    assert names == {f"plot_{part}" for part in PARTS}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_has_a_title_and_uses_names_that_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    title, line = (ast.get_docstring(ast.parse(text)) or "").splitlines()[:2]
    assert set(line) == {"="}
    assert len(line) == len(title)
    names = set(re.findall(r"\bpr\.([A-Za-z_][\w.]*\w)", text))
    assert names
    for name in names:
        value: object = pyro_relevance
        for part in name.split("."):
            assert hasattr(value, part), f"pr.{name} does not exist"
            value = getattr(value, part)


def test_pages_of_the_api_have_every_public_name(tmp_path: Path) -> None:
    loaded(DOCS / "_ext" / "api_pages.py").write_api(tmp_path)
    text = "\n".join(path.read_text("utf-8") for path in tmp_path.glob("*.rst"))
    entries = set(re.findall(r"^\.\. (?:auto|py:)\w+:: pyro_relevance\.(\S+)", text, re.M))
    for name in pyro_relevance.__all__:
        value = getattr(pyro_relevance, name)
        if not isinstance(value, ModuleType):
            assert name in entries
            continue
        assert (tmp_path / f"{name}.rst").is_file()
        for inner in getattr(value, "__all__", ()):
            module = isinstance(getattr(value, inner), ModuleType)
            assert module or f"{name}.{inner}" in entries


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<h1 id="top"></h1><a href="#top"></a><a href="#bottom"></a><a href="other.html#a"></a>'
        '<a href="https://example.org/x"></a><img src="absent.png"><a href="other.html#b"></a>'
    )
    (tmp_path / "other.html").write_text('<p id="a"></p><a href="index.html?x=1"></a>')
    found = {link for _, link in loaded(DOCS / "check_links.py").dead_links(tmp_path)}
    assert found == {"#bottom", "absent.png", "other.html#b"}


def test_links_out_of_the_folder_lead_into_the_site() -> None:
    rewrite = loaded(DOCS / "_ext" / "sources.py").rewrite_links
    assert rewrite("[a](../README.md#x)", DOCS) == "[a](/index.md#x)"
    assert rewrite("[b](trust.md) [c](https://a.b)", DOCS) == "[b](/trust.md) [c](https://a.b)"
    assert rewrite("[f](docs/parts)", ROOT) == "[f](/auto/parts/index.rst)"
    assert rewrite("[d](../data/boston.csv)", DOCS) == "{download}`d </../data/boston.csv>`"
    assert rewrite("[edges](../pyro_relevance/edges)", DOCS) == "edges (`pyro_relevance/edges`)"
    assert rewrite("[e](docs/trust.md)", ROOT) == "[e](/trust.md)"
