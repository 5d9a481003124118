"""A program whose gates learn from other examples than its weights.

If both learn from the same examples, the structure that fits these best is found. Held-out examples
favour the structure that generalises. These are the two levels of DARTS for one posterior: the
weights maximise the evidence lower bound of training examples, the gates that of held-out ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor

from pyro_relevance.training.batches import Batches
from pyro_relevance.training.programs.chains import Program, WrappedProgram
from pyro_relevance.training.programs.replay import ReplayedProgram

__all__ = ["TwoLevelProgram"]


class TwoLevelProgram(WrappedProgram):
    """Takes the gradients of the gates from held-out examples.

    Args:
        program: The chains.
        held_out: The held-out examples.
        gates: Names of the guide's parameters that are learned from them.
        recorded: Makes of the chains what records and replays their steps, as `ReplayedProgram`
            does; it is called once for the steps of each level. ``None``: nothing is recorded.

    Attributes:
        gates_move: Whether the gates are trained at present; if not, the held-out step is skipped.

    References:
        Liu, Simonyan, Yang, DARTS, ICLR 2019, section 2.3 (the first-order approximation).
    """

    def __init__(
        self,
        program: Program,
        held_out: Batches,
        gates: Sequence[str],
        recorded: Callable[[], ReplayedProgram] | None = None,
    ) -> None:
        super().__init__(program)
        self.held_out = held_out
        self.gates_move = True
        names = {f"guide.{name}" for name in gates}
        parameters = program.named_parameters()
        self._gates = [p for name, p in parameters if name in names]
        self._others = [p for name, p in parameters if name not in names]
        # Of their own: a step of one level has no gradients of the other.
        self.levels = [recorded(), recorded()] if recorded else []

    def backward(self, x: Tensor, y: Tensor, per_chain: bool, kl_weight: float) -> Tensor:
        """Add the gradients of the weights for these examples, of the gates for held-out ones."""
        first, second = self.levels or (self.program, self.program)
        losses = _pass(first, self._gates, x, y, per_chain, kl_weight)
        if self.gates_move:
            with ExitStack() as stack:
                for module in self.modules:
                    model: Any = module.model
                    stack.enter_context(model.in_mode(update_statistics=False))
                _pass(second, self._others, *self.held_out.next(), kl_weight)
        return losses


def _pass(
    program: Program,
    resting: Sequence[Tensor],
    x: Tensor,
    y: Tensor,
    per_chain: bool,
    kl_weight: float,
) -> Tensor:
    for parameter in resting:
        parameter.requires_grad_(False)
    try:
        return program.backward(x, y, per_chain, kl_weight)
    finally:
        for parameter in resting:
            parameter.requires_grad_(True)
