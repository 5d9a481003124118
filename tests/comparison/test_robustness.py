"""Changed weights and inputs: sizes, bounds, and the worst change where it is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pyro_relevance as pr
from pyro_relevance.comparison.robustness import fgsm, input_noise, pgd, robustness, weight_noise
from tests.small_fits import make_network, regression, same


@pytest.mark.statistical
def test_noise_of_weights_has_its_size_and_leaves_zeros():
    network = nn.Linear(200, 300)
    with torch.no_grad():
        network.weight.view(-1)[::2] = 0.0
    before = {n: t.clone() for n, t in network.state_dict().items()}
    noisy = weight_noise(network, 0.3, seed=1)
    assert same(before, network.state_dict())
    change = (noisy.weight - network.weight).detach()
    assert not change.view(-1)[::2].any()
    size = network.weight.detach().view(-1)[1::2].square().mean().sqrt()
    # 30,000 draws: the standard error of their standard deviation is 0.4 %.
    assert float(change.view(-1)[1::2].std() / size) == pytest.approx(0.3, rel=0.02)
    assert same(noisy.state_dict(), weight_noise(network, 0.3, seed=1).state_dict())
    assert not same(noisy.state_dict(), weight_noise(network, 0.3, seed=2).state_dict())


@pytest.mark.statistical
def test_noise_of_inputs_has_its_size():
    x = torch.zeros(100, 300)
    assert float(input_noise(x, 0.7).std()) == pytest.approx(0.7, rel=0.02)
    assert torch.equal(input_noise(x, 0.0), x)


@pytest.mark.exact
def test_the_worst_change_of_a_linear_model_is_known():
    network = nn.Linear(3, 1).double()
    x = torch.randn(7, 3, dtype=torch.float64)
    with torch.no_grad():
        y = network(x)[:, 0] + torch.tensor([1, -1] * 3 + [1])
    likelihood = pr.likelihoods.Gaussian(0.5, learn_noise=False)
    # The residual grows by epsilon times the sum of absolute weights, away from the target.
    sign = (network(x)[:, 0] - y).sign().detach()
    expected = x + 0.1 * sign[:, None] * network.weight.sign().detach()
    assert torch.allclose(fgsm(network, likelihood, x, y, 0.1), expected)
    moved = pgd(network, likelihood, x, y, 0.1)
    assert torch.allclose(moved, expected)
    with torch.no_grad():
        residual = (network(moved)[:, 0] - y).abs()
    assert torch.allclose(residual, 1 + 0.1 * network.weight.abs().sum())


@pytest.mark.contract
def test_changes_stay_within_the_bound_and_do_harm():
    network, (x, y) = make_network(batch_norm=True).train(), regression()
    likelihood = pr.likelihoods.Gaussian(0.5)
    moved = pgd(network, likelihood, x, y, 0.2, num_steps=7)
    assert network.training
    assert float((moved - x).abs().max()) <= 0.2 + 1e-6

    def error(network, x, y):
        with torch.no_grad():
            return float((network(x)[:, 0] - y).square().mean())

    network.eval()
    found = robustness(network, likelihood, (x, y), error, epsilon=0.2)
    assert set(found) == {"weight_noise", "input_noise", "fgsm", "pgd"}
    assert found["fgsm"] > error(network, x, y)
    assert found["pgd"] >= 0.99 * found["fgsm"]
    still = robustness(
        network, likelihood, (x, y), error, epsilon=0.0, weight_scale=0.0, input_scale=0.0
    )
    assert list(still.values()) == pytest.approx(4 * [error(network, x, y)])


@pytest.mark.exact
def test_a_network_that_reads_nothing_cannot_be_attacked():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.value = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.value.expand(len(x), 1)

    x, y = regression()
    likelihood = pr.likelihoods.Gaussian(0.5)
    assert torch.equal(fgsm(Constant(), likelihood, x, y, 0.1), x)


@pytest.mark.contract
def test_what_is_refused():
    network, (x, y) = make_network(), regression()
    likelihood = pr.likelihoods.Gaussian()
    with pytest.raises(ValueError, match="Expected scale >= 0, but got -1"):
        weight_noise(network, -1.0)
    with pytest.raises(ValueError, match="Expected epsilon >= 0, but got nan"):
        fgsm(network, likelihood, x, y, float("nan"))
    with pytest.raises(ValueError, match="Expected num_steps >= 1, but got 0"):
        pgd(network, likelihood, x, y, 0.1, num_steps=0)
