"""The identity of a run: only a run with the same one may resume its checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from pyro_relevance.training.batches import Batches
from pyro_relevance.training.checkpoint import fingerprint
from pyro_relevance.training.programs.chains import Program
from pyro_relevance.training.programs.two_levels import TwoLevelProgram
from pyro_relevance.training.schedules import Schedules

__all__ = ["describe_run", "stable_text"]


def describe_run(
    program: Program,
    optimizer: Optimizer,
    batches: Batches,
    schedules: Schedules,
    callbacks: Sequence[object],
    settings: Mapping[str, Any],
) -> str:
    """Return the fingerprint of a run: a digest of everything that its numbers depend on.

    Args:
        program: The chains in their initial state.
        optimizer: The optimiser.
        batches: The data.
        schedules: The schedules.
        callbacks: The callbacks that have a state.
        settings: JSON-able arguments of ``fit``.
    """
    model: Any = program.modules[0].model
    parts = [model.gate_prior, model.weight_prior, model.relaxation]
    if model.has_operations:
        parts += [model.operation_prior, model.operation_relaxation]
    held_out: dict[str, Tensor] = {}
    if isinstance(program, TwoLevelProgram):
        held_out = {"held_out_x": program.held_out.x, "held_out_y": program.held_out.y}
    moments = [i / 10 for i in range(11)]
    curves = [(schedules.temperature, schedules.kl_weight, schedules.learning_rate)]
    if any(schedules.gate_learning_rate(moment) != 1.0 for moment in moments):
        curves.append((schedules.gate_learning_rate,) * 3)
    return fingerprint(
        {
            **settings,
            "classes": [
                type(thing).__name__
                for thing in (program.modules[0].guide, model.likelihood, optimizer, *callbacks)
            ],
            "num_data": model.num_data,
            "edges": model.edges.to_json(),
            "model": [stable_text(part) for part in parts],
            "schedules": [[f(moment) for f in three] for three in curves for moment in moments],
            "optimizer": {
                name: value
                for name, value in optimizer.defaults.items()
                if isinstance(value, bool | int | float | str | tuple | None)
            },
        },
        {**program.state(), "x": batches.x, "y": batches.y, **held_out},
    )


def stable_text(thing: object) -> str:
    """Return a text that is the same in every process, without the addresses of a default repr."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(thing))
