"""The search space of NAS-Bench-201: one cell of four nodes, repeated.

References:
    Dong, Yang, NAS-Bench-201: extending the scope of reproducible neural architecture search, ICLR
    2020, figure 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from pyro_relevance.errors import ArchitectureError
from pyro_relevance.graphs.architectures import Architecture
from pyro_relevance.graphs.convolutions import NASBENCH201_OPERATIONS
from pyro_relevance.graphs.graph import Graph, GraphEdge
from pyro_relevance.graphs.primitives import Place, primitive

__all__ = [
    "architecture_from_string",
    "architecture_to_string",
    "nasbench201_cell",
    "nasbench201_space",
]

NUM_NODES = 4
STRUCTURE = "cell"


@primitive("avg_pool_conv_1x1")
def avg_pool_conv_1x1(place: Place) -> nn.Module:
    """Return the shortcut of a residual block that halves the resolution."""
    if place.stride != 2:
        raise ValueError(f"Expected stride 2, but got {place.stride}.")
    return nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(place.source, place.target, 1, bias=False))


def nasbench201_cell(
    channels: int,
    *,
    operations: Sequence[str] = NASBENCH201_OPERATIONS,
    affine: bool = False,
    statistics: bool = False,
) -> Graph:
    """Return one relaxed cell: each of four nodes reads all nodes before it.

    Args:
        channels: Channels of all nodes.
        operations: What each of the six edges can be.
        affine: See ``Place``; off in a search, where candidates share what follows.
        statistics: See ``Place``; off in a search, where each path has statistics of its own.
    """
    return Graph(
        {f"n{node}": channels for node in range(NUM_NODES)},
        [
            GraphEdge(f"n{source}", f"n{target}", tuple(operations))
            for target in range(1, NUM_NODES)
            for source in range(target)
        ],
        output=f"n{NUM_NODES - 1}",
        structure=STRUCTURE,
        affine=affine,
        statistics=statistics,
    )


def nasbench201_space(
    num_classes: int = 10,
    *,
    in_channels: int = 3,
    channels: int = 16,
    num_cells: int = 5,
    operations: Sequence[str] = NASBENCH201_OPERATIONS,
    affine: bool = False,
    statistics: bool = False,
) -> nn.Sequential:
    """Return the relaxed network: three stages of cells with one structure.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        channels: Channels of the first stage; each stage has twice those of the one before.
        num_cells: Cells in a stage (the benchmark: 5).
        operations: What each edge of a cell can be.
        affine: See ``Place``.
        statistics: See ``Place``.

    Raises:
        ValueError: If a number is not positive or an operation is unknown.
    """
    if num_cells < 1:
        raise ValueError(f"Expected num_cells >= 1, but got {num_cells}.")

    def norm(width: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(width, affine=affine, track_running_stats=statistics)

    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
        norm(channels),
    ]
    width = channels
    for stage in range(3):
        if stage:
            layers.append(_reduction(width, affine=affine, statistics=statistics))
            width *= 2
        layers += [
            nasbench201_cell(width, operations=operations, affine=affine, statistics=statistics)
            for _ in range(num_cells)
        ]
    layers += [
        norm(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, num_classes),
    ]
    return nn.Sequential(*layers)


def _reduction(width: int, *, affine: bool, statistics: bool) -> Graph:
    """Return the fixed residual block between two stages."""
    return Graph(
        {"x": width, "a": 2 * width, "y": 2 * width},
        [
            GraphEdge("x", "a", "nor_conv_3x3", stride=2),
            GraphEdge("a", "y", "nor_conv_3x3"),
            GraphEdge("x", "y", "avg_pool_conv_1x1", stride=2),
        ],
        output="y",
        structure="reduction",
        affine=affine,
        statistics=statistics,
    )


def architecture_to_string(architecture: Architecture) -> str:
    """Return the text by which the benchmark names a cell.

    Args:
        architecture: A choice of operations of a :func:`nasbench201_cell`.

    Example:
        >>> cell = architecture_from_string(
        ...     "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
        ... )
        >>> architecture_to_string(cell)
        '|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|'
    """
    nodes = []
    for target in range(1, NUM_NODES):
        terms = [
            f"{architecture.operations[f'{STRUCTURE}.n{source}.n{target}']}~{source}"
            for source in range(target)
        ]
        nodes.append(f"|{'|'.join(terms)}|")
    return "+".join(nodes)


def architecture_from_string(text: str) -> Architecture:
    """Return the architecture that the benchmark names by a text.

    Args:
        text: Such as ``"|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"``.

    Raises:
        ArchitectureError: If the text is of another form.
    """
    nodes = text.split("+")
    operations = {}
    for target, node in enumerate(nodes, 1):
        for source, term in enumerate(node.strip("|").split("|")):
            match = re.fullmatch(r"(\w+)~(\d)", term)
            if len(nodes) != NUM_NODES - 1 or match is None or int(match[2]) != source:
                raise ArchitectureError(
                    "Expected a cell such as '|none~0|+|none~0|none~1|+|skip_connect~0|none~1|"
                    f"none~2|', but got {text!r}."
                )
            operations[f"{STRUCTURE}.n{source}.n{target}"] = match[1]
    if len(operations) != NUM_NODES * (NUM_NODES - 1) // 2:
        raise ArchitectureError(f"Expected an operation for each of six edges, but got {text!r}.")
    return Architecture(operations)
