"""Why edges are not offered: one member and one sentence for each reason.

Decisions compare members, never sentences; users read ``str(reason)`` in `Skipped.reason`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["RETURNED", "Reason", "Why"]


class Why(Enum):
    """A reason; its value is the sentence, with braces where names and numbers go."""

    # The network returns them.
    MAKES_OUTPUTS = "it makes the outputs, and outputs are never gated"
    ALSO_RETURNED = "its output is also returned by the network, and outputs are never gated"

    # What the user chose.
    NOT_CHOSEN = "where does not choose all layers that read the input"

    # Nothing to prune.
    NO_READER = "no layer reads them"
    NO_LINEAR_READER = "no linear layer reads its units"
    INPUT_UNREAD = "no linear layer reads the input"
    SEVERAL_INPUTS = "the network has {count} inputs; only a single one can be gated"
    UNEQUAL_COLUMNS = "the layers that read the input see different numbers of columns"
    UNTRACED = "torch.fx cannot trace the network, which gating inputs needs"
    UNFOLLOWED = (
        "its layer is not called in evaluation, or its weight is computed from other tensors"
    )

    # The tensors of a layer cannot be changed on their own: the end of a sentence about the layer.
    PARAMETRISED = (
        "is parametrised (torch.nn.utils.parametrize), so that its weight is not a plain tensor"
    )
    COMPUTED_WEIGHT = "computes its weight in a hook, so that it is not a plain parameter"
    HOOKED = "has a hook, whose effect is followed only where example_input is given"
    SHARED = "shares its {tensor} with {others}"
    USED_DIRECTLY = "has a parameter that forward() also uses directly"
    NOT_CALLED = "is not called as a module in forward()"
    CALLED_TWICE = "is called more than once"
    LAYER = "its layer {fault}"
    READER = "its reader {name!r} {fault}"
    MODULE = "{kind} {name!r} {fault}"

    NOT_SINGLE = (
        "single weights of {kind} are not gated; only those of linear layers and convolutions"
    )

    # What lies between a layer and its readers.
    COMBINED = "{kind} {name!r} combines them with other values"
    READ_BY_KIND = "{kind} {name!r} reads them; only linear layers can be pruned exactly here"
    MADE_BY_KIND = "units of {kind} are not gated; only those of linear layers are"
    THROUGH_MODULE = "they pass through {kind} {name!r}, which may mix or move units"
    THROUGH_OPERATION = "they pass through the operation {name!r}, which may mix or move units"
    RESHAPED = "they pass through the operation {name!r}, which may move units"
    RESHAPED_UNSEEN = (
        "they pass through the operation {name!r}, which may move units; give example_input, so "
        "that the shapes are known"
    )
    JOINED = "the operation {name!r} joins them with another tensor, so that none can go alone"
    OTHER_AXIS = "{kind} {name!r} works on another axis than that of the units"
    NEEDS_EXAMPLE = "units of {kind} are followed only where example_input is given"
    READ_TOGETHER = "{what} reads all of them together"

    # Channels that are coupled with something that stays.
    TIED_TO_INPUT = "they are tied to the input"
    WITH_KEPT = "they are combined with values that always stay"
    MIXED_WITH_KEPT = "they are mixed with values that always stay"
    WITH_CONSTANT = "a constant of their size is combined with them"
    ONE_FOR_MANY = "one value of it is combined with many units"
    IS_CONSTANT = "{what} is a constant"
    OTHER_SHAPE = "{what} has another shape than they have"
    ACROSS_AXES = "the parameter {name!r} ties them across axes"
    SINGLE_PLACES = "single ones are taken whose places are written into forward()"
    READ_GROUPED_TRANSPOSED = "the grouped transposed convolution {name!r} reads them"
    MADE_GROUPED_TRANSPOSED = "they are made by a grouped transposed convolution"
    COMPUTED_READER = (
        "they meet a weight that is computed in forward(), in a hook or by a parametrisation"
    )
    NOT_REWRITABLE = "{what} is written into forward(), which cannot be rewritten: {error}"

    SOME = "{count} of {total} are not gated: {reason}"
    OTHER = "{text}"
    """A sentence of a rule that a user brought."""

    def reason(self, **details: object) -> Reason:
        """Return this reason with the names and numbers of its sentence."""
        return Reason(self, tuple(details.items()))


@dataclass(frozen=True, slots=True)
class Reason:
    """Why certain edges are not offered.

    Args:
        why: What kind of reason it is.
        details: Names and numbers of the sentence; a detail may be a reason itself.

    Example:
        >>> print(Why.LAYER.reason(fault=Why.CALLED_TWICE.reason()))
        its layer is called more than once
    """

    why: Why
    details: tuple[tuple[str, object], ...] = ()

    def __str__(self) -> str:
        return self.why.value.format(**dict(self.details))


RETURNED = frozenset({Why.MAKES_OUTPUTS, Why.ALSO_RETURNED})
"""Reasons of units that the network returns."""
