"""Values under shared weights against those of the derived networks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pyro_relevance import Precision, derive, find_edges, likelihoods
from pyro_relevance.errors import ArchitectureError
from pyro_relevance.graphs import Architecture, is_connected, most_probable, spaces
from pyro_relevance.posterior.evaluation import mean_log_likelihood
from pyro_relevance.search.shared_weights import SharedWeights


def images(number: int = 30) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(number, 3, 8, 8, generator=generator)
    return x, torch.randint(0, 10, (number,), generator=generator)


def cells() -> tuple[nn.Module, list[Architecture]]:
    torch.manual_seed(0)
    network = spaces.nasbench201_space(10, channels=4, num_cells=1)
    edges = find_edges(network, granularity="operation")
    generator = torch.Generator().manual_seed(0)
    probability = {g.name: torch.rand(5, generator=generator).softmax(0) for g in edges.operations}
    found = [a for a, _ in most_probable(edges, probability, 40) if is_connected(network, a)]
    return network, found[:6]


@pytest.mark.exact
def test_values_are_those_of_the_derived_networks_with_inherited_weights():
    network, architectures = cells()
    network = network.double()
    x, y = images()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    shared = SharedWeights(network, likelihoods.Categorical(), (x.double(), y), batch_size=30)
    # Backwards too: nothing of the architecture before is left over.
    for architecture in [*architectures, *reversed(architectures)]:
        plain = derive(network, architecture, example_input=x[:2].double()).network.eval()
        expected = mean_log_likelihood(plain, likelihoods.Categorical(), (x.double(), y))
        assert shared(architecture) == pytest.approx(expected, abs=1e-12)
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())


@pytest.mark.exact
def test_batches_are_weighed_by_their_examples():
    torch.manual_seed(0)
    network = spaces.mlp_space(3, 1)
    edges = find_edges(network, granularity="operation")
    architecture = Architecture({g.name: g.labels[-1] for g in edges.operations})
    data = (torch.randn(10, 3), torch.randn(10))
    noise = likelihoods.Gaussian(0.3)
    whole, parts = (
        SharedWeights(network, noise, data, batch_size=size)(architecture) for size in (10, 4)
    )
    assert parts == pytest.approx(whole, rel=1e-5)


@pytest.mark.contract
def test_another_precision_gives_nearly_the_same_values():
    network, architectures = cells()
    exact = SharedWeights(network, likelihoods.Categorical(), images())
    rough = SharedWeights(
        network,
        likelihoods.Categorical(),
        images(),
        precision=Precision(autocast=torch.bfloat16, channels_last=True),
    )
    values = [(exact(a), rough(a)) for a in architectures]
    assert all(b == pytest.approx(a, abs=0.05) for a, b in values)
    assert all(a != b for a, b in values)


@pytest.mark.contract
def test_what_does_not_fit_is_told():
    network, _ = cells()
    with pytest.raises(ValueError, match="Expected a network with relaxed graphs"):
        SharedWeights(nn.Linear(2, 2), likelihoods.Categorical(), images())
    x, y = images()
    for data in (images(0), (x, y[1:])):
        with pytest.raises(ValueError, match="Expected as many held-out inputs as targets"):
            SharedWeights(network, likelihoods.Categorical(), data)
    with pytest.raises(ArchitectureError, match="Expected an operation for each of the edges"):
        SharedWeights(network, likelihoods.Categorical(), images())(Architecture({}))
