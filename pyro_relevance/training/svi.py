r"""Stochastic variational inference: the one training loop of the method.

Minimises the negative ELBO of one or several independent chains,

.. math::
    -\frac{N}{B} \sum_{n \in batch} \log p(y_n \mid f(x_n; w, \gamma))
    + \beta_t\,KL(q(\gamma, w) \| p(\gamma, w)), \qquad \gamma, w \sim q_t,

while the temperature of the relaxation falls and the KL weight :math:`\beta_t` rises to one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor

from pyro_relevance._random import local_pyro, seeded, substream
from pyro_relevance.edges.representation.summary import Summary
from pyro_relevance.errors import DivergenceError
from pyro_relevance.model.elbo import LeanELBO
from pyro_relevance.model.guides import default_guide
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.posterior.history import History
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.training.batches import Batches, Data
from pyro_relevance.training.callbacks import Callback, EarlyStopping, ProgressBar, innermost
from pyro_relevance.training.checkpoint import Checkpoint
from pyro_relevance.training.distributed.ranks import Ranks
from pyro_relevance.training.distributed.run import DistributedRun
from pyro_relevance.training.identity import describe_run, stable_text
from pyro_relevance.training.preparation import (
    Guide,
    InitialWeights,
    make_chains,
    make_program,
    models_of_chains,
    parameter_groups,
    place_examples,
    training_mode,
    try_first_batch,
)
from pyro_relevance.training.run import TrainingRun
from pyro_relevance.training.settings import (
    Estimation,
    Execution,
    FitKeywords,
    FitSettings,
    Optimisation,
    check_keywords,
)

__all__ = ["Checkpoint", "Fit", "fit", "with_progress"]


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """The result of a run.

    Args:
        posterior: The fitted posterior of all chains.
        history: Losses, temperatures and expected sizes on the way.
        num_steps: Steps taken.
        seconds: Wall time of the training, over all parts of an interrupted run.
        held_out_elbo: ``(num_chains,)`` best held-out ELBO in nats, where ``EarlyStopping`` was
            used.
    """

    posterior: Posterior
    history: History
    num_steps: int
    seconds: float
    held_out_elbo: Tensor | None = None

    def __repr__(self) -> str:
        return str(self._summary())

    def _repr_html_(self) -> str:
        return self._summary().html()

    def _summary(self) -> Summary:
        final = self.history.final_loss().tolist() if len(self.history.step) else []
        held = None if self.held_out_elbo is None else self.held_out_elbo.tolist()
        rows = tuple(
            (str(chain), f"{loss:,.4g}", "-" if held is None else f"{held[chain]:,.4g}")
            for chain, loss in enumerate(final)
        )
        number = self.posterior.num_chains
        facts = (
            f"{number} chain{'s' if number > 1 else ''}",
            f"{self.num_steps:,} steps",
            f"{self.seconds:.1f} s",
            *((f"best chain {self.best_chain}",) if final else ()),
        )
        header = ("chain", "final negative ELBO (nats)", "held-out ELBO (nats)")
        return Summary("Fit", facts, header, rows)

    @property
    def best_chain(self) -> int:
        """The chain with the largest held-out ELBO, else with the smallest final loss."""
        if self.held_out_elbo is not None:
            return int(self.held_out_elbo.argmax())
        return int(self.history.final_loss().argmin())


def fit(
    model: RelevanceModel | Sequence[RelevanceModel],
    data: Data,
    *,
    guide: Guide = default_guide,
    optimisation: Optimisation = Optimisation(),  # noqa: B008 (a frozen value)
    estimation: Estimation = Estimation(),  # noqa: B008 (a frozen value)
    execution: Execution = Execution(),  # noqa: B008 (a frozen value)
    num_chains: int | None = None,
    held_out: Data | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
    initial_weights: InitialWeights = "reset",
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
    progress: bool = True,
    seed: int = 0,
    **keywords: Unpack[FitKeywords],
) -> Fit:
    """Train weights and posterior together; the model given is not changed.

    The same seed, settings and number of chains give the same numbers, interrupted or not.

    Args:
        model: The model, or one for each chain; these may differ in their numbers.
        data: ``(x, y)`` or a map-style data set; a list of pairs gives each chain its own.
        guide: A guide, or what makes one from a model; each chain has its own. See `default_guide`.
        optimisation: Epochs, batch size, learning rates, optimiser and schedules.
        estimation: The ELBO, and how often gates are drawn for a step.
        execution: Device, precision, and whether steps are recorded and replayed.
        num_chains: Independent fits; by default one, or one for each model.
        held_out: Examples from which the gates learn instead (two levels, as in DARTS).
        augment: Changes the inputs of each minibatch by draws from torch's global generator.
        initial_weights: Where further chains start, see `InitialWeights`.
        callbacks: Called after each step; see ``callbacks``.
        checkpoint: Where to write the state and to resume from.
        progress: Whether there is a `ProgressBar`, where ``callbacks`` have none.
        seed: Seed of initial weights, minibatches and noise.
        keywords: Fields of the settings, which they override: num_epochs, batch_size, optimizer,
            learning_rate, gate_learning_rate, schedules, max_seconds; elbo, noise, num_particles;
            replay, precision, device, distributed.

    Raises:
        TypeError, ValueError: If an argument is of another kind, or does not fit the others.
        DivergenceError: If the loss fails or explodes; ``error.fit`` holds the last good state.
        CheckpointError, OSError: If the checkpoint is another run's, in use or not to be written.
    """
    check_keywords("fit", keywords, FitKeywords)
    settings = FitSettings(optimisation, estimation, execution).updated(keywords)
    ranks = Ranks.of_group() if settings.execution.distributed else Ranks()
    models, callbacks = models_of_chains(model, num_chains), with_progress(callbacks, progress)
    batches, others = place_examples(models, data, held_out, settings, augment, ranks)
    # Own stream: under the seed of the user's network further chains would start from its weights.
    with _surroundings(seed, batches.x.device):
        elbo = settings.estimation.elbo or LeanELBO()
        modules = make_chains(models, guide, elbo, initial_weights, batches.x.device)
        with training_mode(modules, settings):
            try_first_batch(modules, batches, _held_out(others, callbacks))
            run = _prepare(modules, batches, others, settings, callbacks, checkpoint, seed, ranks)
            _execute(run)
        return _result(run)


@contextmanager
def _surroundings(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers of a fit, Pyro's settings and gradients, whatever mode the caller is in."""
    with (
        seeded(substream(seed, "fit"), device),
        local_pyro(),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        yield


def _held_out(others: Batches | None, callbacks: Sequence[Callback]) -> list[Any]:
    """Return all examples that a run looks at, beside those that it is trained on."""
    stopping = [c for c in map(innermost, callbacks) if isinstance(c, EarlyStopping)]
    found = [(callback.x, callback.y) for callback in stopping]
    return found if others is None else [*found, others.of_chain(0)]


def _prepare(
    modules: Sequence[Any],
    batches: Batches,
    others: Batches | None,
    settings: FitSettings,
    callbacks: Sequence[Callback],
    checkpoint: Checkpoint | None,
    seed: int,
    ranks: Ranks,
) -> TrainingRun:
    """Return the run before its first step, with the fingerprint that its checkpoint needs."""
    points = modules[0].model.weights_are_points
    settings = settings.completed(batches.steps_per_epoch, points=points)
    optimisation, estimation = settings.optimisation, settings.estimation
    assert optimisation.learning_rate is not None, "see completed"
    num_steps = optimisation.num_steps(batches.steps_per_epoch)
    program = make_program(
        modules,
        batches,
        estimation.num_particles,
        estimation.elbo,
        settings.execution.replay,
        others,
        num_steps,
    )
    optimizer = optimisation.make_optimizer(
        parameter_groups(program, optimisation.learning_rate, optimisation.gate_learning_rate)
    )
    schedules = optimisation.schedules
    kind = functools.partial(DistributedRun.of, ranks, seed) if ranks.number > 1 else TrainingRun
    run: TrainingRun = kind(
        program,
        optimizer,
        batches,
        schedules,
        num_steps,
        tuple(callbacks),
        checkpoint,
        max_seconds=optimisation.max_seconds,
    )
    if checkpoint is not None:
        described = {**settings.identity(), "num_chains": len(modules), "seed": int(seed)}
        if batches.augment is not None:
            described["augment"] = stable_text(batches.augment)
        own = describe_run(program, optimizer, batches, schedules, run.stateful(), described)
        run.run = ranks.identity(own)
    return run


def _execute(run: TrainingRun) -> None:
    try:
        run.execute()
    except DivergenceError as error:
        error.fit = _result(run)
        raise
    finally:
        _close(run.callbacks)


def _result(run: TrainingRun) -> Fit:
    posterior, held_out = run.make_posterior(), None
    for callback in map(innermost, run.callbacks):
        if isinstance(callback, EarlyStopping) and callback.best_state is not None:
            posterior = Posterior(
                posterior.model, posterior.guide, callback.best_state, history=run.history
            )
            held_out = callback.best_elbo
    if isinstance(run, DistributedRun):
        posterior, held_out = run.result_of_first(posterior, held_out)
    return Fit(posterior, run.history, run.step, run.seconds, held_out)


def with_progress(callbacks: Sequence[Callback], progress: bool) -> Sequence[Callback]:
    """Return the callbacks, with a progress bar where one is wanted and none is there.

    Args:
        callbacks: The callbacks.
        progress: Whether one is wanted.
    """
    if not progress or any(isinstance(innermost(found), ProgressBar) for found in callbacks):
        return callbacks
    return [*callbacks, ProgressBar()]


def _close(callbacks: Sequence[Callback]) -> None:
    for callback in callbacks:
        close: Callable[[], None] | None = getattr(callback, "close", None)
        if close is not None:
            close()
