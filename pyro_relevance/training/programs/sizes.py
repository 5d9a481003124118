"""The expected number of parameters that a run keeps, as its records say it.

It is asked for often in a long run, always by the same operators: these are recorded and replayed,
as those of a step are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pyro_relevance.edges.find import Edges
from pyro_relevance.posterior import relevance
from pyro_relevance.training.programs.chains import Program, RecordableProgram
from pyro_relevance.training.programs.recording import record
from pyro_relevance.training.programs.replay import ReplayedProgram

__all__ = ["SizeOfProgram"]

_WORTH = 100
"""Records of a run that make a recording worth its time."""


class SizeOfProgram:
    """Computes the expected number of kept parameters of each chain.

    The operators of the second call are recorded. They are used if they repeat the third and the
    fourth call bit by bit, so that it makes no difference to a history whether they are.

    Args:
        program: The chains.
        num_chains: Number of chains.
        num_calls: How often it will be asked for.
    """

    def __init__(self, program: Program, num_chains: int, num_calls: int) -> None:
        self._program = program
        self._num_chains = num_chains
        self._model: Any = program.modules[0].model
        self._calls = 0
        self._replay: Callable[..., tuple[Tensor, ...]] | None = None
        self._inputs: list[Tensor] = []
        if isinstance(program, ReplayedProgram) and num_calls >= _WORTH:
            recordable: RecordableProgram = program.program
            self._inputs = list(recordable.tensors().values())

    def __call__(self) -> npt.NDArray[np.float64]:
        """Return ``(num_chains,)`` numbers; NaN where the guide knows no probabilities."""
        self._calls += 1
        with torch.no_grad():
            if self._calls > 4 and self._replay is not None:
                return np.array(self._replay(*self._inputs)[0].numpy(), dtype=np.float64)
            size = self._size()
            if self._inputs and self._calls in (2, 3, 4):
                self._check(size)
        return np.asarray(size.numpy(), dtype=np.float64)

    def _check(self, size: Tensor) -> None:
        try:
            if self._calls == 2:
                self._replay = record(lambda *_: (self._size(),), self._inputs)
            elif self._replay is not None and not torch.equal(self._replay(*self._inputs)[0], size):
                self._replay = None
        except (RuntimeError, ValueError, TypeError, NotImplementedError):
            self._replay = None  # as for a step: the plain computation still works

    def _size(self) -> Tensor:
        model = self._model
        table = self._program.operation_probability()
        edges: Edges = model.edges
        operations = None if table is None else edges.split_operations(table.cpu())
        if not model.has_gates and operations is None:
            size = float(sum(p.numel() for p in model.network.parameters()))
            return torch.full((self._num_chains,), size, dtype=torch.float64)
        gates: dict[str, Tensor] = {}
        if model.has_gates:
            probability = self._program.gate_probability()
            if probability is None:
                return torch.full((self._num_chains,), float("nan"), dtype=torch.float64)
            gates = edges.split(probability.cpu())
        return relevance.expected_size(gates, edges, operations).num_parameters
