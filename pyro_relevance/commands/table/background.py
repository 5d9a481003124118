"""The dense network beside the rest of the main job: in a process of its own, on a core of its own.

The dense network and its cross-validation need nothing of the gated fits. A process of its own
imports the library once more, which costs seconds; where there is one worker, or no dense network
is wanted, nothing is started.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from pyro_relevance.commands.table.job import Job, Score
from pyro_relevance.commands.table.recipe import HeldOut
from pyro_relevance.comparison.processes import worker_processes

__all__ = ["Dense", "dense_network"]

Dense = tuple[dict[str, Score], HeldOut | None]
"""Test result of the dense network under its name, and its held-out predictions."""


@contextmanager
def dense_network(job: Job, workers: int) -> Iterator[Callable[[], Dense]]:
    """Train the dense network, beside what is done within the block where there are two workers.

    Args:
        job: The job; its settings say whether a dense network is wanted.
        workers: Processes that may be busy at once.

    Yields:
        A function that waits for the result and returns it.
    """
    if not job.settings.dense:
        yield lambda: ({}, None)
    elif workers < 2:
        yield job.dense_score
    else:
        with worker_processes(1, num_threads=1) as submit:
            future = submit(_compute, replace(job, progress=False))
            yield lambda: pickle.loads(future.result())  # noqa: S301 (of our own process)


def _compute(job: Job) -> bytes:
    # As bytes: tensors would be passed in shared memory, which ends with this process.
    return pickle.dumps(job.dense_score())
