"""What a network behind a mask will lose: predictive intervals before anything is removed.

Three things are unknown of the loss on new rows: the network (draws of the weights given that the
gates are the mask), the law of the rows (a Bayesian bootstrap of rows that were held out), and
which rows will come (a sample of them). Each draw here has one of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pyro_relevance._random import substream
from pyro_relevance.edges.modules import evaluating
from pyro_relevance.masks import Mask
from pyro_relevance.posterior.evaluation import chain_outputs, quiet
from pyro_relevance.posterior.intervals import (
    Interval,
    LossInterval,
    interval,
    losses_and_errors,
)

if TYPE_CHECKING:
    from pyro_relevance.model.likelihoods import Likelihood
    from pyro_relevance.posterior.posterior import Posterior

__all__ = [
    "Fold",
    "cross_validated_loss_interval",
    "expected_rise",
    "network_loss_interval",
    "pruned_loss_interval",
    "without",
]

_BLOCK = 2**22
"""Numbers of a bootstrap that are in memory at once."""

_Scores = tuple[Tensor, Tensor]
"""Losses and errors, each ``(num_networks, num_rows)``."""


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Outputs of the networks of one fold.

    Args:
        outputs: ``(num_networks, num_data, num_outputs)`` raw outputs for all rows.
        held_out: ``(num_held_out,)`` numbers of the rows that these networks were not trained on.
    """

    outputs: Tensor
    held_out: Tensor


def pruned_loss_interval(
    posterior: Posterior,
    mask: Mapping[str, Tensor],
    data: tuple[Tensor, Tensor],
    *,
    likelihood: Likelihood | None = None,
    num_rows: int | None = None,
    num_samples: int = 100,
    num_draws: int = 4000,
    seed: int = 0,
    probability: float = 0.9,
) -> LossInterval:
    """Predictive interval of loss and error behind a mask, on rows like those held out.

        L = sum_i v_i loss(f_s, row_i),   s ~ q(w | gates = mask),   v ~ rows drawn from a
        Bayesian bootstrap of the rows: w ~ Dirichlet(1, ..., 1),  v ~ Multinomial(num_rows, w) /
        num_rows,  or v = w without num_rows

    With point weights there is one network, and the interval is that of the rows alone.

    Args:
        posterior: Posterior of one chain.
        mask: Group -> ``(*group.shape)``, true = kept: the gates of every draw.
        data: ``(num_data, ...)`` inputs and targets that were not trained on.
        likelihood: Distribution of the target; ``None`` for that of the chain.
        num_rows: Rows of the test set to come; ``None`` for the expected loss over all rows.
        num_samples: Networks that are drawn.
        num_draws: Draws of the loss.
        seed: Seed of everything.
        probability: Share of the draws between the ends.

    Returns:
        Loss in nats and error, on the scale of the targets given.

    Raises:
        ValueError: If the posterior has several chains or the mask does not fit the edges.

    References:
        Rubin, The Bayesian bootstrap, Annals of Statistics 1981.
    """
    law = likelihood or posterior.likelihood
    outputs = _outputs(posterior, mask, data[0], num_samples, seed)
    drawn = _predictive([losses_and_errors(law, outputs, data[1])], num_rows, num_draws, seed)
    return LossInterval.of(law, *drawn, probability=probability)


def network_loss_interval(
    network: nn.Module,
    likelihood: Likelihood,
    data: tuple[Tensor, Tensor],
    *,
    num_rows: int | None = None,
    num_draws: int = 4000,
    seed: int = 0,
    probability: float = 0.9,
) -> LossInterval:
    """Predictive interval of the loss and error of one network, on rows like those held out.

    As `pruned_loss_interval` with one network: the rows alone are uncertain.

    Args:
        network: The network; it is called in evaluation mode.
        likelihood: Distribution of the target.
        data: ``(num_data, ...)`` inputs and targets that were not trained on.
        num_rows: Rows of the test set to come; ``None`` for the expected loss over all rows.
        num_draws: Draws of the loss.
        seed: Seed of the draws.
        probability: Share of the draws between the ends.

    Returns:
        Loss in nats and error, on the scale of the targets given.
    """
    with evaluating(network), torch.no_grad():
        outputs = network(data[0]).unsqueeze(0)
    scores = losses_and_errors(likelihood, outputs, data[1])
    drawn = _predictive([scores], num_rows, num_draws, seed)
    return LossInterval.of(likelihood, *drawn, probability=probability)


def cross_validated_loss_interval(
    folds: Sequence[Fold],
    whole: Tensor,
    y: Tensor,
    likelihood: Likelihood,
    *,
    num_rows: int | None = None,
    num_draws: int = 4000,
    seed: int = 0,
    probability: float = 0.9,
) -> LossInterval:
    r"""Predictive interval of a network trained on all rows, from networks of cross-validation.

    Each draw is a network of one fold on rows of its own held-out ones, as in
    `pruned_loss_interval`. Networks of folds had fewer rows to learn from; Burman's correction adds
    what they lose by it, with R the mean loss over all rows:

        loss + R(whole) - (1/K) sum_k R(fold k)

    Errors of regression are corrected by a factor, so that they stay positive.

    Args:
        folds: Outputs of the pruned networks of each fold.
        whole: ``(num_networks, num_data, num_outputs)`` outputs of the pruned network trained on
            all rows.
        y: ``(num_data, ...)`` targets of all rows.
        likelihood: Distribution of the target.
        num_rows: Rows of the test set to come; ``None`` for the expected loss over all rows.
        num_draws: Draws of the loss.
        seed: Seed of the draws.
        probability: Share of the draws between the ends.

    Raises:
        ValueError: If there are fewer than two folds.

    References:
        Burman, A comparative study of ordinary cross-validation, v-fold cross-validation and the
        repeated learning-testing methods, Biometrika 1989, eq. (2.3).
    """
    if len(folds) < 2:
        raise ValueError(f"Expected at least two folds, but got {len(folds)}.")
    every = [losses_and_errors(likelihood, fold.outputs, y) for fold in folds]
    own = [
        (losses[:, fold.held_out], errors[:, fold.held_out])
        for fold, (losses, errors) in zip(folds, every, strict=True)
    ]
    fitted = losses_and_errors(likelihood, whole, y)
    shift = [
        fitted[i].mean() - torch.stack([part[i].mean() for part in every]).mean() for i in (0, 1)
    ]
    losses, errors = _predictive(own, num_rows, num_draws, seed)
    held_out = torch.stack([part[1].mean() for part in own]).mean()
    factor = (1.0 + shift[1] / held_out.clamp(min=1e-12)).clamp(min=0.0)
    return LossInterval.of(likelihood, losses + shift[0], errors * factor, probability=probability)


def without(mask: Mask, groups: Sequence[str] = ("inputs",)) -> dict[str, Mask]:
    """Masks that lack one more edge each, and one that lacks a group whole.

    Args:
        mask: What is kept.
        groups: Groups whose kept edges are taken away, one at a time.

    Returns:
        ``"group[number of the edge, row by row]"`` and ``"group"`` -> mask.

    Raises:
        ValueError: If a group is unknown.
    """
    unknown = [name for name in groups if name not in mask]
    if unknown:
        raise ValueError(f"Expected groups out of {list(mask)}, but got {unknown}.")
    found = {}
    for name in groups:
        kept = mask[name]
        for edge in kept.reshape(-1).nonzero()[:, 0].tolist():
            fewer = kept.reshape(-1).clone()
            fewer[edge] = False
            label = f"{name}[{edge}]"
            found[label] = Mask({**mask, name: fewer.reshape(kept.shape)}, rule=f"no {label}")
        found[name] = Mask({**mask, name: torch.zeros_like(kept)}, rule=f"no {name}")
    return found


def expected_rise(
    posterior: Posterior,
    mask: Mapping[str, Tensor],
    data: tuple[Tensor, Tensor],
    removals: Mapping[str, Mapping[str, Tensor]],
    *,
    likelihood: Likelihood | None = None,
    num_samples: int = 50,
    num_draws: int = 4000,
    seed: int = 0,
    probability: float = 0.89,
) -> dict[str, Interval]:
    """Rise of the mean loss of a row when more is removed, in nats; larger = more relevant.

        rise = E_i [ loss(f_s without, row_i) - loss(f_s with, row_i) ]

    The same draws of the weights and the same rows are compared, so that their noise cancels.
    Nothing is retrained: what a retrained network can make up for counts as a rise here.

    Args:
        posterior: Posterior of one chain.
        mask: What is kept.
        data: ``(num_data, ...)`` inputs and targets that were not trained on.
        removals: Name -> what is kept instead, such as `without` makes for single edges and whole
            groups.
        likelihood: Distribution of the target; ``None`` for that of the chain.
        num_samples: Networks that are drawn.
        num_draws: Draws of the rise.
        seed: Seed of everything.
        probability: Share of the draws between the ends.

    Returns:
        Name -> mean rise and interval over networks and a Bayesian bootstrap of the rows.

    Raises:
        ValueError: If the posterior has several chains or a mask does not fit the edges.
    """
    law = likelihood or posterior.likelihood

    def losses(kept: Mapping[str, Tensor]) -> Tensor:
        outputs = _outputs(posterior, kept, data[0], num_samples, seed)
        return losses_and_errors(law, outputs, data[1])[0]

    before = losses(mask)
    rises = {name: losses(kept) - before for name, kept in removals.items()}
    return {
        name: interval(_predictive([(r, r)], None, num_draws, seed)[0], probability=probability)
        for name, r in rises.items()
    }


def _outputs(
    posterior: Posterior, mask: Mapping[str, Tensor], x: Tensor, num_samples: int, seed: int
) -> Tensor:
    """Outputs of draws of the weights given the mask, ``(num_samples or 1, rows, num_outputs)``."""
    if posterior.num_chains != 1:
        raise ValueError(
            f"Expected the posterior of one chain, but got {posterior.num_chains}: a mask belongs "
            "to one of them. Pass posterior.chain(i)."
        )
    draws = posterior.sample(num_samples, seed=seed, given=mask)
    if all(weight.shape[1] == 1 for weight in draws.weights.values()) and not draws.operations:
        # Gates and weights are the same in every draw.
        draws = posterior.sample(1, seed=seed, given=mask)
    state = {name: tensor[0] for name, tensor in posterior.state.items()}
    with quiet(posterior.model):
        return chain_outputs(posterior.model, state, draws, 0, {}, x.to(posterior.device))


def _predictive(
    blocks: Sequence[_Scores], num_rows: int | None, num_draws: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Draws of mean loss and mean error: a block, one of its networks, and rows of the block."""
    if num_rows is not None and num_rows < 1:
        raise ValueError(f"Expected num_rows >= 1, but got {num_rows}.")
    if num_draws < 1:
        raise ValueError(f"Expected num_draws >= 1, but got {num_draws}.")
    generator = torch.Generator().manual_seed(substream(seed, "bootstrap", 0) % 2**63)
    found: list[_Scores] = []
    for number, (losses, errors) in enumerate(blocks):
        # As many draws of each block as of the others, up to one.
        left = num_draws // len(blocks) + (number < num_draws % len(blocks))
        losses, errors = losses.cpu(), errors.cpu()
        step = max(1, _BLOCK // max(losses.shape[1], num_rows or 1))
        while left > 0:
            size = min(step, left)
            left -= size
            weight = _weights(losses.shape[1], num_rows, size, generator)
            network = torch.randint(len(losses), (size,), generator=generator)
            found.append(((weight * losses[network]).sum(1), (weight * errors[network]).sum(1)))
    return torch.cat([part[0] for part in found]), torch.cat([part[1] for part in found])


def _weights(num_known: int, num_rows: int | None, size: int, generator: torch.Generator) -> Tensor:
    """Return ``(size, num_known)`` weights of rows that sum to one."""
    # A Dirichlet of ones is independent exponentials over their sum.
    weight = torch.empty(size, num_known, dtype=torch.float64).exponential_(generator=generator)
    if num_rows is None:
        return weight / weight.sum(1, keepdim=True)
    rows = torch.multinomial(weight, num_rows, replacement=True, generator=generator)
    ones = torch.ones_like(rows, dtype=torch.float64)
    return torch.zeros_like(weight).scatter_add(1, rows, ones) / num_rows
