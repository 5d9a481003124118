"""The holdout randomisation test: is a network worse without what only this input says?

For a group j of inputs the statistic is the mean loss of held-out rows. Under the null hypothesis
``y independent of x_j given the other inputs`` it has the same distribution when x_j is drawn anew
given the others, and the p-value is its rank among redraws. That holds for any network and any loss
if the redraws are right: a poor network costs power, not validity. Inputs that carry each other are
tested together first, as trees: by Benjamini-Hochberg at the rate, then the two parts of a rejected
tree at ``rate * share of trees rejected``, and so on downwards: a pair of copies ends as "cannot be
told apart" instead of being lost. Networks of several folds have seen each other's rows; see
``overlap``.

References:
    Tansey, Veitch, Zhang, Rabadan and Blei, The holdout randomization test for feature selection in
    black box models, JCGS 2022; Candes, Fan, Janson and Lv, Panning for gold, JRSS B 2018;
    Benjamini and Bogomolov, Selective inference on multiple families of hypotheses, JRSS B 2014.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from pyro_relevance.posterior.holdout.carried import Tree, carried_together, members, nodes
from pyro_relevance.posterior.holdout.decision import decide
from pyro_relevance.posterior.holdout.losses import Loss, Predictor, loss_for, predictor
from pyro_relevance.posterior.holdout.losses import squared_error as squared
from pyro_relevance.posterior.holdout.monte_carlo import MonteCarlo, num_redraws_for
from pyro_relevance.posterior.holdout.overlap import corrected, null_spread, z_score
from pyro_relevance.posterior.holdout.redraws import (
    Conditional,
    Redraw,
    boosted_redraw,
    ridge_redraw,
)
from pyro_relevance.posterior.holdout.result import GroupTest, HoldoutTest, SetTest
from pyro_relevance.posterior.posterior import Posterior

__all__ = ["holdout_test"]

BLOCK = 2**22
"""Input values in one call of a network."""


def holdout_test(
    networks: Sequence[nn.Module | Posterior | Predictor] | nn.Module | Posterior | Predictor,
    data: tuple[Tensor, Tensor],
    held_out: Sequence[ArrayLike] | None = None,
    *,
    groups: Mapping[str, Sequence[int]] | Sequence[str] | None = None,
    rate: float = 0.1,
    loss: Literal["squared", "log"] | Loss | None = None,
    redraw: Literal["ridge", "boosted"] | Redraw = "ridge",
    correlation: float = 0.8,
    num_redraws: int | None = None,
    num_samples: int = 20,
    seed: int = 0,
) -> HoldoutTest:
    """Test which groups of inputs are relevant, on rows that the networks were not trained on.

    A group is relevant if the loss of held-out rows rises when it is drawn anew given all others.
    For the test itself see the module `holdout.randomisation`.

    Args:
        networks: One network, posterior or function for each fold of `held_out`, or a single one.
        data: ``x`` ``(num_rows, ...)`` and ``y`` ``(num_rows, ...)``. Redraws are modelled on all
            rows of ``x``.
        held_out: For each network the numbers of the rows it was not trained on; ``None``: all rows
            are new to a single network.
        groups: Name -> columns of the flattened input, or a name for each column; ``None`` numbers
            the columns. A group is redrawn as one (the columns of a category, a channel, a patch).
        rate: False discovery rate.
        loss: ``"squared"``, ``"log"`` (classes), or a function of predictions and targets that
            returns ``(num_rows,)``; by default what fits the targets.
        redraw: ``"ridge"``, ``"boosted"``, or from columns to their conditional distribution.
        correlation: From which similarity on inputs are tested together first.
        num_redraws: Most redraws of a group; by default as many as the rate asks for. Groups that
            do not matter stop after a few dozen.
        num_samples: Draws of gates and weights where a network is a posterior.
        seed: Seed of redraws and draws.

    Returns:
        The rises of the loss, p-values and verdicts.

    Raises:
        ValueError: If rows, groups, rate or folds do not fit each other.
        TypeError: If a network cannot be called.

    """
    x, y = data
    folds = _checked_folds(networks, x, y, held_out)
    named = _checked_groups(groups, x)
    _check_numbers(rate, correlation, num_redraws)
    flat = x.reshape(len(x), -1).double().cpu().numpy()
    tester = _Tester(
        [(predictor(network, num_samples, seed), rows) for network, rows in folds],
        (x, y),
        loss_for(loss, y, folds[0][0]),
        _redraws(redraw, flat, seed),
        num_redraws or num_redraws_for(len(named), rate),
        seed,
    )
    trees = carried_together(flat, list(named.values()), correlation=correlation)
    return _decide(tester, named, trees, rate)


def _decide(
    tester: _Tester,
    groups: Mapping[str, NDArray[np.int64]],
    trees: Sequence[Tree],
    rate: float,
) -> HoldoutTest:
    """Test groups and sets, and say which are relevant."""
    names, columns = tuple(groups), list(groups.values())
    alone = [tester.test(group, number) for number, group in enumerate(columns)]
    spread = null_spread([found.z for found in alone]) if len(tester.folds) > 1 else 1.0
    tested = [found.corrected(spread) for found in alone]
    p_values: dict[tuple[int, ...], float] = {(i,): t.p_value for i, t in enumerate(tested)}
    sets = [members(node) for tree in trees for node in nodes(tree)]
    for number, key in enumerate(sets):
        joined = np.concatenate([columns[group] for group in key])
        p_values[key] = tester.test(joined, len(columns) + number).corrected(spread).p_value
    verdicts = decide(p_values, trees, rate)
    return HoldoutTest(
        groups=tuple(
            GroupTest(name, *found.numbers(), verdicts[(i,)])
            for i, (name, found) in enumerate(zip(names, tested, strict=True))
        ),
        sets=tuple(
            SetTest(tuple(names[i] for i in key), p_values[key], verdicts[key]) for key in sets
        ),
        trees=tuple(trees),
        rate=rate,
        loss=tester.loss_name,
        num_rows=tester.num_rows,
        max_redraws=tester.num_redraws,
    )


@dataclass(frozen=True, slots=True)
class _Tested:
    """The numbers of one test."""

    rise: float
    standard_error: float
    root_rise: float
    root_standard_error: float
    p_value: float
    num_redraws: int
    explained: float
    z: float

    def corrected(self, spread: float) -> _Tested:
        """Return the test with the p-value of a wider null distribution, where it is wider."""
        if spread == 1.0 or self.z <= 0:
            return self
        p = corrected([self.z], spread, [1 / (1 + self.num_redraws)])
        return replace(self, p_value=float(p[0]))

    def numbers(self) -> tuple[float, float, float, float, float, int, float]:
        """Return them in the order of `GroupTest`."""
        return (
            self.rise,
            self.standard_error,
            self.root_rise,
            self.root_standard_error,
            self.p_value,
            self.num_redraws,
            self.explained,
        )


class _Tester:
    """The held-out rows of all folds and their losses."""

    def __init__(
        self,
        folds: list[tuple[Predictor, NDArray[np.int64]]],
        data: tuple[Tensor, Tensor],
        loss: Loss,
        redraw: Redraw,
        num_redraws: int,
        seed: int,
    ) -> None:
        self.folds = folds
        self.x, self.y = data
        self.loss = loss
        self.redraw = redraw
        self.num_redraws = num_redraws
        self.seed = seed
        self.observed = [self._losses(k, self.x[rows]) for k, (_, rows) in enumerate(folds)]
        self.num_rows = sum(len(rows) for _, rows in folds)

    @property
    def loss_name(self) -> str:
        """Name of the loss in words."""
        return self.loss.__name__.replace("_", " ").removesuffix(" loss").removesuffix(" error")

    def test(self, columns: NDArray[np.int64], stream: int) -> _Tested:
        """Return the test of some columns given all others; `stream` numbers the generator."""
        conditional = self.redraw(columns)
        generator = np.random.default_rng([self.seed, stream])
        observed = np.concatenate(self.observed)
        test = MonteCarlo(float(observed.mean()), self.num_redraws)
        summed = np.zeros(self.num_rows)
        means: list[NDArray[np.float64]] = []
        while not test.finished:
            by_draw, by_row = self._redrawn(conditional, columns, test.next_block, generator)
            test.add(by_draw)
            means.append(by_draw)
            summed += by_row
        redrawn = summed / test.num_drawn
        difference = redrawn - observed
        rise, error = float(difference.mean()), _standard_error(difference)
        root, root_error = rise, error
        if self.loss is squared:
            before, after = np.sqrt(observed.mean()), np.sqrt(redrawn.mean())
            tiny = np.finfo(np.float64).tiny
            slope = redrawn / (2 * after + tiny) - observed / (2 * before + tiny)
            root, root_error = float(after - before), _standard_error(slope)
        z = z_score(test.p_value, test.num_hits, test.observed, np.concatenate(means))
        return _Tested(
            rise, error, root, root_error, test.p_value, test.num_drawn, conditional.explained, z
        )

    def _redrawn(
        self,
        conditional: Conditional,
        columns: NDArray[np.int64],
        num_draws: int,
        generator: np.random.Generator,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the mean loss of each redraw and the sum over redraws of each row's loss."""
        by_draw = np.zeros(num_draws)
        by_row = []
        for k, (_, rows) in enumerate(self.folds):
            held = self.x[rows]
            of_rows = np.zeros(len(rows))
            size = max(1, BLOCK // max(1, held.numel()))
            for first in range(0, num_draws, size):
                number = min(size, num_draws - first)
                values = torch.as_tensor(conditional.draw(rows, number, generator))
                new = held.reshape(1, len(rows), -1).repeat(number, 1, 1)
                new[:, :, torch.as_tensor(columns)] = values.to(new)
                losses = self._losses(k, new.reshape(number * len(rows), *held.shape[1:]))
                losses = losses.reshape(number, len(rows))
                by_draw[first : first + number] += losses.sum(1)
                of_rows += losses.sum(0)
            by_row.append(of_rows)
        return by_draw / self.num_rows, np.concatenate(by_row)

    def _losses(self, fold: int, x: Tensor) -> NDArray[np.float64]:
        """Return the losses of one or several copies of a fold's rows."""
        predict, rows = self.folds[fold]
        y = self.y[rows].repeat(len(x) // len(rows), *[1] * (self.y.ndim - 1))
        with torch.no_grad():
            outputs = torch.as_tensor(predict(x))
            losses = self.loss(outputs, y.to(outputs.device))
        if losses.shape != (len(x),):
            raise ValueError(
                f"Expected one loss a row, ({len(x)},), but got {tuple(losses.shape)}. "
                "Do not average the loss over rows."
            )
        return losses.double().cpu().numpy()


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _redraws(redraw: str | Redraw, x: NDArray[np.float64], seed: int) -> Redraw:
    if redraw == "ridge":
        return ridge_redraw(x, seed=seed)
    if redraw == "boosted":
        return boosted_redraw(x, seed=seed)
    if isinstance(redraw, str) or not callable(redraw):
        raise ValueError(
            f"Expected redraw to be 'ridge', 'boosted' or a function of columns, but got "
            f"{redraw!r}."
        )
    return redraw


def _check_numbers(rate: float, correlation: float, num_redraws: int | None) -> None:
    if not 0.0 < rate < 1.0:
        raise ValueError(f"Expected rate in (0, 1), but got {rate}.")
    if not 0.0 < correlation <= 1.0:
        raise ValueError(f"Expected correlation in (0, 1], but got {correlation}.")
    if num_redraws is not None and num_redraws < 1:
        raise ValueError(f"Expected num_redraws >= 1, but got {num_redraws}.")


def _checked_folds(
    networks: object, x: Tensor, y: Tensor, held_out: Sequence[ArrayLike] | None
) -> list[tuple[nn.Module | Posterior | Predictor, NDArray[np.int64]]]:
    """Return each network with the numbers of its held-out rows."""
    if len(x) != len(y) or x.ndim < 2:
        raise ValueError(
            f"Expected x (num_rows, ...) with at least one input, and as many targets, but got "
            f"{tuple(x.shape)} and {tuple(y.shape)}."
        )
    alone = not isinstance(networks, Sequence)
    given = [networks] if alone else list(networks)  # type: ignore[call-overload]
    if held_out is None and len(given) == 1:
        held_out = [np.arange(len(x))]
    if held_out is None or len(held_out) != len(given):
        raise ValueError(
            f"Expected held-out rows for each of the {len(given)} networks, but got "
            f"{'none' if held_out is None else len(held_out)}. Pass held_out=[rows of fold, ...]."
        )
    folds = []
    for network, rows in zip(given, held_out, strict=True):
        numbers = np.asarray(rows)
        if numbers.dtype.kind not in "iu" or numbers.ndim != 1 or not len(numbers):
            raise ValueError(
                f"Expected held_out as numbers of rows, but got an array of type {numbers.dtype} "
                f"and shape {numbers.shape}."
            )
        if numbers.min() < 0 or numbers.max() >= len(x):
            raise ValueError(
                f"Expected numbers of rows from 0 to {len(x) - 1} in held_out, but got "
                f"{numbers.min()} .. {numbers.max()}."
            )
        folds.append((network, numbers.astype(np.int64)))
    if sum(len(rows) for _, rows in folds) < 2:
        raise ValueError("Expected at least two held-out rows, but got fewer.")
    return folds


def _checked_groups(
    groups: Mapping[str, Sequence[int]] | Sequence[str] | None, x: Tensor
) -> dict[str, NDArray[np.int64]]:
    """Return the columns of each group."""
    num_columns = x[0].numel()
    if groups is None:
        groups = [str(column) for column in range(num_columns)]
    if not isinstance(groups, Mapping):
        if len(groups) != num_columns or len(set(groups)) != num_columns:
            raise ValueError(
                f"Expected a name of its own for each of the {num_columns} columns, but got "
                f"{len(groups)} ({len(set(groups))} different). Pass name -> columns for groups."
            )
        groups = {name: [column] for column, name in enumerate(groups)}
    named = {name: np.asarray(columns, dtype=np.int64) for name, columns in groups.items()}
    together = np.concatenate([*named.values(), np.zeros(0, np.int64)])
    if (
        not named
        or any(not len(columns) for columns in named.values())
        or len(np.unique(together)) != len(together)
        or together.min() < 0
        or together.max() >= num_columns
    ):
        raise ValueError(
            f"Expected groups of columns 0 .. {num_columns - 1}, each column in one group at most "
            "and no group empty. Pass name -> columns of the flattened input."
        )
    return named
