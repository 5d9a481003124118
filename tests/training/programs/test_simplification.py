"""A list of operators becomes shorter, and its results stay the same bits."""

from __future__ import annotations

import pytest
import torch
from torch.fx import Graph

from pyro_relevance.training.programs.simplification import Form, simplify

ATEN = torch.ops.aten


class Listed:
    """A graph that is written by hand, with the shapes of its results."""

    def __init__(self, *arguments):
        self.graph, self.tensors, self.values = Graph(), {}, {}
        for index, argument in enumerate(arguments):
            self._keep(self.graph.placeholder(f"argument_{index}"), argument)

    @property
    def arguments(self):
        return [node for node in self.graph.nodes if node.op == "placeholder"]

    def _keep(self, node, value):
        self.tensors[node], node.meta["form"] = value, Form.of(value)
        return node

    def call(self, target, *arguments):
        values = [self.tensors.get(a, a) if not isinstance(a, list) else a for a in arguments]
        return self._keep(self.graph.call_function(target, arguments), target(*values))

    def simplified(self, *results):
        self.graph.output(results)
        simplify(self.graph, self.values)
        return [node.target for node in self.graph.nodes if node.op == "call_function"]


@pytest.mark.exact
def test_views_that_change_nothing_go():
    listed = Listed(torch.ones(2, 3))
    (x,) = listed.arguments
    same = listed.call(ATEN.view.default, listed.call(ATEN.alias.default, x), [2, 3])
    twice = listed.call(ATEN.t.default, listed.call(ATEN.t.default, same))
    other = listed.call(ATEN.view.default, twice, [6])
    assert listed.simplified(other) == [ATEN.view.default]
    assert other.args[0] is x


@pytest.mark.exact
def test_operators_on_constants_are_computed_beforehand():
    listed = Listed(torch.ones(3))
    (x,) = listed.arguments
    two = listed.call(ATEN.add.Tensor, listed.call(ATEN.ones.default, [3]), 1.0)
    assert listed.simplified(listed.call(ATEN.mul.Tensor, x, two)) == [ATEN.mul.Tensor]
    assert [2.0] * 3 in [value.tolist() for value in listed.values.values()]


@pytest.mark.exact
def test_draws_and_changes_in_place_stay_and_what_nobody_reads_goes():
    listed = Listed(torch.ones(3))
    (x,) = listed.arguments
    listed.call(ATEN.rand.default, [3])
    listed.call(ATEN.add_.Tensor, x, 1.0)
    listed.call(ATEN.exp.default, x)
    assert listed.simplified(x) == [ATEN.rand.default, ATEN.add_.Tensor]
