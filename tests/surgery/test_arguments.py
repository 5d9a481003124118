"""Arguments of files against annotations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from pyro_relevance.surgery.arguments import check_arguments, fits

INFINITY = float("inf")


@pytest.mark.contract
@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, int, True),
        (True, int, False),
        (1.0, int, False),
        (2**50, int, False),
        (1, float, True),
        (True, float, False),
        (INFINITY, float, False),
        (None, int | None, True),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        (True, Literal[1], False),
        ((1, 2), tuple[int, int], True),
        ((1, 2, 3), tuple[int, int], False),
        ((1, None), tuple[int | None, ...], True),
        (1, tuple[int, ...], False),
        ({"a": 1.0}, Mapping[str, float], True),
        ({"a": torch.zeros(2)}, Mapping[str, float | Tensor], True),
        ({"a": "os"}, Mapping[str, float], False),
        ("os", Mapping[str, float], False),
        ("text", str, True),
        ({}, object, False),
        ((1, "a"), object, True),
    ],
)
def test_values_and_annotations(value, hint, expected):
    assert fits(value, hint) is expected


@pytest.mark.contract
@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (nn.Linear, {"in_features": 1}, "Expected the arguments .* of Linear, but got"),
        (nn.Linear, {"in_features": 1, "out_features": 1, "x": 1}, "Expected the arguments"),
        (nn.BatchNorm1d, {"num_features": 1, "eps": "x"}, "Expected eps of BatchNorm1d as .*'x'"),
        (nn.BatchNorm1d, {"num_features": 1, "eps": INFINITY}, "Expected eps of BatchNorm1d"),
        (nn.Upsample, {"size": 2, "mode": "os"}, "Expected mode of Upsample in .*nearest"),
        (nn.Conv1d, {"in_channels": 1, "out_channels": 1, "kernel_size": (1, 2)}, "kernel_size"),
    ],
)
def test_wrong_arguments_are_named(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        check_arguments(kind, arguments)


@pytest.mark.contract
def test_bounds_may_be_infinite():
    check_arguments(nn.Hardtanh, {"min_val": -INFINITY, "max_val": 1})
