"""Cost of a training step: ratio to a plain deterministic step, in one process, interleaved.

Both steps draw a minibatch, compute the loss and its gradients, and update by fused Adam. The KL
weight is 1, and steps are recorded. Also counted: waits for the device in a step, and the peak of
tensor memory. What users get, set-up and records included, is in ``bench_fit``. Timings depend on
the machine; no test reads them.

    python -m analysis.bench_step
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from analysis.command import Command
from analysis.records import row, write_record
from analysis.timing import alternate, milliseconds, one_thread
from pyro_relevance import likelihoods, networks
from pyro_relevance._random import local_pyro
from pyro_relevance.edges.find import find_edges
from pyro_relevance.model.elbo import LeanELBO
from pyro_relevance.model.guides import MeanFieldGuide
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.model.precision import Precision
from pyro_relevance.training.batches import Batches
from pyro_relevance.training.preparation import (
    make_chains,
    make_program,
    parameter_groups,
    try_first_batch,
)
from pyro_relevance.training.programs.adam import Adam
from pyro_relevance.training.run import TrainingRun
from pyro_relevance.training.schedules import Schedules, constant

NUM_WARM = 40
"""Steps before the clock starts; the recording of a step falls within these."""
READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select")
"""Operators whose result Python or the next kernel must wait for."""


@dataclass(frozen=True)
class Task:
    """A network, what is gated, and the bound on the ratio of step times."""

    name: str
    network: Callable[[], nn.Module]
    input_shape: tuple[int, ...]
    num_classes: int | None
    batch_size: int
    granularity: str
    bound: float
    precision: Precision = Precision()


FAST = Precision(autocast=torch.bfloat16, channels_last=True)
TASKS = (
    Task("13-50-50-1, units", lambda: networks.MLP(13, (50, 50), 1), (13,), None, 64, "unit", 1.8),
    Task("LeNet-300-100, units", networks.LeNet300100, (784,), 10, 128, "unit", 1.3),
    Task("LeNet-300-100, weights", networks.LeNet300100, (784,), 10, 128, "weight", 3.0),
    Task("LeNet-5-Caffe, units", networks.LeNet5Caffe, (1, 28, 28), 10, 128, "unit", 1.1),
    Task("ResNet-20, units", networks.ResNet20, (3, 32, 32), 10, 128, "unit", 1.1),
    Task("ResNet-20, units, bfloat16", networks.ResNet20, (3, 32, 32), 10, 128, "unit", 1.1, FAST),
)


def data(task: Task, num_rows: int = 2048) -> tuple[Tensor, Tensor]:
    """Return random data of the task's shape."""
    x = torch.randn(num_rows, *task.input_shape)
    y = torch.randint(task.num_classes, (num_rows,)) if task.num_classes else torch.randn(num_rows)
    return x, y


def plain_step(task: Task) -> tuple[Callable[[], Any], Callable[[], int]]:
    """Return a deterministic training step with fused Adam, and its persistent bytes."""
    network, precision = task.network(), task.precision
    precision.prepare(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    batches = Batches(
        data(task), num_chains=1, batch_size=task.batch_size, device=torch.device("cpu")
    )

    def step() -> None:
        x, y, _ = batches.next()
        optimizer.zero_grad(set_to_none=True)
        with precision.context(x.device):
            outputs = network(precision.arrange(x))
        outputs = outputs.float()
        loss = (
            F.cross_entropy(outputs, y) if task.num_classes else F.mse_loss(outputs.squeeze(1), y)
        )
        loss.backward()
        optimizer.step()

    return step, lambda: persistent(network, optimizer)


def relevance_step(task: Task) -> tuple[Callable[[], Any], Callable[[], int]]:
    """Return the library's training step as ``fit`` takes it, and its persistent bytes."""
    network, (x, y) = task.network(), data(task)
    likelihood: Any = likelihoods.Categorical() if task.num_classes else likelihoods.Gaussian()
    model = RelevanceModel(
        network,
        find_edges(network, granularity=task.granularity, example_input=x[:1]),
        likelihood=likelihood,
        num_data=len(x),
    )
    cpu = torch.device("cpu")
    modules = make_chains([model], MeanFieldGuide, LeanELBO(), "reset", cpu)
    modules[0].model.set_mode(precision=task.precision)
    task.precision.prepare(modules[0].model.network)
    batches = Batches((x, y), num_chains=1, batch_size=task.batch_size, device=cpu)
    try_first_batch(modules, batches)
    program = make_program(modules, batches, 1, None)
    optimizer = Adam(parameter_groups(program, 1e-3, 3e-2))
    run = TrainingRun(program, optimizer, batches, Schedules(kl_weight=constant(1.0)), 10_000)
    return run.take_step, lambda: persistent(modules[0], optimizer)


def persistent(module: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Return bytes of parameters, buffers and the optimiser's state."""
    tensors = [*module.parameters(), *module.buffers()]
    for state in optimizer.state.values():
        tensors += [value for value in state.values() if isinstance(value, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def peak_bytes(step: Callable[[], Any], kept: Callable[[], int]) -> int:
    """Return persistent bytes and the peak of what one step allocates beside them."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return kept() + peak


class _CountReads(TorchDispatchMode):
    """Counts operators that an accelerator would be waited for.

    The step counters that Adam keeps on the host are read inside its kernel, without a wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += any(name in str(func) for name in READS)
        return func(*args, **(kwargs or {}))


def num_waits(step: Callable[[], Any]) -> int:
    """Return how many operators of a step would wait for an accelerator."""
    with _CountReads() as counted:
        step()
    return counted.count


def measure(task: Task, num_rounds: int, num_steps: int) -> dict[str, list[float]]:
    """Return metrics of a task: plain and relevance steps alternate, the ratio is per round."""
    torch.manual_seed(0)
    plain, plain_kept = plain_step(task)
    ours, ours_kept = relevance_step(task)
    for step in (plain, ours):
        milliseconds(step, NUM_WARM)
    if len(task.input_shape) == 3:  # steps of tenths of a second need no averaging
        num_steps = max(2, num_steps // 20)
    rounds = alternate(plain, ours, num_rounds=num_rounds, num_steps=num_steps)
    return {
        "plain_ms": [rounds.first_ms],
        "relevance_ms": [rounds.second_ms],
        "ratio": [rounds.slowdown],
        "waits": [float(num_waits(ours))],
        "peak_memory_ratio": [peak_bytes(ours, ours_kept) / peak_bytes(plain, plain_kept)],
    }


def main() -> None:
    """Read the command line and measure."""
    command = Command("bench_step", __doc__, smoke="two rounds")
    arguments = command.parse_args()
    num_rounds, num_steps = (2, 3) if arguments.smoke else (25, 40)
    started = time.perf_counter()
    rows = []
    with one_thread(), local_pyro():
        for task in TASKS:
            metrics = measure(task, num_rounds, num_steps)
            rows.append(row("relevance", task.name, [0], metrics, bound=task.bound))
            shown = "  ".join(f"{name} {values[0]:.3f}" for name, values in metrics.items())
            print(f"{task.name:24s} {shown}  (bound {task.bound})", flush=True)
        path = write_record(
            "step_time",
            command=command.line(),
            settings={"num_rounds": num_rounds, "num_steps": num_steps, "num_threads": 1},
            rows=rows,
            wall_seconds=time.perf_counter() - started,
            folder=arguments.out,
        )
    print(path)


if __name__ == "__main__":
    main()
