"""Worker processes that end with the process that started them, however that ends."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import connection, get_context, parent_process
from typing import Any

import torch

__all__ = ["Submit", "worker_processes"]

Submit = Callable[..., "Future[Any]"]
"""Has a function called with its arguments by a worker."""
PATIENCE = 3.0
"""Seconds in which a worker may put its files in order when it is asked to end."""

_WORKING = threading.Event()


@contextlib.contextmanager
def worker_processes(num_workers: int, num_threads: int) -> Iterator[Submit]:
    """Start processes that work inside the block.

    When the block fails or is interrupted they are asked to end, which runs their ``finally``
    blocks, and killed after `PATIENCE`. When this process is killed they end by themselves.

    Args:
        num_workers: How many; a script that asks for some needs ``if __name__ == "__main__":``.
        num_threads: Threads of torch in each.

    Yields:
        What submits a function of a module and its arguments, and returns a future.
    """
    # Spawned, not forked: a fork of a process that has used torch's threads may hang.
    pool = ProcessPoolExecutor(
        num_workers, get_context("spawn"), initializer=_begin, initargs=(num_threads,)
    )
    with pool:
        with _interrupts_blocked():  # Ctrl-C is for the parent, which then ends its workers
            pool.submit(os.getpid)  # starts all of them
        try:
            yield lambda function, *arguments: pool.submit(_work, function, *arguments)
        except BaseException:
            _end(pool)
            raise


def _end(pool: ProcessPoolExecutor) -> None:
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + PATIENCE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start processes that do not see Ctrl-C; this one sees it at the end of the block."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Ended(KeyboardInterrupt):
    """A worker was asked to end."""


def _begin(num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _asked_to_end)
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _asked_to_end)
        sys.unraisablehook = _not_raised
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _not_raised(unraisable: Any) -> None:
    """Ask again a moment later, where a callback of the collector swallowed what was raised."""
    if issubclass(unraisable.exc_type, _Ended):
        signal.setitimer(signal.ITIMER_REAL, 0.01)
    else:
        sys.__unraisablehook__(unraisable)


def _asked_to_end(number: int, frame: object) -> None:
    if _WORKING.is_set():
        raise _Ended
    os._exit(128 + number)


def _work(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        _WORKING.set()
        try:
            return function(*arguments)
        finally:
            _WORKING.clear()
    except _Ended:
        os._exit(128 + signal.SIGTERM)  # the pool would go on with the next call
