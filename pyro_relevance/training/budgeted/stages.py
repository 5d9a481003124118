"""One training that ends with a network of a given size: weights, structure, weights."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from torch import Tensor, nn

from pyro_relevance._random import substream
from pyro_relevance.edges.edges import Edges
from pyro_relevance.edges.find import find_edges
from pyro_relevance.masks import Mask
from pyro_relevance.model.guides import default_guide
from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.model.priors import PointWeights
from pyro_relevance.posterior import relevance
from pyro_relevance.surgery.pruning import prune
from pyro_relevance.training.batches import Data, as_tensors
from pyro_relevance.training.budgeted.budget import Budget
from pyro_relevance.training.budgeted.closing import Closing
from pyro_relevance.training.budgeted.fitted import BudgetedFit
from pyro_relevance.training.budgeted.joining import OfPart, joined, trained_further
from pyro_relevance.training.callbacks import (
    Callback,
    EarlyStopping,
    innermost,
)
from pyro_relevance.training.checkpoint import Checkpoint
from pyro_relevance.training.plain import train_plain, zero_entries
from pyro_relevance.training.preparation import Guide
from pyro_relevance.training.schedules import Schedules, cosine, part
from pyro_relevance.training.settings import (
    Estimation,
    Execution,
    FitKeywords,
    FitSettings,
    Optimisation,
    check_keywords,
)
from pyro_relevance.training.svi import Fit, fit, with_progress

__all__ = ["Parts", "checked_edges", "completed", "fit_to_budget", "with_network"]

ONE_COSINE = Optimisation(schedules=Schedules(learning_rate=cosine(1.0, 0.01)))
"""How a training to a budget goes by default: the learning rate falls once, to 1 %."""
SHORTEST = 1e-9
"""Seconds of a part whose time is over: one step."""


def fit_to_budget(
    model: RelevanceModel,
    data: Data,
    budget: Budget,
    *,
    guide: Guide = default_guide,
    optimisation: Optimisation = ONE_COSINE,
    estimation: Estimation = Estimation(),  # noqa: B008 (a frozen value)
    execution: Execution = Execution(),  # noqa: B008 (a frozen value)
    augment: Callable[[Tensor], Tensor] | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
    progress: bool = True,
    seed: int = 0,
    **keywords: Unpack[FitKeywords],
) -> BudgetedFit:
    """Train a network that ends within a budget, with the posterior deciding what is kept.

    One training along one learning-rate schedule: first the weights alone, then weights and gates,
    while edges of the lowest rank are closed little by little (Zhu and Gupta 2017, equation 1),
    then the small network, built exactly. A model with ``gate_prior=None`` is ranked without gates.
    Weights with a posterior have no first part; their edges are ranked by signal-to-noise ratio.

    Args:
        model: The model; it is not changed.
        data: ``(x, y)`` or a map-style data set.
        budget: The limit.
        guide: As of ``fit``.
        execution: As of ``fit``.
        augment: As of ``fit``.
        progress: As of ``fit``.
        seed: As of ``fit``.
        keywords: Fields of the settings, as of ``fit``.
        optimisation: Of all parts together; temperature and KL weight change while gates are open.
        estimation: As of ``fit``, while gates are open.
        callbacks: Called after each step with the step of the whole training.
        checkpoint: As of ``fit``, a file for each part: ``.1``, ``.2``, ``.3`` before its ending.

    Raises:
        ValueError: If the budget cannot be reached; this and others as in ``fit``.

    Example:
        >>> import torch, pyro_relevance as pr
        >>> network, x = pr.networks.MLP(6, [8], 1), torch.randn(64, 6)
        >>> edges = pr.find_edges(network, granularity="weight")
        >>> normal = pr.likelihoods.Gaussian()
        >>> model = pr.RelevanceModel(network, edges, likelihood=normal, num_data=64)
        >>> budget = pr.Budget(num_parameters=20)
        >>> small = pr.fit_to_budget(model, (x, x[:, 0]), budget, num_epochs=20)
        >>> small.pruned.receipt.after.num_nonzero <= 20
        True
    """
    started = time.monotonic()
    check_keywords("fit_to_budget", keywords, FitKeywords)
    given = FitSettings(optimisation, estimation, execution).updated(keywords)
    edges = checked_edges(model, budget, callbacks, data)
    settings = completed(given, model, data)
    callbacks = with_progress(callbacks, progress)
    parts = Parts(settings, budget, edges, callbacks, checkpoint, seed, started, augment)
    return parts.run(model, data, guide)


def completed(settings: FitSettings, model: RelevanceModel, data: Data) -> FitSettings:
    """Return settings with the numbers that they leave to the library.

    Args:
        settings: As they were given.
        model: The model.
        data: The examples.
    """
    steps = settings.optimisation.steps_per_epoch(len(as_tensors(data)[0]))
    return settings.completed(steps, points=model.weights_are_points)


@dataclass(slots=True, eq=False)
class Parts:
    """The three parts of a training, each a run of ``fit`` with its share of everything.

    Args:
        settings: Of all parts together.
        budget: As of `fit_to_budget`.
        edges: What can be removed.
        callbacks: As of `fit_to_budget`.
        checkpoint: As of `fit_to_budget`.
        seed: As of `fit_to_budget`.
        started: When the training started, in seconds of ``time.monotonic``.
        augment: As of `fit_to_budget`.
        zeros_stay: Whether weights that are zero at the start were removed before.
    """

    settings: FitSettings
    budget: Budget
    edges: Edges
    callbacks: Sequence[Callback]
    checkpoint: Checkpoint | None
    seed: int
    started: float
    augment: Callable[[Tensor], Tensor] | None
    zeros_stay: bool = False

    def __post_init__(self) -> None:
        """Check that one process trains."""
        if self.settings.execution.distributed:
            raise ValueError(
                "Expected distributed=False for a training to a budget, which closes edges by the "
                "gradients of one process. Fit with fit(distributed=True), and prune within the "
                "budget by masks.budget."
            )

    def run(self, model: RelevanceModel, data: Data, guide: Guide) -> BudgetedFit:
        """Run the parts one after another."""
        x = as_tensors(data)[0]
        network, first = model.network, None
        if self.budget.start > 0 and model.weights_are_points:
            first = self.train(0, network, data, model)
            network = first.posterior.network()
        structure, mask = self.structure(model, network, data, guide)
        posterior = structure.posterior
        # Two examples: one at a time would make statistics of batches useless.
        small = prune(posterior.network(), self.edges, mask, example_input=x[:2])
        last = self.train(2, small.network, data, model, posterior.likelihood)
        fits = [one for one in (first, structure, last) if one is not None]
        return BudgetedFit(
            posterior,
            self.edges,
            mask,
            trained_further(small, last),
            last.posterior.likelihood,
            joined([one.history for one in fits]),
            sum(one.num_steps for one in fits),
            time.monotonic() - self.started,
            self.epochs([first, structure, last], len(x)),
        )

    def bounds(self, index: int, model: RelevanceModel) -> tuple[float, float]:
        """Return the shares of the training at which a part starts and ends."""
        start = self.budget.start if model.weights_are_points else 0.0
        return ((0.0, start), (start, self.budget.end), (self.budget.end, 1.0))[index]

    def train(
        self,
        index: int,
        network: nn.Module,
        data: Data,
        model: RelevanceModel,
        likelihood: Likelihood | None = None,
    ) -> Fit:
        """Train weights without gates; those of a pruned network keep their zeros."""
        bounds = self.bounds(index, model)
        return train_plain(
            network,
            data,
            likelihood=likelihood or model.likelihood,
            num_data=model.num_data,
            zeros=zero_entries(network) if index == 2 else None,
            weight_prior=_point_prior(model),
            optimisation=self.optimisation(bounds, plain=True),
            execution=self.settings.execution,
            augment=self.augment,
            callbacks=self.shared(bounds),
            checkpoint=self.checkpoint_of(index),
            seed=substream(self.seed, "part", index),
        )

    def structure(
        self,
        model: RelevanceModel,
        network: nn.Module,
        data: Data,
        guide: Guide,
    ) -> tuple[Fit, Mask]:
        """Train weights and gates, and decide which edges are kept."""
        bounds = self.bounds(1, model)
        closing = None
        if model.weights_are_points:
            removed = zero_entries(network) if self.zeros_stay else {}
            closing = Closing(self.budget, self.edges, removed)
        fitted = fit(
            with_network(model, network),
            data,
            guide=guide,
            optimisation=self.optimisation(bounds),
            estimation=self.settings.estimation,
            execution=self.settings.execution,
            augment=self.augment,
            callbacks=[*([closing] if closing else []), *self.shared(bounds)],
            checkpoint=self.checkpoint_of(1),
            progress=False,
            seed=substream(self.seed, "part", 1),
        )
        if closing is not None and closing.mask is not None:
            return fitted, closing.mask
        posterior = fitted.posterior
        scores = relevance.signal_to_noise(posterior.sample(50, seed=0), posterior.edges)
        return fitted, self.budget.choose(relevance.of_chain(scores, 0), self.edges)

    def optimisation(self, bounds: tuple[float, float], *, plain: bool = False) -> Optimisation:
        """Return the settings of a part: its share of epochs, time and learning rates."""
        given, (start, end) = self.settings.optimisation, bounds
        schedules, rate = given.schedules, (start, end)
        if self.budget.restarts(self.edges):
            before = self.budget.end
            rate = (0.0, 1.0) if start >= before else (start / before, end / before)
        changed = dataclasses.replace(
            Schedules() if plain else schedules,
            learning_rate=part(schedules.learning_rate, *rate),
        )
        assert given.num_epochs is not None, "see completed"
        return dataclasses.replace(
            given,
            num_epochs=(end - start) * given.num_epochs,
            schedules=changed,
            max_seconds=self.seconds_until(end),
        )

    def seconds_until(self, share: float) -> float:
        """Return the seconds that are left until a share of the time is over."""
        limit = self.settings.optimisation.max_seconds
        if limit == math.inf:
            return limit
        return max(SHORTEST, self.started + share * limit - time.monotonic())

    def shared(self, bounds: tuple[float, float]) -> list[Callback]:
        """Return the user's callbacks, which see one training."""
        return [OfPart(callback, *bounds) for callback in self.callbacks]

    def checkpoint_of(self, index: int) -> Checkpoint | None:
        """Return the checkpoint of a part, in a file of its own."""
        if self.checkpoint is None:
            return None
        path = Path(self.checkpoint.path)
        path = path.with_name(f"{path.stem}.{index + 1}{path.suffix}")
        return dataclasses.replace(self.checkpoint, path=path)

    def epochs(self, fits: Sequence[Fit | None], num_data: int) -> tuple[float, float, float]:
        """Return the epochs of each part."""
        steps = self.settings.optimisation.steps_per_epoch(num_data)
        first, second, third = (0.0 if one is None else one.num_steps / steps for one in fits)
        return first, second, third


def checked_edges(
    model: RelevanceModel, budget: Budget, callbacks: Sequence[Callback], data: Data
) -> Edges:
    """Return what can be removed, after all that can be checked before any work.

    Args:
        model: As of `fit_to_budget`.
        budget: As of `fit_to_budget`.
        callbacks: As of `fit_to_budget`.
        data: As of `fit_to_budget`.
    """
    if not isinstance(model, RelevanceModel):
        raise TypeError(
            f"Expected one RelevanceModel, but got {type(model).__name__}. A budget is kept by one "
            "network: train several seeds in a loop."
        )
    if not isinstance(budget, Budget):
        raise TypeError(
            f"Expected a Budget such as Budget(num_parameters=1000), but got {budget!r}."
        )
    if any(isinstance(innermost(callback), EarlyStopping) for callback in callbacks):
        raise ValueError(
            "Expected no EarlyStopping: the network is only within the budget at the end. Use "
            "fewer epochs."
        )
    if budget.single_weights and not model.weights_are_points:
        raise ValueError(
            "Expected point weights with single_weights=True, but got a posterior over the "
            "weights. Find edges of granularity 'weight' and pass gate_prior=None."
        )
    edges = model.edges
    if budget.single_weights:
        example = as_tensors(data)[0][:2]
        edges = find_edges(model.network, example_input=example, granularity="weight")
    budget.check(edges)
    return edges


def with_network(
    model: RelevanceModel, network: nn.Module, edges: Edges | None = None
) -> RelevanceModel:
    """Return the model of another network.

    Args:
        model: The model; it is not changed.
        network: The network, with the same edges or others.
        edges: Its edges; by default those of the model.
    """
    return RelevanceModel(
        network,
        model.edges if edges is None else edges,
        likelihood=model.likelihood,
        num_data=model.num_data,
        gate_prior=model.gate_prior,
        weight_prior=model.weight_prior,
        relaxation=model.relaxation,
    )


def _point_prior(model: RelevanceModel) -> PointWeights:
    """Return the prior of weights that are trained without gates."""
    prior = model.weight_prior
    if isinstance(prior, PointWeights):
        return prior
    scale = getattr(prior, "scale", None)
    return PointWeights(scale) if isinstance(scale, float) else PointWeights()
