"""Edges: what is found, what is skipped and why, and gates folded into weights."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from pyro_relevance.data.networks import MLP, LeNet300100
from pyro_relevance.edges.find import EdgeGroup, Edges, Skipped, Slot, find_edges
from pyro_relevance.edges.groups import GridLabels
from pyro_relevance.errors import EdgeError

ALL = ("input", "unit", "weight")


class Net(nn.Module):
    """A network from a function of itself and x; its layers are a, b and c."""

    def __init__(self, forward, sizes=((3, 4), (4, 4), (4, 2)), **others):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(*size) for size in sizes)
        self.function = forward
        for name, module in others.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.function(self, x)


def _reason(edges: Edges, name: str) -> str:
    return next(item.reason for item in edges.skipped if item.name == name)


# What is found


@pytest.mark.exact
def test_groups_of_an_mlp():
    edges = find_edges(MLP(13, (50, 20), 1), granularity=ALL)
    assert edges.names == (
        "inputs",
        "hidden1.units",
        "hidden2.units",
        "hidden1.weight",
        "hidden2.weight",
        "output.weight",
    )
    assert len(edges) == 6
    assert edges.num_edges == 13 + 50 + 20 + 650 + 1000 + 20
    assert edges["inputs"].consumers == (Slot("hidden1.weight", 1, None),)
    assert edges["hidden1.units"] == EdgeGroup(
        "hidden1.units",
        "unit",
        (50,),
        GridLabels((50,)),
        (Slot("hidden2.weight", 1),),
        (Slot("hidden1.weight", 0), Slot("hidden1.bias", 0)),
    )
    assert edges["output.weight"].consumers == (Slot("output.weight", None),)
    assert edges["hidden1.weight"].labels[13 * 3 + 7] == "3<-7"
    assert edges.shapes["hidden2.weight"] == (20, 50)
    assert edges.skipped == (
        Skipped("output.units", "it makes the outputs, and outputs are never gated"),
    )


@pytest.mark.exact
def test_images_are_flattened_into_columns():
    edges = find_edges(LeNet300100(), granularity="input")
    assert edges["inputs"].shape == (784,)
    assert edges["inputs"].consumers == (Slot("hidden1.weight", 1, None),)


@pytest.mark.exact
def test_flattened_units_have_several_columns():
    network = nn.Sequential(
        nn.Linear(3, 4), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(8), nn.Linear(8, 1)
    )
    edges = find_edges(network, granularity="unit")
    index = (0, 1, 2, 3, 0, 1, 2, 3)
    assert edges["0.units"].consumers == (Slot("4.weight", 1, index),)
    assert Slot("3.running_var", 0, index) in edges["0.units"].producers


@pytest.mark.exact
def test_batchnorm_belongs_to_its_producer():
    network = nn.Sequential(
        nn.Linear(3, 4),
        nn.BatchNorm1d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Identity(),
        nn.Linear(4, 1),
    )
    edges = find_edges(network)
    names = [slot.tensor for slot in edges["0.units"].producers]
    assert names == ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"]
    assert edges.buffers == ("1.running_mean", "1.running_var", "1.num_batches_tracked")
    assert edges.num_parameters_per_edge()["0.units"].tolist() == [3 + 1 + 2 + 1] * 4


@pytest.mark.exact
def test_functions_and_several_readers():
    network = Net(
        lambda m, x: m.c(torch.tanh(m.a(x))) + m.b(F.relu(m.a2(x)) * 2.0), ((3, 4), (5, 2), (4, 2))
    )
    network.a2 = nn.Linear(3, 5)
    edges = find_edges(network, granularity=("input", "unit"))
    assert edges.names == ("inputs", "a.units", "a2.units")
    assert [slot.tensor for slot in edges["inputs"].consumers] == ["a.weight", "a2.weight"]

    def forward(m, x):
        h = F.gelu(m.a(x))
        return m.b(h)[:, :2] + m.c(h)

    edges = find_edges(Net(forward))
    assert [slot.tensor for slot in edges["a.units"].consumers] == ["b.weight", "c.weight"]


@pytest.mark.exact
def test_views_need_an_example_unless_they_say_what_they_do():
    plain = Net(lambda m, x: m.c(m.b(m.a(x.view(x.size(0), -1)))))
    assert find_edges(plain, granularity="input").names == ("inputs",)
    numbers = Net(lambda m, x: m.c(m.b(m.a(x.view(-1, 3)))))
    with pytest.raises(EdgeError, match="give example_input, so that the shapes are known"):
        find_edges(numbers, granularity="input")
    edges = find_edges(numbers, granularity="input", example_input=torch.zeros(2, 3, 1))
    assert edges["inputs"].shape == (3,)
    merged = Net(lambda m, x: m.c(m.b(m.a(x).reshape(-1, 4))))
    assert "a.units" in find_edges(merged, example_input=torch.zeros(2, 5, 3)).names


@pytest.mark.exact
def test_a_single_layer_is_a_network():
    edges = find_edges(nn.Linear(3, 2), granularity=("input", "weight"))
    assert edges.names == ("inputs", "weight")
    assert edges["inputs"].consumers == (Slot("weight", 1),)


@pytest.mark.exact
def test_convolutions_are_gated_by_weight():
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3), nn.Linear(3, 1)
    )
    edges = find_edges(network, granularity=ALL, example_input=torch.zeros(2, 1, 4, 4))
    assert edges.names == ("0.units", "3.units", "0.weight", "3.weight", "4.weight")
    assert edges["0.weight"].labels[-1] == "1<-0[2,2]"
    assert edges.positions == {"0.weight": 4, "3.weight": 1, "4.weight": 1}
    assert "Conv2d '0' reads them" in _reason(edges, "inputs")
    assert edges["0.units"].consumers[0].index == (0, 0, 0, 0, 1, 1, 1, 1)  # of flattened images


@pytest.mark.exact
def test_one_hot_columns_share_a_gate():
    edges = find_edges(
        MLP(5, (4,), 1),
        granularity="input",
        input_index=[0, 1, 1, -1, 2],
        input_labels=["age", "town", "tax"],
    )
    assert edges["inputs"].shape == (3,)
    assert edges["inputs"].labels == ("age", "town", "tax")
    assert edges.num_parameters_per_edge()["inputs"].tolist() == [4.0, 8.0, 4.0]
    folded = edges.fold(
        {"hidden1.weight": torch.ones(4, 5)}, {"inputs": torch.tensor([2.0, 0.0, 5.0])}
    )
    assert folded["hidden1.weight"][0].tolist() == [2.0, 0.0, 0.0, 1.0, 5.0]


@pytest.mark.exact
def test_where_chooses_producers_owners_and_readers():
    network = MLP(3, (4, 5), 1)
    edges = find_edges(network, granularity=ALL, where=lambda name, module: name == "hidden2")
    assert edges.names == ("hidden2.units", "hidden2.weight")
    assert _reason(edges, "inputs") == "where does not choose all layers that read the input"
    edges = find_edges(
        network, granularity=ALL, where=lambda name, m: getattr(m, "in_features", 0) == 3
    )
    assert edges.names == ("inputs", "hidden1.units", "hidden1.weight")


@pytest.mark.property
@given(
    hidden=st.lists(st.integers(1, 4), max_size=3),
    outputs=st.integers(1, 3),
    activation=st.sampled_from([nn.ReLU, nn.Tanh, nn.Softplus, nn.PReLU]),
)
def test_outputs_are_never_gated_and_groups_touch_a_tensor_axis_once(hidden, outputs, activation):
    edges = find_edges(MLP(3, hidden, outputs, activation), granularity=ALL)
    assert "output.units" not in edges.names
    touched = [(g.granularity, s.tensor, s.dim) for g in edges for s in g.consumers]
    assert len(set(touched)) == len(touched)
    assert all(slot.tensor != "output.bias" for g in edges for slot in (*g.consumers, *g.producers))
    assert all(len(group.labels) == group.num_edges for group in edges)


# What is skipped


def _tied(m, x):
    return m.c(F.relu(m.b(F.relu(m.a(x)))))


SKIPPED = {
    "residual": (
        lambda m, x: m.c(F.relu(m.a(x)) + m.b(F.relu(m.a(x)))),
        "is called more than once",
    ),
    "addition": (lambda m, x: m.c(m.a(x) + m.b(x)), "'add' joins them with another tensor"),
    "parameter": (lambda m, x: m.c(m.a(x) * m.scale), "'mul' joins them with another tensor"),
    "concatenation": (lambda m, x: m.c(torch.cat([m.a(x), m.b(x)], 1)), "'cat' joins them"),
    "softmax": (lambda m, x: m.c(torch.softmax(m.a(x), -1)), "'softmax', which may mix"),
    "LayerNorm": (lambda m, x: m.c(m.norm(m.a(x))), "LayerNorm 'norm', which may mix"),
    "slice": (lambda m, x: m.c(m.a(x)[:, 1:]), "'getitem', which may mix"),
    "dead": (lambda m, x: (m.a(x), m.c(m.b(x)))[1], "no linear layer reads its units"),
}


@pytest.mark.contract
@pytest.mark.parametrize("case", SKIPPED)
def test_units_that_cannot_be_pruned_exactly_are_skipped_with_a_reason(case):
    forward, reason = SKIPPED[case]
    network = Net(
        forward, ((4, 4), (4, 4), (4, 4)), norm=nn.LayerNorm(4), scale=nn.Parameter(torch.ones(4))
    )
    edges = find_edges(network, granularity=ALL)
    assert "a.units" not in edges.names
    assert reason in _reason(edges, "a.units")


@pytest.mark.contract
def test_returned_units_are_skipped():
    def forward(m, x):
        h = m.a(x)
        return m.c(F.relu(m.b(h))), h

    edges = find_edges(Net(forward))
    assert edges.names == ("b.units",)
    assert "its output is also returned by the network" in _reason(edges, "a.units")


@pytest.mark.contract
def test_tied_parametrised_and_directly_used_weights_are_skipped():
    network = Net(_tied, ((4, 4), (4, 4), (4, 2)))
    network.b.weight = network.a.weight
    edges = find_edges(network, granularity=("unit", "weight"))
    assert edges.names == ("c.weight",)
    assert "shares its weight with 'b'" in _reason(edges, "a.weight")
    assert "shares its weight with 'a'" in _reason(edges, "b.units")
    for wrap in (weight_norm, spectral_norm):
        network = Net(_tied, ((4, 4), (4, 4), (4, 2)))
        wrap(network.b)
        edges = find_edges(network, granularity=("unit", "weight"))
        assert edges.names == ("a.weight", "c.weight")
        assert "its reader 'b' is parametrised" in _reason(edges, "a.units")
    direct = Net(lambda m, x: F.linear(m.b(m.a(x)), m.b.weight), ((4, 4), (4, 4), (4, 2)))
    edges = find_edges(direct, granularity="weight")
    assert edges.names == ("a.weight",)
    assert "forward() also uses directly" in _reason(edges, "b.weight")
    assert "is not called as a module" in _reason(edges, "c.weight")


@pytest.mark.contract
def test_inputs_that_cannot_be_gated():
    def reason(network, **options):
        return _reason(find_edges(network, granularity=("input", "weight"), **options), "inputs")

    assert "joins them" in reason(Net(lambda m, x: m.a(x) + x, ((4, 4), (4, 4), (4, 4))))
    assert "also returned" in reason(Net(lambda m, x: (m.a(x), x)))
    assert "different numbers of columns" in reason(Net(lambda m, x: (m.a(x), m.b(x))))

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 2)

        def forward(self, x, y):
            return self.a(x) + self.a(y)

    assert "2 inputs" in reason(Two()) or "more than once" in reason(Two())


# Errors


class _Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 2)

    def forward(self, x):
        return self.a(x) if x.sum() > 0 else x


@pytest.mark.contract
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"granularity": "operation"}, EdgeError, "Expected a network with a relaxed graph"),
        (
            {"granularity": "filter"},
            ValueError,
            r"Expected granularity from .* but got \['filter'\]",
        ),
        ({"granularity": ()}, ValueError, "Expected granularity from"),
        ({"granularity": ("unit", "unit")}, ValueError, "Expected each granularity once"),
        ({"input_labels": ["a"]}, ValueError, "Expected granularity with 'input'"),
        (
            {"granularity": "input", "input_labels": ["a"]},
            ValueError,
            r"one name per gate \(3\), but got 1",
        ),
        (
            {"granularity": "input", "input_labels": ["a", "b", "a"]},
            ValueError,
            "different input_labels",
        ),
        (
            {"granularity": "input", "input_index": [0]},
            ValueError,
            r"one gate per input column \(3\)",
        ),
        ({"granularity": "input", "input_index": [0, 2, 2]}, ValueError, "without holes"),
        ({"granularity": "input", "input_index": [-1, -1, -1]}, ValueError, "without holes"),
        ({"where": lambda name, module: False}, EdgeError, "where chose no layer"),
        (
            {"example_input": torch.zeros(2, 5)},
            EdgeError,
            r"shape \(2, 5\) of torch.float32 failed",
        ),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        find_edges(MLP(3, (4,), 1), **options)


@pytest.mark.contract
def test_networks_without_edges():
    with pytest.raises(EdgeError, match=r"none can be gated: output\.units: it makes the outputs"):
        find_edges(MLP(3, (), 1))
    with pytest.raises(EdgeError, match="tracing _Branching failed"):
        find_edges(_Branching())
    with pytest.raises(EdgeError, match=r"'0\.weight' has no shape yet"):
        find_edges(nn.Sequential(nn.LazyLinear(3)))


@pytest.mark.contract
def test_a_network_is_not_touched():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 1))
    network[2].eval()
    before = copy.deepcopy(network.state_dict())
    modules, rng = list(network.modules()), torch.random.get_rng_state()
    find_edges(network, example_input=torch.randn(5, 3), granularity=ALL)
    torch.random.set_rng_state(rng)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(a is b for a, b in zip(modules, network.modules(), strict=True))
    assert [module.training for module in network.modules()] == [True, True, True, False, True]


# Vectors, gates, text


@pytest.mark.property
@given(leading=st.lists(st.integers(1, 3), max_size=2))
def test_split_and_join_are_inverse(leading):
    edges = find_edges(MLP(3, (4, 2), 1), granularity=ALL)
    vector = torch.arange(edges.num_edges * torch.Size(leading).numel()).reshape(*leading, -1)
    parts = edges.split(vector)
    assert parts["hidden2.weight"].shape == (*leading, 2, 4)
    assert torch.equal(edges.join(parts), vector)


@pytest.mark.exact
def test_nested_gates_multiply_and_keep_gradients():
    edges = find_edges(MLP(3, (4,), 2), granularity=ALL)
    network = MLP(3, (4,), 2)
    parameters = dict(network.named_parameters())
    gates = {g.name: torch.rand(g.shape, dtype=torch.float64, requires_grad=True) for g in edges}
    folded = edges.fold(parameters, gates)
    assert set(folded) == set(edges.folded_names) == {"hidden1.weight", "output.weight"}
    expected = network.output.weight * gates["hidden1.units"] * gates["output.weight"]
    assert folded["output.weight"].dtype == torch.float32
    torch.testing.assert_close(folded["output.weight"], expected.float())
    sum(value.sum() for value in folded.values()).backward()
    assert all(gate.grad is not None and gate.grad.isfinite().all() for gate in gates.values())


@pytest.mark.exact
def test_fold_works_inside_transforms():
    network = nn.Sequential(nn.Linear(3, 4), nn.Flatten(), nn.Linear(8, 2))
    edges = find_edges(network, granularity=("input", "unit"), input_index=[0, 0, -1])
    parameters = {k: torch.randn(5, *v.shape) for k, v in network.named_parameters()}
    gates = {g.name: torch.rand(5, *g.shape) for g in edges}
    together = torch.func.vmap(edges.fold)(parameters, gates)
    for i in range(5):
        alone = edges.fold(
            {k: v[i] for k, v in parameters.items()}, {k: v[i] for k, v in gates.items()}
        )
        for name, value in alone.items():
            torch.testing.assert_close(together[name][i], value)

    def total(gates):
        return edges.fold({k: v[0] for k, v in parameters.items()}, gates)["2.weight"].sum()

    gradient = torch.func.grad(total)({k: v[0] for k, v in gates.items()})
    columns = parameters["2.weight"][0].sum(0)
    torch.testing.assert_close(gradient["0.units"], columns[:4] + columns[4:])


@pytest.mark.contract
def test_wrong_vectors_and_gates():
    edges = find_edges(MLP(3, (4,), 1), granularity=("input", "unit"))
    parameters = dict(MLP(3, (4,), 1).named_parameters())
    with pytest.raises(ValueError, match=r"vector of shape \(\.\.\., 7\), but got \(6,\)"):
        edges.split(torch.zeros(6))
    with pytest.raises(ValueError, match=r"a value for each of \['inputs', 'hidden1.units'\]"):
        edges.join({"inputs": torch.zeros(3)})
    gates = {"inputs": torch.zeros(3), "hidden1.units": torch.zeros(2, 4)}
    with pytest.raises(ValueError, match=r"'hidden1.units'\] of shape \(4\), but got \(2, 4\)"):
        edges.fold(parameters, gates)
    with pytest.raises(ValueError, match=r"Expected the parameter 'hidden1\.weight'"):
        edges.fold({}, edges.split(torch.zeros(7)))
    with pytest.raises(KeyError, match="Expected one of the groups"):
        edges["hidden9.units"]


@pytest.mark.exact
def test_edges_survive_json():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(8, 2))
    edges = find_edges(network, granularity=ALL, input_index=[0, 1, 1], input_labels=["a", "b"])
    again = Edges.from_json(edges.to_json())
    assert again == edges
    assert again["inputs"].labels == ("a", "b")
    assert '"labels": null' in edges.to_json()
    assert copy.deepcopy(edges) == edges
    for text in ("", "{}", "[1]"):
        with pytest.raises(EdgeError, match=r"Expected the text of Edges\.to_json"):
            Edges.from_json(text)


@pytest.mark.contract
def test_edges_print_as_a_table():
    text = str(find_edges(MLP(3, (4,), 1), granularity=("input", "unit")))
    assert text.splitlines() == [
        "group          granularity  edges  read by",
        "inputs         input            3  hidden1.weight",
        "hidden1.units  unit             4  output.weight",
        "skipped output.units: it makes the outputs, and outputs are never gated",
    ]


@pytest.mark.contract
def test_edges_check_their_groups():
    group = EdgeGroup("a", "unit", (2,), GridLabels((2,)), (Slot("w", 1),))
    with pytest.raises(EdgeError, match="Expected each group once"):
        Edges((group, group), (), {"w": (1, 2)})
    with pytest.raises(EdgeError, match="Expected 3 positions along axis 1 of 'w'"):
        Edges((group,), (), {"w": (1, 3)})
    weight = EdgeGroup("w", "weight", (2, 2), GridLabels((2, 2)), (Slot("w", None),))
    with pytest.raises(EdgeError, match=r"Expected 'w' of the shape \(1, 3\)"):
        Edges((weight,), (), {"w": (1, 3)})


@pytest.mark.contract
def test_labels_are_a_sequence():
    labels = GridLabels((2, 3))
    assert labels[-1] == "1<-2"
    assert labels[:2] == ("0<-0", "0<-1")
    assert tuple(labels) == tuple(labels[i] for i in range(6))
    with pytest.raises(IndexError, match="below 6, but got 6"):
        labels[6]
