"""End points of a structure search that are known to be bad, reported with numbers.

Weight-sharing searches end, again and again, at cells of operations without parameters, at networks
that no path leads through, or undecided (DARTS on NAS-Bench-201: 54.3 %, all edges
skip connections). None of these may stay unnoticed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from pyro_relevance.edges.edges import Edges
from pyro_relevance.errors import CollapseWarning
from pyro_relevance.graphs.architectures import Architecture, free_edges, is_connected, mode
from pyro_relevance.model.priors.operations import operation_parameters

__all__ = ["StructureReport", "structure_report", "warn_of_collapse"]

UNDECIDED = 0.9
"""Mean entropy, relative to the uniform distribution, from which a posterior says nothing."""
PARAMETER_FREE = 0.75
"""Share of parameter-free operations from which they have taken over."""


@dataclass(frozen=True)
class StructureReport:
    """Summary of a posterior over operations, in numbers.

    Args:
        architecture: The most probable operation of each edge.
        connected: Whether it has a path from input to output in each graph.
        free: Groups whose operation does not matter in it.
        entropy: Group -> entropy of its operation, in nats.
        relative_entropy: Mean entropy over edges, relative to the uniform distribution.
        none: Share of edges whose most probable operation is ``none``.
        parameter_free: Share of edges in use, of those that could have parameters, whose most
            probable operation has none.
    """

    architecture: Architecture
    connected: bool
    free: tuple[str, ...]
    entropy: Mapping[str, float]
    relative_entropy: float
    none: float
    parameter_free: float

    @property
    def faults(self) -> tuple[str, ...]:
        """One sentence for each fault; empty if there is none."""
        found = []
        if not self.connected:
            found.append(
                f"no path leads from input to output ({self.none:.0%} of the edges are none)"
            )
        elif self.parameter_free >= PARAMETER_FREE:
            found.append(
                f"{self.parameter_free:.0%} of the edges in use are operations without parameters"
            )
        if self.relative_entropy >= UNDECIDED:
            found.append(
                f"the posterior is undecided ({self.relative_entropy:.0%} of the entropy of the "
                "uniform distribution)"
            )
        return tuple(found)

    def __str__(self) -> str:
        lines = [
            str(self.architecture),
            f"entropy {self.relative_entropy:.0%} of uniform, none {self.none:.0%}, without "
            f"parameters {self.parameter_free:.0%} of the edges in use, {len(self.free)} edges "
            "free",
        ]
        return "\n".join([*lines, *(f"WARNING: {fault}" for fault in self.faults)])


def structure_report(
    network: nn.Module, edges: Edges, probability: Mapping[str, Tensor]
) -> StructureReport:
    """Summarise a posterior over operations, and list its faults.

    Args:
        network: The network with relaxed graphs.
        edges: Its gated edges.
        probability: Group -> ``(num_operations,)``, of one chain.
    """
    architecture = mode(edges, probability)
    free = free_edges(network, architecture)
    entropy, relative = {}, []
    weightless, weighty = 0, 0
    for group in edges.operations:
        p = probability[group.name].double()
        nats = float(-(p * p.clamp(min=1e-300).log()).sum())
        entropy[group.name] = nats
        relative.append(nats / math.log(group.num_edges))
        sizes = operation_parameters(edges, group)
        chosen = architecture.operations[group.name]
        if group.name not in free and chosen != "none" and bool(sizes.any()):
            weighty += 1
            weightless += int(sizes[list(group.labels).index(chosen)] == 0)
    with_none = [g.name for g in edges.operations if "none" in g.labels]
    nones = sum(architecture.operations[name] == "none" for name in with_none)
    return StructureReport(
        architecture=architecture,
        connected=is_connected(network, architecture),
        free=free,
        entropy=entropy,
        relative_entropy=sum(relative) / len(relative),
        none=nones / len(edges.operations),
        parameter_free=weightless / weighty if weighty else 0.0,
    )


def warn_of_collapse(report: StructureReport) -> None:
    """Warn (``CollapseWarning``) where a report has faults.

    Args:
        report: What `structure_report` returned.
    """
    if report.faults:
        warnings.warn(
            f"Expected a posterior that chooses a network, but {'; '.join(report.faults)}. Warm "
            "the weights up for longer, lower the gates' learning rate, use held-out examples or a "
            "prior against what took over, and look at other draws than the mode.",
            CollapseWarning,
            stacklevel=2,
        )
