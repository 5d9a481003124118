r"""Stochastic variational inference: the one training loop of the method.

Minimises the negative ELBO of one or several independent chains,

.. math::
    -\frac{N}{B} \sum_{n \in batch} \log p(y_n \mid f(x_n; w, \gamma))
    + \beta_t\,KL(q(\gamma, w) \| p(\gamma, w)), \qquad \gamma, w \sim q_t,

while the temperature of the relaxation falls and the KL weight :math:`\beta_t` rises to one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pyro.infer.elbo import ELBO
from torch import Tensor
from torch.optim import Optimizer

from pyro_relevance._random import local_pyro, seeded, substream
from pyro_relevance.errors import DivergenceError
from pyro_relevance.model.elbo import LeanELBO
from pyro_relevance.model.guides import MeanFieldGuide
from pyro_relevance.model.model import Noise, RelevanceModel
from pyro_relevance.model.precision import Precision
from pyro_relevance.posterior.history import History
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.training.batches import Batches, Data
from pyro_relevance.training.callbacks import Callback, EarlyStopping, innermost
from pyro_relevance.training.checkpoint import Checkpoint
from pyro_relevance.training.preparation import (
    Guide,
    describe_run,
    make_chains,
    make_program,
    models_of_chains,
    parameter_groups,
    stable_text,
    try_first_batch,
)
from pyro_relevance.training.run import TrainingRun
from pyro_relevance.training.schedules import Schedules

__all__ = ["Checkpoint", "Fit", "fit"]


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
    guide: Guide = MeanFieldGuide,
    num_epochs: int = 100,
    batch_size: int | None = 128,
    learning_rate: float = 1e-3,
    gate_learning_rate: float = 3e-2,
    schedules: Schedules = Schedules(),  # noqa: B008 (a frozen value)
    noise: Noise = "shared",
    num_particles: int = 1,
    num_chains: int | None = None,
    held_out: Data | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
    initial_weights: Literal["reset", "network"] = "reset",
    elbo: ELBO | None = None,
    optimizer: Callable[[list[dict[str, Any]]], Optimizer] | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
    replay: bool | None = None,
    precision: Precision = Precision(),  # noqa: B008 (a frozen value)
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Fit:
    """Train weights and posterior together.

    The model given is not changed. Several chains are independent fits; with the library's guides
    they run in one vectorised program. With the same seed, settings and number of chains a run
    gives the same numbers, whether it was interrupted and resumed or not.

    Args:
        model: The model, or one for each chain; these may differ in their numbers (initial
            weights, prior odds, noise scale), so that candidate settings are trained together.
        data: ``(x, y)`` tensors or a map-style data set; a list of pairs gives each chain its own
            data (splits).
        guide: A guide, or what makes one from a model: ``MeanFieldGuide``, ``LowRankGuide``, an
            AutoGuide of Pyro. Every chain starts from a copy of a guide that is given as such.
        num_epochs: Passes over the data.
        batch_size: Examples in a step; ``None`` for all.
        learning_rate: Step size of Adam for weights and for their posterior.
        gate_learning_rate: Step size of Adam for the gates' log-odds.
        schedules: Temperature, KL weight and learning-rate factor by progress.
        noise: One draw of the gates for a minibatch (``"shared"``) or for each example
            (``"per_example"``).
        num_particles: Draws of the guide in each step.
        num_chains: Independent fits; by default one, or one for each model.
        held_out: Examples from which the gates' posterior learns, while the weights learn from
            ``data`` (two levels, as in DARTS); by default both learn from ``data``.
        augment: Changes the inputs of each minibatch at random, see ``augmentation``; it gets
            ``(num_examples, ...)``, the examples of all chains together, and keeps the shape. Its
            draws must come from torch's global generator, so that the run stays repeatable.
        initial_weights: The first chain starts from the model's network. Further chains are
            initialised anew by each layer's ``reset_parameters`` (``"reset"``), or start from it
            too (``"network"``, for pretrained weights).
        elbo: Another ELBO of ``pyro.infer`` than the lean one.
        optimizer: Makes an optimiser from parameter groups with ``lr`` set; by default fused Adam.
        callbacks: Called after each step; see ``callbacks``.
        checkpoint: Where to write the state and to resume from.
        replay: Whether the tensor operators of a step may be recorded and replayed, which spares
            the Python of a step and changes no number; only with the lean ELBO and the library's
            guides. Recording takes as long as some hundred steps: by default only kinds of step are
            recorded of which there are a thousand or more. Pass False where a callback changes how
            the model computes (other than the values of its tensors), or to step through the model
            in a debugger.
        precision: Data type and memory format in which the network is computed while training:
            ``Precision(autocast=torch.bfloat16, channels_last=True)`` for convolutional networks.
        seed: Seed of initial weights, minibatches and noise.
        device: Where to train; by default where the model is.

    Raises:
        ValueError: If sizes, values or settings do not fit each other.
        TypeError: If the data are of an unknown kind, or the guide is not a module.
        DivergenceError: If the loss is not finite or explodes; ``error.fit`` holds the last good
            state.
        CheckpointError: If the checkpoint is damaged or belongs to another run.
        OSError: If the checkpoint cannot be written.
    """
    _check_counts(num_epochs=num_epochs, num_particles=num_particles)
    if num_chains is not None:
        _check_counts(num_chains=num_chains)
    models = models_of_chains(model, num_chains)
    _check_rates(learning_rate=learning_rate, gate_learning_rate=gate_learning_rate)
    _check_elbo(elbo)
    place = torch.device(device or next(models[0].network.parameters()).device)
    batches = Batches(
        data, num_chains=len(models), batch_size=batch_size, device=place, augment=augment
    )
    if batches.num_data != models[0].num_data:
        raise ValueError(
            f"Expected num_data={models[0].num_data} examples, as the model was told, but the data "
            f"have {batches.num_data}. Make the model with num_data=len(x) of its training set."
        )
    others = None
    if held_out is not None:
        others = Batches(
            held_out,
            num_chains=len(models),
            batch_size=batch_size,
            device=place,
            augment=augment,
        )
    settings = {
        "num_epochs": num_epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "gate_learning_rate": gate_learning_rate,
        "noise": noise,
        "num_particles": num_particles,
        "num_chains": len(models),
        "seed": int(seed),
        "elbo": type(elbo).__name__,
    }
    if precision != Precision():
        settings["precision"] = repr(precision)
    if augment is not None:
        settings["augment"] = stable_text(augment)
    # A stream of its own: a user's network is often initialised under the same seed, and further
    # chains would then start from the very same weights.
    with seeded(substream(seed, "fit"), place), local_pyro(), torch.enable_grad():
        modules = make_chains(models, guide, elbo or LeanELBO(), initial_weights, place, precision)
        try_first_batch(modules, batches, noise)
        num_steps = num_epochs * batches.steps_per_epoch
        program = make_program(modules, batches, num_particles, elbo, replay, others, num_steps)
        adam = (optimizer or _fused_adam)(
            parameter_groups(program, learning_rate, gate_learning_rate)
        )
        run = TrainingRun(
            program,
            adam,
            batches,
            schedules,
            num_steps,
            tuple(callbacks),
            checkpoint,
        )
        if checkpoint is not None:
            run.run = describe_run(program, adam, batches, schedules, run.stateful(), settings)
        try:
            run.execute()
        except DivergenceError as error:
            error.fit = _result(run)
            raise
        finally:
            for module in modules:
                module.model.set_noise("shared")
                module.model.precision = Precision()
                precision.restore(module.model.network)
            _close(callbacks)
        return _result(run)


def _result(run: TrainingRun) -> Fit:
    posterior, held_out = run.make_posterior(), None
    for callback in map(innermost, run.callbacks):
        if isinstance(callback, EarlyStopping) and callback.best_state is not None:
            posterior = Posterior(
                posterior.model, posterior.guide, callback.best_state, history=run.history
            )
            held_out = callback.best_elbo
    return Fit(posterior, run.history, run.step, run.seconds, held_out)


def _close(callbacks: Sequence[Callback]) -> None:
    for callback in callbacks:
        close: Callable[[], None] | None = getattr(callback, "close", None)
        if close is not None:
            close()


def _fused_adam(groups: list[dict[str, Any]]) -> Optimizer:
    return torch.optim.Adam(groups, fused=True)


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"Expected {name} to be a positive integer, but got {value!r}.")


def _check_rates(**rates: float) -> None:
    for name, value in rates.items():
        if not 0.0 < value < float("inf"):
            raise ValueError(f"Expected {name} > 0 and finite, but got {value}.")


def _check_elbo(elbo: ELBO | None) -> None:
    if elbo is None:
        return
    if not isinstance(elbo, ELBO):
        raise TypeError(
            f"Expected an ELBO such as pyro.infer.TraceMeanField_ELBO(), but got {elbo!r}."
        )
    if elbo.num_particles != 1:
        raise ValueError(
            f"Expected an ELBO of one particle, but got num_particles={elbo.num_particles}. Pass "
            "fit(..., num_particles=...), which moves BatchNorm statistics once a step."
        )
