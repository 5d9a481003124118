"""Fixture of the tests of tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.table_files import Write, columns_written


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a table into the folder of the test."""
    return columns_written(tmp_path)
