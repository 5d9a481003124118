"""A primitive that does not fit its place is named, with the features that were asked for."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import pyro_relevance as pr
from pyro_relevance.errors import ArchitectureError
from pyro_relevance.graphs import Graph, GraphEdge
from pyro_relevance.graphs.primitives import _REGISTRY

pytestmark = pytest.mark.contract


class Pair(nn.Module):
    def forward(self, x):
        return x, x


class Halved(nn.Module):
    def __init__(self, place):
        super().__init__()
        self.linear = nn.Linear(place.source, place.target)

    def forward(self, x):
        return self.linear(x)[:, ::2]


MADE = {
    "too_wide": lambda place: nn.Linear(place.source, place.target + 1),
    "column": lambda place: nn.Linear(place.source, 1),
    "reads_more": lambda place: nn.Linear(place.source + 1, place.target),
    "pair": lambda place: Pair(),
    "fails": lambda place: nn.Linear(place.width, place.target),
    "halved": Halved,
}


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    for name, make in MADE.items():
        monkeypatch.setitem(_REGISTRY, name, make)


def network(*names: str) -> nn.Module:
    edges = [GraphEdge("x", "h", names), GraphEdge("h", "y", "linear")]
    return nn.Sequential(Graph({"x": 4, "h": 6, "y": 1}, edges, output="y"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("too_wide", "but it made shape (2, 7)"),
        ("column", "but it made shape (2, 1)"),  # it would be broadcast
        ("reads_more", "but it fails: mat1 and mat2 shapes cannot be multiplied (2x4 and 5x6)"),
        ("pair", "but it made a tuple and not a tensor"),
    ],
)
def test_a_primitive_of_another_size_is_named(name, words):
    asked = (
        f"Expected the primitive '{name}' on edge x -> h to make 6 features of 4 (place.target, "
        f"place.source) from a tensor of shape (2, 4), {words}"
    )
    x = torch.zeros(2, 4)
    for names in ((name,), ("linear_relu", name), (name, "linear_relu")):
        with pytest.raises(ArchitectureError, match=re.escape(asked)):
            network(*names)(x)
    with pytest.raises(ArchitectureError, match=re.escape(asked)):
        # The walks trace the network, where nothing would name the primitive.
        pr.find_edges(
            network("linear_relu", name), granularity=("operation", "unit"), example_input=x
        )


def test_it_is_named_before_the_fit():
    made = network("linear_relu", "too_wide")
    edges = pr.find_edges(made, granularity="operation")
    model = pr.RelevanceModel(made, edges, likelihood=pr.likelihoods.Gaussian(), num_data=8)
    with pytest.raises(ArchitectureError, match="the primitive 'too_wide' on edge x -> h"):
        pr.fit(model, (torch.zeros(8, 4), torch.zeros(8)), num_epochs=1)


def test_primitives_of_an_edge_make_one_shape():
    words = "'linear_relu' makes (2, 3, 6) and 'halved' makes (2, 2, 6)"
    with pytest.raises(ArchitectureError, match=re.escape(words)):
        network("linear_relu", "halved")(torch.zeros(2, 3, 4))
    # Two that shorten a sequence alike are right.
    assert network("halved")(torch.zeros(2, 4, 4)).shape == (2, 2, 1)


def test_a_function_that_fails_is_named():
    words = r"On edge x -> h: Expected primitive 'fails' to make a module from Place\(source=4"
    with pytest.raises(ValueError, match=words):
        network("linear_relu", "fails")
