"""What an installed copy of the library holds."""

from __future__ import annotations

import configparser
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import pyro_relevance

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


@pytest.mark.contract
def test_every_folder_is_packaged(setup):
    listed = setup["options"]["packages"].split()
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "pyro_relevance").rglob("*.py")
    }
    assert sorted(listed) == sorted(folders | {"pyro_relevance._data"})
    unmarked = [f for f in folders if not (ROOT / f.replace(".", "/") / "__init__.py").is_file()]
    assert not unmarked


@pytest.mark.contract
def test_data_is_packaged(setup):
    assert "pyro_relevance._data = data" in setup["options"]["package_dir"]
    assert "*.csv" in setup["options.package_data"]["pyro_relevance._data"]
    assert (ROOT / "data" / "__init__.py").is_file()


@pytest.mark.contract
def test_templates_are_packaged(setup):
    patterns = {
        f"{package.replace('.', '/')}/{pattern.strip()}"
        for package, listed in setup["options.package_data"].items()
        for pattern in listed.split(",")
    }
    files = [path for path in (ROOT / "pyro_relevance").rglob("*.jinja")]
    assert files
    left_out = [f for f in files if not any(f.match(f"{ROOT}/{p}") for p in patterns)]
    assert not left_out


@pytest.mark.contract
def test_version_comes_from_the_tag_and_from_one_line_without_git(setup):
    assert "version" not in setup["metadata"]
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)
    assert any(need.startswith("setuptools-scm") for need in project["build-system"]["requires"])
    version = project["tool"]["setuptools_scm"]["fallback_version"]
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert heading is not None
    assert heading[1] == version
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.M)
    assert cited is not None
    assert cited[1] == version
    assert pyro_relevance.__version__ == metadata.version("pyro-relevance")


@pytest.mark.contract
def test_the_conda_recipe_needs_what_the_package_needs(setup):
    def names(text: str) -> set[str]:
        found = re.findall(r"^\s*(?:- )?([A-Za-z][\w-]*)\s*(?:>=.*)?$", text, re.M)
        return {conda.get(name, name) for name in found}

    conda = {"torch": "pytorch", "arviz": "arviz", "matplotlib": "matplotlib-base"}
    recipe = (ROOT / "recipes" / "conda" / "meta.yaml").read_text("utf-8")
    run = re.search(r"\n  run:\n(.*?)\n\n", recipe, re.S)
    assert run is not None
    assert names(run[1]) - {"python"} == names(setup["options"]["install_requires"])


@pytest.mark.contract
@pytest.mark.parametrize("block", ["install", "test", "site install", "site build"])
def test_readme_has_the_commands_that_are_checked(block):
    readme = (ROOT / "README.md").read_text("utf-8")
    assert re.search(
        rf"^<!-- ci: {block} -->\n+```\w*\n.+?\n```$", readme, re.MULTILINE | re.DOTALL
    )
