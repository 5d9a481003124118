"""Cost of a run of ``fit`` as users call it: ratio to a plain loop with the same fused Adam.

Nothing below ``pr.fit`` is called, and no setting says how a step is computed: what is measured is
what a user gets. After the warm-up of the KL weight, blocks of steps of the fit take turns with
blocks of plain steps in one process on one thread; records and callbacks are part of the fit.
``whole`` compares the whole call (set-up, recording of steps, warm-up) with as many plain steps.
Times are those of the computing thread, so that others' work on the same cores does not count.
They depend on the machine; no test reads them.

    python -m analysis.bench_fit
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

import pyro_relevance as pr
from analysis.command import Command
from analysis.records import row, write_record
from analysis.timing import one_thread

NUM_ROUNDS = 25
"""Turns of each side, at most; a run has as many as fit after its warm-up."""


@dataclass(frozen=True)
class Task:
    """A network, what is gated, how long the run is, and the ratio to reach."""

    name: str
    network: Callable[[], nn.Module]
    num_inputs: int
    num_classes: int | None
    num_rows: int
    batch_size: int
    granularity: str
    num_chains: int
    num_steps: int
    reach: float


def boston() -> nn.Module:
    """Return the network of 13 inputs and 50 hidden units."""
    return pr.networks.MLP(13, (50,), 1)


LENET = pr.networks.LeNet300100
TASKS = (
    Task("13-50-1, units", boston, 13, None, 455, 32, "unit", 1, 6000, 1.3),
    Task("13-50-1, weights", boston, 13, None, 455, 32, "weight", 1, 6000, 1.3),
    Task("13-50-1, units, 20 chains", boston, 13, None, 455, 32, "unit", 20, 3000, 1.2),
    Task("LeNet-300-100, units", LENET, 784, 10, 2048, 128, "unit", 1, 2000, 1.1),
    Task("LeNet-300-100, weights", LENET, 784, 10, 2048, 128, "weight", 1, 1000, 2.0),
)


def data(task: Task) -> tuple[Tensor, Tensor]:
    """Return random data of the task's shape."""
    x = torch.randn(task.num_rows, task.num_inputs)
    classes = task.num_classes
    return x, torch.randint(classes, (len(x),)) if classes else torch.randn(len(x))


def plain_step(task: Task) -> Callable[[], None]:
    """Return a deterministic training step: minibatch, loss, gradients, fused Adam."""
    x, y = data(task)
    networks = [task.network() for _ in range(task.num_chains)]
    stacked = {
        name: torch.stack([dict(n.named_parameters())[name].detach() for n in networks])
        for name, _ in networks[0].named_parameters()
    }
    parameters = [nn.Parameter(t) for t in stacked.values()]
    if task.num_chains == 1:
        parameters = list(networks[0].parameters())
    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
    order, position = torch.empty((task.num_chains, 0), dtype=torch.long), 0

    def loss(tensors: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return _loss(functional_call(networks[0], tensors, (x,)), y)

    gradients = vmap(grad(loss))

    def step() -> None:
        nonlocal order, position
        if position >= order.shape[1]:
            orders = [torch.randperm(task.num_rows) for _ in range(task.num_chains)]
            order, position = torch.stack(orders), 0
        index = order[:, position : position + task.batch_size]
        position += task.batch_size
        optimizer.zero_grad(set_to_none=True)
        if task.num_chains == 1:
            _loss(networks[0](x[index[0]]), y[index[0]]).backward()
        else:
            named = dict(zip(stacked, (p.detach() for p in parameters), strict=True))
            found = gradients(named, x[index], y[index])
            for parameter, name in zip(parameters, stacked, strict=True):
                parameter.grad = found[name]
        optimizer.step()

    return step


def _loss(outputs: Tensor, y: Tensor) -> Tensor:
    if y.is_floating_point():
        return F.mse_loss(outputs.squeeze(-1), y)
    return F.cross_entropy(outputs, y)


@dataclass(eq=False)
class Turns:
    """A callback that takes plain steps between blocks of steps of the fit.

    Args:
        plain: The plain step.
        block: Steps in a turn of either side.
        ratios: Ratio of the fit's time to that of the plain steps, for each pair of turns.
        fit_ms: Milliseconds of a step of the fit, for each turn.
        plain_ms: Milliseconds of a plain step, for each turn.
        seconds: What the plain steps took in all.
    """

    plain: Callable[[], None]
    block: int
    ratios: list[float] = field(default_factory=list)
    fit_ms: list[float] = field(default_factory=list)
    plain_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0
    _resumed: float = 0.0
    _count: int = -1

    def __call__(self, state: Any) -> None:
        """Count steps after the warm-up; after a block of them, let the plain steps have a turn."""
        if state.kl_weight != 1.0:
            return
        self._count += 1
        now = time.thread_time()
        if self._count == 0:
            milliseconds(self.plain, self.block)  # warm
        elif self._count % self.block == 0:
            self.fit_ms.append((now - self._resumed) / self.block * 1e3)
            self.plain_ms.append(milliseconds(self.plain, self.block))
            self.ratios.append(self.fit_ms[-1] / self.plain_ms[-1])
        else:
            return
        self._resumed = time.thread_time()
        self.seconds += self._resumed - now


def milliseconds(step: Callable[[], None], num_steps: int) -> float:
    """Return the mean time of some steps."""
    started = time.thread_time()
    for _ in range(num_steps):
        step()
    return (time.thread_time() - started) / num_steps * 1e3


def fit(task: Task, num_steps: int, **settings: Any) -> float:
    """Return the seconds of a call of ``pr.fit`` with its defaults."""
    x, y = data(task)
    network = task.network()
    likelihoods = pr.likelihoods
    model = pr.RelevanceModel(
        network,
        pr.find_edges(network, granularity=task.granularity, example_input=x[:1]),
        likelihood=likelihoods.Categorical() if task.num_classes else likelihoods.Gaussian(),
        num_data=len(x),
    )
    num_epochs = max(1, num_steps // -(-len(x) // task.batch_size))
    started = time.thread_time()
    pr.fit(
        model,
        (x, y),
        num_epochs=num_epochs,
        batch_size=task.batch_size,
        num_chains=task.num_chains,
        **settings,
    )
    return time.thread_time() - started


def measure(task: Task, num_steps: int) -> tuple[dict[str, list[float]], list[float]]:
    """Return the metrics of a task, and the ratio of each round."""
    torch.manual_seed(0)
    turns = Turns(plain_step(task), max(1, int(0.7 * num_steps) // NUM_ROUNDS))
    seconds = fit(task, num_steps, callbacks=[turns]) - turns.seconds
    plain_ms = statistics.median(turns.plain_ms)
    metrics = {
        "ratio": [statistics.median(turns.ratios)],
        "fit_ms": [statistics.median(turns.fit_ms)],
        "plain_ms": [plain_ms],
        "whole": [seconds * 1e3 / (num_steps * plain_ms)],
    }
    return metrics, turns.ratios


def short_run(num_steps: int = 300) -> dict[str, list[float]]:
    """Return what a short run of 13-50-1 costs beside its steps.

    Its steps take as long as the fastest tenth of them; all else is set-up and records.
    """
    times: list[float] = []
    seconds = fit(TASKS[0], num_steps, callbacks=[lambda _: times.append(time.thread_time())])
    steps = sorted(b - a for a, b in zip(times, times[1:], strict=False))
    step = statistics.median(steps[: max(1, len(steps) // 5)])
    return {"seconds": [seconds], "step_ms": [step * 1e3], "rest": [seconds / (step * 300) - 1]}


def main() -> None:
    """Read the command line and measure."""
    command = Command("bench_fit", __doc__, smoke="a hundred steps")
    command.add_only("one task", [task.name for task in TASKS])
    arguments = command.parse_args()
    started = time.perf_counter()
    rows = []
    with one_thread():
        fit(TASKS[0], 60)  # imports
        rows.append(row("fit", "13-50-1, 300 steps", [0], short_run(), reach=0.2))
        short = {name: metric["mean"] for name, metric in rows[-1]["metrics"].items()}
        print("300 steps", short, flush=True)
        for task in TASKS:
            if arguments.only not in (None, task.name):
                continue
            metrics, ratios = measure(task, 100 if arguments.smoke else task.num_steps)
            rows.append(row("fit", task.name, [0], metrics, reach=task.reach, ratios=ratios))
            shown = "  ".join(f"{name} {values[0]:.3f}" for name, values in metrics.items())
            print(f"{task.name:26s} {shown}  (reach {task.reach})", flush=True)
        path = write_record(
            "fit_time",
            command=command.line(),
            settings={"num_rounds": NUM_ROUNDS, "num_threads": 1},
            rows=rows,
            wall_seconds=time.perf_counter() - started,
            folder=arguments.out,
        )
    print(path)


if __name__ == "__main__":
    main()
