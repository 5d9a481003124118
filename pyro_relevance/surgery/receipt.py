"""The receipt of a pruning: sizes and times of both networks, and how far their outputs differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from pyro_relevance.edges.modules import copy_of
from pyro_relevance.edges.representation.summary import Summary
from pyro_relevance.edges.size import Cost, Latency, count_cost, latency
from pyro_relevance.surgery.arguments import check_arguments, fits

__all__ = ["Receipt", "milliseconds"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """Sizes and times before and after pruning.

    Args:
        before: Size of the given network.
        after: Size of the pruned network.
        latency_before: Time of one call of the given network.
        latency_after: Time of one call of the pruned network.
        batch_size: Examples in a timed call.
        dtype: Data type of the parameters.
        max_difference: Largest max|a - b| / max(1, max|a|) between masked (a) and pruned (b)
            outputs over all inputs that were compared; nan where the weights were re-initialised.
        notes: What was removed, in sentences.
    """

    before: Cost
    after: Cost
    latency_before: Latency
    latency_after: Latency
    batch_size: int
    dtype: str
    max_difference: float
    notes: tuple[str, ...] = ()

    @classmethod
    def measured(
        cls,
        network: nn.Module,
        small: nn.Module,
        example_input: Tensor | tuple[Tensor, ...],
        *,
        max_difference: float,
        notes: Sequence[str],
    ) -> Receipt:
        """Count and time both networks.

        Args:
            network: The given network.
            small: The pruned network.
            example_input: ``(num_data, *input_shape)`` input, or a tuple of inputs, of the timed
                call.
            max_difference: As above.
            notes: What was removed, in sentences.
        """
        first = example_input[0] if isinstance(example_input, tuple) else example_input
        network = copy_of(network)  # some networks keep what they computed in evaluation
        return cls(
            before=count_cost(network, example_input),
            after=count_cost(small, example_input),
            latency_before=latency(network, example_input),
            latency_after=latency(small, example_input),
            batch_size=len(first),
            dtype=str(next(network.parameters()).dtype).removeprefix("torch."),
            max_difference=max_difference,
            notes=tuple(notes),
        )

    @property
    def compression_ratio(self) -> float:
        """Parameters before divided by non-zero parameters after."""
        return _ratio(self.before.num_parameters, self.after.num_nonzero)

    @property
    def speedup(self) -> float:
        """Median latency before divided by median latency after."""
        return _ratio(self.latency_before.median, self.latency_after.median)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Receipt:
        """Rebuild from :meth:`to_dict`.

        Args:
            content: What :meth:`to_dict` returned, possibly read from JSON.

        Returns:
            An equal receipt.

        Raises:
            TypeError: The content is not that of a receipt.
            ValueError: A part has another type, or a number is negative or not finite.
        """
        if not isinstance(content, Mapping):
            raise TypeError(f"Expected a receipt, but got {type(content).__name__}.")
        parts = dict(content)
        for name, kind in (
            ("before", Cost),
            ("after", Cost),
            ("latency_before", Latency),
            ("latency_after", Latency),
        ):
            numbers = dict(parts.get(name, {}))
            check_arguments(kind, numbers)
            if min(numbers.values()) < 0:
                raise ValueError(
                    f"Expected numbers >= 0 in {name} of a receipt, but got {numbers}."
                )
            parts[name] = kind(**numbers)
        parts["notes"] = tuple(parts.get("notes", ()))
        checked = {name: part for name, part in parts.items() if isinstance(part, str | int)}
        difference: Any = parts.get("max_difference")
        known = isinstance(difference, float | int) and not isinstance(difference, bool)
        if (
            not known
            or difference < 0
            or math.isinf(difference)
            or not all(isinstance(note, str) for note in parts["notes"])
            or not fits(checked.get("batch_size"), int)
            or not fits(checked.get("dtype"), str)
        ):
            raise ValueError(
                "Expected batch_size, dtype, max_difference and notes of a receipt, but got "
                f"{repr(parts)[:200]}."
            )
        return cls(**parts)

    def __repr__(self) -> str:
        return str(Summary("Receipt", self._facts()))

    def _repr_html_(self) -> str:
        header, *rows = self._rows()
        return Summary(
            "Receipt", self._facts(), header, tuple(rows), (*self._difference(), *self.notes)
        ).html()

    def _facts(self) -> tuple[str, ...]:
        return (
            f"{self.after.num_nonzero:,} of {self.before.num_parameters:,} parameters "
            f"({self.compression_ratio:.1f}x fewer)",
            f"{self.speedup:.1f}x faster",
        )

    def _rows(self) -> list[tuple[str, str, str, str]]:
        rows = [("", "before", "after", "ratio")]
        for label, name in (
            ("parameters", "num_parameters"),
            ("non-zero parameters", "num_nonzero"),
            ("MACs per example", "num_macs"),
            ("bytes on disk", "num_bytes"),
        ):
            before, after = getattr(self.before, name), getattr(self.after, name)
            rows.append((label, f"{before:,}", f"{after:,}", f"{_ratio(before, after):.1f}x"))
        times = (milliseconds(self.latency_before), milliseconds(self.latency_after))
        rows.append((f"ms per pass of {self.batch_size:,}", *times, f"{self.speedup:.1f}x"))
        return rows

    def _difference(self) -> tuple[str]:
        if math.isnan(self.max_difference):
            return ("weights are re-initialised: nothing to compare with",)
        return (f"max |masked - pruned| = {self.max_difference:.1e} (relative, {self.dtype})",)

    def __str__(self) -> str:
        rows = self._rows()
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            f"{row[0]:<{widths[0]}}  " + "  ".join(f"{row[c]:>{widths[c]}}" for c in (1, 2, 3))
            for row in rows
        ]
        return "\n".join([*lines, *self._difference(), *self.notes])


def _ratio(before: float, after: float) -> float:
    if after == 0:
        return 1.0 if before == 0 else float("inf")
    return before / after


def milliseconds(time: Latency) -> str:
    """Median and quartiles in milliseconds, for printing."""
    return f"{1e3 * time.median:.3g} [{1e3 * time.lower:.3g}, {1e3 * time.upper:.3g}]"
