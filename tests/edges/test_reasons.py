"""Reasons are members of an enum; their sentences are for users alone."""

from __future__ import annotations

from string import Formatter

import pytest
from torch import nn

from pyro_relevance.edges.find import find_edges
from pyro_relevance.edges.reasons import RETURNED, Reason, Why

pytestmark = pytest.mark.contract


@pytest.mark.parametrize("why", Why)
def test_each_member_has_a_sentence_with_its_details(why):
    names = {name for _, name, _, _ in Formatter().parse(why.value) if name}
    text = str(why.reason(**{name: f"<{name}>" for name in names}))
    assert all(f"<{name}>" in text for name in names)
    assert "{" not in text
    assert not text.endswith(".")


def test_members_are_distinct_sentences():
    assert len({why.value for why in Why}) == len(Why.__members__)


def test_reasons_are_values_and_may_hold_reasons():
    fault = Why.SHARED.reason(tensor="weight", others="'b'")
    reason = Why.READER.reason(name="a", fault=fault)
    assert reason == Reason(Why.READER, (("name", "a"), ("fault", fault)))
    assert len({reason, Why.READER.reason(name="a", fault=fault)}) == 1
    assert str(reason) == "its reader 'a' shares its weight with 'b'"


def test_users_read_text():
    edges = find_edges(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
    (skipped,) = edges.skipped
    assert type(skipped.reason) is str
    assert skipped.reason == str(Why.MAKES_OUTPUTS.reason())
    assert Why.MAKES_OUTPUTS in RETURNED
