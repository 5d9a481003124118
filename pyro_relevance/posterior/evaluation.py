"""Evaluation of a posterior without side effects: hard gates, evaluation mode, copies."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from pyro_relevance._random import local_pyro
from pyro_relevance.edges.find import Edges
from pyro_relevance.edges.modules import evaluating
from pyro_relevance.edges.representation.summary import Summary, counted_groups
from pyro_relevance.graphs.graph import MixedOperation
from pyro_relevance.model.elbo import site_terms
from pyro_relevance.model.guides.protocol import answers
from pyro_relevance.model.inputs import accepted, checked_pair
from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.model.precision import Precision
from pyro_relevance.posterior.draws import Draws

if TYPE_CHECKING:
    from pyro_relevance.posterior.posterior import Posterior

__all__ = [
    "ShownPosterior",
    "chain_likelihood",
    "chain_outputs",
    "chain_terms",
    "checked_mask",
    "error_rate",
    "mean_log_likelihood",
    "posterior_summary",
    "quiet",
]


@contextmanager
def quiet(model: RelevanceModel) -> Iterator[None]:
    """Evaluation mode, one draw of the gates for all examples, local parameters, no validation.

    All of it is restored afterwards, so that a posterior can be looked at while a run goes on.

    Args:
        model: The model of a posterior.
    """
    with local_pyro(), model.in_mode(noise="shared"), evaluating(model):
        yield


def chain_likelihood(model: RelevanceModel, state: Mapping[str, Tensor]) -> Likelihood:
    """Return a copy of the likelihood with the parameters of one chain.

    Args:
        model: The model.
        state: Parameters and buffers of the chain, by the names of an ELBO module.
    """
    likelihood = copy.deepcopy(model.likelihood)
    if isinstance(likelihood, nn.Module):
        own = {name: state[f"model.likelihood.{name}"] for name in likelihood.state_dict()}
        likelihood.load_state_dict(own)
        likelihood.eval()
    return likelihood


def chain_outputs(
    model: RelevanceModel,
    state: Mapping[str, Tensor],
    draws: Draws,
    chain: int,
    mask: Mapping[str, Tensor],
    x: Tensor,
) -> Tensor:
    """Return the network's outputs for each draw of a chain.

    Args:
        model: The model.
        state: Parameters and buffers of the chain, by the names of an ELBO module.
        draws: Draws of gates and weights.
        chain: Which chain of the draws.
        mask: Group -> gates that multiply those of every draw; empty for none.
        x: ``(num_data, ...)`` inputs.

    Returns:
        ``(num_samples, num_data, num_outputs)``.
    """
    network = copy.deepcopy(model.network).eval()
    for module in network.modules():
        if isinstance(module, MixedOperation):
            module.skip_zeros = model.has_operations  # the gates are hard
    buffers = {name: state[f"model.network.{name}"] for name, _ in network.named_buffers()}
    outputs = []
    with torch.no_grad():
        for index in range(draws.num_samples):
            parameters = {
                n: w[chain, min(index, len(w[chain]) - 1)] for n, w in draws.weights.items()
            }
            gates = {name: gate[chain, index] for name, gate in draws.gates.items()}
            if mask:
                gates = {name: kept * gates.get(name, 1.0) for name, kept in mask.items()}
            gates |= {name: gate[chain, index] for name, gate in draws.operations.items()}
            folded = model.edges.fold(parameters, gates) if gates else {}
            outputs.append(functional_call(network, {**buffers, **parameters, **folded}, (x,)))
    return torch.stack(outputs)


def checked_mask(edges: Edges, mask: Mapping[str, Tensor], like: Tensor) -> dict[str, Tensor]:
    """Return a mask as gates.

    Args:
        edges: The gated edges.
        mask: Group -> ``(*group.shape)``, true = kept.
        like: A tensor of the type and on the device that the gates shall have.

    Raises:
        ValueError: If a group is missing or has another shape.
    """
    for group in edges:
        shape = tuple(mask[group.name].shape) if group.name in mask else None
        if shape != group.shape:
            raise ValueError(
                f"Expected mask['{group.name}'] of shape {group.shape}, but got {shape}. "
                "Make masks with the rules of pyro_relevance.masks from this posterior."
            )
    return {group.name: mask[group.name].to(like) for group in edges}


def chain_terms(
    model: RelevanceModel,
    guide: nn.Module,
    state: Mapping[str, Tensor],
    num_samples: int,
) -> Tensor:
    """Return what all sites but the targets add to the negative ELBO of one chain, in nats.

    Gates are hard, also where a guide's reverse model reads them.

    Args:
        model: The model; `quiet` is in force.
        guide: Its guide.
        state: Parameters and buffers of the chain, by the names of an ELBO module.
        num_samples: Draws that are averaged.

    Returns:
        Scalar.
    """
    terms = _Terms(model, guide)
    own = {name for name, _ in [*terms.named_parameters(), *terms.named_buffers()]}
    tensors = {name: tensor for name, tensor in state.items() if name in own}

    def total(_: Tensor) -> Tensor:
        value: Tensor = functional_call(terms, tensors, ())
        return value

    with torch.no_grad(), model.in_mode(hard_gates=True):
        if answers(guide).vectorised:
            values: Tensor = vmap(total, randomness="different")(torch.zeros(num_samples))
        else:
            values = torch.stack([total(torch.zeros(())) for _ in range(num_samples)])
    return values.mean()


class _Terms(nn.Module):
    """The sum of the latent sites' contributions, under the names of an ELBO module."""

    def __init__(self, model: RelevanceModel, guide: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.guide = guide

    def forward(self) -> Tensor:
        terms = site_terms(self._latents, self.guide)
        return sum(terms.values(), next(self.model.network.parameters()).new_zeros(()))

    def _latents(self) -> None:
        """Run the model up to its parameters: the network itself is not needed."""
        model: Any = self.model
        model.sample_latents(1)


def mean_log_likelihood(
    network: nn.Module,
    likelihood: Likelihood,
    data: tuple[Tensor, Tensor],
    *,
    precision: Precision = Precision(),  # noqa: B008 (a frozen value)
    batch_size: int = 500,
) -> float:
    """Return the mean log likelihood of examples, in nats.

    Args:
        network: The network, in evaluation mode.
        likelihood: Distribution of the target.
        data: The examples.
        precision: How the network is computed.
        batch_size: Examples that are computed at once.

    Raises:
        TypeError: If one of the data is no tensor.
        ValueError: If lengths differ, a number is not finite, or the network does not accept ``x``.
    """
    data, total = checked_pair(network, *data), 0.0
    with torch.no_grad():
        for x, y in zip(*(part.split(batch_size) for part in data), strict=True):
            with precision.context(x.device), accepted(network, x):
                outputs = network(precision.arrange(x))
            if precision.autocast is not None:
                outputs = outputs.to(next(network.parameters()).dtype)
            total += float(likelihood(outputs).log_prob(y).sum())
    return total / len(data[0])


class ShownPosterior:
    """How a posterior shows itself: a line in a console, a table in a notebook."""

    def __repr__(self) -> str:
        return str(posterior_summary(cast("Posterior", self)))

    def _repr_html_(self) -> str:
        return posterior_summary(cast("Posterior", self)).html()


def posterior_summary(posterior: Posterior) -> Summary:
    """Return chains, guide and groups of a posterior; inclusion where it costs no draws.

    Args:
        posterior: The fitted posterior.
    """
    exact = posterior.model.has_gates and answers(posterior.guide).independent_gates
    probability = posterior.inclusion_probability() if exact else {}
    rows = []
    for group in posterior.edges.groups:
        own = probability.get(group.name)
        means = () if own is None else own.flatten(1).double().mean(1).tolist()
        span = f"{min(means):.2f} .. {max(means):.2f}" if means else "-"
        mean = f"{sum(means) / len(means):.2f}" if means else "-"
        rows.append((group.name, group.granularity, f"{group.num_edges:,}", mean, span))
    counts = [(group.name, group.num_edges) for group in posterior.edges.groups]
    facts = (
        f"{posterior.num_chains} chain{'s' if posterior.num_chains > 1 else ''} of "
        f"{counted_groups(counts)}",
        type(posterior.guide).__name__,
        str(posterior.device),
    )
    header = ("group", "granularity", "edges", "mean inclusion", "over chains")
    return Summary("Posterior", facts, header, tuple(rows))


def error_rate(scores: Tensor, y: Tensor) -> float:
    """Return the share of examples whose class does not have the largest score.

    Args:
        scores: ``(num_data, num_classes)`` logits or probabilities.
        y: ``(num_data,)`` classes.
    """
    return float((scores.argmax(-1) != y).float().mean())
