"""Exact pruning of torchvision's classification networks: random masks, pruned against masked.

Weights are random, and so are normalisation statistics and biases, since zeros would hide faults.
One line per network: groups, share of the parameters that belong to candidate edges, difference
between the pruned and the masked network, whether its size is the one computed from the mask, and
seconds. Each network is kept when it is measured, and a killed run goes on with the next; delete
the folder of the parts to measure another version of the library.

    python -m analysis.bench_torchvision
    python -m analysis.bench_torchvision --only resnet18 vit_b_16
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
import torchvision
from torch import nn

from analysis.command import Command
from analysis.parts import Parts
from analysis.records import runs_row, write_record
from pyro_relevance.edges.find import Edges, find_edges
from pyro_relevance.edges.size import masked_cost
from pyro_relevance.surgery.pruning import prune

DENSITY = 0.6


def make(name: str) -> nn.Module:
    """Return a network with random weights and random normalisation."""
    settings = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network: nn.Module = torchvision.models.get_model(name, weights=None, **settings).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    for parameter in network.parameters():
        if not bool(parameter.any()):  # a last layer of zeros would hide every difference
            nn.init.normal_(parameter, std=0.1)
    return network


def candidate_share(edges: Edges) -> float:
    """Return the share of the parameters that goes when all candidate edges are removed."""
    everything = {g.name: torch.ones(g.shape, dtype=torch.bool) for g in edges}
    nothing = {g.name: torch.zeros(g.shape, dtype=torch.bool) for g in edges}
    whole = masked_cost(edges, everything).num_parameters
    return 1 - masked_cost(edges, nothing).num_parameters / whole


def measure(name: str, size: int) -> dict[str, float]:
    """Prune one network at random and return what was found."""
    torch.manual_seed(0)
    network = make(name)
    x = torch.randn(1, 3, size, size)
    started = time.perf_counter()
    edges = find_edges(network, example_input=x, granularity="unit")
    found = time.perf_counter() - started
    mask = {group.name: torch.rand(group.shape) < DENSITY for group in edges}
    for keep in mask.values():
        keep[0] |= not bool(keep.any())  # heads are few; removing layers whole is another test
    predicted = masked_cost(edges, mask)
    receipt = prune(network, edges, mask, example_input=x).receipt
    return {
        "num_groups": len(edges),
        "num_edges": edges.num_edges,
        "num_skipped": len(edges.skipped),
        "judged_share": candidate_share(edges),
        "max_difference": receipt.max_difference,
        "num_parameters_before": receipt.before.num_parameters,
        "num_parameters": receipt.after.num_parameters,
        "predicted_minus_counted": predicted.num_parameters - receipt.after.num_parameters,
        "num_macs_before": receipt.before.num_macs,
        "num_macs": receipt.after.num_macs,
        "predicted_minus_counted_macs": predicted.num_macs - receipt.after.num_macs,
        "find_seconds": found,
        "total_seconds": time.perf_counter() - started,
    }


def measured_or_failed(name: str) -> dict[str, Any]:
    """Return the metrics of a network, or why it was not pruned, and the time in seconds."""
    started = time.perf_counter()
    found: dict[str, Any] = {}
    try:
        found["metrics"] = measure(name, 299 if name == "inception_v3" else 224)
    except (ValueError, RuntimeError) as error:
        found["failure"] = str(error)
    return {**found, "seconds": time.perf_counter() - started}


def main() -> None:
    """Read the command line and measure."""
    command = Command("bench_torchvision", __doc__)
    command.add_argument("--only", nargs="*", help="names of networks")
    arguments = command.parse_args()
    names = arguments.only or torchvision.models.list_models(module=torchvision.models)
    parts = Parts.of("torchvision_cut", arguments.out)
    rows: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    seconds = 0.0
    for name in names:
        part = parts.once(name, {"density": DENSITY}, partial(measured_or_failed, name))
        seconds += part["seconds"]
        if "failure" in part:
            failures[name] = part["failure"]
            print(f"{name:24s} failed: {part['failure']}", flush=True)
            continue
        metrics = part["metrics"]
        rows.append(runs_row("random cut", name, [metrics]))
        print(
            f"{name:24s} groups {metrics['num_groups']:4d}  "
            f"candidate share {metrics['judged_share']:.2f}  "
            f"difference {metrics['max_difference']:.1e}  parameters "
            f"{metrics['num_parameters_before']:,} -> {metrics['num_parameters']:,}  "
            f"{metrics['total_seconds']:.0f} s",
            flush=True,
        )
    path = write_record(
        "torchvision_cut",
        command=command.line(),
        settings={"density": DENSITY, "failures": failures},
        rows=rows,
        wall_seconds=seconds,
        folder=arguments.out,
    )
    print(f"{len(rows)} of {len(names)} networks pruned. {path}")


if __name__ == "__main__":
    main()
