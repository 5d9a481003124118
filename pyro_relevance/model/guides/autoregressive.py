r"""Operations that depend on each other: an autoregressive posterior over architectures.

.. math::
    q(z) = \prod_e \mathrm{Categorical}(z_e; \mathrm{softmax}(a_e(z_{<e}))), \qquad
    a_e = b_e + A_e z_{<e} + B_e \tanh(C_e z_{<e} + d_e)

With enough hidden units it can be any distribution over the architectures of a graph, so that
several good cells stay several, instead of a mixture of their edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyro
import torch
from torch import Tensor, nn

from pyro_relevance.model.distributions import OneHotConcrete
from pyro_relevance.model.elbo import announce_parameters
from pyro_relevance.model.guides._weights import LatentPosteriors
from pyro_relevance.model.guides.protocol import RelevanceGuide
from pyro_relevance.model.priors.operations import ABSENT
from pyro_relevance.model.relaxations import one_hot

if TYPE_CHECKING:
    from pyro_relevance.model.model import RelevanceModel

__all__ = ["AutoregressiveGuide"]


class AutoregressiveGuide(nn.Module, RelevanceGuide):
    """Operations given the operations of the edges before; gates and weights independent.

    It has to be trained by hard choices: ``fit(..., elbo=ScoreFunctionELBO())``.

    Args:
        model: The model whose sites are approximated.
        hidden: Hidden units of each edge's conditional; 0 for pairwise dependence alone.
        initial_log_odds: Of the gates that are on or off by themselves, at the start, in nats.

    Raises:
        ValueError: If the model gates no operations, or ``hidden`` is negative.

    References:
        Germain, Gregor, Murray, Larochelle, MADE, ICML 2015; Frey, Hinton, Dayan, Does the
        wake-sleep algorithm produce good density estimators, NeurIPS 1996 (fully visible networks).
    """

    independent_gates = True

    def __init__(
        self, model: RelevanceModel, *, hidden: int = 16, initial_log_odds: float = 2.0
    ) -> None:
        super().__init__()
        if not model.has_operations:
            raise ValueError(
                "Expected a model that gates operations, but its edges have none. Use "
                "MeanFieldGuide."
            )
        if hidden < 0:
            raise ValueError(f"Expected hidden >= 0, but got {hidden}.")
        self._model = (model,)
        self.hidden = hidden
        self.latent_posteriors = LatentPosteriors(model.latents())
        self.gate_parameters: tuple[str, ...] = ()
        if model.has_gates:
            start = torch.full_like(model.prior_log_odds, float(initial_log_odds))
            self.gate_log_odds = nn.Parameter(start)
            self.gate_parameters += ("gate_log_odds",)
        edges, like = model.edges, model.prior_operation_logits
        number, size = len(edges.operations), edges.num_operations
        values = {group.name: torch.zeros(group.shape) for group in edges.operations}
        present = edges.join_operations(values, ABSENT).to(like)
        self.operation_logits = nn.Parameter(present)
        # Row e reads the operations of the edges before e; the rest of its entries stay unused.
        earlier = torch.ones(number, number).tril(-1)[:, :, None, None]
        self.register_buffer("earlier", earlier.to(like), persistent=False)
        self.pairwise = nn.Parameter(like.new_zeros((number, number, size, size)))
        self.into_hidden = nn.Parameter(
            0.5 * torch.randn((number, number, size, hidden), dtype=like.dtype, device=like.device)
        )
        self.hidden_bias = nn.Parameter(like.new_zeros((number, hidden)))
        self.out_of_hidden = nn.Parameter(like.new_zeros((number, hidden, size)))
        self.gate_parameters += (
            "operation_logits",
            "pairwise",
            "into_hidden",
            "hidden_bias",
            "out_of_hidden",
        )

    earlier: Tensor

    def forward(self, x: Tensor | None = None, y: Tensor | None = None) -> dict[str, Tensor]:
        """Sample all latent sites; of the data only their number is used."""
        announce_parameters(self)
        values = self.latent_posteriors()
        model = self._model[0]
        if model.has_gates:
            values["gate"] = pyro.sample(
                "gate", model.gate_distribution(self.gate_log_odds, 1 if x is None else x.shape[0])
            )
        with torch.no_grad():
            drawn = self._draw(float(model.temperature))
        logits = self.logits(one_hot(drawn))
        distribution = _Drawn(model.temperature, logits, drawn).to_event(1)
        values["operation"] = pyro.sample("operation", distribution)
        return values  # type: ignore[no-any-return]

    def latent_means(self) -> dict[str, Tensor]:
        """See `RelevanceGuide`."""
        return self.latent_posteriors.mean()

    def logits(self, chosen: Tensor) -> Tensor:
        """Return the logits of each edge given the operations of the edges before it.

        Args:
            chosen: ``(..., num_groups, num_operations)`` zeros and ones.

        Returns:
            The same shape, in nats.
        """
        logits = self.operation_logits + torch.einsum(
            "...fk,efkj->...ej", chosen, self.pairwise * self.earlier
        )
        if self.hidden:
            into = torch.einsum("...fk,efkh->...eh", chosen, self.into_hidden * self.earlier)
            active = torch.tanh(into + self.hidden_bias)
            logits = logits + torch.einsum("...eh,ehj->...ej", active, self.out_of_hidden)
        absent = self.operation_logits <= ABSENT / 2
        return torch.where(absent, ABSENT, logits)

    def log_probability(self, chosen: Tensor) -> Tensor:
        """Return the log probability of architectures, in nats.

        Args:
            chosen: ``(..., num_groups, num_operations)`` zeros and ones.

        Returns:
            ``(...)``.
        """
        return (torch.log_softmax(self.logits(chosen), dim=-1) * chosen).sum((-1, -2))

    def _draw(self, temperature: float) -> Tensor:
        """Draw one edge after the other; ``(num_groups, num_operations)`` logarithms of gates."""
        chosen = torch.zeros_like(self.operation_logits)
        rows: list[Tensor] = []
        for edge in range(len(chosen)):
            row = OneHotConcrete(temperature, self.logits(chosen)[edge]).rsample()
            chosen[edge] = one_hot(row)
            rows.append(row)
        return torch.stack(rows)


class _Drawn(OneHotConcrete):
    """A conditional that was drawn from already, edge by edge."""

    def __init__(self, temperature: float | Tensor, logits: Tensor, value: Tensor) -> None:
        super().__init__(temperature, logits)
        self.value = value

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> _Drawn:
        """Return the same distribution; its batch shape is that of the draw."""
        if torch.Size(batch_shape) != self.batch_shape:
            raise ValueError(f"Expected batch shape {self.batch_shape}, but got {batch_shape}.")
        return self

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return the draw."""
        if len(sample_shape):
            raise ValueError("Expected one draw of operations that depend on each other.")
        return self.value
