"""The one-hot gate against float64 densities and the categorical variable behind it."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence
from torch.func import vmap

from pyro_relevance.model.distributions import OneHotConcrete
from pyro_relevance.model.distributions.one_hot_concrete import categorical_kl
from tests.bounds import assert_frequency, assert_mean, integrate

TEMPERATURES = [0.05, 0.1, 0.5, 1.0]
LOGITS = torch.tensor([[0.0, 0.0, 0.0], [1.0, -2.0, 0.5], [-8.0, 3.0, 3.0]])


@pytest.mark.exact
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_density_integrates_to_one(temperature):
    # The density is one in the coordinates v_k - v_K, of which there are K - 1.
    logits = torch.tensor([0.3, -0.7, 0.2], dtype=torch.float64)
    gate = OneHotConcrete(temperature, logits)
    line = torch.linspace(-60, 60, 1501, dtype=torch.float64) / max(temperature, 1.0)
    u, w = torch.meshgrid(line, line, indexing="ij")
    value = torch.log_softmax(torch.stack([u, w, torch.zeros_like(u)], -1), -1)
    density = gate.log_prob(value).exp()
    total = integrate(integrate(density, line), line)
    torch.testing.assert_close(total, torch.ones((), dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.exact
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_density_of_two_operations_is_that_of_the_binary_gate(temperature):
    from pyro_relevance.model.distributions import LogitConcrete

    logits = torch.tensor([[1.3, -0.4], [0.0, 5.0]], dtype=torch.float64)
    logit = torch.tensor([[0.7], [-2.0], [9.0]], dtype=torch.float64).expand(3, 2)
    value = torch.stack(
        [torch.nn.functional.logsigmoid(logit), torch.nn.functional.logsigmoid(-logit)], -1
    )
    binary = LogitConcrete(temperature, logits[:, 0] - logits[:, 1])
    torch.testing.assert_close(
        OneHotConcrete(temperature, logits).log_prob(value), binary.log_prob(logit)
    )


@pytest.mark.exact
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_samples_and_densities_are_finite_at_every_temperature(temperature):
    gate = OneHotConcrete(temperature, LOGITS.clone().requires_grad_())
    value = gate.rsample((2000,))
    density = gate.log_prob(value)
    assert bool(value.isfinite().all())
    assert bool(density.isfinite().all())
    torch.testing.assert_close(value.exp().sum(-1), torch.ones(2000, 3))
    (gradient,) = torch.autograd.grad(density.sum() + value.sum(), gate.logits)
    assert bool(gradient.isfinite().all())


@pytest.mark.statistical
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_largest_gate_is_exactly_categorical(temperature):
    torch.manual_seed(0)
    value = OneHotConcrete(temperature, LOGITS).rsample((200_000,))
    hits = torch.nn.functional.one_hot(value.argmax(-1), 3)
    assert_frequency(hits, LOGITS.softmax(-1))


@pytest.mark.exact
def test_kl_is_that_of_the_categorical_variables():
    q = torch.randn(50, 5, generator=torch.Generator().manual_seed(1)) * 5
    p = torch.randn(50, 5, generator=torch.Generator().manual_seed(2)) * 5
    expected = kl_divergence(Categorical(logits=q.double()), Categorical(logits=p.double()))
    found = kl_divergence(OneHotConcrete(0.3, q), OneHotConcrete(0.7, p))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    assert float(categorical_kl(q, q + 3.0).abs().max()) < 1e-5


@pytest.mark.statistical
def test_density_ratio_has_the_mean_one():
    torch.manual_seed(3)
    q = OneHotConcrete(0.5, torch.tensor([0.5, 0.0, -0.5], dtype=torch.float64))
    p = OneHotConcrete(0.5, torch.tensor([0.0, 0.3, 0.1], dtype=torch.float64))
    value = q.rsample((100_000,))
    assert_mean((p.log_prob(value) - q.log_prob(value)).exp(), torch.ones(()))


@pytest.mark.exact
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_uniform_number_that_rounds_to_zero_is_in_the_middle_of_its_cell(monkeypatch, dtype):
    logits = torch.tensor([0.5, 0.0, -0.5], dtype=dtype)
    uniform = torch.tensor([0.0, 0.3, 0.6], dtype=dtype)
    monkeypatch.setattr(torch, "rand", lambda shape, **settings: uniform.clone())
    drawn = OneHotConcrete(0.5, logits).rsample()
    # Uniform numbers are multiples of eps / 2 = 2u; the first cell has its middle at u.
    unit = torch.finfo(dtype).eps / 4
    gumbel = [-math.log(unit), -math.log(-math.log(0.7)), -math.log(-math.log(0.4))]
    expected = torch.log_softmax((logits.double() + torch.tensor(gumbel).double()) / 0.5, -1)
    torch.testing.assert_close(drawn.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.exact
def test_density_by_the_formula_for_a_temperature_that_is_a_tensor():
    logits = torch.tensor([0.3, -0.7, 0.2, 1.0], dtype=torch.float64)
    value = torch.log_softmax(torch.tensor([1.0, -0.5, 0.0, 2.0]).double(), -1)
    temperature = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    score = (logits - 0.7 * value).tolist()
    constant = math.log(6) + 3 * math.log(0.7)  # Gamma(4) = 6
    expected = constant + sum(score) - 4 * math.log(sum(map(math.exp, score)))
    found = OneHotConcrete(temperature, logits).log_prob(value)
    assert float(found.detach()) == pytest.approx(expected)
    (slope,) = torch.autograd.grad(found, temperature)
    odds = torch.softmax(torch.tensor(score), -1)
    by_hand = 3 / 0.7 - float(value.sum()) + 4 * float((odds * value).sum())
    assert float(slope) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.exact
def test_half_precision_draws_in_float32_and_vmap_differs():
    gate = OneHotConcrete(0.5, torch.zeros(4, 3, dtype=torch.bfloat16))
    assert gate.rsample().dtype == torch.float32

    def draw(_: Tensor) -> Tensor:
        return OneHotConcrete(0.5, torch.zeros(4, 3)).rsample()

    drawn = vmap(draw, randomness="different")(torch.zeros(5))
    assert drawn.shape == (5, 4, 3)
    assert len(torch.unique(drawn)) == drawn.numel()


@pytest.mark.exact
def test_shapes_in_pyro():
    gate = OneHotConcrete(0.5, torch.zeros(4, 3))
    assert gate.batch_shape == (4,)
    assert gate.event_shape == (3,)
    assert gate.expand((2, 4)).rsample().shape == (2, 4, 3)
    assert gate.to_event(1).log_prob(gate.rsample()).shape == ()
    with pyro.plate("edges", 4):
        assert pyro.sample("operation", gate).shape == (4, 3)


@pytest.mark.contract
def test_wrong_arguments_are_told():
    with pytest.raises(ValueError, match=r"Expected logits of shape"):
        OneHotConcrete(0.5, torch.zeros(()))
    with pytest.raises(ValueError, match="Expected temperature to be positive"):
        OneHotConcrete(0.0, torch.zeros(3))
    with pytest.raises(TypeError, match="floating-point"):
        OneHotConcrete(0.5, torch.zeros(3, dtype=torch.long))
    assert math.isfinite(float(OneHotConcrete(torch.tensor(0.5), torch.zeros(3)).rsample().sum()))
