"""Measured speed-up of pruned networks beside the ratio of their multiply-accumulates, on the CPU.

Random masks keep a share of the channels of each layer; the original and the pruned network are
timed in turn, in one process on one thread. Timings depend on the machine; no test reads them.

    python -m analysis.bench_latency
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from analysis.command import Command
from analysis.records import runs_row, write_record
from analysis.timing import alternate, one_thread
from pyro_relevance import find_edges, networks, prune
from pyro_relevance.edges.size import num_macs

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "LeNet-5-Caffe": (networks.LeNet5Caffe, (1, 28, 28)),
    "VGG-16": (networks.VGG16, (3, 32, 32)),
}
BATCH_SIZES = (128, 1)
DENSITIES = (0.75, 0.5, 0.25)


def measure(name: str, density: float, batch_size: int, num_rounds: int) -> dict[str, float]:
    """Prune one network at random and time both."""
    make_network, shape = NETWORKS[name]
    torch.manual_seed(0)
    network, x = make_network().eval(), torch.randn(batch_size, *shape)
    edges = find_edges(network, example_input=x[:1], granularity="unit")
    mask = {}
    for group in edges:
        kept = torch.randperm(group.num_edges)[: max(1, round(density * group.num_edges))]
        mask[group.name] = torch.zeros(group.num_edges, dtype=torch.bool)
        mask[group.name][kept] = True
    small = prune(network, edges, mask, example_input=x[:1]).network.eval()
    with torch.inference_mode():
        for _ in range(2):
            network(x), small(x)
        rounds = alternate(lambda: network(x), lambda: small(x), num_rounds=num_rounds)
    macs = num_macs(network, x) / num_macs(small, x)
    return {
        "ms_before": rounds.first_ms,
        "ms_after": rounds.second_ms,
        "macs_ratio": macs,
        "speedup": rounds.speedup,
        "speedup_per_macs_ratio": rounds.speedup / macs,
    }


def main() -> None:
    """Read the command line and measure."""
    command = Command("bench_latency", __doc__, smoke="one density, two rounds")
    arguments = command.parse_args()
    densities = DENSITIES[1:2] if arguments.smoke else DENSITIES
    num_rounds = 2 if arguments.smoke else 15
    names = list(NETWORKS)[:1] if arguments.smoke else list(NETWORKS)
    started = time.perf_counter()
    rows: list[dict[str, Any]] = []
    with one_thread():
        for name, density, batch_size in itertools.product(names, densities, BATCH_SIZES):
            metrics = measure(name, density, batch_size, num_rounds)
            method = f"{density:.0%} of the channels, batch {batch_size}"
            rows.append(runs_row(method, name, [metrics]))
            shown = "  ".join(f"{key} {value:.3g}" for key, value in metrics.items())
            print(f"{name:14s} {method:34s} {shown}", flush=True)
    settings = {"num_rounds": num_rounds, "num_threads": 1, "densities": list(densities)}
    print(
        write_record(
            "latency",
            command=command.line(),
            settings=settings,
            rows=rows,
            wall_seconds=time.perf_counter() - started,
            folder=arguments.out,
        )
    )


if __name__ == "__main__":
    main()
