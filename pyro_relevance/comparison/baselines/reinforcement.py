r"""Reinforcement learning: a recurrent controller that writes architectures, trained by REINFORCE.

The controller is an LSTM that chooses the operation of one edge after the other, each choice its
next input. After each measured architecture with reward :math:`R`,

.. math::
    \theta \leftarrow \theta + \eta \sum_e \nabla_\theta \log P(a_e \mid a_{<e}; \theta) (R - b)

where the baseline :math:`b` is a moving average of earlier rewards.

References:
    Zoph, Le, Neural architecture search with reinforcement learning, ICLR 2017, sections 3.1 and
    3.2. Williams, Simple statistical gradient-following algorithms for connectionist reinforcement
    learning, Machine Learning 1992.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pyro_relevance._random import seeded, substream
from pyro_relevance.edges.edges import Edges
from pyro_relevance.graphs.architectures import Architecture
from pyro_relevance.search.queries import QuerySearch, measured

__all__ = ["Controller", "reinforce"]


class Controller(nn.Module):
    """An LSTM that chooses the operations of all edges, one after the other.

    Args:
        num_operations: Number of operations of each edge.
        num_hidden: Size of the LSTM.
    """

    def __init__(self, num_operations: list[int], num_hidden: int = 100) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(num_hidden, num_hidden)
        self.start = nn.Parameter(torch.zeros(1, num_hidden))
        self.read = nn.ModuleList(nn.Linear(num_hidden, number) for number in num_operations)
        self.embed = nn.ModuleList(nn.Embedding(n, num_hidden) for n in num_operations[:-1])
        for layer in self.read:
            # All operations are about equally probable at first.
            nn.init.normal_(layer.weight, std=1e-2)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, chosen: list[int] | None = None) -> tuple[list[int], Tensor]:
        """Return the choices and their log probability.

        Args:
            chosen: The choices, or ``None`` to draw them.
        """
        state: tuple[Tensor, Tensor] | None = None
        x, choices, total = self.start, [], self.start.new_zeros(())
        for position, read in enumerate(self.read):
            state = self.cell(x, state)
            log_probability = read(state[0])[0].log_softmax(-1)
            if chosen is None:
                choice = int(torch.multinomial(log_probability.detach().exp(), 1))
            else:
                choice = chosen[position]
            choices.append(choice)
            total = total + log_probability[choice]
            if position < len(self.embed):
                x = self.embed[position](torch.tensor([choice], device=x.device))
        return choices, total


def reinforce(
    edges: Edges,
    evaluate: Callable[[Architecture], float],
    *,
    num_queries: int,
    learning_rate: float = 3e-3,
    baseline_decay: float = 0.9,
    num_hidden: int = 100,
    seed: int = 0,
) -> QuerySearch:
    """Measure architectures that a controller writes, which learns from their values.

    Args:
        edges: The gated edges of the relaxed graphs.
        evaluate: Measures one architecture; larger is better.
        num_queries: Measurements in all.
        learning_rate: Step size of Adam for the controller.
        baseline_decay: Share of the old baseline in the new one.
        num_hidden: Size of the controller.
        seed: Seed of the controller and of the draws.

    Returns:
        The search; the architecture with the largest value is recommended.

    Raises:
        ValueError: If a number is out of range, or a value is not finite.
    """
    if num_queries < 1:
        raise ValueError(f"Expected num_queries >= 1, but got {num_queries}.")
    if not 0 <= baseline_decay < 1:
        raise ValueError(f"Expected baseline_decay in [0, 1), but got {baseline_decay}.")
    groups = edges.operations
    found: list[Architecture] = []
    values: list[float] = []
    with seeded(substream(seed, "controller")):
        controller = Controller([g.num_edges for g in groups], num_hidden)
    baseline: float | None = None
    for number in range(num_queries):
        # A stream of its own for each query: measuring may draw from the generator too.
        with seeded(substream(seed, "controller", number)), torch.enable_grad():
            if not number:
                adam = torch.optim.Adam(controller.parameters(), lr=learning_rate)
            choices, log_probability = controller()
            architecture = Architecture(
                {g.name: g.labels[choice] for g, choice in zip(groups, choices, strict=True)}
            )
        value = measured(evaluate, architecture)
        found.append(architecture)
        values.append(value)
        before = value if baseline is None else baseline
        adam.zero_grad()
        (-(value - before) * log_probability).backward()
        adam.step()
        baseline = baseline_decay * before + (1 - baseline_decay) * value
    return QuerySearch(tuple(found), tuple(values))
