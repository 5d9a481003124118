r"""Likelihoods: from the raw outputs of a network to the distribution of the target.

A likelihood is an ``nn.Module`` that maps outputs of shape ``(num_data, num_outputs)`` to a Pyro
distribution with batch shape ``(num_data,)``. Its own unknowns (a noise scale, degrees of freedom)
are parameters of the module and are learned together with the weights. Targets are assumed to be on
the scale that the network was trained on.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pyro_relevance.model import distributions
from pyro_relevance.model.distributions.normal import Normal

__all__ = [
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "Likelihood",
    "Poisson",
    "StudentT",
    "build",
    "describe",
    "moved",
]


@runtime_checkable
class Likelihood(Protocol):
    """What a model asks of a likelihood."""

    task: str
    """``"regression"``, ``"classification"`` or ``"count"``."""

    def __call__(self, outputs: Tensor) -> dist.TorchDistribution:
        """Return the distribution of the targets given ``(num_data, num_outputs)`` raw outputs."""

    def mean(self, outputs: Tensor) -> Tensor:
        """Return the expected target; for classes ``(num_data, num_classes)`` probabilities."""

    def num_outputs(self) -> int | None:
        """Return how many outputs the network must have, or ``None`` if any number will do."""

    def settings(self) -> dict[str, object]:
        """Return the constructor's arguments, so that the likelihood can be rebuilt from a file."""


def moved(likelihood: Likelihood, device: torch.device | str) -> Likelihood:
    """Return a copy of a likelihood on a device.

    Args:
        likelihood: The likelihood; one that is no module has no tensors to move.
        device: Where the outputs of the network lie.
    """
    likelihood = copy.deepcopy(likelihood)
    return likelihood.to(device) if isinstance(likelihood, nn.Module) else likelihood


class _Location(nn.Module):
    """Shared part of the two likelihoods with a location and a scale."""

    task = "regression"

    def __init__(
        self,
        noise_scale: float,
        learn_noise: bool,
        heteroscedastic: bool,
        num_targets: int,
        minimum_scale: float,
    ) -> None:
        super().__init__()
        if not (math.isfinite(noise_scale) and noise_scale > 0):
            raise ValueError(
                "Expected noise_scale > 0 (standard deviation of the target's noise, in the "
                f"target's units), but got {noise_scale}."
            )
        if num_targets < 1:
            raise ValueError(f"Expected num_targets >= 1, but got {num_targets}.")
        if not (math.isfinite(minimum_scale) and minimum_scale >= 0):
            raise ValueError(f"Expected minimum_scale >= 0, but got {minimum_scale}.")
        self.heteroscedastic = heteroscedastic
        self.num_targets = num_targets
        self.minimum_scale = minimum_scale
        self._settings: dict[str, object] = {
            "noise_scale": noise_scale,
            "learn_noise": learn_noise,
            "heteroscedastic": heteroscedastic,
            "num_targets": num_targets,
            "minimum_scale": minimum_scale,
        }
        self.log_scale = nn.Parameter(
            torch.full((num_targets,), math.log(noise_scale)), requires_grad=learn_noise
        )

    def num_outputs(self) -> int:
        """See `Likelihood`."""
        return self.num_targets * (2 if self.heteroscedastic else 1)

    def settings(self) -> dict[str, object]:
        """See `Likelihood`."""
        return dict(self._settings)

    def location_and_scale(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return location and scale, both ``(num_data,)`` or ``(num_data, num_targets)``."""
        location = outputs[..., : self.num_targets]
        scale = self.log_scale.exp().expand(location.shape)
        if self.heteroscedastic:
            # The second half of the outputs is the logarithm of a factor on the common scale; it is
            # bounded softly so that one wild output cannot make a likelihood of zero width.
            log_factor = 3.0 * torch.tanh(outputs[..., self.num_targets :] / 3.0)
            scale = scale * log_factor.exp()
        if self.minimum_scale:
            scale = scale + self.minimum_scale
        if self.num_targets == 1:
            return location.squeeze(-1), scale.squeeze(-1)
        return location, scale

    def mean(self, outputs: Tensor) -> Tensor:
        """Return the location, ``(num_data,)`` or ``(num_data, num_targets)``."""
        return self.location_and_scale(outputs)[0]

    def _finish(self, distribution: dist.TorchDistribution) -> dist.TorchDistribution:
        return distribution if self.num_targets == 1 else distribution.to_event(1)


class Gaussian(_Location):
    r"""Normal noise: :math:`y_n \sim N(f(x_n), \sigma^2)`.

    Targets are ``(num_data,)`` where ``num_targets`` is 1, else ``(num_data, num_targets)``.

    Args:
        noise_scale: Standard deviation at the start (target's units).
        learn_noise: Whether the standard deviation is learned.
        heteroscedastic: If true, the network has ``2 * num_targets`` outputs, the second half being
            the logarithm of a factor on the common standard deviation (softly bounded to a factor
            of e^3 either way).
        num_targets: Number of target columns.
        minimum_scale: Added to the standard deviation; keeps the likelihood bounded.

    Raises:
        ValueError: If a scale is not positive or there is no target.
    """

    def __init__(
        self,
        noise_scale: float = 1.0,
        *,
        learn_noise: bool = True,
        heteroscedastic: bool = False,
        num_targets: int = 1,
        minimum_scale: float = 0.0,
    ) -> None:
        super().__init__(noise_scale, learn_noise, heteroscedastic, num_targets, minimum_scale)

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """Return ``Normal(location, scale)`` for ``(num_data, num_outputs)`` outputs."""
        return self._finish(Normal(*self.location_and_scale(outputs), validate_args=False))


class StudentT(_Location):
    r"""Student-t noise, robust to outliers: :math:`y_n \sim t_\nu(f(x_n), \sigma)`.

    Args:
        degrees_of_freedom: :math:`\nu` (at the start, if learned); must exceed 2 so that the
            variance exists.
        noise_scale: Scale :math:`\sigma` at the start (target's units).
        learn_noise: Whether the scale is learned.
        learn_degrees_of_freedom: Whether :math:`\nu - 2` is learned (on a log scale).
        heteroscedastic: As for `Gaussian`.
        num_targets: Number of target columns.
        minimum_scale: Added to the scale.

    Raises:
        ValueError: If a scale is not positive, there is no target, or ``degrees_of_freedom`` is not
            above 2 and finite.
    """

    def __init__(
        self,
        degrees_of_freedom: float = 4.0,
        *,
        noise_scale: float = 1.0,
        learn_noise: bool = True,
        learn_degrees_of_freedom: bool = False,
        heteroscedastic: bool = False,
        num_targets: int = 1,
        minimum_scale: float = 0.0,
    ) -> None:
        super().__init__(noise_scale, learn_noise, heteroscedastic, num_targets, minimum_scale)
        if not (math.isfinite(degrees_of_freedom) and degrees_of_freedom > 2.0):
            raise ValueError(
                "Expected finite degrees_of_freedom > 2 (the variance is infinite at and below 2), "
                f"but got {degrees_of_freedom}. Use Gaussian for the limit of many."
            )
        self._settings |= {
            "degrees_of_freedom": degrees_of_freedom,
            "learn_degrees_of_freedom": learn_degrees_of_freedom,
        }
        self.log_excess = nn.Parameter(
            torch.tensor(math.log(degrees_of_freedom - 2.0)), requires_grad=learn_degrees_of_freedom
        )

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """Return ``StudentT(nu, location, scale)`` for ``(num_data, num_outputs)`` outputs."""
        location, scale = self.location_and_scale(outputs)
        degrees = 2.0 + self.log_excess.exp()
        return self._finish(distributions.StudentT(degrees, location, scale))


class _Discrete(nn.Module):
    """Shared part of the likelihoods without unknowns of their own."""

    def num_outputs(self) -> int | None:
        """See `Likelihood`."""
        return 1

    def settings(self) -> dict[str, object]:
        """See `Likelihood`."""
        return {}


class Categorical(_Discrete):
    """Classes 0 .. K-1 with the network's outputs as logits; integer targets ``(num_data,)``."""

    task = "classification"

    def num_outputs(self) -> None:
        """Return ``None``: one output for each class."""

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """Return ``Categorical(logits=outputs)``."""
        return dist.Categorical(logits=outputs, validate_args=False)

    def mean(self, outputs: Tensor) -> Tensor:
        """Return the probabilities of the classes, ``(num_data, num_classes)``."""
        return outputs.softmax(-1)


class Bernoulli(_Discrete):
    """Zero-one targets ``(num_data,)``; the network has one output, the log-odds of a one."""

    task = "classification"

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """Return ``Bernoulli(logits=outputs)``."""
        logits = outputs.squeeze(-1)
        return dist.Bernoulli(logits=logits, validate_args=False)  # type: ignore[no-any-return]

    def mean(self, outputs: Tensor) -> Tensor:
        """Return the probability of a one, ``(num_data,)``."""
        return outputs.squeeze(-1).sigmoid()


class Poisson(_Discrete):
    """Counts ``(num_data,)``; the network has one output, the inverse softplus of the rate.

    Softplus rather than the exponential keeps the rate of a far-out input from overflowing.
    """

    task = "count"

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """Return ``Poisson(softplus(outputs))``."""
        return dist.Poisson(self.mean(outputs), validate_args=False)

    def mean(self, outputs: Tensor) -> Tensor:
        """Return the rate, ``(num_data,)``."""
        return F.softplus(outputs.squeeze(-1)) + torch.finfo(outputs.dtype).tiny


_KINDS: dict[str, Callable[..., Likelihood]] = {
    "Bernoulli": Bernoulli,
    "Categorical": Categorical,
    "Gaussian": Gaussian,
    "Poisson": Poisson,
    "StudentT": StudentT,
}


def describe(likelihood: Likelihood) -> dict[str, object]:
    """Return a JSON-able description from which `build` makes an equal likelihood.

    Raises:
        ValueError: If the likelihood is not one of this module.
    """
    name = type(likelihood).__name__
    if _KINDS.get(name) is not type(likelihood):
        raise ValueError(
            f"Expected one of the library's likelihoods {sorted(_KINDS)} to save without code, but "
            f"got {name}. Pass likelihood= again when loading."
        )
    return {"kind": name, **likelihood.settings()}


def build(description: Mapping[str, object]) -> Likelihood:
    """Return the likelihood that `describe` described.

    Raises:
        ValueError: If the description names an unknown kind.
    """
    settings = dict(description)
    name = settings.pop("kind", None)
    if name not in _KINDS:
        raise ValueError(f"Expected a likelihood kind among {sorted(_KINDS)}, but got {name!r}.")
    return _KINDS[str(name)](**settings)
