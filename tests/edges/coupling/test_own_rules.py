"""The rule of a user's operator is checked: an error names the operator and the expected shape."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

import pyro_relevance as pr
from pyro_relevance.errors import EdgeError

pytestmark = pytest.mark.contract

NAME = "pyro_relevance_rules::halve"


@torch.library.custom_op(NAME, mutates_args=())
def halve(x: Tensor) -> Tensor:
    return x / 2


@halve.register_fake
def _(x):
    return torch.empty_like(x)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 1)

    def forward(self, x):
        return self.last(halve(self.first(x)))


def found(rule):
    with pr.operators.temporary():
        pr.operators.operator(NAME)(rule)
        return pr.find_edges(Network(), example_input=torch.zeros(2, 4))


def test_a_right_rule():
    def rule(run, node, name):
        return pr.operators.pointwise(run, node, name)

    assert found(rule)["first.units"].num_edges == 6


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (lambda run, node, name: None, "but got NoneType"),
        (lambda run, node, name: torch.zeros(3), "but got (3,)"),
        (lambda run, node, name: node.args[7], "but it fails: IndexError: tuple index out"),
        (lambda run: None, "but it fails: TypeError"),
    ],
)
def test_a_wrong_rule(rule, words):
    asked = (
        f"Expected the rule of the operator '{NAME}' (run, node, name) to return labels of shape "
        f"(1, 6), one for each position of its result, {words}"
    )
    with pytest.raises(EdgeError, match=re.escape(asked)):
        found(rule)
