"""Fixtures of the tests of tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyro_relevance.data.tables import regular_csv
from tests.table_files import Write, columns_written


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a table into the folder of the test."""
    return columns_written(tmp_path)


@pytest.fixture(params=["cell by cell", "by pandas"], autouse=True)
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files are read cell by cell; read those that are regular the other way as well."""
    if request.param == "by pandas":
        monkeypatch.setattr(regular_csv, "MIN_BYTES", 0)
        monkeypatch.setattr(regular_csv, "HEAD_LINES", 0)
