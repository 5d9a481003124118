r"""The Pyro model: a network, its edges, priors and a likelihood.

.. math::
    p(D, w, \gamma) = p(\gamma)\, p(w \mid \gamma) \prod_n p(y_n \mid f(x_n; w, \gamma))
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Unpack

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.func import functional_call

from pyro_relevance.edges.find import Edges
from pyro_relevance.edges.per_example import InputGates
from pyro_relevance.errors import EdgeError
from pyro_relevance.graphs.graph import MixedOperation
from pyro_relevance.model.distributions import PerExample
from pyro_relevance.model.elbo import announce_parameters
from pyro_relevance.model.latents import Latent
from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.model.mode import Mode, ModeChanges, Noise
from pyro_relevance.model.parts import (
    check_gate_prior,
    check_operation_prior,
    check_weight_prior,
)
from pyro_relevance.model.priors import (
    CategoricalPrior,
    GatePrior,
    IndependentPrior,
    OperationPrior,
    PointWeights,
    WeightPrior,
)
from pyro_relevance.model.relaxations import (
    Concrete,
    Hardening,
    Mixture,
    OperationRelaxation,
    Relaxation,
)

__all__ = ["Noise", "RelevanceModel"]


class RelevanceModel(nn.Module):
    r"""A network whose edges have latent gates, as a Pyro model and a plain ``nn.Module``.

    Sample sites: ``gate`` (one fused site, real-valued: the relaxation turns it into gates),
    ``operation`` (one fused site for the edges of relaxed graphs, ``(num_groups, num_operations)``
    logarithms of gates), the sites of the priors (``inclusion_logit``, ``operation_rate``,
    ``weights``, ``weight_scale``, ``layer_scale``), the factor ``weight_prior`` of point estimates,
    and the observed ``y``. Works with the ELBOs of ``pyro.infer``, any guide, and ``Predictive``.

    The gates are folded into the parameters that read the edge, so that a gate of zero and the
    removal of the edge are the same function. The network given is copied and never changed.

    Args:
        network: The deterministic network. Its parameters are where training starts.
        edges: The edges to gate, from ``find_edges(network, ...)``.
        likelihood: Distribution of the target given the network's outputs.
        num_data: Size of the training set; a minibatch of B examples is weighed by
            ``num_data / B``.
        gate_prior: Prior over the gates, or ``None`` for no gates (dense networks; priors that
            say which weights matter by themselves, such as ``LogUniformWeights``).
        weight_prior: Prior over the network's parameters.
        relaxation: How a gate is relaxed while training; ``None`` for `Hardening` where weights
            have a posterior, as its inclusion probabilities are closest to the exact ones, and for
            `Concrete` where all weights are point estimates.
        operation_prior: Prior over the operations of relaxed graphs, where ``edges`` has them.
        operation_relaxation: How they are relaxed while training.

    Raises:
        ValueError: If ``num_data`` is not a positive integer, or a prior does not fit the network.
        TypeError: If ``likelihood`` is not one, or a prior lacks a method.
        EdgeError: If the edges are not those of the network.

    Example:
        >>> import torch
        >>> from pyro_relevance import RelevanceModel, find_edges, likelihoods, networks
        >>> network = networks.MLP(3, [8], 1)
        >>> edges = find_edges(network, granularity=("input", "unit"))
        >>> model = RelevanceModel(network, edges, likelihood=likelihoods.Gaussian(), num_data=100)
        >>> from pyro import poutine
        >>> trace = poutine.trace(model).get_trace(torch.zeros(5, 3), torch.zeros(5))
        >>> [name for name, site in trace.nodes.items() if site["type"] == "sample"]
        ['weight_prior', 'gate', 'data', 'y']
    """

    def __init__(
        self,
        network: nn.Module,
        edges: Edges,
        *,
        likelihood: Likelihood,
        num_data: int,
        gate_prior: GatePrior | None = IndependentPrior(),  # noqa: B008 (a frozen value)
        weight_prior: WeightPrior = PointWeights(),  # noqa: B008 (a frozen value)
        relaxation: Relaxation | None = None,
        operation_prior: OperationPrior = CategoricalPrior(),  # noqa: B008 (a frozen value)
        operation_relaxation: OperationRelaxation = Mixture(),  # noqa: B008 (a frozen value)
    ) -> None:
        super().__init__()
        if isinstance(num_data, bool) or not isinstance(num_data, int) or num_data < 1:
            raise ValueError(
                "Expected num_data, the number of training examples, as a positive integer, but "
                f"got {num_data!r}. It scales the likelihood of a minibatch against the KL: pass "
                "len(train), not the batch size."
            )
        _check_edges(network, edges)
        if isinstance(likelihood, type) or not isinstance(likelihood, Likelihood):
            got = (
                f"the class {likelihood.__name__}"
                if isinstance(likelihood, type)
                else repr(likelihood)
            )
            raise TypeError(f"Expected a likelihood such as likelihoods.Gaussian(), but got {got}.")
        self.network = copy.deepcopy(network)
        self.edges = edges
        like = next(iter(self.network.parameters()))
        self.likelihood = copy.deepcopy(likelihood)
        if isinstance(self.likelihood, nn.Module):
            self.likelihood.to(like.device, torch.promote_types(like.dtype, torch.float32))
        self.num_data = num_data
        self.gate_prior = gate_prior
        self.weight_prior = weight_prior
        self.operation_prior = operation_prior
        self.operation_relaxation = operation_relaxation
        self._mode = Mode()
        self._input_gates: InputGates | None = None
        if self.has_gates:
            log_odds = check_gate_prior(gate_prior, edges, like)
            self.register_buffer("prior_log_odds", log_odds, persistent=False)
        if self.has_operations:
            logits = check_operation_prior(operation_prior, edges, like)
            self.register_buffer("prior_operation_logits", logits, persistent=False)
            for module in self.network.modules():
                if isinstance(module, MixedOperation):
                    module.skip_zeros = operation_relaxation.skips_zeros
        parameters = dict(self.network.named_parameters())
        latent = check_weight_prior(weight_prior, parameters)
        self.weights_are_points = not latent
        for name in latent:
            parameters[name].requires_grad_(False)
        self.relaxation = relaxation or (Hardening() if latent else Concrete())

    prior_log_odds: Tensor
    """``(num_edges,)`` fixed part of the gates' prior log-odds, in nats."""

    prior_operation_logits: Tensor
    """``(num_groups, num_operations)`` fixed part of the operations' prior, in nats."""

    @property
    def mode(self) -> Mode:
        """How the model computes at the moment."""
        return self._mode

    @contextmanager
    def in_mode(self, **changes: Unpack[ModeChanges]) -> Iterator[None]:
        """Compute in another mode inside the block; what was changed is restored afterwards.

        Args:
            changes: Fields of `Mode`.

        Raises:
            ValueError: If a value is unknown.
            EdgeError: If ``noise`` is ``"per_example"`` and a group gates single weights.
        """
        before = {name: getattr(self._mode, name) for name in changes}
        self.set_mode(**changes)
        try:
            yield
        finally:
            self.set_mode(**before)

    def set_mode(self, **changes: Unpack[ModeChanges]) -> None:
        """Change the mode for good: for the owner of a model, such as the run that anneals it.

        Args:
            changes: Fields of `Mode`.

        Raises:
            ValueError: If a value is unknown.
            EdgeError: If ``noise`` is ``"per_example"`` and a group gates single weights.
        """
        mode = replace(self._mode, **changes)
        if mode.noise != self._mode.noise:
            self._apply_gates(mode.noise)
        self._mode = mode

    @property
    def temperature(self) -> float | Tensor:
        """Temperature of the relaxed gates, see `Mode`."""
        return self._mode.temperature

    @property
    def noise(self) -> Noise:
        """Kind of noise of the gates, see `Mode`."""
        return self._mode.noise

    @property
    def has_gates(self) -> bool:
        """Whether the model has the site ``gate``."""
        return self.gate_prior is not None and len(self.edges) > 0

    @property
    def has_operations(self) -> bool:
        """Whether the model has the site ``operation``."""
        return bool(self.edges.operations)

    def latents(self) -> tuple[Latent, ...]:
        """Return the latent sites other than ``gate`` and ``operation``, in the model's order."""
        gates: tuple[Latent, ...] = ()
        if self.has_gates:
            assert self.gate_prior is not None
            gates = self.gate_prior.latents(self.edges)
        if self.has_operations:
            gates += self.operation_prior.latents(self.edges)
        like = next(iter(self.network.parameters()))
        moved = tuple(Latent(i.name, i.kind, i.initial.to(like), i.initial_scale) for i in gates)
        return (*self.weight_prior.latents(dict(self.network.named_parameters())), *moved)

    def gate_distribution(self, log_odds: Tensor, num_examples: int = 1) -> dist.TorchDistribution:
        """Return the distribution of the site ``gate`` at the present temperature.

        Args:
            log_odds: ``(num_edges,)`` in nats.
            num_examples: Size of the batch; used only where ``noise`` is ``"per_example"``.
        """
        base = self.relaxation.distribution(self._mode.temperature, log_odds)
        if self._mode.noise == "per_example":
            return PerExample(base, num_examples)
        return base.to_event(1)  # type: ignore[no-any-return]

    def gate(self, value: Tensor) -> Tensor:
        """Return the gates of a value of the site ``gate``: relaxed, or hard if the mode says so.

        Args:
            value: ``(..., num_edges)``.
        """
        if self._mode.hard_gates:
            return self.relaxation.hard(value)
        return self.relaxation.gate(value, self._mode.temperature)

    def operation_distribution(self, logits: Tensor) -> dist.TorchDistribution:
        """Return the distribution of the site ``operation`` at the present temperature.

        Args:
            logits: ``(num_groups, num_operations)`` in nats.
        """
        base = self.operation_relaxation.distribution(self._mode.temperature, logits)
        return base.to_event(1)  # type: ignore[no-any-return]

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Run the generative model.

        Args:
            x: ``(num_examples, ...)`` inputs.
            y: ``(num_examples, ...)`` targets, or ``None`` to sample them.

        Returns:
            ``(num_examples, num_outputs)`` raw outputs of the network.
        """
        announce_parameters(self)
        num_examples = x.shape[0]
        parameters, gates = self.sample_latents(num_examples)
        outputs = self.run(x, parameters, gates)
        with poutine.scale(scale=self.num_data / num_examples), pyro.plate("data", num_examples):
            pyro.sample("y", self.likelihood(outputs), obs=y)
        return outputs

    def sample_latents(self, num_examples: int = 1) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Run the model up to the network: sample gates and weights.

        Args:
            num_examples: Size of the batch; used only where ``noise`` is ``"per_example"``.

        Returns:
            The network's parameters before gating by qualified name, and the gates by group, those
            of operations too.
        """
        parameters = self.weight_prior.sample(dict(self.network.named_parameters()))
        return parameters, self._sample_gates(num_examples) | self._sample_operations()

    def run(
        self, x: Tensor, parameters: Mapping[str, Tensor], gates: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the network's outputs for given parameters and gates.

        Args:
            x: ``(num_examples, ...)`` inputs.
            parameters: The network's parameters by qualified name.
            gates: Gates by group, of the group's shape (or ``(num_examples, *shape)`` within
                per-example training).
        """
        tensors = dict(parameters)
        if not self._mode.update_statistics:
            # Running statistics of normalisation layers move in copies that are discarded.
            tensors |= {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        if self._input_gates is not None and gates:
            tensors |= self.edges.fold_operations(gates)
            with self._input_gates.applied(gates):
                return self._call(x, tensors)
        if gates:
            tensors |= self.edges.fold(parameters, gates)
        return self._call(x, tensors)

    def _call(self, x: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        precision = self._mode.precision
        if precision.autocast is None:
            return functional_call(self.network, tensors, (precision.arrange(x),))  # type: ignore[no-any-return]
        with precision.context(x.device):
            outputs = functional_call(self.network, tensors, (precision.arrange(x),))
        return outputs.to(next(iter(self.network.parameters())).dtype)  # type: ignore[no-any-return]

    def _apply_gates(self, noise: Noise) -> None:
        """Fold gates into weights, or apply them to what layers read by hooks on the network."""
        if self._input_gates is not None:
            self._input_gates.remove()
            self._input_gates = None
        if noise == "per_example" and self.has_gates:
            skips = self.has_operations and self.operation_relaxation.skips_zeros
            self._input_gates = InputGates(self.network, self.edges, all_called=not skips)

    def _sample_gates(self, num_examples: int) -> dict[str, Tensor]:
        if not self.has_gates:
            return {}
        assert self.gate_prior is not None
        log_odds = self.gate_prior.sample(self.prior_log_odds, self.edges)
        value = pyro.sample("gate", self.gate_distribution(log_odds, num_examples))
        return self.edges.split(self.gate(value))

    def _sample_operations(self) -> dict[str, Tensor]:
        if not self.has_operations:
            return {}
        logits = self.operation_prior.sample(self.prior_operation_logits, self.edges)
        value = pyro.sample("operation", self.operation_distribution(logits))
        return self.edges.split_operations(self.operation_relaxation.gate(value))


def _check_edges(network: nn.Module, edges: Edges) -> None:
    tensors = {
        n: tuple(t.shape) for n, t in [*network.named_parameters(), *network.named_buffers()]
    }
    for group in (*edges, *edges.operations):
        for slot in group.consumers:
            if slot.tensor not in tensors:
                raise EdgeError(
                    f"Expected edges of this network, but group '{group.name}' is read by "
                    f"'{slot.tensor}', which the network does not have. Call find_edges on the "
                    "network that is passed."
                )
            if tensors[slot.tensor] != tuple(edges.shapes[slot.tensor]):
                raise EdgeError(
                    f"Expected '{slot.tensor}' of shape {tuple(edges.shapes[slot.tensor])} as when "
                    f"the edges were found, but the network has {tensors[slot.tensor]}. Call "
                    "find_edges on the network that is passed."
                )
