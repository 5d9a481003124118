r"""What the rest of the library asks of a guide, and what each answer buys.

Any Pyro guide of the model's sites can be fitted: a module that samples them, or an AutoGuide. It
answers none of the questions below, and the library then does what is right for every guide: chains
are computed one after another, probabilities are shares of draws, all parameters take one learning
rate. A guide that derives from `RelevanceGuide` may answer more:

=========================  =====================================================================
answer                     what it buys
=========================  =====================================================================
``vectorised``             speed: chains and draws are computed in one call under
                           ``torch.func.vmap``, and a step is recorded and replayed
``independent_gates``      exactness: the inclusion probabilities of one draw are those of all
``independent_operations`` the same of operations; `LocalExpectationELBO` may be used
``gate_parameters``        a learning rate of their own, and ``fit(held_out=...)``
``inclusion_log_odds``     the expected size by step, in the history and the progress bar
``choice_logits``          the same where operations are gated
``latent_means``           exact posterior means of the weights instead of means of draws
``used_entries``           joint draws of gates and weights where weights depend on the gates
=========================  =====================================================================

A guide of one's own, for a model with gates and point weights:

    >>> import pyro, torch
    >>> import pyro_relevance as pr
    >>> class LogOdds(torch.nn.Module, pr.guides.RelevanceGuide):
    ...     vectorised = True  # plain tensor code without choices that depend on values
    ...     independent_gates = True
    ...     gate_parameters = ("log_odds",)
    ...
    ...     def __init__(self, model):
    ...         super().__init__()
    ...         self.model = (model,)  # in a tuple: its parameters are not the guide's
    ...         self.log_odds = torch.nn.Parameter(torch.zeros_like(model.prior_log_odds))
    ...
    ...     def forward(self, x=None, y=None):
    ...         num_examples = 1 if x is None else x.shape[0]
    ...         gates = self.model[0].gate_distribution(self.log_odds, num_examples)
    ...         return {"gate": pyro.sample("gate", gates)}
    ...
    ...     def inclusion_log_odds(self):
    ...         return self.log_odds.detach()
    ...
    ...     def latent_means(self):
    ...         return {}  # point weights have no latent sites
    >>> network = pr.networks.MLP(3, [4], 1)
    >>> edges = pr.find_edges(network, granularity="input")
    >>> likelihood = pr.likelihoods.Gaussian(0.3)
    >>> model = pr.RelevanceModel(network, edges, likelihood=likelihood, num_data=20)
    >>> x = torch.randn(20, 3)
    >>> fitted = pr.fit(model, (x, x[:, 0]), guide=LogOdds, num_epochs=2, num_chains=2)
    >>> fitted.posterior.inclusion_probability()["inputs"].shape
    torch.Size([2, 3])
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

__all__ = ["RelevanceGuide", "answers"]


@runtime_checkable
class RelevanceGuide(Protocol):
    """Questions to a guide, with the answer that is right for every guide as the default.

    Derive a guide from ``nn.Module`` and from this class, in that order, and override what it can
    say. ``forward(x=None, y=None)`` samples the sites of the model, also without data.
    """

    vectorised: bool = False
    """Whether it is plain tensor code, which ``torch.func.vmap`` can compute for all chains."""

    independent_gates: bool = False
    """Whether a gate's conditional probability, in each draw, is its inclusion probability."""

    independent_operations: bool = False
    """Whether each edge of a graph chooses its operation by itself."""

    gate_parameters: tuple[str, ...] = ()
    """Names of the parameters of the gates and operations, as in ``guide.named_parameters()``."""

    def inclusion_log_odds(self) -> Tensor | None:
        """Return the log-odds of each gate, ``(num_edges,)`` in nats without a graph, if known."""
        return None

    def choice_logits(self) -> Tensor | None:
        """Return ``(num_groups, num_operations)`` logits of independent operations, if known."""
        return None

    def latent_means(self) -> dict[str, Tensor] | None:
        """Return the posterior mean of each latent site by name, if known.

        Where weights depend on the gates, it is the mean while their gates are on.
        """
        return None

    def used_entries(self, gates: Tensor) -> dict[str, Tensor]:
        """Return which entries of latent sites are used; the others are drawn from their prior.

        Args:
            gates: ``(num_edges,)`` hard gates, or probabilities of independent gates.

        Returns:
            Site -> ``(size,)``: 1 for entries that are used and 0 for others, or probabilities.
            Entries of sites that are not named are always used.
        """
        return {}


class _SaysNothing(RelevanceGuide):
    """The answers of a guide that gives none."""


_SAYS_NOTHING = _SaysNothing()


def answers(guide: nn.Module) -> RelevanceGuide:
    """Return a guide's answers: the guide itself, or the defaults for one that gives none.

    Args:
        guide: Any guide.
    """
    return guide if isinstance(guide, RelevanceGuide) else _SAYS_NOTHING
