"""Cost of a training step of a relaxed graph: of the mixture, and of a sampled path.

The mixture is compared with the same graph under fixed weights on its operations, the sampled path
with the derived network of the same architecture (a posterior that is certain of it draws it in
each step); both in one process, interleaved.

    python -m analysis.bench_structure
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from analysis.bench_step import NUM_WARM, Task, data, plain_step
from analysis.command import Command
from analysis.records import row, write_record
from analysis.timing import alternate, milliseconds, one_thread
from pyro_relevance import derive, likelihoods
from pyro_relevance._random import local_pyro
from pyro_relevance.edges.find import find_edges
from pyro_relevance.graphs import Architecture, MixedOperation, spaces
from pyro_relevance.model.elbo import LeanELBO
from pyro_relevance.model.guides import MeanFieldGuide
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.model.relaxations import Mixture, OperationRelaxation, SampledPath
from pyro_relevance.training.batches import Batches
from pyro_relevance.training.preparation import (
    make_chains,
    make_program,
    parameter_groups,
    try_first_batch,
)
from pyro_relevance.training.run import TrainingRun
from pyro_relevance.training.schedules import Schedules

SPACES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int | None]] = {
    "tables, 3 x 50": (lambda: spaces.mlp_space(13, 1), (13,), None),
    "LeNet-like": (spaces.lenet_space, (1, 28, 28), 10),
    "NAS-Bench-201, 16 channels, 1 cell a stage": (
        lambda: spaces.nasbench201_space(num_cells=1),
        (3, 16, 16),
        10,
    ),
}
BOUNDS = {"mixture": 1.05, "sampled path": 1.3}


def fixed(make: Callable[[], nn.Module]) -> nn.Module:
    """Return the relaxed network with equal weights on the operations of each edge."""
    network = make()
    for module in network.modules():
        if isinstance(module, MixedOperation):
            module.gate.div_(len(module.gate))
    return network


def last_operations(network: nn.Module) -> Architecture:
    """Return the architecture of the last operation but pooling on each edge."""
    edges = find_edges(network, granularity="operation")
    return Architecture(
        {
            g.name: [label for label in g.labels if not label.startswith("avg_pool_3")][-1]
            for g in edges.operations
        }
    )


def relaxed_step(
    task: Task, relaxation: OperationRelaxation, chosen: Architecture | None
) -> Callable[[], Any]:
    """Return the library's training step; with an architecture, of a posterior certain of it."""
    network, (x, y) = task.network(), data(task)
    likelihood: Any = likelihoods.Categorical() if task.num_classes else likelihoods.Gaussian()
    model = RelevanceModel(
        network,
        find_edges(network, granularity="operation"),
        likelihood=likelihood,
        num_data=len(x),
        operation_relaxation=relaxation,
    )
    cpu = torch.device("cpu")
    modules = make_chains([model], MeanFieldGuide, LeanELBO(), "reset", cpu)
    if chosen is not None:
        hot = model.edges.join_operations(chosen.gates(model.edges), 0.0)
        logits = modules[0].guide.operation_posterior.logits
        logits.data += 1e3 * hot
        logits.requires_grad_(False)
    batches = Batches((x, y), num_chains=1, batch_size=task.batch_size, device=cpu)
    try_first_batch(modules, batches)
    program = make_program(modules, batches, 1, None)
    optimizer = torch.optim.Adam(parameter_groups(program, 1e-3, 3e-2), fused=True)
    return TrainingRun(program, optimizer, batches, Schedules(), 10_000).take_step


def pair(name: str, kind: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return the plain step and the library's step of a space."""
    make, shape, classes = SPACES[name]

    def task(network: Callable[[], nn.Module]) -> Task:
        return Task(name, network, shape, classes, 128, "operation", BOUNDS[kind])

    if kind == "mixture":
        return plain_step(task(lambda: fixed(make)))[0], relaxed_step(task(make), Mixture(), None)
    relaxed = make()
    chosen = last_operations(relaxed)
    example = torch.randn(2, *shape)
    plain = derive(relaxed, chosen, example_input=example).network.train()
    return (
        plain_step(task(lambda: plain))[0],
        relaxed_step(task(make), SampledPath(), chosen),
    )


def main() -> None:
    """Read the command line and measure."""
    command = Command("bench_structure", __doc__, smoke="two rounds")
    arguments = command.parse_args()
    num_rounds, num_steps = (2, 2) if arguments.smoke else (15, 10)
    started = time.perf_counter()
    rows = []
    with one_thread(), local_pyro():
        for name, (kind, bound) in itertools.product(SPACES, BOUNDS.items()):
            torch.manual_seed(0)
            plain, ours = pair(name, kind)
            for step in (plain, ours):
                milliseconds(step, 4 if arguments.smoke else NUM_WARM)
            rounds = alternate(plain, ours, num_rounds=num_rounds, num_steps=num_steps)
            metrics = {
                "plain_ms": [rounds.first_ms],
                "relaxed_ms": [rounds.second_ms],
                "ratio": [rounds.slowdown],
            }
            rows.append(row(kind, name, [0], metrics, bound=bound))
            shown = "  ".join(f"{key} {values[0]:.3f}" for key, values in metrics.items())
            print(f"{name:44s} {kind:14s} {shown}  (bound {bound})", flush=True)
    print(
        write_record(
            "structure_step_time",
            command=command.line(),
            settings={"num_rounds": num_rounds, "num_steps": num_steps, "num_threads": 1},
            rows=rows,
            wall_seconds=time.perf_counter() - started,
            folder=arguments.out,
        )
    )


if __name__ == "__main__":
    main()
