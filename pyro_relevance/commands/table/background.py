"""What others score, beside the rest of the main job: in a process and on a core of its own.

The dense network with its cross-validation and the simple baselines need nothing of the gated fits.
A process of its own imports the library once more, which costs seconds; where there is one worker,
or no dense network is wanted, nothing is started.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from pyro_relevance.commands.scoring.scores import Score
from pyro_relevance.commands.table.job import Job
from pyro_relevance.commands.table.recipe import HeldOut
from pyro_relevance.comparison.processes import worker_processes

__all__ = ["Others", "others"]


@dataclass(frozen=True, eq=False)
class Others:
    """What the gated fits are compared with.

    Args:
        scores: Test result of the dense network under its name; empty where none is wanted.
        held: Its held-out predictions.
        baselines: Test results of simple models.
    """

    scores: dict[str, Score]
    held: HeldOut | None
    baselines: dict[str, Score]

    @classmethod
    def of(cls, job: Job) -> Others:
        """Train them."""
        scores, held = job.dense_score() if job.settings.dense else ({}, None)
        return cls(scores, held, job.baseline_scores())


@contextmanager
def others(job: Job, workers: int) -> Iterator[Callable[[], Others]]:
    """Train them beside what is done within the block, where there are two workers.

    Args:
        job: The job; its settings say whether a dense network is wanted.
        workers: Processes that may be busy at once.

    Yields:
        A function that waits for the result and returns it.
    """
    if workers < 2 or not job.settings.dense:
        yield lambda: Others.of(job)
    else:
        with worker_processes(1, num_threads=1) as submit:
            future = submit(_compute, replace(job, progress=False))
            yield lambda: pickle.loads(future.result())  # noqa: S301 (of our own process)


def _compute(job: Job) -> bytes:
    # As bytes: tensors would be passed in shared memory, which ends with this process.
    return pickle.dumps(Others.of(job))
