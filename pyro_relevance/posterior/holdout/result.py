"""What a holdout test found: a row for each group of inputs, sets, and verdicts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pyro_relevance.posterior.holdout.carried import Tree
from pyro_relevance.posterior.holdout.decision import Verdict, decide

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["GroupTest", "HoldoutTest", "SetTest"]


@dataclass(frozen=True, slots=True)
class GroupTest:
    """The test of one group of inputs, given all other inputs.

    Args:
        name: Its name.
        loss_rise: How much the mean held-out loss rises when the group is redrawn.
        standard_error: Of the rise, over rows.
        root_rise: For squared errors: rise of the root mean squared error; otherwise ``loss_rise``.
        root_standard_error: Its standard error, over rows (delta method).
        p_value: Monte Carlo p-value.
        num_redraws: Redraws that it took.
        explained: Share of the group's variance that the other inputs explain.
        verdict: What is said of it.
    """

    name: str
    loss_rise: float
    standard_error: float
    root_rise: float
    root_standard_error: float
    p_value: float
    num_redraws: int
    explained: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class SetTest:
    """The test of groups that carry each other, redrawn together.

    Args:
        members: Names of the groups.
        p_value: Monte Carlo p-value of the set.
        verdict: ``RELEVANT`` where a part of it is relevant, ``INSEPARABLE`` where it is relevant
            but no part of it, given the rest.
    """

    members: tuple[str, ...]
    p_value: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class HoldoutTest:
    """Which groups of inputs are relevant at a false discovery rate, on held-out rows.

    Args:
        groups: The tests of the groups, in the order of the inputs.
        sets: The tests of sets of groups that carry each other, larger ones before their parts.
        trees: How the numbers of groups are joined in sets, see `carried_together`.
        rate: The false discovery rate, over trees and, within trees that are relevant, over parts.
        loss: Name of the loss.
        num_rows: Held-out rows.
        max_redraws: Most redraws of a test.
    """

    groups: tuple[GroupTest, ...]
    sets: tuple[SetTest, ...]
    trees: tuple[Tree, ...]
    rate: float
    loss: str
    num_rows: int
    max_redraws: int

    def __getitem__(self, name: str) -> GroupTest:
        """Return the test of a group.

        Raises:
            KeyError: If there is no group of that name.
        """
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(f"Expected one of {[g.name for g in self.groups]}, but got {name!r}.")

    def at_rate(self, rate: float) -> HoldoutTest:
        """Return the verdicts of the same p-values at another false discovery rate.

        Args:
            rate: The rate. Far below the first one, the redraws may be too few for it.

        Raises:
            ValueError: If the rate is not in (0, 1).
        """
        if not 0.0 < rate < 1.0:
            raise ValueError(f"Expected rate in (0, 1), but got {rate}.")
        names = [group.name for group in self.groups]
        p_values: dict[tuple[int, ...], float] = {
            (i,): group.p_value for i, group in enumerate(self.groups)
        }
        keys = [tuple(sorted(map(names.index, tested.members))) for tested in self.sets]
        p_values |= {key: found.p_value for key, found in zip(keys, self.sets, strict=True)}
        verdicts = decide(p_values, self.trees, rate)
        groups = [replace(g, verdict=verdicts[(i,)]) for i, g in enumerate(self.groups)]
        sets = [replace(s, verdict=verdicts[key]) for s, key in zip(self.sets, keys, strict=True)]
        return replace(self, groups=tuple(groups), sets=tuple(sets), rate=rate)

    @property
    def relevant(self) -> tuple[str, ...]:
        """Names of the groups that are relevant by themselves, in the order of the inputs."""
        return tuple(g.name for g in self.groups if g.verdict is Verdict.RELEVANT)

    @property
    def inseparable(self) -> tuple[tuple[str, ...], ...]:
        """Sets that are relevant while no part of them is; none lies within another."""
        found: list[tuple[str, ...]] = []
        for tested in self.sets:
            inside = any(set(tested.members) < set(other) for other in found)
            if tested.verdict is Verdict.INSEPARABLE and not inside:
                found.append(tested.members)
        return tuple(found)

    def companions(self, name: str) -> tuple[str, ...]:
        """Return the groups that a group cannot be told apart from; none if it stands alone."""
        for together in self.inseparable:
            if name in together:
                return tuple(member for member in together if member != name)
        return ()

    def to_frame(self) -> pd.DataFrame:
        """Return one row a group, with the columns of `GroupTest` and the members of its set."""
        import pandas as pd

        rows = [
            {
                "loss_rise": g.loss_rise,
                "standard_error": g.standard_error,
                "root_rise": g.root_rise,
                "root_standard_error": g.root_standard_error,
                "p_value": g.p_value,
                "num_redraws": g.num_redraws,
                "explained": g.explained,
                "verdict": str(g.verdict),
                "set": " or ".join([g.name, *self.companions(g.name)]),
            }
            for g in self.groups
        ]
        return pd.DataFrame(rows, index=pd.Index([g.name for g in self.groups], name="group"))

    def to_dict(self) -> dict[str, object]:
        """Return the result in types that JSON has."""
        frame = self.to_frame().reset_index()
        return {
            "rate": self.rate,
            "loss": self.loss,
            "num_rows": self.num_rows,
            "max_redraws": self.max_redraws,
            "groups": frame.to_dict(orient="records"),
            "sets": [
                {"members": list(s.members), "p_value": s.p_value, "verdict": str(s.verdict)}
                for s in self.sets
            ],
        }

    def __str__(self) -> str:
        """Return a table, the strongest groups first, and sets that cannot be told apart."""
        frame = self.to_frame()[["loss_rise", "standard_error", "p_value", "verdict"]]
        frame = frame.sort_values(["p_value", "loss_rise"], ascending=[True, False], kind="stable")
        lines = [
            f"Holdout randomisation test, {self.num_rows} held-out rows, {self.loss} loss, "
            f"false discovery rate {self.rate:g}:",
            frame.to_string(float_format=lambda value: f"{value:.3g}"),
        ]
        lines += [f"{' or '.join(names)}: cannot be told apart" for names in self.inseparable]
        return "\n".join(lines)
