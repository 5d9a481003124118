"""Programs: how one step of several chains is computed - in a loop, vectorised, or replayed."""

from __future__ import annotations

from pyro_relevance.training.programs.chains import (
    LoopProgram,
    Program,
    RecordableProgram,
    VectorisedProgram,
)
from pyro_relevance.training.programs.replay import ReplayedProgram
from pyro_relevance.training.programs.two_levels import TwoLevelProgram

__all__ = [
    "LoopProgram",
    "Program",
    "RecordableProgram",
    "VectorisedProgram",
    "TwoLevelProgram",
    "ReplayedProgram",
]
