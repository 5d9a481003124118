"""What an installed copy of the library holds."""

from __future__ import annotations

import configparser
import re
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
def test_version_is_written_once_more_only_where_it_is_read(setup):
    version = setup["metadata"]["version"]
    assert getattr(pyro_relevance, "__version__", version) == version
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert heading is not None
    assert heading[1] == version


@pytest.mark.contract
@pytest.mark.parametrize("block", ["install", "test"])
def test_readme_has_the_commands_that_are_checked(block):
    readme = (ROOT / "README.md").read_text("utf-8")
    assert re.search(
        rf"^<!-- ci: {block} -->\n+```\w*\n.+?\n```$", readme, re.MULTILINE | re.DOTALL
    )
