"""The fitted posterior: draws of gates and weights, predictions and pointwise log likelihood.

Gates are hard. The network is run in evaluation mode on copies, so that neither BatchNorm
statistics nor global state move. Scores, rules and plots are made from the draws elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from pyro_relevance._random import seeded, substream
from pyro_relevance.edges.find import Edges
from pyro_relevance.errors import NotFittedError
from pyro_relevance.model.guides.protocol import answers
from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.posterior.draws import Draws, Prediction
from pyro_relevance.posterior.evaluation import (
    chain_likelihood,
    chain_outputs,
    chain_terms,
    checked_mask,
    quiet,
)
from pyro_relevance.posterior.guide_draws import DrawModule, collect, draw_chain, mean_network
from pyro_relevance.posterior.history import History

__all__ = ["Posterior"]


class Posterior:
    """A fitted guide, for one or several chains.

    Usually made by ``fit`` (``fit.posterior``) or by ``load_posterior``. Draws depend on the seed
    and on the chain alone: ``posterior.chain(2).sample()`` is chain 2 of ``posterior.sample()``.

    Args:
        model: The model that was fitted.
        guide: Its guide.
        state: Parameters and buffers by the names of an ELBO module (``model.*``, ``guide.*``),
            each ``(num_chains, ...)``.
        history: Loss, temperature and expected size while training.
        first_chain: Number of the first chain in the run of the fit.

    Raises:
        NotFittedError: If ``state`` is empty.
    """

    def __init__(
        self,
        model: RelevanceModel,
        guide: nn.Module,
        state: Mapping[str, Tensor],
        *,
        history: History | None = None,
        first_chain: int = 0,
    ) -> None:
        if not state:
            raise NotFittedError(
                "Expected the state of a fit, but got none. Call fit(model, data, ...) first."
            )
        self.model = model
        self.guide = guide
        self.state = dict(state)
        self.history = history
        self.first_chain = first_chain
        self._module = DrawModule(model, guide)

    @property
    def edges(self) -> Edges:
        """The gated edges."""
        return self.model.edges

    @property
    def likelihood(self) -> Likelihood:
        """The likelihood, with the learned parameters of the first chain (a copy)."""
        return chain_likelihood(self.model, self._chain_state(0))

    @property
    def num_chains(self) -> int:
        """Number of chains."""
        return int(next(iter(self.state.values())).shape[0])

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(iter(self.state.values())).device

    def chain(self, index: int) -> Posterior:
        """Return the posterior of one chain.

        Args:
            index: Number of the chain; negative numbers count from the end.

        Raises:
            IndexError: If there is no such chain.
        """
        index = self._checked_chain(index)
        state = {name: tensor[index : index + 1] for name, tensor in self.state.items()}
        history = None if self.history is None else self.history.chain(index)
        first = self.first_chain + index
        return Posterior(self.model, self.guide, state, history=history, first_chain=first)

    def network(self, chain: int = 0) -> nn.Module:
        """Return a plain copy of the network, in evaluation mode, with posterior mean parameters.

        Gates are not applied: see ``surgery.apply_mask`` and ``surgery.prune``. Where weights
        depend on the gates it is the mean while their gates are on, that of an edge that is kept.

        Args:
            chain: Number of the chain.

        Raises:
            IndexError: If there is no such chain.
        """
        index = self._checked_chain(chain)
        with quiet(self.model), self._seeded(0, index):
            return mean_network(self._module, self._chain_state(index))

    def inclusion_probability(self) -> dict[str, Tensor]:
        """Return the probability of each gate given the data.

        Exact where the guide's gates are independent; otherwise the mean of 1,000 draws of the
        conditional probability.

        Returns:
            Group -> ``(num_chains, *group.shape)``.

        Raises:
            ValueError: If the model has no gates that are on or off by themselves.
        """
        if not self.model.has_gates:
            raise ValueError(
                "Expected a model with gates, but its gate_prior is None, or its edges are "
                "operations alone. For weights see relevance.signal_to_noise("
                "posterior.sample(...), posterior.edges), for operations operation_probability()."
            )
        exact = answers(self.guide).independent_gates
        draws = self.sample(1 if exact else 1000)
        return {name: p.mean(1) for name, p in draws.inclusion_probability.items()}

    def operation_probability(self) -> dict[str, Tensor]:
        """Return the probability of each operation of the edges of relaxed graphs.

        Exact for the library's guides; the share of 1,000 draws for others.

        Returns:
            Group of ``edges.operations`` -> ``(num_chains, num_operations)``.

        Raises:
            ValueError: If the model gates no operations.
        """
        if not self.model.has_operations:
            raise ValueError(
                "Expected a model that gates operations, but its edges have none. Make them with "
                "find_edges(network, granularity='operation')."
            )
        exact = answers(self.guide).independent_operations
        draws = self.sample(1 if exact else 1000)
        return {name: p.mean(1) for name, p in draws.operation_probability.items()}

    def sample(self, num_samples: int = 100, *, seed: int = 0) -> Draws:
        """Draw gates and weights from the posterior.

        Args:
            num_samples: Draws in each chain.
            seed: Seed of the draws.

        Raises:
            ValueError: If ``num_samples`` is not positive.
        """
        return self._draws(num_samples, seed, from_prior=False)

    def sample_prior(self, num_samples: int = 100, *, seed: int = 0) -> Draws:
        """Draw gates from the prior (one chain); the weights are the network's own.

        Args:
            num_samples: Number of draws.
            seed: Seed of the draws.

        Raises:
            ValueError: If ``num_samples`` is not positive.
        """
        return self.chain(0)._draws(num_samples, seed, from_prior=True)

    def predict(
        self,
        x: Tensor,
        *,
        num_samples: int = 100,
        seed: int = 0,
        mask: Mapping[str, Tensor] | None = None,
    ) -> Prediction:
        """Predict with every draw of gates and weights.

        Args:
            x: ``(num_data, ...)`` inputs.
            num_samples: Draws in each chain.
            seed: Seed of the draws and of the sampled targets.
            mask: Kept edges (True = kept); the others are removed in every draw.

        Raises:
            ValueError: If ``num_samples`` is not positive, or the mask does not fit the edges.
        """
        outputs = self._outputs(x, num_samples, seed, mask)
        means, samples = [], []
        with torch.no_grad():
            for i in range(self.num_chains):
                likelihood = chain_likelihood(self.model, self._chain_state(i))
                # A stream of its own: the noise of the targets is independent of the weights'.
                with self._seeded(seed, i, "targets"):
                    means.append(torch.stack([likelihood.mean(output) for output in outputs[i]]))
                    drawn = [likelihood(output).sample() for output in outputs[i]]
                    samples.append(torch.stack(drawn))
        return Prediction(outputs, torch.stack(means), torch.stack(samples))

    def log_likelihood(
        self,
        x: Tensor,
        y: Tensor,
        *,
        num_samples: int = 100,
        seed: int = 0,
        mask: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the log likelihood of each example under each draw, with hard gates.

        Args:
            x: ``(num_data, ...)`` inputs.
            y: ``(num_data, ...)`` targets.
            num_samples: Draws in each chain.
            seed: Seed of the draws.
            mask: As for `predict`.

        Returns:
            ``(num_chains, num_samples, num_data)`` in nats, on the scale of the targets given.

        Raises:
            ValueError: If lengths differ, ``num_samples`` is not positive, or the mask does not
                fit the edges.
        """
        if x.shape[0] != y.shape[0]:
            raise ValueError(
                f"Expected x and y with one row per example, but got {tuple(x.shape)} and "
                f"{tuple(y.shape)}. Pass as many targets as inputs."
            )
        y = y.to(self.device)
        outputs = self._outputs(x, num_samples, seed, mask)
        values = []
        with torch.no_grad():
            for i in range(self.num_chains):
                likelihood = chain_likelihood(self.model, self._chain_state(i))
                values.append(torch.stack([likelihood(o).log_prob(y) for o in outputs[i]]))
        return torch.stack(values)

    def elbo(self, x: Tensor, y: Tensor, *, num_samples: int = 16, seed: int = 0) -> Tensor:
        """Return the evidence lower bound of each chain, estimated from draws of hard gates.

        Unlike the relaxed training loss it is a bound. The expected log likelihood of the data
        given is scaled to ``num_data`` examples, so that held-out data give a held-out ELBO on the
        scale of the training loss.

        Args:
            x: ``(num_data, ...)`` inputs.
            y: ``(num_data, ...)`` targets.
            num_samples: Draws in each chain.
            seed: Seed of the draws.

        Returns:
            ``(num_chains,)`` in nats; larger is better.

        Raises:
            ValueError: If lengths differ, or ``num_samples`` is not positive.
        """
        pointwise = self.log_likelihood(x, y, num_samples=num_samples, seed=seed)
        divergences = []
        for i in range(self.num_chains):
            with quiet(self.model), self._seeded(seed, i, "divergence"):
                state = self._chain_state(i)
                divergences.append(chain_terms(self.model, self.guide, state, num_samples))
        return pointwise.mean(dim=(1, 2)) * self.model.num_data - torch.stack(divergences)

    def _checked_chain(self, index: int) -> int:
        if not -self.num_chains <= index < self.num_chains:
            raise IndexError(f"Expected a chain among 0 .. {self.num_chains - 1}, but got {index}.")
        return index % self.num_chains

    def _chain_state(self, index: int) -> dict[str, Tensor]:
        return {name: tensor[index] for name, tensor in self.state.items()}

    def _seeded(self, seed: int, chain: int, use: str = "draws") -> AbstractContextManager[None]:
        return seeded(substream(seed, use, self.first_chain + chain), self.device)

    def _draws(self, num_samples: int, seed: int, *, from_prior: bool) -> Draws:
        chains = []
        with quiet(self.model):
            for i in range(self.num_chains):
                with self._seeded(seed, i):
                    chains.append(
                        draw_chain(self._module, self._chain_state(i), num_samples, from_prior)
                    )
        return collect(chains, self.edges)

    def _outputs(
        self, x: Tensor, num_samples: int, seed: int, mask: Mapping[str, Tensor] | None
    ) -> Tensor:
        """Return raw outputs, ``(num_chains, num_samples, num_data, num_outputs)``."""
        like = next(iter(self.state.values()))
        kept = {} if mask is None else checked_mask(self.edges, mask, like)
        draws = self.sample(num_samples, seed=seed)
        x = x.to(self.device)
        with quiet(self.model):
            return torch.stack(
                [
                    chain_outputs(self.model, self._chain_state(i), draws, i, kept, x)
                    for i in range(self.num_chains)
                ]
            )
