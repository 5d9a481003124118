"""Description of the latent sites of a model other than its gates.

Priors state which sites they sample; explicit guides read the statement and make their parameters
at construction, so that an optimiser built before the first call sees all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

__all__ = ["Latent", "LatentKind"]

LatentKind = Literal["real", "positive", "multiplicative"]


@dataclass(frozen=True, slots=True, eq=False)
class Latent:
    """One latent site of a Pyro model.

    Args:
        name: Name of the site.
        kind: ``"real"`` (approximated by a Normal), ``"positive"`` (by a LogNormal), or
            ``"multiplicative"`` (by a Normal with standard deviation proportional to its mean, for
            the log-uniform prior).
        initial: ``(size,)`` value at which a guide starts; its dtype and device are those of the
            site.
        initial_scale: Standard deviation at which a guide starts (of the logarithm where ``kind``
            is ``"positive"``).
        entries: Names of the network's parameters whose entries the site holds, row by row and in
            this order; empty for other sites. Such an entry may be left at its prior where its
            gates are off.
    """

    name: str
    kind: LatentKind
    initial: Tensor
    initial_scale: float = 0.05
    entries: tuple[str, ...] = ()
