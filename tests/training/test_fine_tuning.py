"""A pruned network that is trained further: better, with the same zeros, and said to be another."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import pyro_relevance as pr
from pyro_relevance.training.fine_tuning import fine_tune
from tests.small_fits import make_model, make_network, quick_fit, regression, same


def make_pruned(granularity, **settings):
    network = make_network(**settings)
    model = make_model(network, granularity=granularity)
    posterior = quick_fit(model, num_epochs=20).posterior
    mask = pr.masks.top_fraction(posterior, 0.6)
    x, _ = regression()
    return pr.prune(posterior.network(), posterior.edges, mask, example_input=x)


def tune(pruned, **settings):
    settings = {"num_epochs": 30, "batch_size": 16, "learning_rate": 1e-2, **settings}
    return fine_tune(
        pruned, regression(), likelihood=pr.likelihoods.Gaussian(), num_data=48, **settings
    )


@pytest.mark.exact
@pytest.mark.parametrize("granularity", ["unit", "weight"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_it_gets_better_and_zeros_stay(granularity, batch_norm):
    pruned = make_pruned(granularity, batch_norm=batch_norm)
    before = copy.deepcopy(pruned.state_dict())
    tuned = tune(pruned)
    assert same(before, pruned.state_dict())
    x, y = regression()
    with torch.no_grad():
        errors = [
            float((n.eval()(x).squeeze(-1) - y).square().mean()) for n in (pruned, tuned.network)
        ]
    assert errors[1] < 0.8 * errors[0]
    old, new = pruned.network.state_dict(), tuned.network.network.state_dict()
    assert {n: t.shape for n, t in old.items()} == {n: t.shape for n, t in new.items()}
    weights = [name for name, p in pruned.network.named_parameters() if p.ndim > 1]
    for name in weights:
        assert torch.equal(old[name] == 0, new[name] == 0)
    assert any(not bool((old[name] == 0).any()) for name in weights) or granularity == "weight"
    assert tuned.network.receipt.after == pruned.receipt.after
    assert tuned.network.receipt.notes[-1].startswith("Trained further for 30 epochs")
    assert tuned.history.loss.shape[0] == 1


@pytest.mark.exact
def test_a_list_of_operations_is_trained_too(tmp_path):
    class Written(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 1)

        def forward(self, x):
            return self.b(torch.tanh(self.a(x)).view(-1, 6))

    network, (x, _) = Written(), regression()
    edges = pr.find_edges(network, example_input=x)
    mask = {"a.units": torch.tensor([1, 1, 1, 1, 0, 0]).bool()}
    pruned = pr.prune(network, edges, mask, example_input=x)
    tuned = tune(pruned)
    tuned.network.save(tmp_path / "tuned.safetensors")
    loaded = pr.load_pruned(tmp_path / "tuned.safetensors")
    assert torch.equal(loaded(x), tuned.network(x))
    assert not torch.equal(loaded(x), pruned(x))
    assert loaded.receipt.notes == tuned.network.receipt.notes


@pytest.mark.contract
def test_it_can_be_resumed_and_repeated(tmp_path):
    pruned = make_pruned("unit")

    def interrupt(state):
        if state.step == 20:
            raise KeyboardInterrupt

    checkpoint = pr.Checkpoint(tmp_path / "state", 0.0)
    with pytest.raises(KeyboardInterrupt):
        tune(pruned, checkpoint=checkpoint, callbacks=[interrupt])
    resumed = tune(pruned, checkpoint=checkpoint)
    assert same(resumed.network.state_dict(), tune(pruned).network.state_dict())
    assert not same(tune(pruned, seed=1).network.state_dict(), tune(pruned).network.state_dict())


@pytest.mark.contract
def test_what_is_refused():
    with pytest.raises(TypeError, match=r"what prune\(\) or load_pruned\(\) returned, but got Seq"):
        tune(make_network())
