r"""A posterior over the value of architectures, learned from measured evaluations.

Where an architecture can be measured (trained for a few epochs, say), each measurement is
evidence about all similar architectures. The value of architectures is a Gaussian process
over what they compute,

.. math::
    y_i = \mu + \sum_b s_b f_b(a_i) + \epsilon_i, \qquad f_b \sim GP(0, k_b), \qquad
    \epsilon_i \sim N(0, \sigma^2)

with kernels :math:`k_b` on operations in use, on paths, and on numbers of operations. The values
themselves are integrated out in closed form; scales, widths and noise are latent variables of a
Pyro model whose posterior is updated by SVI as measurements come in.

References:
    White, Neiswanger, Savani, BANANAS, AAAI 2021 (path encoding).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_relevance._random import local_pyro
from pyro_relevance.graphs.architectures import Architecture, canonical, is_connected
from pyro_relevance.model.distributions import LogNormal
from pyro_relevance.model.elbo import LeanELBO
from pyro_relevance.model.guides._weights import LatentPosteriors
from pyro_relevance.model.latents import Latent
from pyro_relevance.search.features import edge_features, operation_counts, path_features

__all__ = ["Candidates", "ValuePosterior", "prior_covariance"]

_JITTER = 1e-4
_CLIP = 3.0


class Candidates:
    """Architectures that may be measured, and how alike they are.

    Architectures that are the same function are one candidate, represented by the first of them;
    those without a path from input to output are omitted.

    Args:
        network: The network with relaxed graphs.
        architectures: Choices of operations.

    Raises:
        ValueError: If fewer than two of them are different and connected.
    """

    def __init__(self, network: nn.Module, architectures: Sequence[Architecture]) -> None:
        classes: dict[str, Architecture] = {}
        members: dict[str, int] = {}
        for architecture in architectures:
            if is_connected(network, architecture):
                key = canonical(network, architecture)
                classes.setdefault(key, architecture)
                members[key] = members.get(key, 0) + 1
        if len(classes) < 2:
            raise ValueError(
                f"Expected at least two different connected architectures, but got {len(classes)}."
            )
        self.architectures = tuple(classes.values())
        self.num_members = np.array([members[key] for key in classes])
        edges = edge_features(network, self.architectures)
        paths = path_features(network, self.architectures)
        counts = operation_counts(network, self.architectures)
        self.distances = torch.stack([_squared_distances(t) for t in (edges, paths, counts)])
        self.linear = _linear(edges)

    def __len__(self) -> int:
        return len(self.architectures)

    @property
    def num_kernels(self) -> int:
        """Number of kernels; the value is a sum with one term for each."""
        return len(self.distances) + 1


class ValuePosterior:
    """Posterior of the value of all candidates, given what was measured.

    Args:
        candidates: The candidates.
        num_steps: Steps of SVI at each update.
        learning_rate: Step size of Adam.
    """

    def __init__(
        self, candidates: Candidates, *, num_steps: int = 25, learning_rate: float = 0.05
    ) -> None:
        self.candidates = candidates
        self.num_steps = num_steps
        number = candidates.num_kernels
        like = torch.zeros((), dtype=torch.float64)
        self.guide = LatentPosteriors(
            [
                Latent("scale", "positive", like.new_full((number,), 0.5), 0.2),
                Latent("width", "positive", like.new_full((number - 1,), 1.0), 0.2),
                Latent("noise", "positive", like.new_full((1,), 0.3), 0.2),
            ]
        )
        self._optimizer = torch.optim.Adam(self.guide.parameters(), lr=learning_rate)
        self._seen: list[int] = []
        # Rows of the candidates' tables, one for each measurement.
        self._alike = torch.empty(0, len(candidates))
        self._distances = torch.empty(number - 1, 0, len(candidates))
        self._location, self._spread = 0.0, 1.0
        self._values = like.new_empty(0)
        # Root of the covariance of the measurements, and its inverse times their covariance with
        # all candidates; both grow by a row with each measurement until the next refit.
        self._root: Tensor | None = None
        self._half = torch.empty(0, len(candidates))

    def update(self, seen: Sequence[int], values: Sequence[float], *, refit: bool = True) -> None:
        """Take measurements into account.

        Args:
            seen: Index of each candidate that was measured.
            values: Its value; larger is better.
            refit: Whether scales, widths and noise are updated by SVI, too.
        """
        raw = torch.tensor(values, dtype=torch.float64)
        # Values far below the middle (networks that did not train) would widen everything.
        middle = raw.median()
        spread = (raw - middle).abs().median().clamp(min=1e-6) * 1.4826
        raw = raw.clamp(min=float(middle - _CLIP * spread))
        self._location, self._spread = float(raw.mean()), float(raw.std().clamp(min=1e-6))
        self._look_up(list(seen))
        self._values = (raw - self._location) / self._spread
        if not refit:
            self._grow()
            return
        self._root = None
        with local_pyro():
            for _ in range(self.num_steps):
                self._optimizer.zero_grad()
                loss = LeanELBO().differentiable_loss(self._model, self.guide)
                loss.backward()
                self._optimizer.step()
        self._grow()

    def _look_up(self, seen: list[int]) -> None:
        known = len(self._seen) if self._seen == seen[: len(self._seen)] else 0
        if known == 0:
            self._root = None
        new = torch.tensor(seen[known:], dtype=torch.long)
        candidates = self.candidates
        self._alike = torch.cat((self._alike[:known], candidates.linear[new]))
        self._distances = torch.cat(
            (self._distances[:, :known], candidates.distances[:, new]), dim=1
        )
        self._seen = seen

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return posterior mean and standard deviation of the value of each candidate.

        Returns:
            Two tensors ``(num_candidates,)`` in the unit of the values that were measured.
        """
        scale, _, _ = self._plugged()
        half, target = self._half, self._target()
        mean = target.float() @ half
        prior = scale[0].square() * self.candidates.linear.diagonal() + scale[1:].square().sum()
        variance = (prior - half.square().sum(0)).clamp(min=1e-8)
        mean, deviation = mean.double(), variance.double().sqrt()
        return mean * self._spread + self._location, deviation * self._spread

    def sample(self, pool: Tensor) -> Tensor:
        """Return one joint draw of the values of some candidates.

        Args:
            pool: Indices of the candidates.

        Returns:
            ``(len(pool),)`` in the unit of the values that were measured.
        """
        scale, width, _ = self._plugged()
        half = self._half[:, pool].double()
        mean = self._target() @ half
        candidates = self.candidates
        covariance = prior_covariance(
            scale,
            width,
            candidates.linear[pool][:, pool].double(),
            candidates.distances[:, pool][..., pool].double(),
        )
        eye = torch.eye(len(pool), dtype=torch.float64)
        spread = covariance - half.T @ half + 1e-4 * scale.square().sum() * eye
        root = torch.linalg.cholesky(spread)
        draw: Tensor = mean + root @ torch.randn(len(pool), dtype=torch.float64)
        return draw * self._spread + self._location

    def _target(self) -> Tensor:
        """Inverse of the root times the measurements, ``(num_measurements,)``."""
        assert self._root is not None
        found: Tensor = torch.linalg.solve_triangular(
            self._root, self._values[:, None], upper=False
        )
        return found[:, 0]

    def _grow(self) -> None:
        """Bring `_root` and `_half` up to the measurements, by the rows that are new."""
        scale, width, noise = self._plugged()
        number, known = len(self._seen), 0 if self._root is None else len(self._root)
        new = slice(known, number)
        cross = prior_covariance(
            scale.float(), width.float(), self._alike[new], self._distances[:, new]
        )
        gram = cross[:, torch.tensor(self._seen)].double()
        root = torch.zeros(number, number, dtype=torch.float64)
        if self._root is not None:
            root[:known, :known] = self._root
            left = torch.linalg.solve_triangular(self._root, gram[:, :known].T, upper=False)
            root[new, :known] = left.T
        own = gram[:, known:] - root[new, :known] @ root[new, :known].T
        eye = torch.eye(number - known, dtype=torch.float64)
        root[new, known:] = torch.linalg.cholesky(own + (noise.square() + _JITTER) * eye)
        below = cross - root[new, :known].float() @ self._half[:known]
        added = torch.linalg.solve_triangular(root[new, known:].float(), below, upper=False)
        self._half = torch.cat((self._half[:known], added))
        self._root = root

    def _plugged(self) -> tuple[Tensor, Tensor, Tensor]:
        """Posterior medians of scales, widths and noise."""
        with torch.no_grad():
            scale, width, noise = (self.guide.loc[n].exp() for n in ("scale", "width", "noise"))
        return scale, width, noise

    def _cholesky(self, scale: Tensor, width: Tensor, noise: Tensor) -> Tensor:
        """Root of the covariance of the measurements."""
        seen = torch.tensor(self._seen)
        alike, distances = self._alike[:, seen].double(), self._distances[..., seen].double()
        covariance = prior_covariance(scale, width, alike, distances)
        eye = torch.eye(len(seen), dtype=torch.float64)
        root: Tensor = torch.linalg.cholesky(covariance + (noise.square() + _JITTER) * eye)
        return root

    def _model(self) -> None:
        """The Pyro model of what was measured, with the values integrated out."""
        number = self.candidates.num_kernels
        zeros = torch.zeros(number, dtype=torch.float64)

        def positive(name: str, size: int, location: float, spread: float) -> Tensor:
            prior = LogNormal(zeros[:1].expand(size) + location, zeros[:1].expand(size) + spread)
            value: Tensor = pyro.sample(name, prior.to_event(1))
            return value

        scale = positive("scale", number, math.log(0.5), 0.7)
        width = positive("width", number - 1, 0.0, 0.7)
        noise = positive("noise", 1, math.log(0.3), 0.7)
        root = self._cholesky(scale, width, noise)
        centre = torch.zeros_like(self._values)
        likelihood = dist.MultivariateNormal(centre, scale_tril=root, validate_args=False)
        pyro.sample("y", likelihood, obs=self._values)


def prior_covariance(scale: Tensor, width: Tensor, alike: Tensor, distances: Tensor) -> Tensor:
    """Prior covariance of values.

    Args:
        scale: ``(num_kernels,)`` standard deviation of each part of the value.
        width: ``(num_kernels - 1,)`` squared width of each kernel, relative to the mean squared
            distance.
        alike: ``(rows, columns)`` products of the operations in use.
        distances: ``(num_kernels - 1, rows, columns)`` squared distances.
    """
    parts = torch.exp(-distances / width[:, None, None])
    weights = scale[1:].square()
    return scale[0].square() * alike + torch.einsum("k,kij->ij", weights, parts)


def _squared_distances(table: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> Tensor:
    x = torch.from_numpy(table).float()
    squared = torch.cdist(x, x).square_()
    return squared.div_(squared.mean().clamp(min=1e-12))


def _linear(table: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> Tensor:
    x = torch.from_numpy(table).float()
    x = x - x.mean(0)
    gram = x @ x.T
    return gram.div_(gram.diagonal().mean().clamp(min=1e-12))
