"""Gradual magnitude pruning: the schedule, what is pruned when, and that it is one training."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

import pyro_relevance as pr
from pyro_relevance.comparison.baselines import Recipe, dense, gradual_magnitude_pruning
from pyro_relevance.comparison.baselines.gradual_magnitude import GradualPruning
from pyro_relevance.comparison.baselines.magnitude import kept_weights, smallest_weights
from pyro_relevance.comparison.baselines.recipe import seeded_network
from pyro_relevance.training.callbacks import TrainingState
from pyro_relevance.training.checkpoint import Checkpoint
from pyro_relevance.training.plain import FALLING, train_plain, with_zeros
from pyro_relevance.training.schedules import Schedules, cosine
from tests.small_fits import regression, same

RECIPE = Recipe(pr.likelihoods.Gaussian(0.5), batch_size=16, learning_rate=1e-2)


def make():
    return pr.networks.MLP(4, [10, 6], 1)


class Watch:
    """Keeps the weights after each step, and stops the run after one of them."""

    def __init__(self, last=None):
        self.last = last
        self.weights = []

    def __call__(self, state):
        weights = {
            name: parameter.detach().clone()
            for name, parameter in state.model.network.named_parameters()
            if parameter.ndim > 1
        }
        self.weights.append(weights)
        return state.step == self.last

    def numbers(self):
        return [sum(int(w.count_nonzero()) for w in step.values()) for step in self.weights]


def watched(density, num_epochs=40, **settings):
    """Weights after each of three steps in an epoch."""
    watch = Watch()
    RECIPE.train(
        seeded_network(make, 0),
        regression(),
        num_epochs=num_epochs,
        callbacks=[GradualPruning(density, **settings), watch],
    )
    return watch


def state(step, num_steps, network, time_used=0.0):
    model = SimpleNamespace(network=network)
    return TrainingState(step, num_steps, None, 1.0, 1.0, None, model, None, time_used)


def simulated(pruning, num_steps, seconds=0.0, limit=1.0):
    """Number of weights of 1,000, and share of pruning that is done, after each step of a run."""
    network = torch.nn.Linear(100, 10)
    numbers, done = [], []
    pruning.load({})
    for step in range(1, num_steps + 1):
        now = state(step, num_steps, network, step * seconds / limit)
        pruning(now)
        numbers.append(int(network.weight.count_nonzero()))
        done.append(pruning.done)
        if now.is_last:
            break
    return numbers, done


@pytest.mark.exact
def test_the_schedule_is_that_of_the_paper():
    pruning = GradualPruning(0.05, start=0.1, end=0.6, interval=40)
    num_steps, first, last = 2000, 200, 1200
    numbers, _ = simulated(pruning, num_steps)
    for step, number in enumerate(numbers, 1):
        pruned = min(max(first, first + (step - first) // 40 * 40), last)
        sparsity = 0.95 + (0.0 - 0.95) * (1 - (pruned - first) / (last - first)) ** 3  # eq. (1)
        assert number == int(1000 * (1 - sparsity) + 1e-6), step
    assert numbers[-1] == 50
    assert pruning.density_after(0.0) == 1.0
    assert pruning.density_after(1.0) == 0.05
    layers = GradualPruning({"hidden1": 0.05, "output": 0.5})
    assert layers.density_after(1.0) == {"hidden1": 0.05, "output": 0.5}
    assert layers.density_after(0.5) == {"hidden1": 0.05 + 0.95 / 8, "output": 0.5 + 0.5 / 8}


@pytest.mark.property
@pytest.mark.parametrize("num_steps", [1, 2, 3, 7, 50, 399, 400, 1001, 3000])
@pytest.mark.parametrize(("start", "end"), [(0.1, 0.6), (0.0, 1.0), (0.9, 0.95)])
def test_runs_of_every_length_are_pruned_to_the_end(num_steps, start, end):
    numbers, done = simulated(GradualPruning(0.1, start=start, end=end), num_steps)
    assert numbers[-1] == 100
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) == num_steps
    # Pruning is over when its time is, and not before it.
    assert (done.index(1.0) + 1) / num_steps >= end
    assert done.index(1.0) / num_steps < end
    changes = [t for t, (a, b) in enumerate(pairwise([0.0, *done]), 1) if a != b]
    assert all(b - a <= 40 for a, b in pairwise(changes))
    assert all(t / num_steps > start for t in changes)
    if (end - start) * num_steps >= 25:
        assert len(changes) >= 20


@pytest.mark.exact
def test_the_schedule_goes_by_the_time_where_that_is_over_first():
    """3,000 steps are planned, and the time is enough for 1,000 of them."""
    by_time, done = simulated(GradualPruning(0.1), 3000, seconds=0.01, limit=10.0)
    assert len(by_time) == 1000
    assert by_time[-1] == 100
    assert done.index(1.0) == pytest.approx(599, abs=1)
    changes = [t for t, (a, b) in enumerate(pairwise(by_time), 2) if a != b]
    assert changes[:3] == [140, 180, 220]
    assert by_time[139] == int(1000 * (0.1 + 0.9 * (1 - 0.04 / 0.5) ** 3))


@pytest.mark.exact
def test_each_step_keeps_the_weights_that_the_schedule_says():
    watch = watched(0.25)  # 120 steps, pruned after 12, 15, ..., 72
    numbers, number = watch.numbers(), 106
    for step, kept in enumerate(numbers, 1):
        time = min(1.0, max(0.0, (min(step, 72) // 3 * 3 - 12) / 60))
        assert kept == int(number * (0.25 + 0.75 * (1 - time) ** 3)), step
    assert numbers[10] == 106
    assert numbers[-1] == 26


@pytest.mark.exact
def test_weights_that_are_gone_stay_so_and_the_largest_are_kept():
    watch = watched(0.25)
    for before, after in zip(watch.weights, watch.weights[1:], strict=False):
        assert all(bool((after[name][w == 0] == 0).all()) for name, w in before.items())
    # The others go on learning after the last pruning.
    for name, weights in watch.weights[72].items():
        kept = weights != 0
        assert bool((watch.weights[-1][name][kept] != weights[kept]).all())
    # A pruning as that of the other rivals: the same step without it, then theirs.
    free, pruned = Watch(15), Watch(15)
    for callbacks in ([free], [GradualPruning(0.25, start=0.2, end=0.25), pruned]):
        RECIPE.train(
            seeded_network(make, 0), regression(), num_epochs=20, callbacks=callbacks, seed=2
        )
    assert free.numbers() == [106] * 15
    assert pruned.numbers()[-3:] == [50, 29, 26]
    first = make()
    first.load_state_dict(free.weights[12], strict=False)
    expected = with_zeros(first, smallest_weights(first, 0.25 + 0.75 * (2 / 3) ** 3))
    assert kept_weights(expected).num_kept == pruned.numbers()[12]
    assert all(
        torch.equal(expected.get_parameter(name), weights)
        for name, weights in pruned.weights[12].items()
    )


@pytest.mark.exact
def test_each_layer_can_have_its_own_density():
    density = {"hidden1": 0.25, "output": 0.5}
    result = gradual_magnitude_pruning(
        make, regression(), recipe=RECIPE, density=density, num_epochs=10
    )
    kept = {name: int(keep.sum()) for name, keep in result.choice.items()}
    assert kept == {"hidden1.weight": 10, "hidden2.weight": 60, "output.weight": 3}


@pytest.mark.exact
def test_it_is_one_training_with_the_recipe_of_the_others():
    settings = {"recipe": RECIPE, "num_epochs": 20, "seed": 1}
    result = gradual_magnitude_pruning(make, regression(), density=0.25, **settings)
    assert [(s.name, s.kind, s.num_epochs) for s in result.history] == [
        ("training with pruning", "training", 20)
    ]
    assert result.cost.num_nonzero == 26 + 17
    assert result.choice == kept_weights(result.network)
    # Where nothing is pruned it is the training of the dense network, minibatch by minibatch.
    everything = gradual_magnitude_pruning(make, regression(), density=1.0, **settings)
    plain = dense(make, regression(), **settings)
    assert same(everything.network.state_dict(), plain.network.state_dict())


@pytest.mark.exact
def test_the_learning_rate_falls_along_one_cosine():
    asked, falling = [], cosine(1.0, 0.01)

    def noted(progress):
        asked.append(progress)
        return falling(progress)

    recipe = Recipe(
        RECIPE.likelihood,
        batch_size=16,
        learning_rate=1e-2,
        schedules=Schedules(learning_rate=noted),
    )
    asked.clear()  # of the checks of the schedules
    gradual_magnitude_pruning(make, regression(), recipe=recipe, density=0.25, num_epochs=10)
    assert asked[-30:] == pytest.approx([step / 29 for step in range(30)])
    assert asked.count(1.0) == 1


@pytest.mark.contract
def test_classes_and_a_size():
    x, y = regression(96)
    data = (x, (y > 0).long())
    recipe = Recipe(pr.likelihoods.Categorical(), batch_size=16, learning_rate=1e-2)

    def make_classifier():
        return pr.networks.MLP(4, [10], 2)

    result = gradual_magnitude_pruning(
        make_classifier, data, recipe=recipe, density=0.3, num_epochs=40
    )
    assert result.choice.num_kept == 18
    wrong = (result.network(x).argmax(-1) != data[1]).float().mean()
    assert float(wrong) < 0.15


@pytest.mark.contract
def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path):
    def run(checkpoint, *others):
        return train_plain(
            seeded_network(make, 0),
            regression(),
            likelihood=RECIPE.likelihood,
            num_data=48,
            num_epochs=40,
            batch_size=16,
            learning_rate=1e-2,
            schedules=FALLING,
            callbacks=[GradualPruning(0.25), *others],
            checkpoint=checkpoint,
        )

    def killed(state):
        if state.step == 80:
            raise KeyboardInterrupt

    whole = run(None)
    path = tmp_path / "run.ckpt"
    with pytest.raises(KeyboardInterrupt):
        run(Checkpoint(path, interval=0), killed)
    assert path.exists()
    resumed = run(Checkpoint(path, interval=0))
    first, second = (fitted.posterior.network().state_dict() for fitted in (whole, resumed))
    assert same(first, second)
    assert sum(int(w.count_nonzero()) for w in second.values() if w.ndim > 1) == 26


@pytest.mark.contract
def test_what_is_refused():
    settings = {"recipe": RECIPE, "num_epochs": 1}
    with pytest.raises(ValueError, match=r"a density in \(0, 1\] of the network, but got 0"):
        gradual_magnitude_pruning(make, regression(), density=0, **settings)
    with pytest.raises(ValueError, match=r"layers out of \['hidden1', 'hidden2', 'output'\]"):
        gradual_magnitude_pruning(make, regression(), density={"conv1": 0.5}, **settings)
    with pytest.raises(ValueError, match="0 <= start < end <= 1, but got 0.6 and 0.6"):
        gradual_magnitude_pruning(make, regression(), density=0.5, start=0.6, **settings)
    with pytest.raises(ValueError, match="interval >= 1, but got 0"):
        GradualPruning(0.5, interval=0)
