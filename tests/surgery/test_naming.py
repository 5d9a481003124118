"""Names that files may use."""

from __future__ import annotations

import pytest

from pyro_relevance.surgery.naming import check_name


@pytest.mark.contract
@pytest.mark.parametrize(
    "name", ["", ".", "a.", "a..b", "../x", "a/b", "a\\b", "__class__", "a.__dict__.b", "a\n", 3]
)
def test_names_that_files_may_not_use(name):
    with pytest.raises(ValueError, match="Expected the name of a module or tensor"):
        check_name(name)


@pytest.mark.contract
@pytest.mark.parametrize("name", ["0", "features.0.weight", "edges.a__b", "_tensor_constant0"])
def test_names_that_files_use(name):
    check_name(name)
