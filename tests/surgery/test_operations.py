"""Operations as latent variables: the model, its fits, draws, files and priors."""

from __future__ import annotations

import math
import warnings
from collections import Counter

import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch.func import functional_call

import pyro_relevance as pr
from pyro_relevance import (
    LeanELBO,
    ScoreFunctionELBO,
    derive,
    guides,
    priors,
    relaxations,
)
from pyro_relevance.errors import EdgeError
from pyro_relevance.graphs import (
    Architecture,
    Graph,
    GraphEdge,
    canonical,
    is_connected,
    most_probable,
    spaces,
)
from pyro_relevance.graphs.derivation import hard_gated
from pyro_relevance.model.relaxations import Mixture, SampledPath, TopPaths, one_hot
from pyro_relevance.posterior.architectures import (
    architecture_log_likelihood,
    draw_architectures,
    expected_cost,
    probable_architectures,
)
from pyro_relevance.posterior.arviz import convert as report
from pyro_relevance.posterior.relevance import expected_size
from pyro_relevance.training.schedules import Schedules, after, constant
from tests.small_graphs import make_data, make_graph, make_model

BOTH = ("operation", "unit")


def fit(model=None, **settings):
    return pr.fit(
        make_model() if model is None else model,
        make_data(),
        **{"num_epochs": 10, "batch_size": 10, "learning_rate": 1e-2, **settings},
    )


@pytest.mark.contract
def test_edges_list_operations_beside_other_groups():
    edges = make_model(granularity=BOTH).edges
    assert edges.names == ("edges.x__a.units",)
    assert [(g.name, g.labels) for g in edges.operations] == [
        ("graph.a.h", ("relu", "tanh", "none")),
        ("graph.h.y", ("linear", "linear_tanh")),
        ("graph.x.y", ("none", "linear")),
    ]
    assert pr.Edges.from_json(edges.to_json()) == edges
    assert "graph.a.h         operation    1 of 3  relu, tanh, none" in str(edges)
    assert edges["graph.h.y"].granularity == "operation"
    table = torch.arange(18.0).reshape(2, 3, 3)
    split = edges.split_operations(table)
    assert torch.equal(split["graph.x.y"], table[:, 2, :2])
    joined = edges.join_operations({n: t[0] for n, t in split.items()}, -7.0)
    assert torch.equal(joined, torch.tensor([[0.0, 1, 2], [3, 4, -7], [6, 7, -7]]))


@pytest.mark.exact
def test_single_weights_of_a_graph_are_judged_too():
    graph = make_graph()
    edges = pr.find_edges(
        graph, granularity=("operation", "weight"), example_input=torch.zeros(2, 3)
    )
    assert [group.name for group in edges] == [n for n, p in graph.named_parameters() if p.ndim > 1]
    assert not edges.skipped
    calls = [len(m._forward_hooks) for m in graph.modules()]
    assert not any(calls)  # what was hung on to see which layers are called is gone


@pytest.mark.contract
def test_cells_of_one_structure_share_a_group_and_others_are_refused():
    network = spaces.nasbench201_space(channels=2, num_cells=2)
    edges = pr.find_edges(network, granularity="operation")
    assert len(edges.operations) == 6
    assert [len(g.consumers) for g in edges.operations] == [6] * 6
    other = Graph(
        {"n0": 2, "n1": 2},
        [GraphEdge("n0", "n1", ("none", "identity"))],
        output="n1",
        structure="cell",
    )
    with pytest.raises(EdgeError, match="Give the second kind of graph another structure="):
        pr.find_edges(torch.nn.Sequential(network, other), granularity="operation")
    with pytest.raises(EdgeError, match="with a relaxed graph"):
        pr.find_edges(torch.nn.Linear(2, 2), granularity="operation")


@pytest.mark.exact
@pytest.mark.parametrize("relaxation", [Mixture(), SampledPath(), TopPaths(2)])
def test_gates_of_each_relaxation_sum_to_one_and_hard_gates_are_the_largest(relaxation):
    torch.manual_seed(0)
    value = relaxation.distribution(0.5, torch.randn(7, 4)).rsample((50,))
    gates = relaxation.gate(value)
    torch.testing.assert_close(gates.sum(-1), torch.ones(50, 7))
    assert torch.equal(gates.argmax(-1), one_hot(value).argmax(-1))
    number = {Mixture: 4, SampledPath: 1, TopPaths: 2}[type(relaxation)]
    assert bool(((gates > 0).sum(-1) == number).all())
    assert relaxation.skips_zeros == (number < 4)
    with pytest.raises(ValueError, match="Expected num_paths >= 1"):
        TopPaths(0)


@pytest.mark.exact
def test_straight_through_has_the_gradient_of_the_soft_gate():
    value = torch.log_softmax(torch.randn(3, 4), -1).requires_grad_()
    weight = torch.randn(3, 4)
    (hard,) = torch.autograd.grad((SampledPath().gate(value) * weight).sum(), value)
    (soft,) = torch.autograd.grad((Mixture().gate(value) * weight).sum(), value)
    torch.testing.assert_close(hard, soft)


@pytest.mark.exact
@pytest.mark.parametrize("granularity", ["operation", BOTH])
def test_the_lean_elbo_is_pyros(granularity):
    x, y = make_data()
    model = make_model(granularity=granularity)
    guide = guides.MeanFieldGuide(model)
    losses = []
    for elbo in (LeanELBO(), TraceMeanField_ELBO()):
        torch.manual_seed(0)
        losses.append(float(elbo.differentiable_loss(model, guide, x, y).detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    trace = poutine.trace(model).get_trace(x, y)
    sites = [n for n, s in trace.nodes.items() if s["type"] == "sample" and n != "data"]
    gates = ["gate"] if granularity == BOTH else []
    assert sites == ["weight_prior", *gates, "operation", "y"]
    assert math.isfinite(Trace_ELBO().loss(model, guide, x, y))


@pytest.mark.contract
@pytest.mark.parametrize(
    ("granularity", "guide", "elbo", "relaxation"),
    [
        ("operation", guides.MeanFieldGuide, None, Mixture()),
        (BOTH, guides.MeanFieldGuide, None, Mixture()),
        (BOTH, guides.LowRankGuide, None, Mixture()),
        (BOTH, guides.MeanFieldGuide, None, SampledPath()),
        (BOTH, guides.MeanFieldGuide, pr.LocalExpectationELBO(), SampledPath()),
        (BOTH, guides.AutoregressiveGuide, ScoreFunctionELBO(2), SampledPath()),
        ("operation", guides.MeanFieldGuide, None, TopPaths(2)),
    ],
)
def test_fits_draw_predict_and_come_back_from_a_file(
    granularity, guide, elbo, relaxation, tmp_path
):
    model = make_model(granularity=granularity, operation_relaxation=relaxation)
    posterior = fit(model, guide=guide, elbo=elbo).posterior
    x, y = make_data()
    draws = posterior.sample(20)
    assert set(draws.operations) == {g.name for g in model.edges.operations}
    for name, hard in draws.operations.items():
        assert hard.shape == (1, 20, model.edges[name].num_edges)
        assert bool((hard.sum(-1) == 1).all())
        torch.testing.assert_close(draws.operation_probability[name].sum(-1), torch.ones(1, 20))
    probability = posterior.operation_probability()
    assert all(p.shape == (1, model.edges[n].num_edges) for n, p in probability.items())
    assert posterior.predict(x, num_samples=5).outputs.shape == (1, 5, 20, 1)
    assert bool(posterior.elbo(x, y, num_samples=4).isfinite().all())
    assert posterior.sample_prior(3).operations["graph.h.y"].shape == (1, 3, 2)
    path = tmp_path / "posterior.safetensors"
    pr.save_posterior(posterior, path)
    again = pr.load_posterior(path, network=make_graph(), guide=guide)
    for name, drawn in again.sample(20).operations.items():
        assert torch.equal(drawn, draws.operations[name])


@pytest.mark.exact
def test_predictions_of_a_draw_are_those_of_its_derived_network():
    model = make_model()
    posterior = fit(model).posterior
    x, _ = make_data()
    draws, outputs = posterior.sample(6), posterior.predict(x, num_samples=6).outputs
    network = posterior.network()
    for index in range(6):
        gates = {n: g[0, index] for n, g in draws.operations.items()}
        chosen = Architecture.from_gates(model.edges, gates)
        if {"graph.a.h": "none", "graph.x.y": "none"}.items() <= chosen.operations.items():
            continue
        small = pr.derive(network, chosen, example_input=x)
        torch.testing.assert_close(small(x), outputs[0, index])


@pytest.mark.exact
@pytest.mark.parametrize("held_out", [False, True])
def test_an_interrupted_fit_ends_with_the_same_numbers(held_out, tmp_path):
    settings = {
        "num_epochs": 8,
        "held_out": make_data(seed=1) if held_out else None,
        "schedules": Schedules(gate_learning_rate=after(0.5)),
    }
    whole = fit(**settings)
    checkpoint = pr.Checkpoint(tmp_path / "state", interval=0.0)

    def interrupt(state):
        if state.step == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(**settings, checkpoint=checkpoint, callbacks=[interrupt])
    part = fit(**settings, checkpoint=checkpoint)
    assert all(torch.equal(t, part.posterior.state[n]) for n, t in whole.posterior.state.items())


@pytest.mark.exact
def test_the_structure_rests_while_the_weights_warm_up():
    def logits(fraction):
        schedules = Schedules(gate_learning_rate=after(fraction))
        result = fit(schedules=schedules, num_epochs=6)
        return result.posterior.state["guide.operation_posterior.logits"]

    assert float(logits(1.0)[:, :, :2].abs().max()) < 0.2  # one step, the very last
    assert float(logits(0.0)[:, :, :2].abs().max()) > 0.2
    with pytest.raises(ValueError, match=r"Expected fraction in \[0, 1\]"):
        after(1.5)


@pytest.mark.exact
def test_the_structure_learns_from_held_out_examples_and_the_weights_do_not():
    x, y = make_data()
    schedules = Schedules(kl_weight=constant(1.0))
    one = fit(held_out=(x, y), schedules=schedules, batch_size=None, num_epochs=5)
    other = fit(held_out=(x, -3 * y), schedules=schedules, batch_size=None, num_epochs=5)
    name = "guide.operation_posterior.logits"
    assert not torch.equal(one.posterior.state[name], other.posterior.state[name])
    rest = fit(
        held_out=(x, y),
        schedules=Schedules(kl_weight=constant(1.0), gate_learning_rate=constant(0.0)),
        batch_size=None,
        num_epochs=5,
    )
    assert float(rest.posterior.state[name][:, :, :2].abs().max()) == 0.0


@pytest.mark.exact
def test_priors_of_operations():
    edges = make_model().edges
    sparse = priors.CategoricalPrior({"none": 2.0, "graph.h.y": torch.tensor([0.5, -0.5])})
    absent = priors.operations.ABSENT
    expected = torch.tensor([[0.0, 0.0, 2.0], [0.5, -0.5, absent], [2.0, 0.0, absent]])
    assert torch.equal(sparse.logits(edges), expected)
    costs = priors.OperationCostPrior(0.1).logits(edges)
    torch.testing.assert_close(
        costs, torch.tensor([[0.0, 0, 0], [-0.7, -0.7, absent], [0.0, -0.4, absent]])
    )
    with pytest.raises(ValueError, match=r"but got \['conv'\]"):
        priors.CategoricalPrior({"conv": 1.0}).logits(edges)
    with pytest.raises(ValueError, match=r"of shape \(2,\)"):
        priors.CategoricalPrior({"graph.h.y": torch.zeros(3)}).logits(edges)
    with pytest.raises(ValueError, match="Expected finite log_weights"):
        priors.CategoricalPrior({"none": math.inf}).logits(edges)
    with pytest.raises(ValueError, match="Expected nats >= 0"):
        priors.OperationCostPrior(-1.0)


@pytest.mark.statistical
def test_frequencies_under_the_dirichlet_prior_are_dirichlet():
    model = make_model(operation_prior=priors.DirichletPrior(0.5))
    names = ["linear", "linear_tanh", "none", "relu", "tanh"]
    torch.manual_seed(0)
    shares = []
    for _ in range(4000):
        trace = poutine.trace(model.sample_latents).get_trace()
        rates = trace.nodes["operation_rate"]["value"]
        shares.append(
            rates[names.index("relu")]
            / rates[[names.index(n) for n in ("relu", "tanh", "none")]].sum()
        )
    drawn = torch.stack(shares)
    # Beta(0.5, 1): mean 1 / 3, variance ab / ((a + b)^2 (a + b + 1)).
    assert float(drawn.mean()) == pytest.approx(1 / 3, abs=0.03)
    assert float(drawn.var()) == pytest.approx(0.5 / (1.5**2 * 2.5), abs=0.01)
    posterior = fit(model).posterior
    assert "guide.latent_posteriors.loc.operation_rate" in posterior.state


@pytest.mark.contract
def test_wrong_uses_are_told():
    with pytest.raises(ValueError, match="Expected a model that gates operations"):
        fit(make_model(granularity="unit")).posterior.operation_probability()
    with pytest.raises(ValueError, match=r"for operations operation_probability\(\)"):
        fit().posterior.inclusion_probability()
    with pytest.raises(ValueError, match="Expected a model that gates operations"):
        guides.AutoregressiveGuide(make_model(granularity="unit"))
    with pytest.raises(ValueError, match="Expected hidden >= 0"):
        guides.AutoregressiveGuide(make_model(), hidden=-1)
    assert relaxations.OperationRelaxation is not None


@pytest.mark.exact
def test_the_posterior_over_architectures():
    model = make_model(granularity=BOTH)
    posterior = fit(model, num_epochs=30, gate_learning_rate=0.1).posterior
    drawn = draw_architectures(posterior, 500)
    shares = Counter(canonical(model.network, a) for a in drawn)
    found = probable_architectures(posterior, 3, num_samples=500)
    assert [share for _, share in found] == [n / 500 for _, n in shares.most_common(3)]
    probability = {n: p[0] for n, p in posterior.operation_probability().items()}
    exact = most_probable(model.edges, probability, 100, key=lambda a: canonical(model.network, a))
    chances = {canonical(model.network, a): p for a, p in exact}
    for text, count in shares.items():
        error = (chances[text] * (1 - chances[text]) / 500) ** 0.5
        assert abs(count / 500 - chances[text]) < 5 * error + 1 / 500
    x, y = make_data()
    cost = expected_cost(posterior, x[:2], num_samples=50)
    sizes = [
        derive(posterior.network(), a, example_input=x[:2]).receipt.after.num_parameters
        for a in draw_architectures(posterior, 50)
        if is_connected(model.network, a)
    ]
    assert cost.num_parameters[0] == pytest.approx(sum(sizes) / len(sizes))
    assert cost.num_parameters[1] <= cost.num_parameters[0] <= cost.num_parameters[2]
    assert cost.connected == len(sizes) / 50


@pytest.mark.exact
def test_architectures_are_compared_by_held_out_log_likelihood():
    import arviz as az

    model = make_model(granularity=BOTH)
    posterior = fit(model, num_epochs=30, num_chains=2).posterior
    x, y = make_data(seed=3)
    chosen = [a for a, _ in probable_architectures(posterior, 2)]
    values = architecture_log_likelihood(posterior, chosen[0], x, y, num_samples=4)
    draws = posterior.sample(4)
    network = hard_gated(posterior.network(1), chosen[0])
    for index in range(4):
        gates = {n: g[1, index] for n, g in draws.gates.items()}
        folded = model.edges.fold(dict(network.named_parameters()), gates)
        outputs = functional_call(network, folded, (x,))
        expected = posterior.likelihood(outputs).log_prob(y)
        torch.testing.assert_close(values[1, index], expected)
    data = report.architectures_to_arviz(
        posterior, {"first": chosen[0], "second": chosen[1]}, (x, y)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ArviZ, about Pareto shapes of so few draws
        table = az.compare(data)
    assert set(table.index) == {"first", "second"}


@pytest.mark.exact
def test_the_expected_size_is_the_mean_over_draws_of_operations_and_units():
    model = make_model(granularity=BOTH)
    result = fit(model, num_epochs=20, num_chains=2)
    posterior = result.posterior
    gates, operations = posterior.inclusion_probability(), posterior.operation_probability()
    found = expected_size(gates, model.edges, operations).num_parameters
    draws = posterior.sample(4000)
    shapes, edges = model.edges.shapes, model.edges
    for chain in range(2):
        units = draws.gates["edges.x__a.units"][chain].double()
        sizes = 0.0
        for name, shape in shapes.items():
            if name in edges.buffers:
                continue
            number = torch.full((4000,), float(math.prod(shape)), dtype=torch.float64)
            if name in ("edges.x__a.weight", "edges.x__a.bias"):
                number = units.sum(1) * (3 if name.endswith("weight") else 1)
            elif name.startswith("edges.h__y.operations.") and name.endswith("weight"):
                number = units.sum(1)
            for group in edges.operations:
                place = group.consumers[0].tensor.removesuffix("gate")
                for index, label in enumerate(group.labels):
                    if name.startswith(f"{place}operations.{label}."):
                        number = number * draws.operations[group.name][chain, :, index]
            sizes = sizes + number
        error = float(sizes.std()) / 4000**0.5
        assert abs(float(sizes.mean()) - float(found[chain])) < 5 * error + 1e-6
    torch.testing.assert_close(
        torch.from_numpy(result.history.expected_size[:, -1]), found, check_dtype=False
    )


@pytest.mark.contract
@pytest.mark.parametrize("relaxation", [Mixture(), SampledPath()])
def test_units_have_a_gate_for_each_example_beside_operations(relaxation):
    model = make_model(granularity=BOTH, operation_relaxation=relaxation)
    result = fit(model, noise="per_example")
    assert bool(torch.from_numpy(result.history.loss).isfinite().all())
