"""Mutants that are the same function written differently, each read and decided on its own.

A mutant belongs here only if nobody could tell it apart by what the library computes, writes or
refuses. A fault that a test could catch and does not is a survivor, and no entry.
"""

from __future__ import annotations

from dataclasses import dataclass

from analysis.mutants import Mutant

__all__ = ["EQUIVALENT", "Equivalent", "reason_of"]


@dataclass(frozen=True)
class Equivalent:
    """One mutant and why it is the same function.

    Attributes:
        path: Module, from ``pyro_relevance``.
        function: Dotted name of the function or class.
        before: The line as it is, stripped.
        after: The line with the fault, stripped.
        reason: Why no result differs.
    """

    path: str
    function: str
    before: str
    after: str
    reason: str


EQUIVALENT: tuple[Equivalent, ...] = (
    Equivalent(
        "edges/size.py",
        "Cost",
        "@dataclass(frozen=True, slots=True)",
        "@dataclass(frozen=True, slots=False)",
        "Only where the fields are stored differs; a frozen value accepts no other attribute.",
    ),
    Equivalent(
        "edges/size.py",
        "Latency",
        "@dataclass(frozen=True, slots=True)",
        "@dataclass(frozen=True, slots=False)",
        "Only where the fields are stored differs; a frozen value accepts no other attribute.",
    ),
    Equivalent(
        "masks/ranked.py",
        "top_fraction",
        'where = "of all candidate edges together" if per == "network" else "of each group"',
        'where = "of all candidate edges together" if per >= "network" else "of each group"',
        'Only "network" and "group" pass the check before it.',
    ),
    Equivalent(
        "model/distributions/_fused_kl.py",
        "",
        "LARGE = 4096",
        "LARGE = 4097",
        "A size from which on a faster way is taken that gives the same numbers to rounding.",
    ),
    Equivalent(
        "model/elbo.py",
        "_weigh",
        "return total * factor if isinstance(factor, Tensor) or factor != 1.0 else total",
        "return total * factor if isinstance(factor, Tensor) or factor != 0.0 else total",
        "A factor of 1 changes nothing, and Pyro refuses to scale by 0.",
    ),
    Equivalent(
        "model/priors/_squares.py",
        "",
        "LARGE = 2**14",
        "LARGE = 2+14",
        "A size from which on a faster way is taken that gives the same numbers to rounding.",
    ),
    Equivalent(
        "model/priors/operations.py",
        "DirichletPrior.sample",
        "alpha = self.concentration * logits.new_ones(len(names))",
        "alpha = self.concentration / logits.new_ones(len(names))",
        "A division by ones instead of a product with ones.",
    ),
    Equivalent(
        "posterior/relevance.py",
        "ExpectedSize",
        "@dataclass(frozen=True, slots=True)",
        "@dataclass(frozen=True, slots=False)",
        "Only where the fields are stored differs; a frozen value accepts no other attribute.",
    ),
    Equivalent(
        "posterior/relevance.py",
        "signal_to_noise",
        "scores[group.name] = torch.where(signal == 0, 0.0, ratio).to(gates[group.name].dtype)",
        "scores[group.name] = torch.where(signal <= 0, 0.0, ratio).to(gates[group.name].dtype)",
        "The signal is the root of a sum of squares and never negative.",
    ),
    Equivalent(
        "posterior/rule_path.py",
        "_accuracy",
        "guess = (mean[..., 0] > 0.5).long() if mean.shape[-1] == 1 else mean.argmax(-1)",
        "guess = (mean[..., -1] > 0.5).long() if mean.shape[-1] == 1 else mean.argmax(-1)",
        "Taken where the last axis has one entry, which is the first and the last.",
    ),
    Equivalent(
        "posterior/rule_path.py",
        "_accuracy",
        "guess = (mean[..., 0] > 0.5).long() if mean.shape[-1] == 1 else mean.argmax(-1)",
        "guess = (mean[..., 0] > 0.5).long() if mean.shape[-1] <= 1 else mean.argmax(-1)",
        "A network has at least one output.",
    ),
    Equivalent(
        "training/checkpoint.py",
        "Checkpoint",
        "@dataclass(frozen=True, slots=True)",
        "@dataclass(frozen=True, slots=False)",
        "Only where the fields are stored differs; a frozen value accepts no other attribute.",
    ),
    Equivalent(
        "training/schedules.py",
        "Schedules",
        "@dataclass(frozen=True, slots=True)",
        "@dataclass(frozen=True, slots=False)",
        "Only where the fields are stored differs; a frozen value accepts no other attribute.",
    ),
)


def reason_of(path: str, mutant: Mutant) -> str | None:
    """Return why a mutant of ``path`` (from the top of the repository) is equivalent, if it is."""
    for entry in EQUIVALENT:
        known = (f"pyro_relevance/{entry.path}", entry.function, entry.before, entry.after)
        if known == (path, mutant.function, mutant.before, mutant.after):
            return entry.reason
    return None
