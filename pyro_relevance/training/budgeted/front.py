"""Networks of several sizes from one training, each pruned from the one before it."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Unpack

from torch import Tensor

from pyro_relevance._random import substream
from pyro_relevance.edges.find import find_edges
from pyro_relevance.model.guides import default_guide
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.training.batches import Data, as_tensors
from pyro_relevance.training.budgeted.budget import LIMITS, Budget
from pyro_relevance.training.budgeted.fitted import BudgetedFit
from pyro_relevance.training.budgeted.stages import (
    ONE_COSINE,
    Parts,
    checked_edges,
    completed,
    with_network,
)
from pyro_relevance.training.callbacks import Callback
from pyro_relevance.training.preparation import Guide
from pyro_relevance.training.settings import (
    Estimation,
    Execution,
    FitKeywords,
    FitSettings,
    Optimisation,
    check_keywords,
)
from pyro_relevance.training.svi import with_progress

__all__ = ["fit_front"]

LATER = 0.4
"""Share of the closing in the training of a network after the first one."""


def fit_front(
    model: RelevanceModel,
    data: Data,
    budgets: Sequence[Budget],
    *,
    first: float = 0.5,
    guide: Guide = default_guide,
    optimisation: Optimisation = ONE_COSINE,
    estimation: Estimation = Estimation(),  # noqa: B008 (a frozen value)
    execution: Execution = Execution(),  # noqa: B008 (a frozen value)
    augment: Callable[[Tensor], Tensor] | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    seed: int = 0,
    **keywords: Unpack[FitKeywords],
) -> tuple[BudgetedFit, ...]:
    """Train nested networks: each starts from the trained network of the budget before it.

    The first has a share of the steps (or of the time), the others equal parts of the rest.

    Args:
        model: As of ``fit``, with point weights; it is not changed.
        data: As of ``fit``.
        budgets: Two or more limits of one kind, from the largest to the smallest.
        first: Share of the first network, in (0, 1).
        guide: As of ``fit``, as all that follows, if not said otherwise.
        optimisation: Of all networks together.
        estimation: Of each of them.
        execution: Of each of them.
        augment: Of each of them.
        callbacks: Called with the step of the network that is trained.
        progress: A bar for each network.
        seed: Of all of them.
        keywords: Fields of the settings, as of ``fit``.

    Returns:
        One result for each budget; edges and mask of all but the first are of the network before.

    Raises:
        ValueError: If budgets do not fall or are of several kinds, or as in ``fit_to_budget``.
    """
    check_keywords("fit_front", keywords, FitKeywords)
    given = FitSettings(optimisation, estimation, execution).updated(keywords)
    _check(model, budgets, first)
    settings = completed(given, model, data)
    found: list[BudgetedFit] = []
    for number, budget in enumerate(budgets):
        share = first
        if found:
            share = (1 - first) / (len(budgets) - 1)
            model = _next_model(model, found[-1], data)
            budget = dataclasses.replace(budget, start=0.0, end=LATER)  # noqa: PLW2901
        edges = checked_edges(model, budget, callbacks, data)
        seen = with_progress(callbacks, progress)
        own, now = substream(seed, "front", number), time.monotonic()
        of_one = _of_share(settings, share)
        parts = Parts(of_one, budget, edges, seen, None, own, now, augment, bool(found))
        found.append(parts.run(model, data, guide))
    return tuple(found)


def _next_model(model: RelevanceModel, before: BudgetedFit, data: Data) -> RelevanceModel:
    """Return the model of the small network that was trained last."""
    network, example = before.pruned.network, as_tensors(data)[0][:2]
    granularity = tuple(dict.fromkeys(group.granularity for group in model.edges))
    return with_network(
        model, network, find_edges(network, example_input=example, granularity=granularity)
    )


def _of_share(settings: FitSettings, share: float) -> FitSettings:
    """Return the settings with a share of the epochs and of the time."""
    given = settings.optimisation
    assert given.num_epochs is not None, "see completed"
    of_one = dataclasses.replace(
        given, num_epochs=share * given.num_epochs, max_seconds=share * given.max_seconds
    )
    return dataclasses.replace(settings, optimisation=of_one)


def _check(model: RelevanceModel, budgets: Sequence[Budget], first: float) -> None:
    if len(budgets) < 2 or not all(isinstance(budget, Budget) for budget in budgets):
        raise ValueError(f"Expected two or more budgets, but got {budgets!r}.")
    limits = [{n: getattr(b, n) for n in LIMITS if getattr(b, n) is not None} for b in budgets]
    if len({tuple(limit) for limit in limits}) > 1:
        raise ValueError(f"Expected limits of one kind, but got {limits}.")
    values = [next(iter(limit.values())) for limit in limits]
    if any(after >= before for before, after in itertools.pairwise(values)):
        raise ValueError(f"Expected limits from the largest to the smallest, but got {values}.")
    if not 0 < first < 1:
        raise ValueError(f"Expected first in (0, 1), a share of the training, but got {first}.")
    if not model.weights_are_points:
        raise ValueError(
            "Expected point weights, but got a posterior over the weights, which a network that "
            "was trained further does not have. Train each budget by itself."
        )
