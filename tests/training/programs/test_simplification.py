"""A list of operators becomes shorter, and its results stay the same bits."""

from __future__ import annotations

import operator

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


@pytest.mark.exact
def test_what_is_computed_twice_is_computed_once():
    listed = Listed(torch.ones(3))
    (x,) = listed.arguments
    twice = [listed.call(ATEN.exp.default, x) for _ in range(2)]
    powers = [listed.call(ATEN.pow.Tensor_Scalar, x, power) for power in (3, 3.0)]
    total = listed.call(ATEN.add.Tensor, *twice)
    other = listed.call(ATEN.add.Tensor, *powers)
    targets = listed.simplified(total, other)
    assert targets.count(ATEN.exp.default) == 1
    assert targets.count(ATEN.pow.Tensor_Scalar) == 2  # integers and floats differ


@pytest.mark.exact
def test_what_was_written_to_in_between_is_computed_again():
    listed = Listed(torch.ones(4))
    (x,) = listed.arguments
    view = listed.call(ATEN.view.default, x, [2, 2])
    first = listed.call(ATEN.mul.Tensor, view, 3.0)
    listed.call(ATEN.add_.Tensor, x, 1.0)
    second = listed.call(ATEN.mul.Tensor, view, 3.0)
    third = listed.call(ATEN.mul.Tensor, view, 3.0)
    result = listed.call(ATEN.sub.Tensor, listed.call(ATEN.sub.Tensor, first, second), third)
    assert listed.simplified(result).count(ATEN.mul.Tensor) == 2


@pytest.mark.exact
def test_results_have_memory_of_their_own():
    listed = Listed(torch.ones(3))
    (x,) = listed.arguments
    twice = [listed.call(ATEN.exp.default, x) for _ in range(2)]
    same = listed.call(ATEN.mul.Tensor, x, 1.0)
    ones = listed.call(ATEN.ones_like.default, x)
    targets = listed.simplified(*twice, same, ones)
    assert targets == [ATEN.exp.default] * 2 + [ATEN.mul.Tensor, ATEN.ones_like.default]


@pytest.mark.exact
def test_factors_of_one_and_values_of_a_form_go():
    listed = Listed(torch.ones(3), torch.ones(3))
    x, y = listed.arguments
    same = listed.call(ATEN.mul.Tensor, x, listed.call(ATEN.ones_like.default, y))
    same = listed.call(ATEN.div.Tensor, listed.call(ATEN.pow.Tensor_Scalar, same, 1.0), 1)
    assert listed.simplified(listed.call(ATEN.exp.default, same)) == [ATEN.exp.default]


@pytest.mark.exact
def test_a_factor_of_one_that_copies_before_a_change_stays():
    listed = Listed(torch.ones(3))
    (x,) = listed.arguments
    copy = listed.call(ATEN.mul.Tensor, x, 1.0)
    listed.call(ATEN.add_.Tensor, x, 1.0)
    targets = listed.simplified(listed.call(ATEN.exp.default, copy))
    assert targets == [ATEN.mul.Tensor, ATEN.add_.Tensor, ATEN.exp.default]


@pytest.mark.exact
def test_squares_sums_and_single_parts_are_cheaper():
    listed = Listed(torch.ones(2, 3))
    (x,) = listed.arguments
    square = listed.call(ATEN.pow.Tensor_Scalar, x, 2)
    total = listed.call(ATEN.sum.dim_IntList, square, [0], True)
    row = listed.call(ATEN.view.default, total, [3])
    parts = listed.graph.call_function(ATEN.split_with_sizes.default, (row, [3], -1))
    part = listed._keep(listed.graph.call_function(operator.getitem, (parts, 0)), torch.ones(3))
    values = listed.graph.call_function(ATEN.cat.default, ([part],))
    joined = listed._keep(values, torch.ones(3))
    targets = listed.simplified(listed.call(ATEN.exp.default, joined))
    assert targets == [ATEN.mul.Tensor, ATEN.sum.dim_IntList, ATEN.exp.default]
