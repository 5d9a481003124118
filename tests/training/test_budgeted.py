"""Training to a budget: the limit holds, and what is closed stays closed."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch import nn

import pyro_relevance as pr
from pyro_relevance.edges.size import count_cost
from pyro_relevance.masks import Mask
from pyro_relevance.training.budgeted.closing import Closing, zeros_of
from tests.small_fits import make_model, regression, same

QUICK = {"num_epochs": 20, "batch_size": 16, "learning_rate": 1e-2}


def wide_model(**settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 40), nn.Tanh(), nn.Linear(40, 20), nn.Tanh())
        network.append(nn.Linear(20, 1))
    return make_model(network, **{"granularity": "weight", **settings})


def convolutional():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            *(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU()),
            *(nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            nn.Linear(16, 3),
        )
        x = torch.randn(48, 1, 6, 6)
    edges = pr.find_edges(network, example_input=x[:2], granularity="unit")
    y = (x.mean((1, 2, 3)) > 0).long()
    likelihood = pr.likelihoods.Categorical()
    return pr.RelevanceModel(network, edges, likelihood=likelihood, num_data=48), (x, y)


@pytest.mark.contract
@pytest.mark.parametrize("score", ["saliency", "magnitude", "inclusion_probability"])
def test_single_weights_use_the_budget_of_parameters(score):
    budget = pr.Budget(num_parameters=200, score=score)
    fitted = pr.fit_to_budget(wide_model(), regression(), budget, **QUICK)
    counted = count_cost(fitted.pruned.network, torch.zeros(2, 4)).num_nonzero
    assert 198 <= counted <= 200
    assert fitted.pruned.receipt.after.num_nonzero == counted
    assert "Trained further" in fitted.pruned.receipt.notes[-1]


@pytest.mark.contract
@pytest.mark.parametrize("unit", ["num_parameters", "num_macs", "num_bytes"])
def test_channels_are_within_the_budget_and_near_it(unit):
    model, data = convolutional()
    before = count_cost(model.network, data[0][:2])
    limit = getattr(before, unit) // 2
    fitted = pr.fit_to_budget(model, data, pr.Budget(**{unit: limit}), **QUICK)
    after = getattr(count_cost(fitted.pruned.network, data[0][:2]), unit)
    dearest = before.num_macs / 12 if unit == "num_macs" else getattr(before, unit) / 12
    assert limit - dearest <= after <= limit


@pytest.mark.contract
def test_the_masked_network_is_the_pruned_one_when_the_structure_is_decided():
    model, data = wide_model(), regression()
    fitted = pr.fit_to_budget(model, data, pr.Budget(num_parameters=200), **QUICK)
    network = fitted.posterior.network()
    masked = pr.apply_mask(network, model.edges, fitted.mask)
    # Closed edges are zeros in the network of the posterior already.
    torch.testing.assert_close(masked(data[0]), network(data[0]), rtol=0, atol=0)
    assert fitted.pruned.receipt.max_difference < 1e-5


@pytest.mark.exact
def test_the_interval_is_that_of_the_small_network():
    fitted = pr.fit_to_budget(wide_model(), regression(), pr.Budget(num_parameters=200), **QUICK)
    x, y = regression(200, seed=5)
    found = fitted.loss_interval((x, y))
    with torch.no_grad():
        outputs = fitted.pruned.network.eval()(x)
        loss = -float(fitted.likelihood(outputs).log_prob(y).mean())
    assert float(found.loss.lower) < loss < float(found.loss.upper)
    few = fitted.loss_interval((x, y), num_rows=10).loss
    assert few.upper - few.lower > found.loss.upper - found.loss.lower


@pytest.mark.contract
def test_a_cost_of_the_users_own_is_a_limit():
    budget = pr.Budget(limit=30.0, cost=lambda mask: 0.1 * mask.num_kept)
    fitted = pr.fit_to_budget(wide_model(), regression(), budget, **QUICK)
    assert fitted.mask.num_kept == 300


@pytest.mark.contract
def test_without_gates_weights_are_ranked_by_their_saliency_alone():
    fitted = pr.fit_to_budget(
        wide_model(gate_prior=None), regression(), pr.Budget(num_parameters=150), **QUICK
    )
    assert 148 <= fitted.pruned.receipt.after.num_nonzero <= 150


@pytest.mark.contract
def test_gaussian_weights_are_ranked_by_signal_to_noise():
    model = wide_model(gate_prior=None, weight_prior=pr.priors.GaussianWeights(1.0))
    fitted = pr.fit_to_budget(model, regression(), pr.Budget(num_parameters=150), **QUICK)
    assert 148 <= fitted.pruned.receipt.after.num_nonzero <= 150
    assert fitted.num_epochs[0] == 0
    scores = pr.relevance.signal_to_noise(fitted.posterior.sample(50, seed=0), model.edges)
    kept = torch.cat([fitted.mask[n].flatten() for n in scores])
    score = torch.cat([s[0].flatten() for s in scores.values()])
    assert score[kept].min() >= score[~kept].max()


@pytest.mark.statistical
def test_relevant_inputs_survive_a_tight_budget():
    x, y = regression(256)
    model = wide_model(num_data=256)
    fitted = pr.fit_to_budget(
        model, (x, y), pr.Budget(num_parameters=40), **{**QUICK, "num_epochs": 100}
    )
    kept = fitted.mask["0.weight"]
    assert kept[:, :2].sum() > kept[:, 2:].sum()
    residual = fitted.pruned.network.eval()(x).flatten().detach() - y
    assert float(residual.square().mean()) < 0.1 * float(y.var())


@pytest.mark.exact
def test_the_saliency_is_that_of_the_formula():
    model = make_model(granularity=("input", "unit"))
    closing = Closing(pr.Budget(num_parameters=10), model.edges)
    parameters = dict(model.network.named_parameters())
    generator = torch.Generator().manual_seed(1)
    for name in model.edges.folded_names:
        closing.squares[name] = torch.rand(parameters[name].shape, generator=generator)
    probability = {g.name: torch.rand(g.shape, generator=generator) for g in model.edges}
    found = closing._of_weights(model, probability)
    first, second = (parameters[f"{i}.weight"].detach().double() for i in (0, 2))
    units = next(g.name for g in model.edges if g.granularity == "unit")
    p, q = probability["inputs"].double(), probability[units].double()
    rise = (first * p).square() * closing.squares["0.weight"].double() ** 0.25
    expected = rise.sum(0) / 5  # five units read an input
    torch.testing.assert_close(found["inputs"].double(), expected, rtol=1e-5, atol=0)
    rise = (second * q).square() * closing.squares["2.weight"].double() ** 0.25
    # Four weights and a bias make a unit, one weight reads it.
    torch.testing.assert_close(found[units].double(), rise.sum(0) / 6, rtol=1e-5, atol=0)


@pytest.mark.exact
def test_multiply_accumulates_that_go_with_a_channel():
    model, _ = convolutional()
    costs = pr.Budget(num_macs=10_000).costs(model.edges)
    first, second = costs.values()
    # 36 pixels: 9 weights make a channel of the first layer, 16 x 9 read it.
    assert first.tolist() == [36 * 9 + 36 * 9 * 16] * 12
    assert second.tolist() == [36 * 9 * 12 + 3] * 16


@pytest.mark.contract
def test_edges_close_one_after_another_and_stay_closed():
    model, open_edges = wide_model(), []

    def look(state):
        weights = [p for p in state.model.network.parameters() if p.ndim > 1]
        open_edges.append(torch.cat([w.detach().flatten() != 0 for w in weights]))

    pr.fit_to_budget(model, regression(), pr.Budget(num_parameters=100), **QUICK, callbacks=[look])
    closing = [o for o in open_edges if o.numel() == model.edges.num_edges]
    numbers = [int(o.sum()) for o in closing]
    assert numbers[0] == 980
    assert len(set(numbers)) > 8
    for before, after in zip(closing, closing[1:], strict=False):
        assert not bool((after & ~before).any())


@pytest.mark.contract
def test_callbacks_see_one_training():
    seen = []
    pr.fit_to_budget(
        wide_model(),
        regression(),
        pr.Budget(num_parameters=100),
        **QUICK,
        callbacks=[lambda s: seen.append((s.step, s.num_steps, s.progress))],
    )
    steps, lengths, progress = zip(*seen, strict=True)
    assert list(steps) == list(range(1, 61))
    assert set(lengths) == {60}
    assert list(progress) == sorted(progress)
    assert progress[-1] == 1


@pytest.mark.contract
def test_learning_rates_fall_once():
    rates = []
    settings = {**QUICK, "optimizer": Remembering(rates)}
    pr.fit_to_budget(wide_model(), regression(), pr.Budget(num_parameters=100), **settings)
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(1e-2)
    assert rates[-1] == pytest.approx(1e-4, rel=1e-3)


@pytest.mark.contract
@pytest.mark.parametrize(("granularity", "restart"), [("unit", None), ("weight", True)])
def test_learning_rates_start_again_for_a_narrow_network(granularity, restart):
    rates = []
    settings = {**QUICK, "optimizer": Remembering(rates)}
    model = wide_model(granularity=granularity)
    budget = pr.Budget(num_parameters=300, restart=restart)
    pr.fit_to_budget(model, regression(), budget, **settings)
    before, after = rates[:36], rates[36:]
    for part in (before, after):
        assert part == sorted(part, reverse=True)
        assert part[0] == pytest.approx(1e-2)
        assert part[-1] == pytest.approx(1e-4, rel=1e-3)


class Remembering:
    """Makes Adam, and keeps the learning rate of the weights at each step."""

    def __init__(self, rates):
        self.rates = rates

    def __call__(self, groups):
        rates = self.rates

        class Adam(torch.optim.Adam):
            def step(self, closure=None):
                rates.append(self.param_groups[0]["lr"])
                return super().step(closure)

        return Adam(groups)


class StopHere(Exception):
    """What a test raises to interrupt a training."""


@pytest.mark.contract
@pytest.mark.parametrize("step", [4, 20, 50])
def test_an_interrupted_training_goes_on_with_the_same_numbers(tmp_path, step):
    data, budget = regression(), pr.Budget(num_parameters=100)

    def run(checkpoint=None, callbacks=()):
        return pr.fit_to_budget(
            wide_model(), data, budget, **QUICK, checkpoint=checkpoint, callbacks=callbacks
        )

    def stop(state):
        if state.step == step:
            raise StopHere

    checkpoint = pr.Checkpoint(tmp_path / "run.safetensors", interval=0)
    with pytest.raises(StopHere):
        run(checkpoint, [stop])
    resumed, whole = run(checkpoint), run()
    assert resumed.mask == whole.mask
    assert same(
        dict(resumed.pruned.network.named_parameters()),
        dict(whole.pruned.network.named_parameters()),
    )


@pytest.mark.contract
def test_nothing_of_the_user_changes():
    model = wide_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    pr.fit_to_budget(model, regression(), pr.Budget(num_parameters=100), **QUICK)
    assert same(before, dict(model.state_dict()))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.contract
def test_with_a_limit_of_time_all_parts_have_their_share(monkeypatch):
    fitted = pr.fit_to_budget(
        wide_model(),
        regression(),
        pr.Budget(num_parameters=100),
        **{**QUICK, "num_epochs": 1e6},
        max_seconds=1.0,
    )
    assert all(number > 0 for number in fitted.num_epochs)
    assert fitted.pruned.receipt.after.num_nonzero <= 100


@pytest.mark.exact
def test_zeros_are_the_readers_of_closed_edges():
    model = make_model(granularity=("input",))
    zeros = zeros_of(model.edges, {"inputs": torch.tensor([True, False, True, False])})
    assert zeros["0.weight"].tolist() == [[False, True, False, True]] * 5


@pytest.mark.contract
@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ({}, "exactly one of"),
        ({"num_parameters": 5, "num_macs": 5}, "exactly one of"),
        ({"num_parameters": 0}, "positive number"),
        ({"num_parameters": True}, "positive number"),
        ({"limit": 5.0}, "together with cost"),
        ({"num_parameters": 5, "cost": len}, "together with cost"),
        ({"num_parameters": 5, "start": 0.7}, "start < end"),
        ({"num_parameters": 5, "end": 1.0}, "start < end"),
        ({"num_parameters": 5, "score": "size"}, "Expected score"),
    ],
)
def test_a_wrong_budget_is_refused(arguments, pattern):
    with pytest.raises(ValueError, match=pattern):
        pr.Budget(**arguments)


@pytest.mark.contract
def test_what_cannot_work_is_refused_before_any_work():
    data, model = regression(), wide_model()
    unreachable = pr.Budget(limit=1.0, cost=lambda mask: 2.0 + mask.num_kept)
    with pytest.raises(ValueError, match="budget of at least"):
        pr.fit_to_budget(model, data, unreachable)
    with pytest.raises(TypeError, match="one RelevanceModel"):
        pr.fit_to_budget([model, model], data, pr.Budget(num_parameters=100))
    with pytest.raises(TypeError, match="Expected a Budget"):
        pr.fit_to_budget(model, data, 100)
    with pytest.raises(TypeError, match="num_epoch"):
        pr.fit_to_budget(model, data, pr.Budget(num_parameters=100), num_epoch=3)
    stopping = pr.callbacks.EarlyStopping(data, patience=2)
    with pytest.raises(ValueError, match="no EarlyStopping"):
        pr.fit_to_budget(model, data, pr.Budget(num_parameters=100), callbacks=[stopping])


@pytest.mark.contract
def test_scores_by_probability_need_gates():
    budget = pr.Budget(num_parameters=100, score="inclusion_probability")
    with pytest.raises(ValueError, match="model with gates"):
        pr.fit_to_budget(wide_model(gate_prior=None), regression(), budget, **QUICK)


@pytest.mark.exact
def test_closed_edges_never_come_back():
    model = wide_model()
    scores = {g.name: torch.rand(g.shape) for g in model.edges}
    name = next(iter(scores))
    scores[name][:] = -torch.inf
    mask = pr.Budget(num_parameters=10_000).choose(scores, model.edges)
    assert isinstance(mask, Mask)
    assert not bool(mask[name].any())
    assert all(bool(mask[n].all()) for n in scores if n != name)


@pytest.mark.contract
def test_a_budget_is_a_value():
    budget = pr.Budget(num_parameters=100)
    assert dataclasses.replace(budget, end=0.5) == pr.Budget(num_parameters=100, end=0.5)


@pytest.mark.contract
def test_single_weights_are_removed_beside_gated_inputs_and_units():
    model, data = wide_model(granularity=("input", "unit")), regression()
    budget = pr.Budget(num_parameters=100, single_weights=True)
    fitted = pr.fit_to_budget(model, data, budget, **QUICK)
    assert 98 <= fitted.pruned.receipt.after.num_nonzero <= 100
    assert set(fitted.posterior.inclusion_probability()) == {g.name for g in model.edges}
    assert fitted.mask.num_kept <= 100
    assert {g.granularity for g in fitted.edges} == {"weight"}
    network = fitted.posterior.network()
    masked = pr.apply_mask(network, fitted.edges, fitted.mask)
    torch.testing.assert_close(masked(data[0]), network(data[0]), rtol=0, atol=0)


@pytest.mark.contract
@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_a_front_is_nested_and_each_network_is_within_its_budget(granularity):
    budgets = [pr.Budget(num_parameters=number) for number in (400, 250, 120)]
    model, data = wide_model(granularity=granularity, gate_prior=None), regression()
    front = pr.fit_front(model, data, budgets, **{**QUICK, "num_epochs": 60})
    sizes = [fitted.pruned.receipt.after.num_nonzero for fitted in front]
    if granularity == "weight":
        assert all(0.98 * b.num_parameters <= s for b, s in zip(budgets, sizes, strict=True))
    assert all(s <= b.num_parameters for b, s in zip(budgets, sizes, strict=True))
    epochs = [sum(fitted.num_epochs) for fitted in front]
    assert epochs == pytest.approx([30, 15, 15], abs=0.7)
    for before, after in itertools.pairwise(front):
        widths = [[p.shape for p in f.pruned.network.parameters()] for f in (before, after)]
        assert all(b >= a for b, a in zip(*widths, strict=True))
        # A weight that was removed before is no edge any more, or stays closed.
        zeros = {name: p == 0 for name, p in before.pruned.network.named_parameters() if p.ndim > 1}
        masked = pr.apply_mask(before.pruned.network, after.edges, after.mask)
        for name, parameter in masked.named_parameters():
            if name in zeros:
                assert not bool(parameter[zeros[name]].any())
        kept = [g for g in after.edges if g.granularity == "weight"]
        for group in kept:
            assert not bool((after.mask[group.name] & zeros[group.name]).any())


@pytest.mark.contract
def test_a_front_that_makes_no_sense_is_refused():
    model, data = wide_model(), regression()
    few, many = pr.Budget(num_parameters=100), pr.Budget(num_parameters=200)
    for budgets, pattern in (
        ([many], "two or more"),
        ([few, many], "largest to the smallest"),
        ([many, pr.Budget(num_bytes=400)], "of one kind"),
    ):
        with pytest.raises(ValueError, match=pattern):
            pr.fit_front(model, data, budgets)
    with pytest.raises(ValueError, match="first in"):
        pr.fit_front(model, data, [many, few], first=1.0)
    latent = wide_model(gate_prior=None, weight_prior=pr.priors.GaussianWeights(1.0))
    with pytest.raises(ValueError, match="point weights"):
        pr.fit_front(latent, data, [many, few])
