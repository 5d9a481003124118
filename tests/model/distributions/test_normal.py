"""Draws of the normal, log-normal and Student-t distributions."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch

from pyro_relevance.model.distributions.normal import LogNormal, Normal
from pyro_relevance.model.distributions.student_t import StudentT
from tests.bounds import assert_mean

LOC = torch.tensor([-1.5, 0.0, 2.0], dtype=torch.float64)
SCALE = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)


@pytest.mark.exact
@pytest.mark.parametrize("name", ["Normal", "LogNormal"])
def test_draws_are_those_of_torch(name):
    ours, theirs = {"Normal": Normal, "LogNormal": LogNormal}[name], getattr(dist, name)
    torch.manual_seed(3)
    drawn = ours(LOC, SCALE).rsample((4, 2))
    torch.manual_seed(3)
    torch.testing.assert_close(drawn, theirs(LOC, SCALE).rsample((4, 2)))
    assert drawn.dtype == torch.float64


@pytest.mark.exact
def test_gradients_of_a_normal_draw():
    loc, scale = LOC.clone().requires_grad_(), SCALE.clone().requires_grad_()
    drawn = Normal(loc, scale).rsample()
    drawn.sum().backward()
    torch.testing.assert_close(loc.grad, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(scale.grad, ((drawn - loc) / scale).detach())


@pytest.mark.contract
def test_normal_draws_under_vmap():
    drawn = torch.func.vmap(lambda loc: Normal(loc, SCALE).rsample(), randomness="different")(
        torch.stack([LOC, LOC + 100])
    )
    assert drawn.shape == (2, 3)
    assert bool((drawn[1] - drawn[0] > 50).all())


@pytest.mark.contract
@pytest.mark.parametrize("kind", [LogNormal, StudentT])
def test_draws_and_densities_of_many_chains(kind):
    """Under vmap nothing may look at a value, as checks of arguments do."""

    def chain(loc):
        first = (torch.tensor(4.0).double(),) if kind is StudentT else ()
        made = kind(*first, loc, SCALE)
        return (made.rsample() if kind is LogNormal else made._chi2.df), made.log_prob(SCALE)

    locations = torch.stack([LOC, LOC + 1])
    if kind is LogNormal:
        locations = torch.stack([LOC, LOC + 1])
    drawn, density = torch.func.vmap(chain, randomness="different")(locations)
    assert drawn.unique().numel() == (6 if kind is LogNormal else 1)
    single = torch.stack([chain(loc)[1] for loc in locations])
    torch.testing.assert_close(density, single)


@pytest.mark.exact
def test_student_t_is_that_of_pyro():
    df = torch.tensor([3.0, 5.0, 30.0], dtype=torch.float64)
    ours, theirs = StudentT(df, LOC, SCALE), dist.StudentT(df, LOC, SCALE)
    values = torch.linspace(-4, 4, 9, dtype=torch.float64)[:, None]
    torch.testing.assert_close(ours.log_prob(values), theirs.log_prob(values))
    torch.testing.assert_close(ours.variance, theirs.variance)
    torch.manual_seed(5)
    drawn = ours.rsample((6,))
    torch.manual_seed(5)
    torch.testing.assert_close(drawn, theirs.rsample((6,)))
    wide = ours.expand((2, 3))
    assert wide.batch_shape == (2, 3)
    torch.testing.assert_close(
        wide.log_prob(values[:, None]), theirs.log_prob(values[:, None]).expand(9, 2, 3)
    )


@pytest.mark.statistical
def test_moments_of_draws():
    assert_mean(Normal(LOC, SCALE).sample((20_000,)), LOC)
    squares = (Normal(LOC, SCALE).sample((20_000,)) - LOC).square()
    assert_mean(squares, SCALE.square())


def _density(kind, value, loc, scale):
    return kind(loc, scale, validate_args=False).log_prob(value)


@pytest.mark.exact
def test_the_density_of_a_normal_is_that_of_torch_with_both_derivatives():
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(3, 40, dtype=torch.float64, generator=generator)
    numbers[2] = (3 * numbers[2]).exp()
    inputs = tuple(row.clone().requires_grad_() for row in numbers)
    torch.testing.assert_close(_density(Normal, *inputs), _density(dist.Normal, *inputs))
    assert torch.autograd.gradcheck(lambda *given: _density(Normal, *given), inputs)
    rows = (*numbers[:2, :6], 1 + numbers[1, :6] ** 2)
    moderate = tuple(row.clone().requires_grad_() for row in rows)
    assert torch.autograd.gradgradcheck(lambda *given: _density(Normal, *given), moderate)


@pytest.mark.exact
def test_the_density_of_other_shapes_and_types():
    loc, scale = torch.randn(5), torch.rand(5) + 0.5
    for value in (torch.randn(3, 5), torch.randn(5).double(), torch.zeros(())):
        torch.testing.assert_close(
            _density(Normal, value, loc, scale), _density(dist.Normal, value, loc, scale)
        )
    mixed = _density(Normal, loc.double(), loc.double(), scale)
    torch.testing.assert_close(mixed, _density(dist.Normal, loc.double(), loc.double(), scale))
    with pytest.raises(ValueError, match="within the support"):
        Normal(loc, scale, validate_args=True).log_prob(torch.full((5,), float("nan")))


@pytest.mark.exact
def test_the_density_under_vmap():
    loc, scale, value = torch.randn(4, 6), torch.rand(4, 1) + 0.5, torch.randn(6)

    def density(loc, scale):
        return _density(Normal, value, loc, scale.expand(6)).sum()

    found = torch.func.vmap(torch.func.grad(density, argnums=(0, 1)))(loc, scale)
    for index in range(4):
        expected = torch.func.grad(density, argnums=(0, 1))(loc[index], scale[index])
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a[index], b)
