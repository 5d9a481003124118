"""ELBOs of hard choices against enumeration of all architectures."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call

import pyro_relevance as pr
from pyro_relevance import LocalExpectationELBO, ScoreFunctionELBO
from pyro_relevance.model.distributions.one_hot_concrete import categorical_kl
from pyro_relevance.model.relaxations import Mixture, SampledPath
from tests.bounds import assert_mean
from tests.small_graphs import (
    choices,
    exact_posterior,
    log_likelihoods,
    make_data,
    make_graph,
    make_model,
)

NUM_DRAWS = 600


def make_case(relaxation=None):
    graph = make_graph().double()
    x, y = make_data()
    model = make_model(
        graph,
        operation_relaxation=relaxation or SampledPath(),
        weight_prior=pr.priors.PointWeights(None),
    )
    guide = pr.guides.MeanFieldGuide(model)
    generator = torch.Generator().manual_seed(1)
    logits = guide.operation_posterior.logits
    noise = torch.randn(logits.shape, generator=generator, dtype=logits.dtype)
    logits.data += 0.7 * noise * (logits.data > -1000)
    return model, guide, x.double(), y.double()


@pytest.mark.statistical
@pytest.mark.parametrize("relaxation", [SampledPath(), Mixture()])
@pytest.mark.parametrize(
    "elbo",
    [
        ScoreFunctionELBO(4),
        pytest.param(ScoreFunctionELBO(2), marks=pytest.mark.slow),
        LocalExpectationELBO(),
    ],
)
def test_gradients_and_values_are_those_of_the_enumerated_objective(elbo, relaxation):
    model, guide, x, y = make_case(relaxation)
    logits = guide.operation_posterior.logits
    log_q = (choices(model) * torch.log_softmax(logits, -1)).sum((-1, -2))
    costs = -log_likelihoods(model, x, y)
    exact = (log_q.exp() * costs).sum() + categorical_kl(logits, model.prior_operation_logits).sum()
    (expected,) = torch.autograd.grad(exact, logits)
    torch.manual_seed(2)
    gradients, values = [], []
    for _ in range(NUM_DRAWS):
        loss = elbo.differentiable_loss(model, guide, x, y)
        gradients.append(torch.autograd.grad(loss, logits)[0])
        values.append(loss.detach())
    present = logits.detach() > -1000
    # Rounding: the sums of q L over operations, which are tens of nats, nearly cancel.
    assert_mean(torch.stack(gradients)[:, present], expected[present], rounding=1e-9)
    assert float(torch.stack(gradients)[:, ~present].abs().max()) == 0.0
    assert_mean(torch.stack(values), exact.detach(), rounding=1e-9)


@pytest.mark.statistical
def test_local_expectation_is_less_noisy_than_the_score_function():
    model, guide, x, y = make_case()
    logits = guide.operation_posterior.logits
    torch.manual_seed(0)
    spread = {}
    for elbo in (ScoreFunctionELBO(5), LocalExpectationELBO()):
        drawn = [
            torch.autograd.grad(elbo.differentiable_loss(model, guide, x, y), logits)[0]
            for _ in range(100)
        ]
        spread[type(elbo).__name__] = float(torch.stack(drawn).std(0).norm())
    # Both compute the network five times in a step. With 800 draws the spreads are 1.66 and 1.28.
    assert spread["LocalExpectationELBO"] < spread["ScoreFunctionELBO"]


@pytest.mark.exact
def test_weights_get_the_gradient_of_the_paths_that_were_drawn():
    model, guide, x, y = make_case()
    elbo = LocalExpectationELBO()
    torch.manual_seed(5)
    loss = elbo.differentiable_loss(model, guide, x, y)
    weight = model.network.edges["x__a"].weight
    (found,) = torch.autograd.grad(loss, weight)
    torch.manual_seed(5)
    hard = pr.relaxations.one_hot(guide(x)["operation"])
    outputs = functional_call(
        model.network, model.edges.fold_operations(model.edges.split_operations(hard)), (x,)
    )
    density = -model.likelihood(outputs).log_prob(y).sum()
    torch.testing.assert_close(found, torch.autograd.grad(density, weight)[0])


@pytest.mark.contract
def test_wrong_uses_are_told():
    model, _, x, y = make_case()
    with pytest.raises(ValueError, match="Expected num_samples >= 2"):
        ScoreFunctionELBO(1)
    dependent = pr.guides.AutoregressiveGuide(model)
    with pytest.raises(ValueError, match="whose edges choose their operations independently"):
        LocalExpectationELBO().differentiable_loss(model, dependent, x, y)


@pytest.mark.exact
@pytest.mark.slow
def test_autoregressive_posterior_is_the_enumerated_one():
    graph = make_graph()
    for parameter in graph.parameters():
        parameter.requires_grad_(False).mul_(1.5)
    x, y = make_data(12)
    model = make_model(graph, num_data=12, operation_relaxation=SampledPath())
    exact = exact_posterior(model, x, y)
    schedules = pr.schedules
    fitted = pr.fit(
        model,
        (x, y),
        guide=pr.guides.AutoregressiveGuide,
        num_epochs=1500,
        batch_size=None,
        gate_learning_rate=0.05,
        elbo=ScoreFunctionELBO(16),
        schedules=schedules.Schedules(
            kl_weight=schedules.within(schedules.exponential(20.0, 1.0), 0.0, 0.6),
            learning_rate=schedules.cosine(1.0, 0.0),
        ),
    )
    guide = fitted.posterior.guide
    state = {n: t[0] for n, t in fitted.posterior.state.items()}
    own = {n: state[f"guide.{n}"] for n, _ in guide.named_parameters()}
    guide.load_state_dict(own, strict=False)
    found = guide.log_probability(choices(model)).exp().detach()
    torch.testing.assert_close(found.sum(), torch.ones(()))
    assert float((found - exact).abs().sum()) / 2 < 0.05
