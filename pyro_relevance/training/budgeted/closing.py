"""Edges are closed one after another while a model trains, those of the lowest rank first."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_relevance.edges.edges import Edges
from pyro_relevance.edges.gates import sum_over_consumers
from pyro_relevance.masks import Mask
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.training.budgeted.budget import Budget
from pyro_relevance.training.callbacks import TrainingState
from pyro_relevance.training.plain import set_zeros

__all__ = ["Closing"]

INTERVAL = 40
"""Steps between two closings, at most."""
FEWEST = 20
"""Closings of a run that is long enough for them."""
EACH = 4
"""Steps from one gradient to the next that is looked at."""
DECAY = 0.98
"""Of the mean square of gradients, which is one over some 50 looks."""
POWER = {"saliency": 0.25, "magnitude": 0.0, "inclusion_probability": 0.0}
SLACK = 1.15
"""Edges that stay open until the end, as a share of those that the first ranking would keep."""


class Closing:
    """A callback of the part of a training in which the structure is decided.

    A closed edge is one whose readers have zeros in its place: the network is valid, and no larger
    than the edges that are open, at any time. Its gate has no influence then.

    Args:
        budget: The limit.
        edges: The edges that are closed; those of the model, or its single weights.
        removed: Parameter -> booleans of its shape, True at weights that were removed before: they
            stay zero, and single ones are closed from the start.
    """

    def __init__(
        self, budget: Budget, edges: Edges, removed: Mapping[str, Tensor] | None = None
    ) -> None:
        self.budget, self.edges, self.removed = budget, edges, dict(removed or {})
        self.costs = budget.costs(edges)
        self.mask: Mask | None = None
        self.last = self.num_final = self.num_first = 0
        self.load({})

    def __call__(self, state: TrainingState) -> None:
        """Look at the gradients, close edges where it is time to, and keep closed ones closed."""
        if state.step % EACH == 0 or state.step <= EACH:
            self._look(state.model)
        interval = min(INTERVAL, max(1, state.num_steps // FEWEST))
        if state.is_last:
            self.mask = self.final_mask(state)
            self.zeros = zeros_of(self.edges, self.mask)
        elif state.step - self.last >= interval:
            self.last = state.step
            self._close(state)
        set_zeros(state.model.network, self.removed)
        set_zeros(state.model.network, self.zeros)

    def scores(self, state: TrainingState) -> dict[str, Tensor]:
        """Return the scores of `Budget`; minus infinity for closed edges.

        Args:
            state: The state of the run.

        Returns:
            Group -> ``group.shape``.
        """
        probability: dict[str, Tensor] = {}
        if state.model.has_gates:
            found = state.make_posterior().inclusion_probability()
            probability = {name: p[0] for name, p in found.items()}
        if self.budget.score != "inclusion_probability":
            scores = self._of_weights(state.model, probability)
        elif probability:
            scores = probability
        else:
            raise ValueError(
                "Expected a model with gates for score='inclusion_probability', but got "
                "gate_prior=None. Use score='saliency'."
            )
        return {
            name: score.masked_fill(~self.opened[name].to(score.device), -torch.inf)
            if name in self.opened
            else score
            for name, score in scores.items()
        }

    def final_mask(self, state: TrainingState) -> Mask:
        """Return the mask within the limit.

        Args:
            state: The state of the run.
        """
        return self.budget.choose(self.scores(state), self.edges)

    def _of_weights(
        self, model: RelevanceModel, probability: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        parameters = {name: p.detach() for name, p in model.network.named_parameters()}
        if probability:
            parameters |= model.edges.fold(parameters, probability)
        power = POWER[self.budget.score]
        values = {}
        for name in self.edges.folded_names:
            values[name] = parameters[name].square()
            if power and name in self.squares:
                values[name] = values[name] * self.squares[name].pow(power)
        scores = {}
        for group in self.edges:
            rise = sum_over_consumers(values, group, 0)
            scores[group.name] = rise / self.costs[group.name].to(rise)
        return scores

    def _look(self, model: RelevanceModel) -> None:
        """Update the mean squares of the gradients."""
        parameters = dict(model.network.named_parameters())
        with torch.no_grad():
            for name in self.edges.folded_names:
                gradient = parameters[name].grad
                if gradient is None:
                    continue
                if name not in self.squares:
                    self.squares[name] = gradient.square()
                else:
                    self.squares[name].mul_(DECAY).addcmul_(gradient, gradient, value=1 - DECAY)

    def _close(self, state: TrainingState) -> None:
        """Close the edges of the lowest rank, down to the number that the schedule says."""
        scores = self.scores(state)
        number = self.edges.num_edges
        if self.num_final == 0:
            kept = self.budget.choose(scores, self.edges).num_kept
            self.num_first = sum(int(torch.isfinite(score).sum()) for score in scores.values())
            self.num_final = min(self.num_first, max(1, round(SLACK * kept)))
        left = self.num_final + (self.num_first - self.num_final) * (1 - state.progress) ** 3
        flat = torch.cat([score.flatten() for score in scores.values()])
        lowest = flat.kthvalue(number - min(number, round(left)) + 1).values
        self.opened = {name: score >= lowest for name, score in scores.items()}
        self.opened = {name: o & torch.isfinite(scores[name]) for name, o in self.opened.items()}
        self.zeros = zeros_of(self.edges, self.opened)

    def _not_removed(self) -> dict[str, Tensor]:
        """Which edges are open before anything is closed; nothing where all are."""
        single = [g for g in self.edges if g.granularity == "weight"]
        found = {
            group.name: ~self.removed[group.consumers[0].tensor].reshape(group.shape)
            for group in single
            if group.consumers[0].tensor in self.removed
        }
        if not found:
            return {}
        device = next(iter(found.values())).device
        every = {g.name: torch.ones(g.shape, dtype=torch.bool, device=device) for g in self.edges}
        return every | found

    def state(self) -> dict[str, Tensor]:
        """Return the state that an interrupted run needs to go on."""
        return {
            "last": torch.tensor(self.last),
            "num_final": torch.tensor(self.num_final),
            "num_first": torch.tensor(self.num_first),
            **{f"squares/{name}": square for name, square in self.squares.items()},
            **{f"opened/{name}": opened for name, opened in self.opened.items()},
            **{f"mask/{name}": kept for name, kept in (self.mask or {}).items()},
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned; nothing starts again."""

        def below(prefix: str) -> dict[str, Tensor]:
            return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}

        self.last = int(state["last"]) if state else 0
        self.num_final = int(state["num_final"]) if state else 0
        self.num_first = int(state["num_first"]) if state else 0
        self.squares, self.opened, kept = below("squares/"), below("opened/"), below("mask/")
        self.mask = Mask(kept, rule="keep what the budget allowed") if kept else None
        if not self.opened:
            self.opened = self._not_removed()
        zeros = kept or self.opened
        self.zeros = zeros_of(self.edges, zeros) if zeros else {}


def zeros_of(edges: Edges, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries that read closed edges.

    Args:
        edges: The edges.
        kept: Group -> booleans of ``group.shape``, True for edges that are open.

    Returns:
        Parameter -> booleans of its shape, True where it reads a closed edge.
    """
    device = next(iter(kept.values())).device
    ones = {n: torch.ones(edges.shapes[n], device=device) for n in edges.folded_names}
    folded = edges.fold(ones, {name: keep.to(torch.float32) for name, keep in kept.items()})
    return {name: folded[name] == 0 for name in edges.folded_names}
