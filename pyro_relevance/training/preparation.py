"""Preparation of a fit before its first step: chains, checks, program, parameter groups."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import pyro
import torch
from pyro import poutine
from pyro.infer.elbo import ELBO, ELBOModule
from torch import Tensor, nn

from pyro_relevance.edges.modules import reinitialise
from pyro_relevance.model.elbo import LeanELBO
from pyro_relevance.model.guides.protocol import answers
from pyro_relevance.model.inputs import accepted, check_rows
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.model.parts import check_guide
from pyro_relevance.training.batches import Batches, Data
from pyro_relevance.training.data_checks import check_data, check_held_out, check_types
from pyro_relevance.training.distributed.ranks import Ranks
from pyro_relevance.training.programs.chains import (
    LoopProgram,
    Program,
    RecordableProgram,
    VectorisedProgram,
)
from pyro_relevance.training.programs.replay import ReplayedProgram
from pyro_relevance.training.programs.two_levels import TwoLevelProgram
from pyro_relevance.training.settings import FitSettings, check_counts

__all__ = [
    "Guide",
    "InitialWeights",
    "make_chains",
    "make_program",
    "models_of_chains",
    "parameter_groups",
    "place_examples",
    "training_mode",
    "try_first_batch",
]

Guide = nn.Module | Callable[[RelevanceModel], nn.Module]
"""A guide, or what makes one from a model: ``MeanFieldGuide``, ``LowRankGuide``, an AutoGuide."""

InitialWeights = Literal["reset", "network"]
"""Where further chains start; the first one starts from the model's network.

``"reset"``: each layer is re-initialised by its ``reset_parameters``. ``"network"``: from the same
network too, for pretrained weights.
"""


def models_of_chains(
    model: RelevanceModel | Sequence[RelevanceModel], num_chains: int | None
) -> list[RelevanceModel]:
    """Return the model of each chain.

    Args:
        model: One model for all chains, or one for each.
        num_chains: Number of chains; ``None`` for as many as there are models.

    Raises:
        ValueError: If the number is no positive integer or not that of the models, or these differ
            in more than values.
        TypeError: If they are not models.
    """
    if num_chains is not None:
        check_counts(num_chains=num_chains)
    if isinstance(model, RelevanceModel):
        return [model] * (num_chains or 1)
    models = list(model)
    if not models or not all(isinstance(item, RelevanceModel) for item in models):
        raise TypeError(
            f"Expected a RelevanceModel, or one for each chain, but got {type(model).__name__} of "
            f"{sorted({type(item).__name__ for item in models})}."
        )
    if num_chains not in (None, len(models)):
        raise ValueError(f"Expected one model for each of {num_chains} chains, got {len(models)}.")
    for index, item in enumerate(models[1:], 1):
        different = _difference(models[0], item)
        if different:
            raise ValueError(
                f"Expected models that differ only in their numbers (initial weights, prior odds, "
                f"noise), but those of chains 0 and {index} differ in {different}. Fit them apart."
            )
    return models


def _difference(one: RelevanceModel, other: RelevanceModel) -> str:
    """Return the name of a part that keeps two models from being chains of one run, or ""."""
    for name in (
        "edges",
        "num_data",
        "weight_prior",
        "relaxation",
        "operation_prior",
        "operation_relaxation",
    ):
        if getattr(one, name) != getattr(other, name):
            return name
    numbers = {"noise_scale", "degrees_of_freedom"}
    settings = [
        {k: v for k, v in m.likelihood.settings().items() if k not in numbers} for m in (one, other)
    ]
    if type(one.likelihood) is not type(other.likelihood) or settings[0] != settings[1]:
        return "likelihood"
    # Fixed odds are a tensor of each chain. Other priors compute with their arguments.
    fixed = one.gate_prior is not None and not one.gate_prior.latents(one.edges)
    same_kind = type(one.gate_prior) is type(other.gate_prior)
    return "" if same_kind and (fixed or one.gate_prior == other.gate_prior) else "gate_prior"


@torch.inference_mode(False)
def place_examples(
    models: Sequence[RelevanceModel],
    data: Data,
    held_out: Data | None,
    settings: FitSettings,
    augment: Callable[[Tensor], Tensor] | None,
    ranks: Ranks = Ranks(),  # noqa: B008 (a frozen value)
) -> tuple[Batches, Batches | None]:
    """Return the stream of training minibatches and, if given, that of held-out examples.

    Args:
        models: The model of each chain.
        data: The training examples.
        held_out: Examples from which the gates learn, or ``None`` for the same ones.
        settings: Of the run, with batch size and device.
        augment: Changes the inputs of each minibatch, or ``None``.
        ranks: The processes that share the examples.

    Raises:
        TypeError: If the data are of an unknown kind.
        ValueError: If sizes do not fit each other, or the model.
    """
    device = settings.execution.device
    target = torch.device(device or next(models[0].network.parameters()).device)

    def streams(examples: Data) -> Batches:
        return Batches(
            examples,
            num_chains=len(models),
            batch_size=settings.optimisation.batch_size,
            device=target,
            augment=augment,
            ranks=ranks,
        )

    batches = streams(data)
    if batches.num_given != models[0].num_data:
        raise ValueError(
            f"Expected num_data={models[0].num_data} examples, as the model was given, but the "
            f"data have {batches.num_given}. Make the model with num_data=len(x) of its training "
            "set."
        )
    return batches, None if held_out is None else streams(held_out)


@contextmanager
def training_mode(modules: Sequence[Any], settings: FitSettings) -> Iterator[None]:
    """Keep the chains in the mode of a run inside the block: noise, precision, memory format.

    Args:
        modules: ELBO modules, one per chain.
        settings: Of the run.
    """
    noise, precision = settings.estimation.noise, settings.execution.precision
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(module.model.in_mode(noise=noise, precision=precision))
        if len(modules) == 1:  # those of several chains are stacked
            precision.prepare(modules[0].model.network)
        try:
            yield
        finally:
            for module in modules:
                precision.restore(module.model.network)


def make_chains(
    models: Sequence[RelevanceModel],
    guide: Guide,
    elbo: ELBO,
    initial_weights: str,
    device: torch.device,
) -> list[Any]:
    """Return one ELBO module per chain, on the device, with initial weights of its own.

    Args:
        models: The user's model of each chain; they are copied. Chains with the same model as the
            first one are re-initialised, if so asked.
        guide: The user's guide; an instance is copied, and the copy belongs to the chain's model.
        elbo: The ELBO.
        initial_weights: ``"reset"`` or ``"network"``, see ``fit``.
        device: Where the chains are trained.

    Raises:
        ValueError: If ``initial_weights`` is unknown, or a layer cannot be re-initialised.
        TypeError: If the guide is not a module.
    """
    if initial_weights not in ("reset", "network"):
        raise ValueError(
            f"Expected initial_weights to be 'reset' or 'network', but got {initial_weights!r}."
        )
    modules: list[Any] = []
    for index, model in enumerate(models):
        chain = copy.deepcopy(model).to(device).train()
        if index > 0 and model is models[0] and initial_weights == "reset":
            _reset(chain.network)
        if isinstance(guide, nn.Module):
            # The memo makes a guide that knows the user's model know the chain's in its place.
            made = copy.deepcopy(guide, {id(model): chain})
        else:
            made = guide(chain)
        if not isinstance(made, nn.Module):
            raise TypeError(
                f"Expected guide to make an nn.Module, but it made a {type(made).__name__}. Write "
                "a guide as a module that keeps its parameters."
            )
        modules.append(elbo(chain, made.to(device)))
    return modules


def _reset(network: nn.Module) -> None:
    for name, module in reinitialise(network):
        raise ValueError(
            f"Expected each layer to have reset_parameters for further chains, but '{name}' "
            f"({type(module).__name__}) has none. Pass initial_weights='network', or fit one "
            "chain."
        )


def try_first_batch(
    modules: Sequence[Any], batches: Batches, held_out: Sequence[tuple[Tensor, Tensor]] = ()
) -> None:
    """Run each chain once: lazy guides make their parameters, wrong shapes are named.

    Args:
        modules: ELBO modules, one per chain.
        batches: The data; their position does not move.
        held_out: Examples that are looked at later, in the run.

    Raises:
        ValueError: If the data do not fit network and likelihood, or the guide keeps its
            parameters in Pyro's global store.
    """
    store = set(pyro.get_param_store().keys())
    for index, module in enumerate(modules):
        model: RelevanceModel = module.model
        x, y = batches.of_chain(index)
        x, y = x[: batches.batch_size], y[: batches.batch_size]
        check_types(model, x)
        last = batches.num_data % batches.batch_size
        with torch.no_grad(), model.in_mode(update_statistics=False):
            with accepted(model.network, x):
                outputs = model.run(x, dict(model.network.named_parameters()), {})
            check_rows(outputs, x)
            check_data(model, outputs, *batches.of_chain(index))
            for given in held_out:
                check_held_out(model, *(part.to(x.device) for part in given))
            if last == 1:  # normalisation layers may need more than one example
                with accepted(model.network, x[:1], "a last minibatch of inputs"):
                    model.run(x[:1], dict(model.network.named_parameters()), {})
            # What is drawn for a check leaves the random numbers of the run as they were.
            with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
                check_guide(module.guide, model, x, y)
            module(x, y)
            with poutine.block():
                module.guide()  # drawn since the first version: seeds keep their numbers
    added = [name for name in pyro.get_param_store() if name not in store]
    for name in added:
        pyro.get_param_store().__delitem__(name)
    if added:
        raise ValueError(
            f"Expected the guide to keep its parameters in the module, but it called pyro.param "
            f"for {added}. Use nn.Parameter or pyro.nn.PyroParam."
        )


def make_program(
    modules: Sequence[ELBOModule],
    batches: Batches,
    num_particles: int,
    elbo: ELBO | None,
    replay: bool | None = None,
    held_out: Batches | None = None,
    num_steps: int | None = None,
) -> Program:
    """Return the fastest program that network, guide and ELBO allow.

    All chains in one vectorised call, else one after another; a step that is one call is recorded
    and replayed.

    Args:
        modules: ELBO modules, one per chain, that have been called once.
        batches: The data; their position does not move.
        num_particles: Draws of the guide in each step.
        elbo: The user's ELBO, or ``None`` for the lean one.
        replay: Whether steps may be recorded; by default those of which there are many.
        held_out: Examples from which the gates learn, or ``None`` for those of the weights.
        num_steps: Steps of the run, which say how many there are of each kind.

    Raises:
        ValueError: If there are held-out examples and the guide does not say which of its
            parameters are the gates'.
    """
    guide: Any = modules[0].guide
    gates = answers(guide).gate_parameters
    if held_out is not None and not gates:
        raise ValueError(
            f"Expected a guide that names its gate_parameters where held_out is given, but "
            f"{type(guide).__name__} has none. Use MeanFieldGuide or LowRankGuide, or derive "
            "yours from guides.RelevanceGuide."
        )
    recordable = _recordable(modules, batches, num_particles, elbo)
    program: Program = recordable or LoopProgram(modules, num_particles)

    def recorded() -> ReplayedProgram:
        assert recordable is not None
        return ReplayedProgram(recordable, None if replay else num_steps)

    may_record = recordable is not None and replay is not False
    if held_out is not None:
        return TwoLevelProgram(program, held_out, gates, recorded if may_record else None)
    return recorded() if may_record else program


def _recordable(
    modules: Sequence[ELBOModule], batches: Batches, num_particles: int, elbo: ELBO | None
) -> RecordableProgram | None:
    """Return all chains in one call, or None where network, guide or ELBO do not allow it."""
    model: Any = modules[0].model
    lean = elbo is None or type(elbo) is LeanELBO
    # Which operations a step skips depends on the gates that were drawn: steps differ.
    skips = model.has_operations and model.operation_relaxation.skips_zeros
    if not lean or skips or not answers(modules[0].guide).vectorised:
        return None
    if len(modules) == 1:
        return LoopProgram(modules, num_particles)
    return _vectorised(modules, batches, num_particles)


def _vectorised(
    modules: Sequence[ELBOModule], batches: Batches, num_particles: int
) -> VectorisedProgram | None:
    program = VectorisedProgram(modules, num_particles)
    model: Any = modules[0].model
    x, y = batches.of_chain(0)
    try:
        still = model.in_mode(update_statistics=False)
        with torch.no_grad(), warnings.catch_warnings(), still:
            # An operator without a batching rule is looped over by torch; then chains can be too.
            warnings.filterwarnings("error", message="There is a performance drop")
            program.losses(x[: batches.batch_size], y[: batches.batch_size], False, 1.0)
    except (RuntimeError, ValueError, UserWarning):  # or control flow that depends on data
        return None
    return program


def parameter_groups(
    program: Program, learning_rate: float, gate_learning_rate: float
) -> list[dict[str, Any]]:
    """Return the optimiser's groups: gates with a step size of their own, and all the rest.

    Args:
        program: The chains.
        learning_rate: Step size of weights and their posterior.
        gate_learning_rate: Step size of the guide's ``gate_parameters``.

    Raises:
        ValueError: If nothing can be trained.
    """
    guide: Any = program.modules[0].guide
    gates = {f"guide.{name}" for name in answers(guide).gate_parameters}
    named = program.named_parameters()
    groups = [
        {"params": [p for n, p in named if n not in gates], "lr": learning_rate, "gates": False},
        {"params": [p for n, p in named if n in gates], "lr": gate_learning_rate, "gates": True},
    ]
    if not named:
        raise ValueError(
            "Expected parameters to train, but all of them are frozen. Set requires_grad."
        )
    return [{**group, "initial_lr": group["lr"]} for group in groups if group["params"]]
