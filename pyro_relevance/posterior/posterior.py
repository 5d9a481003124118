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
from pyro_relevance.model.inputs import accepted, check_rows, checked_inputs, checked_pair
from pyro_relevance.model.likelihoods import Likelihood, moved
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.posterior.draws import Draws, Prediction
from pyro_relevance.posterior.evaluation import (
    ShownPosterior,
    chain_likelihood,
    chain_outputs,
    chain_terms,
    checked_mask,
    quiet,
)
from pyro_relevance.posterior.guide_draws import (
    ChainDraws,
    DrawModule,
    collect,
    draw_chain,
    mean_network,
)
from pyro_relevance.posterior.history import History

__all__ = ["Posterior"]

_SURE = 40.0  # relaxed log-odds of a gate that is on for sure


class Posterior(ShownPosterior):
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
    def weights_are_points(self) -> bool:
        """Whether no weight is latent: gates then pay nothing for fitting noise."""
        return self.model.weights_are_points

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

    def sample(
        self,
        num_samples: int = 100,
        *,
        seed: int = 0,
        given: Mapping[str, Tensor] | None = None,
    ) -> Draws:
        """Draw gates and weights from the posterior.

        Args:
            num_samples: Draws in each chain.
            seed: Seed of the draws.
            given: Group -> ``(*group.shape)``, true = on. The gates of every draw are these, and
                the weights are drawn given them: q(w | gates). ``None`` draws the gates too.

        Raises:
            ValueError: If ``num_samples`` is not positive, or ``given`` does not fit the edges.
        """
        return collect(self._chains(num_samples, seed, given=self._gate_site(given)), self.edges)

    def sample_sites(self, num_samples: int = 100, *, seed: int = 0) -> dict[str, Tensor]:
        """Draw the latent sites of the Pyro model, as the guide samples them.

        Those of `sample` with the same seed before gates become hard: ``gate`` (relaxed, on the
        logit scale), ``operation``, and sites of priors. Point estimates are no sites.

        Args:
            num_samples: Draws in each chain.
            seed: Seed of the draws.

        Returns:
            Site -> ``(num_chains, num_samples, *shape)``.

        Raises:
            ValueError: If ``num_samples`` is not positive.
        """
        chains = self._chains(num_samples, seed, with_latents=True)
        return {
            name.removeprefix("latent "): torch.stack([chain.sites[name] for chain in chains])
            for name in chains[0].sites
            if name.startswith("latent ")
        }

    def sample_prior(self, num_samples: int = 100, *, seed: int = 0) -> Draws:
        """Draw gates from the prior (one chain); the weights are the network's own.

        Args:
            num_samples: Number of draws.
            seed: Seed of the draws.

        Raises:
            ValueError: If ``num_samples`` is not positive.
        """
        chain = self.chain(0)
        return collect(chain._chains(num_samples, seed, from_prior=True), self.edges)

    def predict(
        self,
        x: Tensor,
        *,
        num_samples: int = 100,
        seed: int = 0,
        mask: Mapping[str, Tensor] | None = None,
        likelihood: Likelihood | None = None,
    ) -> Prediction:
        """Predict with every draw of gates and weights.

        Args:
            x: ``(num_data, ...)`` inputs.
            num_samples: Draws in each chain.
            seed: Seed of the draws and of the sampled targets.
            mask: Kept edges (True = kept); the others are removed in every draw.
            likelihood: Distribution of new targets, such as `fit_noise` made on held-out rows;
                ``None`` for that of each chain, as it was trained.

        Raises:
            TypeError: If ``x`` is no tensor.
            ValueError: If the network does not accept ``x``, ``num_samples`` is not positive, or
                the mask does not fit the edges.
        """
        outputs = self._outputs(x, num_samples, seed, mask)
        means, samples = [], []
        with torch.no_grad():
            for i in range(self.num_chains):
                law = self._law(i, likelihood)
                # A stream of its own: the noise of the targets is independent of the weights'.
                with self._seeded(seed, i, "targets"):
                    means.append(torch.stack([law.mean(output) for output in outputs[i]]))
                    drawn = [law(output).sample() for output in outputs[i]]
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
        likelihood: Likelihood | None = None,
    ) -> Tensor:
        """Return the log likelihood of each example under each draw, with hard gates.

        Args:
            x: ``(num_data, ...)`` inputs.
            y: ``(num_data, ...)`` targets.
            num_samples: Draws in each chain.
            seed: Seed of the draws.
            mask: As for `predict`.
            likelihood: As for `predict`.

        Returns:
            ``(num_chains, num_samples, num_data)`` in nats, on the scale of the targets given.

        Raises:
            TypeError: If ``x`` or ``y`` is no tensor.
            ValueError: If lengths differ, a number is not finite, the network does not accept
                ``x``, ``num_samples`` is not positive, or the mask does not fit the edges.
        """
        x, y = checked_pair(self.model.network, x, y)
        y = y.to(self.device)
        outputs = self._outputs(x, num_samples, seed, mask)
        values = []
        with torch.no_grad():
            for i in range(self.num_chains):
                law = self._law(i, likelihood)
                values.append(torch.stack([law(o).log_prob(y) for o in outputs[i]]))
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

    def _law(self, chain: int, likelihood: Likelihood | None) -> Likelihood:
        """Return the likelihood given, or that of a chain."""
        if likelihood is None:
            return chain_likelihood(self.model, self._chain_state(chain))
        return moved(likelihood, self.device)

    def _seeded(self, seed: int, chain: int, use: str = "draws") -> AbstractContextManager[None]:
        return seeded(substream(seed, use, self.first_chain + chain), self.device)

    def _chains(
        self,
        num_samples: int,
        seed: int,
        *,
        from_prior: bool = False,
        given: Mapping[str, Tensor] | None = None,
        with_latents: bool = False,
    ) -> list[ChainDraws]:
        chains = []
        with quiet(self.model):
            for i in range(self.num_chains):
                with self._seeded(seed, i):
                    drawn = draw_chain(
                        self._module,
                        self._chain_state(i),
                        num_samples,
                        from_prior,
                        given=given,
                        with_latents=with_latents,
                    )
                chains.append(drawn)
        return chains

    def _gate_site(self, given: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Return the value of the site ``gate`` whose hard gates are those given."""
        if given is None or not self.model.has_gates:
            return {}
        gates = self.edges.join(checked_mask(self.edges, given, next(iter(self.state.values()))))
        # Far on its side of every relaxation's threshold, where its own gate is 0 or 1 as well.
        return {"gate": (2.0 * gates - 1.0) * _SURE}

    def _outputs(
        self, x: Tensor, num_samples: int, seed: int, mask: Mapping[str, Tensor] | None
    ) -> Tensor:
        """Return raw outputs, ``(num_chains, num_samples, num_data, num_outputs)``."""
        like = next(iter(self.state.values()))
        kept = {} if mask is None else checked_mask(self.edges, mask, like)
        x = checked_inputs(self.model.network, x).to(self.device)
        draws = self.sample(num_samples, seed=seed)
        states = enumerate(map(self._chain_state, range(self.num_chains)))
        with quiet(self.model), accepted(self.model.network, x):
            chains = [chain_outputs(self.model, own, draws, i, kept, x) for i, own in states]
        check_rows(chains[0][0], x)
        return torch.stack(chains)
