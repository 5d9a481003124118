"""KL warm-up: everything but the likelihood is weighed, whatever guide and ELBO."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal

from pyro_relevance import LeanELBO, RelevanceModel, find_edges, likelihoods, networks, priors
from pyro_relevance.model.annealing import AnnealMessenger
from pyro_relevance.model.elbo import site_terms
from pyro_relevance.model.guides import LowRankGuide, MeanFieldGuide


def make_model(weight_prior):
    network = networks.MLP(3, [4], 1)
    edges = find_edges(network, granularity=("input", "unit"))
    return RelevanceModel(
        network,
        edges,
        likelihood=likelihoods.Gaussian(),
        num_data=10,
        gate_prior=priors.HierarchicalPrior(),
        weight_prior=weight_prior,
    )


@pytest.mark.exact
@pytest.mark.parametrize("make_guide", [MeanFieldGuide, LowRankGuide, AutoNormal])
@pytest.mark.parametrize("weight_prior", [priors.PointWeights(), priors.HorseshoeWeights()])
def test_loss_is_likelihood_plus_weighed_kl(make_guide, weight_prior):
    """Analytic KLs, sampled KLs, factors and auxiliary sites are weighed; the targets are not."""
    with pyro.settings.context(module_local_params=True):
        model = make_model(weight_prior)
        guide = make_guide(model)
        x, y = torch.randn(5, 3), torch.randn(5)
        with torch.no_grad():
            guide(x, y)
            pyro.set_rng_seed(0)
            terms = site_terms(model, guide, x, y)
            kl = sum(term for name, term in terms.items() if name != "y")
            for elbo in (LeanELBO(), Trace_ELBO() if make_guide is AutoNormal else LeanELBO()):
                pyro.set_rng_seed(0)
                with AnnealMessenger(0.3):
                    loss = elbo.loss(model, guide, x, y)
                assert loss == pytest.approx(float(terms["y"] + 0.3 * kl), rel=1e-5)


@pytest.mark.exact
def test_works_with_the_elbo_of_pyro():
    model = make_model(priors.ArdWeights())
    guide = MeanFieldGuide(model)
    x, y = torch.randn(5, 3), torch.randn(5)
    losses = []
    for elbo in (LeanELBO(), TraceMeanField_ELBO()):
        pyro.set_rng_seed(0)
        with AnnealMessenger(0.2):
            losses.append(elbo.loss(model, guide, x, y))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.contract
def test_likelihood_sites_can_be_named():
    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("a", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))
        pyro.sample("b", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))

    with AnnealMessenger(0.5, likelihood_sites=("b",)):
        nodes = pyro.poutine.trace(model).get_trace().nodes
    assert [nodes[name]["scale"] for name in "zab"] == [0.5, 0.5, 1.0]


@pytest.mark.contract
@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_weight_is_checked(weight):
    text = rf"^Expected a KL weight > 0, but got {weight}\. Start a warm-up at a small number, not"
    with pytest.raises(ValueError, match=text):
        AnnealMessenger(weight)
