"""The fitted posterior: draws of gates and weights, predictions and pointwise log likelihood, with hard gates.

Everything here runs the network in evaluation mode on copies, so that neither BatchNorm statistics nor global state
move. Scores, rules and plots are made from the draws elsewhere.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.func import functional_call

from pyro_relevance.draws import Draws, Prediction
from pyro_relevance.edges import Edges
from pyro_relevance.elbo import site_terms
from pyro_relevance.errors import NotFittedError
from pyro_relevance.guide_draws import DrawModule, draw_chain, mean_parameters
from pyro_relevance.history import History
from pyro_relevance.likelihoods import Likelihood
from pyro_relevance.model import RelevanceModel
from pyro_relevance.random_state import seeded

__all__ = ["Posterior"]


class Posterior:
    """A fitted guide, for one or several chains.

    Usually made by ``fit`` (``fit.posterior``) or by ``io.load``.

    Args:
        model: The model that was fitted.
        guide: Its guide.
        state: Parameters and buffers by the names of an ELBO module (``model.*``, ``guide.*``), each
            ``(num_chains, ...)``.
        history: What was recorded while training.

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
    ) -> None:
        if not state:
            raise NotFittedError("Expected the state of a fit, but got none. Call fit(model, data, ...) first.")
        self.model = model
        self.guide = guide
        self.state = dict(state)
        self.history = history
        self._module = DrawModule(model, guide)

    @property
    def edges(self) -> Edges:
        """The judged edges."""
        return self.model.edges

    @property
    def likelihood(self) -> Likelihood:
        """The likelihood; its learned parameters are those of the last chain it was used with."""
        return self.model.likelihood

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

        Raises:
            IndexError: If there is no such chain.
        """
        if not -self.num_chains <= index < self.num_chains:
            raise IndexError(f"Expected a chain among 0 .. {self.num_chains - 1}, but got {index}.")
        index %= self.num_chains
        state = {name: tensor[index : index + 1] for name, tensor in self.state.items()}
        history = None if self.history is None else self.history.chain(index)
        return Posterior(self.model, self.guide, state, history=history)

    def network(self, chain: int = 0) -> nn.Module:
        """Return a plain copy of the network, in evaluation mode, with the posterior mean of its parameters.

        Gates are not applied: see ``surgery.apply_mask`` and ``surgery.prune``.
        """
        state = self._chain_state(chain)
        network = copy.deepcopy(self.model.network)
        buffers = {name: state[f"model.network.{name}"] for name, _ in network.named_buffers()}
        with _quiet(self.model):
            parameters = mean_parameters(self._module, state)
        with torch.no_grad():
            for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
                tensor.copy_(parameters[name] if name in parameters else buffers[name])
        return network.requires_grad_(True).eval()

    def inclusion_probability(self) -> dict[str, Tensor]:
        """Return the probability of each gate given the data.

        Exact where the guide's gates are independent; otherwise the mean of 1,000 draws of the conditional probability.

        Returns:
            Group -> ``(num_chains, *group.shape)``.

        Raises:
            ValueError: If the model has no gates.
        """
        self._require_gates()
        exact = getattr(self.guide, "independent_gates", False)
        draws = self.sample(1 if exact else 1000)
        return {name: p.mean(1) for name, p in draws.inclusion_probability.items()}

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
            mask: Edges outside of it are cut in every draw (True = kept).
        """
        means, samples, outputs = [], [], []
        with seeded(seed, self.device):
            for output, likelihood in self._outputs(x, num_samples, seed, mask):
                means.append(likelihood.mean(output))
                samples.append(likelihood(output).sample())
                outputs.append(output)
        return Prediction(self._stack(outputs), self._stack(means), self._stack(samples))

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
            mask: Edges outside of it are cut in every draw (True = kept).

        Returns:
            ``(num_chains, num_samples, num_data)`` in nats, on the scale of the targets given.
        """
        y = y.to(self.device)
        values = [lik(output).log_prob(y) for output, lik in self._outputs(x, num_samples, seed, mask)]
        return self._stack(values)

    def elbo(self, x: Tensor, y: Tensor, *, num_samples: int = 16, seed: int = 0) -> Tensor:
        """Return the evidence lower bound of each chain with hard gates, a bound unlike the relaxed training loss.

        The expected log likelihood of the data given is scaled to ``num_data`` examples, so that held-out data give a
        held-out ELBO on the scale of the training loss.

        Args:
            x: ``(num_data, ...)`` inputs.
            y: ``(num_data, ...)`` targets.
            num_samples: Draws in each chain.
            seed: Seed of the draws.

        Returns:
            ``(num_chains,)`` in nats; larger is better.
        """
        values = self.log_likelihood(x, y, num_samples=num_samples, seed=seed).mean(dim=(1, 2)) * self.model.num_data
        x, y = x[:1].to(self.device), y[:1].to(self.device)
        kl = torch.zeros_like(values)
        with _quiet(self.model), seeded(seed, self.device):
            for i in range(self.num_chains):
                call = _TermsModule(self.model, self.guide)
                for _ in range(num_samples):
                    terms = functional_call(call, self._chain_state(i), (x, y))
                    kl[i] += sum(float(term) for name, term in terms.items() if name != "y") / num_samples
        return values - kl

    def _chain_state(self, index: int) -> dict[str, Tensor]:
        return {name: tensor[index] for name, tensor in self.state.items()}

    def _require_gates(self) -> None:
        if not self.model.has_gates:
            raise ValueError(
                "Expected a model with gates, but its gate_prior is None. Judge the weights themselves with "
                "relevance.signal_to_noise(posterior.sample(...), posterior.edges)."
            )

    def _draws(self, num_samples: int, seed: int, *, from_prior: bool) -> Draws:
        if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
            raise ValueError(f"Expected num_samples to be a positive integer, but got {num_samples!r}.")
        vectorised = bool(getattr(self.guide, "vectorised", False)) and not from_prior
        with _quiet(self.model), seeded(seed, self.device):
            chains = [
                draw_chain(
                    self._module,
                    self._chain_state(i),
                    num_samples,
                    from_prior=from_prior,
                    vectorised=vectorised,
                )
                for i in range(self.num_chains)
            ]
        weights = {name: torch.stack([c[2][name] for c in chains]) for name in chains[0][2]}
        if not self.model.has_gates:
            return Draws({}, {}, weights)
        gates = torch.stack([c[0] for c in chains if c[0] is not None])
        given = [c[1] for c in chains if c[1] is not None]
        # A guide of another kind tells no probabilities: the share of draws is what there is.
        probability = torch.stack(given) if given else gates.mean(1, keepdim=True).expand_as(gates)
        return Draws(self.edges.split(gates), self.edges.split(probability), weights)

    def _outputs(
        self, x: Tensor, num_samples: int, seed: int, mask: Mapping[str, Tensor] | None
    ) -> Iterator[tuple[Tensor, Likelihood]]:
        """Yield raw outputs ``(num_data, num_outputs)`` and the likelihood, draw by draw, chain by chain."""
        draws = self.sample(num_samples, seed=seed)
        x = x.to(self.device)
        network = copy.deepcopy(self.model.network).eval()
        likelihood: Any = copy.deepcopy(self.model.likelihood)
        kept = {} if mask is None else self._checked(mask)
        with torch.no_grad():
            for i in range(self.num_chains):
                state = self._chain_state(i)
                buffers = {name: state[f"model.network.{name}"] for name, _ in network.named_buffers()}
                likelihood.load_state_dict(
                    {name: state[f"model.likelihood.{name}"] for name in likelihood.state_dict()}
                )
                for j in range(num_samples):
                    parameters = {n: w[i, min(j, w.shape[1] - 1)] for n, w in draws.weights.items()}
                    gates = {n: g[i, j] * kept[n] if n in kept else g[i, j] for n, g in draws.gates.items()}
                    if not gates and kept:
                        gates = kept
                    tensors = {**buffers, **parameters, **self.edges.fold(parameters, gates)}
                    yield functional_call(network, tensors, (x,)), likelihood

    def _checked(self, mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
        dtype = next(self.model.network.parameters()).dtype
        for group in self.edges:
            shape = tuple(mask[group.name].shape) if group.name in mask else None
            if shape != group.shape:
                raise ValueError(
                    f"Expected mask['{group.name}'] of shape {group.shape}, but got {shape}. "
                    "Make masks with the rules of pyro_relevance.masks from this posterior."
                )
        return {group.name: mask[group.name].to(self.device, dtype) for group in self.edges}

    def _stack(self, values: list[Tensor]) -> Tensor:
        return torch.stack(values).unflatten(0, (self.num_chains, -1))


class _TermsModule(nn.Module):
    """Sites' contributions to the negative ELBO under the names of an ELBO module."""

    def __init__(self, model: RelevanceModel, guide: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.guide = guide

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            return site_terms(self.model, self.guide, x, y)


@contextmanager
def _quiet(model: RelevanceModel) -> Iterator[None]:
    """Module-local parameters, no validation, evaluation mode; all of it restored afterwards."""
    training = model.training
    with pyro.settings.context(module_local_params=True), pyro.validation_enabled(False):
        model.eval()
        try:
            yield
        finally:
            model.train(training)
