"""The concrete gate against float64 densities and the Bernoulli variable behind it."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn
from torch.distributions import Bernoulli, RelaxedBernoulli, kl_divergence
from torch.func import vmap

from pyro_relevance.model.distributions import HardConcrete, LogitConcrete, concrete_kl_monte_carlo
from pyro_relevance.model.distributions.logit_concrete import bernoulli_kl
from tests.bounds import assert_frequency, assert_mean, integrate

TEMPERATURES = [0.05, 0.1, 0.2, 0.5, 1.0]
DISTRIBUTIONS = [LogitConcrete, HardConcrete]


def _grid_of_logits(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    logits = torch.linspace(-30, 30, 121).to(dtype)
    q, p = torch.meshgrid(logits, logits, indexing="ij")
    return q.flatten(), p.flatten()


def _reference_kl(q: Tensor, p: Tensor) -> Tensor:
    """Bernoulli KL in float64, written with all four log-probabilities."""
    q, p = q.double(), p.double()
    log = nn.functional.logsigmoid
    return q.sigmoid() * (log(q) - log(p)) + (-q).sigmoid() * (log(-q) - log(-p))


def _density_kl(difference: Tensor) -> Tensor:
    """KL of two logistic densities whose locations differ: d coth(d / 2) - 2."""
    d = difference.double()
    return torch.where(d == 0, 0.0, d / torch.tanh(d / 2) - 2)


@pytest.mark.exact
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_density_integrates_to_one(distribution, temperature):
    logits = torch.tensor([-30.0, -4.0, 0.0, 4.0, 30.0], dtype=torch.float64)
    gate = distribution(temperature, logits)
    standard = torch.linspace(-45, 45, 20001, dtype=torch.float64)
    grid = gate.mean[:, None] + standard / temperature
    density = gate.log_prob(grid.T).exp().T
    torch.testing.assert_close(
        torch.trapezoid(density, grid), torch.ones_like(logits), rtol=0, atol=1e-10
    )


@pytest.mark.exact
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_density_is_that_of_the_binary_concrete_in_float64(temperature):
    logits = torch.tensor([-3.0, 0.0, 2.0], dtype=torch.float64)
    value = torch.linspace(-8, 8, 33, dtype=torch.float64)[:, None]
    # Change of variables from (0, 1): p(v) = p(sigmoid(v)) sigmoid(v) (1 - sigmoid(v)).
    relaxed = RelaxedBernoulli(torch.tensor(temperature).double(), logits=logits)
    expected = relaxed.log_prob(value.sigmoid().expand(33, 3))
    expected = expected + value.sigmoid().log() + (1 - value.sigmoid()).log()
    torch.testing.assert_close(
        LogitConcrete(temperature, logits).log_prob(value), expected, rtol=1e-8, atol=1e-8
    )


@pytest.mark.exact
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_float32_density_keeps_its_digits(distribution, temperature):
    logits = torch.linspace(-30, 30, 61)
    gate = distribution(temperature, logits)
    value = gate.rsample((200,))
    expected = distribution(temperature, logits.double()).log_prob(value.double())
    assert value.dtype == torch.float32
    assert bool(value.isfinite().all())
    torch.testing.assert_close(gate.log_prob(value).double(), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.exact
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kl_and_its_gradient_match_float64(distribution, temperature, dtype):
    q, p = _grid_of_logits(dtype)
    q.requires_grad_()
    p.requires_grad_()
    kl = kl_divergence(distribution(temperature, q), distribution(temperature, p))
    kl.sum().backward()
    q64, p64 = q.detach().double(), p.detach().double()
    assert kl.dtype == torch.float32
    assert bool((kl >= 0).all())
    torch.testing.assert_close(kl.detach().double(), _reference_kl(q64, p64), rtol=1e-4, atol=5e-6)

    slope_q = q64.sigmoid() * (-q64).sigmoid() * (q64 - p64)
    slope_p = p64.sigmoid() - q64.sigmoid()
    precision = 1e-5 if dtype == torch.float32 else 1e-2  # a bfloat16 gradient has 8 bits
    variance = q64.sigmoid() * (-q64).sigmoid()
    # Relative to the variance of the gate: also gates at +-30 keep a slope of the right size.
    error = (q.grad.double() - slope_q).abs() / variance
    assert bool((error <= precision * (q64 - p64).abs().clamp(min=1)).all()), error.max()
    torch.testing.assert_close(p.grad.double(), slope_p, rtol=precision, atol=2e-7)
    apart = q64 != p64
    assert torch.equal(q.grad.sign().double()[apart], slope_q.sign()[apart])


@pytest.mark.exact
def test_kl_is_that_of_bernoulli_variables_beyond_the_range_of_float32():
    q = torch.tensor([80.0, -80.0, 60.0, 2.0, 200.0], requires_grad=True)
    p = torch.tensor([-1.0, 70.0, 61.0, -1.0, -200.0])
    kl = bernoulli_kl(q, p)
    (gradient,) = torch.autograd.grad(kl.sum(), q)
    torch.testing.assert_close(
        kl.detach().double(), _reference_kl(q.detach(), p), rtol=1e-5, atol=0
    )
    assert bool(gradient.isfinite().all())
    torch.testing.assert_close(
        kl[3], kl_divergence(Bernoulli(logits=q[3]), Bernoulli(logits=p[3])), rtol=1e-5, atol=0
    )


@pytest.mark.exact
def test_kl_of_few_gates_is_that_of_many():
    """Both ways of computing it, and their gradients, against float64."""
    q, p = _grid_of_logits(torch.float32)
    q, p = q[::7].clone().requires_grad_(), p[::7].clone().requires_grad_()
    parts = [
        bernoulli_kl(few_q, few_p) for few_q, few_p in zip(q.split(100), p.split(100), strict=True)
    ]
    found = torch.cat(parts)
    torch.testing.assert_close(
        found.detach().double(), _reference_kl(q.detach(), p.detach()), rtol=1e-4, atol=5e-6
    )
    found.sum().backward()
    q64, p64 = q.detach().double(), p.detach().double()
    variance = q64.sigmoid() * (-q64).sigmoid()
    torch.testing.assert_close(q.grad.double() / variance, q64 - p64, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(p.grad.double(), p64.sigmoid() - q64.sigmoid(), rtol=1e-5, atol=2e-7)


@pytest.mark.exact
@pytest.mark.parametrize("number", [7, 4096, 5000])
def test_kl_broadcasts_few_and_many_gates(number):
    q = torch.linspace(-5, 5, number)
    p = torch.tensor([[-1.0], [2.0]]).expand(2, number)
    expected = _reference_kl(q.expand(2, number), p)
    torch.testing.assert_close(bernoulli_kl(q, p).double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        bernoulli_kl(q, torch.tensor(-1.0)).double(), expected[0], rtol=1e-4, atol=1e-6
    )


@pytest.mark.exact
def test_kl_of_many_gates_needs_no_gradient_of_both():
    q, p = torch.linspace(-3, 3, 5000), torch.full((5000,), 0.5)
    for name in ("q", "p"):
        values = {"q": q, "p": p}
        learned = values[name] = values[name].clone().requires_grad_()
        (bernoulli_kl(values["q"], values["p"]) * 2.0).sum().backward()
        slopes = {"q": q.sigmoid() * (-q).sigmoid() * (q - p), "p": p.sigmoid() - q.sigmoid()}
        torch.testing.assert_close(learned.grad, 2.0 * slopes[name])


@pytest.mark.exact
def test_kl_has_a_gradient_at_logit_zero():
    q = torch.zeros((), requires_grad=True)
    bernoulli_kl(q, torch.tensor(-1.0)).backward()
    assert q.grad.item() == pytest.approx(0.25)


@pytest.mark.statistical
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_monte_carlo_kl_matches_float64(distribution, temperature):
    q, p = _grid_of_logits(torch.float32)
    q, p = q[::37], p[::37]
    gate, prior = distribution(temperature, q), distribution(temperature, p)
    value = gate.rsample((4000,))
    ratio = gate.log_prob(value) - prior.log_prob(value)
    assert_mean(ratio, _density_kl(q - p), rounding=2e-5)
    exact = distribution(temperature, q.double()).log_prob(value.double())
    exact = exact - distribution(temperature, p.double()).log_prob(value.double())
    torch.testing.assert_close(ratio.double(), exact, rtol=1e-5, atol=5e-5)


@pytest.mark.exact
def test_density_kl_formula_is_the_integral():
    grid = torch.linspace(-60, 60, 40001, dtype=torch.float64)
    for difference in (0.3, 2.0, 9.0):
        q = LogitConcrete(1.0, torch.tensor(difference, dtype=torch.float64)).log_prob(grid)
        p = LogitConcrete(1.0, torch.tensor(0.0, dtype=torch.float64)).log_prob(grid)
        integral = integrate(q.exp() * (q - p), grid)
        torch.testing.assert_close(
            integral, _density_kl(torch.tensor(difference)), rtol=0, atol=1e-6
        )


@pytest.mark.statistical
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_monte_carlo_kl_has_the_gradient_of_the_density_kl(distribution, temperature):
    start = torch.full((400,), 4.0, requires_grad=True)
    prior = distribution(temperature, torch.full((400,), -1.0))
    concrete_kl_monte_carlo(distribution(temperature, start), prior, 50).sum().backward()
    difference = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(difference / torch.tanh(difference / 2) - 2, difference)
    assert_mean(start.grad, slope, rounding=1e-5)
    assert bool((start.grad > 0).all())


@pytest.mark.statistical
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("estimator", ["analytic", "monte_carlo"])
def test_minimising_the_kl_alone_returns_to_the_prior(distribution, temperature, estimator):
    logits = torch.full((200,), 4.0, requires_grad=True)
    prior = distribution(temperature, torch.full((200,), -1.0))
    optimizer = torch.optim.Adam([logits], lr=0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=400)
    for _ in range(400):
        gate = distribution(temperature, logits)
        if estimator == "analytic":
            loss = kl_divergence(gate.to_event(1), prior.to_event(1))
            loss = loss + 0 * gate.rsample().sum()  # the sampled path stays differentiable
        else:
            loss = concrete_kl_monte_carlo(gate, prior, 8).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    if estimator == "analytic":
        torch.testing.assert_close(logits.detach(), prior.logits, rtol=0, atol=1e-3)
    else:
        assert_mean(logits.detach(), torch.tensor(-1.0), rounding=0.01)
        assert logits.std() < 0.2  # the noise of the last steps, not a drift


@pytest.mark.statistical
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sign_is_bernoulli(temperature, dtype):
    logits = torch.tensor([-8.0, -4.0, -1.0, 0.0, 1.0, 4.0, 8.0], dtype=dtype)
    value = LogitConcrete(temperature, logits).sample((40_000,))
    assert_frequency(value > 0, torch.sigmoid(logits.double()))


@pytest.mark.exact
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_at_both_ends_of_the_uniform_numbers_is_finite_and_symmetric(monkeypatch, dtype):
    half = torch.finfo(dtype).eps / 2  # spacing of uniform numbers: the largest is 1 - half
    ends = torch.tensor([0.0, 0.25, 0.5, 1 - half], dtype=dtype)
    monkeypatch.setattr(torch, "rand", lambda shape, **settings: ends.clone())
    for temperature in (0.5, torch.tensor(0.5, dtype=dtype)):
        drawn = LogitConcrete(temperature, torch.full((4,), 3.0, dtype=dtype)).rsample()
        noise = drawn * 0.5 - 3.0
        end = -math.log(half)
        expected = torch.tensor([-end, -math.log(3), 0.0, end], dtype=dtype)
        torch.testing.assert_close(noise, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.statistical
def test_every_gate_has_its_own_noise():
    noise = LogitConcrete(0.5, torch.zeros(4)).sample((20_000,)) * 0.5
    products = noise[:, :-1] * noise[:, 1:]
    assert_mean(products, torch.zeros(3))
    draws = LogitConcrete(0.5, torch.zeros(1000)).sample()
    assert draws.unique().numel() > 990


@pytest.mark.statistical
def test_moments():
    gate = LogitConcrete(0.5, torch.tensor([1.0, -2.0]))
    value = gate.sample((20_000,))
    assert_mean(value, gate.mean)
    assert_mean((value - gate.mean).square(), gate.variance)


@pytest.mark.statistical
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_vmap_draws_a_noise_of_its_own_for_every_chain(distribution):
    def chain(logits: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gate = distribution(temperature, logits).to_event(1)
        value = gate.rsample()
        prior = distribution(temperature, torch.full_like(logits, -1.0)).to_event(1)
        return value, gate.log_prob(value), kl_divergence(gate, prior)

    logits = torch.zeros(3, 50)
    value, log_prob, kl = vmap(chain, randomness="different")(logits, torch.full((3,), 0.5))
    assert (value[0] != value[1]).all()
    single = distribution(0.5, logits)
    torch.testing.assert_close(log_prob, single.log_prob(value).sum(-1))
    torch.testing.assert_close(kl, bernoulli_kl(logits, logits - 1).sum(-1))


class _Model(nn.Module):
    def __init__(self, distribution) -> None:
        super().__init__()
        self.distribution = distribution

    def forward(self) -> None:
        pyro.sample("gate", self.distribution(0.3, torch.full((400,), -1.0)).to_event(1))


class _Guide(_Model):
    def __init__(self, distribution) -> None:
        super().__init__(distribution)
        self.logits = nn.Parameter(torch.full((400,), 2.0))

    def forward(self) -> None:
        pyro.sample("gate", self.distribution(0.3, self.logits).to_event(1))


@pytest.mark.statistical
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_stock_elbos_use_the_right_kl(distribution):
    model, guide = _Model(distribution), _Guide(distribution)
    loss = TraceMeanField_ELBO().differentiable_loss(model, guide)
    loss.backward()
    kl = bernoulli_kl(torch.tensor(2.0), torch.tensor(-1.0))
    torch.testing.assert_close(loss.detach(), 400 * kl, rtol=1e-5, atol=0)
    assert bool((guide.logits.grad > 0).all())

    guide.zero_grad()
    loss = Trace_ELBO(num_particles=50).differentiable_loss(model, guide)
    loss.backward()
    # Pathwise, not score-function, gradients: each has the sign and size of the density KL's.
    slope = 1 / math.tanh(1.5) - 1.5 / math.sinh(1.5) ** 2
    assert_mean(guide.logits.grad, torch.tensor(slope))


@pytest.mark.contract
def test_shapes_expand_and_defaults():
    gate = LogitConcrete(torch.tensor(0.5), torch.zeros(3))
    assert gate.batch_shape == (3,)
    assert gate.event_shape == ()
    assert gate.expand((2, 3)).rsample((4,)).shape == (4, 2, 3)
    hard = HardConcrete(0.5, torch.zeros(3), gamma=-0.2, zeta=1.3).expand((2, 3))
    assert (hard.gamma, hard.zeta) == (-0.2, 1.3)
    assert gate.has_rsample
    assert gate.rsample((2,)).dtype == torch.float32
    assert LogitConcrete(1, torch.zeros(3).half()).rsample().dtype == torch.float32
    torch.testing.assert_close(gate.variance, torch.full((3,), math.pi**2 / (3 * 0.5**2)))
    assert LogitConcrete(0.5, torch.zeros(3).double()).rsample().dtype == torch.float64


@pytest.mark.contract
def test_noise_stays_float32_under_bfloat16_autocast():
    logits = torch.zeros(20_000, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gate = LogitConcrete(0.1, logits)
        value = gate.rsample()
        loss = gate.log_prob(value).sum() + value.sum()
    loss.backward()
    assert value.dtype == torch.float32
    assert value.unique().numel() > 19_000  # bfloat16 has a few hundred values in this range
    assert logits.grad.dtype == torch.bfloat16
    assert bool(logits.grad.isfinite().all())


@pytest.mark.contract
@pytest.mark.parametrize(
    ("temperature", "logits", "error", "text"),
    [
        (0.0, torch.zeros(2), ValueError, "Expected temperature to be positive and finite"),
        (-1.0, torch.zeros(2), ValueError, "but got -1.0"),
        (math.nan, torch.zeros(2), ValueError, "but got nan"),
        (math.inf, torch.zeros(2), ValueError, "but got inf"),
        (0, torch.zeros(2), ValueError, "but got 0"),
        (True, torch.zeros(2), TypeError, "but got bool"),
        (torch.ones(1), torch.zeros(2), ValueError, r"but got shape \(1,\)"),
        (torch.tensor(1), torch.zeros(2), TypeError, "but got dtype torch.int64"),
        ("1", torch.zeros(2), TypeError, "but got str. Pass a float"),
        (1.0, 0.0, TypeError, "Expected logits to be a floating-point tensor, but got float"),
        (1.0, torch.zeros(2).long(), TypeError, "Expected logits .* dtype torch.int64"),
    ],
)
def test_errors(temperature, logits, error, text):
    with pytest.raises(error, match=text):
        LogitConcrete(temperature, logits)


@pytest.mark.contract
def test_monte_carlo_kl_needs_a_sample():
    gate = LogitConcrete(1.0, torch.zeros(2))
    with pytest.raises(ValueError, match="Expected num_samples >= 1, but got 0"):
        concrete_kl_monte_carlo(gate, gate, 0)
    assert concrete_kl_monte_carlo(gate, gate, 1).tolist() == [0.0, 0.0]
