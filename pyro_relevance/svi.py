r"""Stochastic variational inference: the one training loop of the method.

Minimises the negative ELBO of one or several independent chains,

.. math::
    -\frac{N}{B}\sum_{n \in batch} \log p(y_n \mid f(x_n; w, \gamma)) + \beta_t\,KL(q(\gamma, w) \| p(\gamma, w)),
    \qquad \gamma, w \sim q_t,

while the temperature of the relaxation falls and the KL weight :math:`\beta_t` rises to one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import pyro
import torch
from pyro.infer.elbo import ELBO, ELBOModule
from torch import Tensor, nn
from torch.optim import Optimizer

from pyro_relevance.batches import Batches
from pyro_relevance.callbacks import Callback, EarlyStopping
from pyro_relevance.checkpoint import Checkpoint, fingerprint
from pyro_relevance.elbo import LeanELBO
from pyro_relevance.errors import DivergenceError
from pyro_relevance.guides import MeanFieldGuide
from pyro_relevance.history import History
from pyro_relevance.model import Noise, RelevanceModel
from pyro_relevance.posterior import Posterior
from pyro_relevance.programs import LoopProgram, Program, VectorisedProgram
from pyro_relevance.random_state import seeded
from pyro_relevance.schedules import Schedules
from pyro_relevance.training import TrainingRun

__all__ = ["Checkpoint", "Fit", "fit"]

Guide = nn.Module | Callable[[RelevanceModel], nn.Module]


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """The result of a run.

    Args:
        posterior: The fitted posterior of all chains.
        history: Losses, temperatures and expected sizes on the way.
        num_steps: Steps taken.
        seconds: Wall time of the training, over all parts of an interrupted run.
        held_out_elbo: ``(num_chains,)`` best held-out ELBO in nats, where ``EarlyStopping`` was used.
    """

    posterior: Posterior
    history: History
    num_steps: int
    seconds: float
    held_out_elbo: Tensor | None = None

    @property
    def best_chain(self) -> int:
        """The chain with the largest held-out ELBO, or without held-out data with the smallest final loss."""
        if self.held_out_elbo is not None:
            return int(self.held_out_elbo.argmax())
        return int(self.history.final_loss().argmin())


def fit(
    model: RelevanceModel,
    data: Any,
    *,
    guide: Guide = MeanFieldGuide,
    num_epochs: int = 100,
    batch_size: int | None = 128,
    learning_rate: float = 1e-3,
    gate_learning_rate: float = 3e-2,
    schedules: Schedules = Schedules(),  # noqa: B008 (a frozen value)
    noise: Noise = "shared",
    num_particles: int = 1,
    num_chains: int = 1,
    initial_weights: Literal["reset", "network"] = "reset",
    elbo: ELBO | None = None,
    optimizer: Callable[[list[dict[str, Any]]], Optimizer] | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Fit:
    """Train weights and posterior together.

    The model given is not changed. Several chains are independent fits; with the library's guides they run in one
    vectorised program. With the same seed, settings and number of chains a run gives the same numbers, whether it was
    interrupted and resumed or not.

    Args:
        model: The model.
        data: ``(x, y)`` tensors or a map-style data set; a list of pairs gives each chain its own data (splits).
        guide: A guide, or what makes one from a model: ``MeanFieldGuide``, ``LowRankGuide``, an AutoGuide of Pyro.
        num_epochs: Passes over the data.
        batch_size: Examples in a step; ``None`` for all.
        learning_rate: Step size of Adam for weights and for their posterior.
        gate_learning_rate: Step size of Adam for the gates' log-odds.
        schedules: Temperature, KL weight and learning-rate factor by progress.
        noise: One draw of the gates for a minibatch (``"shared"``) or for each example (``"per_example"``).
        num_particles: Draws of the guide in each step.
        num_chains: Independent fits.
        initial_weights: The first chain starts from the model's network. Further chains are initialised anew by each
            layer's ``reset_parameters`` (``"reset"``), or start from it too (``"network"``, for pretrained weights).
        elbo: Another ELBO of ``pyro.infer`` than the lean one.
        optimizer: Makes an optimiser from parameter groups with ``lr`` set; by default fused Adam.
        callbacks: Called after each step; see ``callbacks``.
        checkpoint: Where to write the state and to resume from.
        seed: Seed of initial weights, minibatches and noise.
        device: Where to train; by default where the model is.

    Raises:
        ValueError: If sizes or settings do not fit each other.
        TypeError: If the data are of an unknown kind.
        DivergenceError: If the loss is not finite or explodes; ``error.fit`` holds the last good state.
        CheckpointError: If the checkpoint is damaged or belongs to another run.
    """
    _check_counts(num_epochs=num_epochs, num_particles=num_particles, num_chains=num_chains)
    _check_rates(learning_rate=learning_rate, gate_learning_rate=gate_learning_rate)
    place = torch.device(device) if device is not None else next(model.network.parameters()).device
    batches = Batches(data, num_chains=num_chains, batch_size=batch_size, device=place)
    if batches.num_data != model.num_data:
        raise ValueError(
            f"Expected num_data={model.num_data} examples, as the model was told, but the data have "
            f"{batches.num_data}. Make the model with num_data=len(x) of its training set."
        )
    with seeded(seed, place), _local_parameters():
        modules = _make_chains(model, guide, elbo or LeanELBO(), num_chains, initial_weights, place)
        _check_first_batch(modules, batches, noise)
        program = _make_program(modules, num_particles, elbo)
        groups = _parameter_groups(program, modules[0], learning_rate, gate_learning_rate)
        run = TrainingRun(
            program,
            (optimizer or _fused_adam)(groups),
            batches,
            schedules,
            num_epochs * batches.steps_per_epoch,
            tuple(callbacks),
            checkpoint,
            "" if checkpoint is None else _fingerprint(program, batches, schedules, locals()),
        )
        try:
            run.execute()
        except DivergenceError as error:
            error.fit = _result(run)
            raise
        finally:
            for module in modules:
                module.model.set_noise("shared")
            for callback in callbacks:
                getattr(callback, "close", lambda: None)()
    return _result(run)


def _result(run: TrainingRun) -> Fit:
    posterior = run.make_posterior()
    held_out = None
    for callback in run.callbacks:
        if isinstance(callback, EarlyStopping) and callback.best_state is not None:
            posterior = Posterior(posterior.model, posterior.guide, callback.best_state, history=run.history)
            held_out = callback.best_elbo
    return Fit(posterior, run.history, run.step, run.seconds, held_out)


@contextmanager
def _local_parameters() -> Iterator[None]:
    """Parameters belong to modules, and Pyro's validation (a wait for the device at each site) is off."""
    with pyro.settings.context(module_local_params=True), pyro.validation_enabled(False):
        yield


def _make_chains(
    model: RelevanceModel,
    guide: Guide,
    elbo: ELBO,
    num_chains: int,
    initial_weights: str,
    device: torch.device,
) -> list[Any]:
    """Return one ELBO module per chain, on the device, with initial weights of its own."""
    if initial_weights not in ("reset", "network"):
        raise ValueError(f"Expected initial_weights to be 'reset' or 'network', but got {initial_weights!r}.")
    modules: list[Any] = []
    for index in range(num_chains):
        chain = copy.deepcopy(model).to(device).train()
        if index > 0 and initial_weights == "reset":
            _reset(chain.network)
        made = copy.deepcopy(guide) if isinstance(guide, nn.Module) else guide(chain)
        if not isinstance(made, nn.Module):
            raise TypeError(f"Expected guide to make an nn.Module, but it made a {type(made).__name__}.")
        modules.append(elbo(chain, made.to(device)))
    return modules


def _reset(network: nn.Module) -> None:
    for name, module in network.named_modules():
        own = list(module.parameters(recurse=False))
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
        elif own:
            raise ValueError(
                f"Expected each layer to have reset_parameters for further chains, but '{name}' "
                f"({type(module).__name__}) has none. Pass initial_weights='network', or fit one chain."
            )


def _check_first_batch(modules: Sequence[Any], batches: Batches, noise: Noise) -> None:
    """Run each chain once, so that lazy guides make their parameters and wrong shapes are told before any work."""
    x, y = batches.first()
    for module in modules:
        model: RelevanceModel = module.model
        model.set_noise(noise)
        model.update_statistics = False
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            outputs = model.run(x, dict(model.network.named_parameters()), {})
            _check_likelihood(model, outputs, y)
            module(x, y)
        model.update_statistics = True


def _check_likelihood(model: RelevanceModel, outputs: Tensor, y: Tensor) -> None:
    likelihood, wanted = model.likelihood, model.likelihood.num_outputs()
    name = type(likelihood).__name__
    if outputs.ndim != 2 or (wanted is not None and outputs.shape[1] != wanted):
        raise ValueError(
            f"Expected the network's outputs of shape (num_data, {wanted or 'num_classes'}) for {name}, but got "
            f"{tuple(outputs.shape)}. Change the last layer."
        )
    distribution = likelihood(outputs)
    if tuple(distribution.shape()) != tuple(y.shape):
        raise ValueError(
            f"Expected targets of shape {tuple(distribution.shape())} for {name}, but got {tuple(y.shape)}. "
            "Reshape y; a column of shape (num_data, 1) is squeezed with y.squeeze(1)."
        )
    if name == "Categorical":
        low, high = int(y.min()), int(y.max())
        if y.is_floating_point() or low < 0 or high >= outputs.shape[1]:
            raise ValueError(
                f"Expected integer classes 0 .. {outputs.shape[1] - 1} for Categorical, but got {y.dtype} from {low} "
                f"to {high}."
            )
    elif not y.is_floating_point():
        raise ValueError(f"Expected floating-point targets for {name}, but got {y.dtype}. Pass y.float().")
    if not bool(torch.isfinite(y.to(torch.float64)).all()):
        raise ValueError("Expected finite targets, but y has NaN or infinite entries. Leave those rows out.")


def _make_program(modules: Sequence[ELBOModule], num_particles: int, elbo: ELBO | None) -> Program:
    guide: Any = modules[0].guide
    lean = elbo is None or isinstance(elbo, LeanELBO)
    if len(modules) > 1 and lean and getattr(guide, "vectorised", False):
        return VectorisedProgram(modules, num_particles)
    return LoopProgram(modules, num_particles)


def _parameter_groups(
    program: Program, module: Any, learning_rate: float, gate_learning_rate: float
) -> list[dict[str, Any]]:
    gates = {f"guide.{name}" for name in getattr(module.guide, "gate_parameters", ())}
    named = program.named_parameters()
    groups = [
        {"params": [p for n, p in named if n not in gates], "lr": learning_rate},
        {"params": [p for n, p in named if n in gates], "lr": gate_learning_rate},
    ]
    return [{**group, "initial_lr": group["lr"]} for group in groups if group["params"]]


def _fused_adam(groups: list[dict[str, Any]]) -> Optimizer:
    return torch.optim.Adam(groups, fused=True)


def _fingerprint(program: Program, batches: Batches, schedules: Schedules, settings: dict[str, Any]) -> str:
    names = ("num_epochs", "batch_size", "learning_rate", "gate_learning_rate", "noise", "num_particles")
    chosen = {name: settings[name] for name in (*names, "num_chains", "initial_weights", "seed")}
    curve = [
        (schedules.temperature(p), schedules.kl_weight(p), schedules.learning_rate(p)) for p in (0.0, 0.1, 0.5, 0.9, 1.0)
    ]
    return fingerprint({**chosen, "schedules": curve}, {**program.state(), "x": batches.x, "y": batches.y})


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"Expected {name} to be a positive integer, but got {value!r}.")


def _check_rates(**rates: float) -> None:
    for name, value in rates.items():
        if not 0.0 < value < float("inf"):
            raise ValueError(f"Expected {name} > 0, but got {value}.")
