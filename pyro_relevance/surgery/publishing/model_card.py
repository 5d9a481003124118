"""What a reader of a small network has to know, as Markdown with a head in YAML.

References:
    Mitchell et al., Model cards for model reporting, FAT* 2019.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pyro_relevance._files import replacing
from pyro_relevance.surgery.pruned_network import PrunedNetwork
from pyro_relevance.surgery.receipt import Receipt

__all__ = ["ModelCard"]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a network cannot say of itself; its sizes come from the receipt.

    Args:
        name: Name of the network.
        license: Identifier of the licence, such as ``"apache-2.0"``; ``"unknown"`` says so.
        data: What it was trained on: source, rows, split.
        metrics: Name of a metric, with its unit and the rows that it is of -> number or text.
        use: What the network is for.
        limits: What it is not for, and where it is known to fail.
        tags: Further tags for the head.

    Raises:
        ValueError: If a text is empty, or there is no metric.

    Example:
        >>> card = ModelCard(
        ...     name="houses",
        ...     license="apache-2.0",
        ...     data="Boston housing, 455 rows to train on, 51 to test on",
        ...     metrics={"test RMSE (1000 $)": 3.2},
        ... )
    """

    name: str
    license: str
    data: str
    metrics: Mapping[str, float | str]
    use: str = "Prediction for rows like those that it was trained on."
    limits: str = "Not tested on other data. What it reads need not be what causes the target."
    tags: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        """Check that nothing is left out."""
        for what in ("name", "license", "data", "use", "limits"):
            value = getattr(self, what)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"Expected {what} of a model card as a text, but got {value!r}.")
        if not self.metrics:
            raise ValueError(
                "Expected at least one metric in a model card, but got none. Measure the network "
                "on rows that it has not seen."
            )

    def text(self, pruned: PrunedNetwork) -> str:
        """Return the card of a network.

        Args:
            pruned: The network.
        """
        receipt = pruned.receipt
        tags = ["pyro_relevance", "pruning", *self.tags]
        head = {"license": self.license, "library_name": "pyro_relevance", "tags": tags}
        lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---", ""]
        lines += [f"# {self.name}", "", self.use, ""]
        lines += ["## Sizes", "", *_sizes(receipt), ""]
        lines += ["## Data", "", self.data, ""]
        lines += ["## Metrics", "", "| metric | value |", "|---|---|"]
        lines += [f"| {_cell(name)} | {_number(value)} |" for name, value in self.metrics.items()]
        lines += ["", "## Limits", "", self.limits, ""]
        lines += ["## Receipt", "", "```text", str(receipt), "```", ""]
        lines += ["## Licence", "", self.license, ""]
        return "\n".join(lines)

    def write(self, pruned: PrunedNetwork, path: str | os.PathLike[str]) -> None:
        """Write the card of a network, completely or not at all.

        Args:
            pruned: The network.
            path: The file, usually ``MODEL_CARD.md`` beside the network's.

        Raises:
            OSError: If it cannot be written.
        """
        with replacing(path) as temporary:
            temporary.write_text(self.text(pruned), encoding="utf-8")


def _sizes(receipt: Receipt) -> list[str]:
    rows = ["| | before pruning | this network |", "|---|---|---|"]
    for label, name in (
        ("parameters", "num_parameters"),
        ("parameters that are not zero", "num_nonzero"),
        ("multiply-accumulates per example", "num_macs"),
        ("bytes", "num_bytes"),
    ):
        before, after = getattr(receipt.before, name), getattr(receipt.after, name)
        rows.append(f"| {label} | {before:,} | {after:,} |")
    return rows


def _number(value: float | str) -> str:
    return _cell(value) if isinstance(value, str) else f"{value:.4g}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
