"""One recipe for tables: from features and a target to a posterior over inputs and weights.

The command ``table`` and the experiments on the UCI sets use it. Its choices were made on
validation data:

- a small fixed noise scale while training: a learned one grows with every gate that closes, and
  the fit becomes stiff;
- a strong Gaussian prior over the weights;
- gates on inputs and on single weights at once;
- a noise model that is fitted afterwards, to predictions for held-out rows.

The recipe is tuned to predict. Point weights and a small fixed noise scale make its inclusion
probabilities overconfident: they rank edges, but false discovery rates computed from them are not
kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pyro_relevance import masks
from pyro_relevance.data.networks import MLP
from pyro_relevance.data.splits import Examples, cross_validation_folds
from pyro_relevance.edges.find import find_edges
from pyro_relevance.masks import Mask
from pyro_relevance.model import likelihoods, priors
from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.model.model import RelevanceModel
from pyro_relevance.model.noise import fit_noise, predictive_log_likelihood
from pyro_relevance.posterior.before_pruning import Fold
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.surgery.pruning import apply_mask
from pyro_relevance.training import schedules
from pyro_relevance.training.callbacks import Callback
from pyro_relevance.training.svi import Checkpoint, Fit, fit

__all__ = [
    "MOST_OUTPUTS",
    "NUM_HELD_OUT",
    "HeldOut",
    "TableRecipe",
    "Rule",
    "evaluate",
    "held_out",
    "make_model",
    "mixture",
    "train",
]

NUM_HELD_OUT = 100
"""Draws of each fold's posterior for its held-out rows; fewer where there are many rows."""

MOST_OUTPUTS = 10**7
"""Outputs of draws that are kept of all rows."""

Rule = Callable[[Posterior], Mask]
"""From the posterior of one chain to what is kept."""


@dataclass(frozen=True)
class TableRecipe:
    """Settings of a fit on a table; inputs and a regression target are expected standardised.

    Args:
        hidden: Units of each hidden layer.
        granularity: What is gated.
        prior_log_odds: Prior log-odds of every gate, in nats.
        noise_scale: Fixed standard deviation of the Gaussian likelihood in training, in standard
            deviations of the target; not used for classes.
        weight_scale: Prior standard deviation of a hidden weight, times the square root of its
            layer's inputs.
        output_scale: The same for the output layer.
        bias_scale: Prior standard deviation of a bias.
        num_steps: Steps of Adam.
        batch_size: Rows in a step.
        learning_rate: Step size for the weights.
        gate_learning_rate: Step size for the log-odds of the gates.
        gated: Whether there are gates; without them this is the dense network, trained the same
            way.
    """

    hidden: tuple[int, ...] = (50,)
    granularity: tuple[str, ...] = ("input", "weight")
    prior_log_odds: float = -1.5
    noise_scale: float = 0.11
    weight_scale: float = 1.1
    output_scale: float = 0.7
    bias_scale: float = 1.0
    num_steps: int = 8000
    batch_size: int = 91
    learning_rate: float = 5e-3
    gate_learning_rate: float = 2e-2
    gated: bool = True

    def widened(self, factor: float) -> TableRecipe:
        """Return the recipe with the prior scales of hidden and output weights multiplied."""
        return replace(
            self,
            weight_scale=self.weight_scale * factor,
            output_scale=self.output_scale * factor,
        )

    def schedules(self) -> schedules.Schedules:
        """Return the course of the temperature, the KL weight and the learning rate."""
        return schedules.Schedules(
            temperature=schedules.within(schedules.exponential(1.0, 0.1), end=0.8),
            kl_weight=schedules.warmup(0.1),
            learning_rate=schedules.within(schedules.cosine(1.0, 0.01), start=0.5),
        )


def make_model(
    recipe: TableRecipe,
    *,
    num_data: int,
    num_inputs: int,
    num_classes: int | None = None,
    input_labels: Sequence[str] | None = None,
    input_index: Sequence[int] | None = None,
    seed: int = 0,
) -> RelevanceModel:
    """Return the model of a recipe.

    Args:
        recipe: The settings.
        num_data: Rows of the training set.
        num_inputs: Columns of the inputs.
        num_classes: Number of classes, or ``None`` for regression.
        input_labels: Names of the input gates.
        input_index: Gate of each column.
        seed: Seed of the initial weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MLP(num_inputs, recipe.hidden, num_classes or 1)
    edges = find_edges(
        network, granularity=recipe.granularity, input_labels=input_labels, input_index=input_index
    )
    likelihood: Likelihood = (
        likelihoods.Categorical()
        if num_classes
        else likelihoods.Gaussian(recipe.noise_scale, learn_noise=False)
    )
    scales = {}
    for name, parameter in network.named_parameters():
        factor = recipe.output_scale if name.startswith("output.") else recipe.weight_scale
        wide = parameter.ndim >= 2
        scales[name] = factor / math.sqrt(parameter.shape[1]) if wide else recipe.bias_scale
    return RelevanceModel(
        network,
        edges,
        likelihood=likelihood,
        num_data=num_data,
        gate_prior=priors.IndependentPrior(recipe.prior_log_odds) if recipe.gated else None,
        weight_prior=priors.PointWeights(scales),
    )


def train(
    recipe: TableRecipe,
    model: RelevanceModel | Sequence[RelevanceModel],
    data: Examples | list[Examples],
    *,
    num_chains: int,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
) -> Fit:
    """Fit the model of a recipe.

    Args:
        recipe: The settings.
        model: Its model, or one for each chain.
        data: One training set for all chains, or one for each.
        num_chains: Number of chains.
        seed: Seed of the run.
        callbacks: Called after each step.
        checkpoint: Where to write the state and to resume from.
    """
    first = model if isinstance(model, RelevanceModel) else model[0]
    steps_per_epoch = -(-first.num_data // min(recipe.batch_size, first.num_data))
    return fit(
        model,
        data,
        num_epochs=max(1, round(recipe.num_steps / steps_per_epoch)),
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        gate_learning_rate=recipe.gate_learning_rate,
        schedules=recipe.schedules(),
        num_chains=num_chains,
        seed=seed,
        callbacks=callbacks,
        progress=False,
        checkpoint=checkpoint,
    )


def evaluate(
    posterior: Posterior, x: Tensor, mask: Mapping[str, Tensor] | None, num_samples: int = 50
) -> Tensor:
    """Return raw outputs of one chain.

    Args:
        posterior: Posterior of one chain.
        x: ``(num_data, num_inputs)``.
        mask: What the pruned network keeps, for its outputs (one sample); ``None`` for draws of
            the posterior.
        num_samples: Number of draws.

    Returns:
        ``(num_samples or 1, num_data, num_outputs)``.
    """
    if mask is None:
        return posterior.predict(x, num_samples=num_samples).outputs[0]
    pruned = apply_mask(posterior.network(), posterior.edges, mask)
    with torch.no_grad():
        return pruned(x).unsqueeze(0)  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Cross-validated predictions for the rows of one training set.

    Args:
        rows: ``(num_rows,)`` numbers of the held-out rows in the training set.
        y: ``(num_rows,)`` their targets.
        sampled: ``(num_samples, num_rows, num_outputs)`` outputs of posterior draws.
        pruned: ``(1, num_rows, num_outputs)`` outputs of the pruned networks.
        networks: The network of each fold: pruned, or dense where the recipe has no gates.
        folds: Outputs of each of them for all rows of the training set, and which were held out.
    """

    rows: NDArray[np.int64]
    y: Tensor
    sampled: Tensor
    pruned: Tensor
    networks: tuple[nn.Module, ...]
    folds: tuple[Fold, ...]

    def noise(self, start: Likelihood, *, pruned: bool) -> Likelihood:
        """Return the noise model of new rows, fitted on these."""
        return fit_noise(start, self.pruned if pruned else self.sampled, self.y)

    def score(self, start: Likelihood, *, pruned: bool = True) -> float:
        """Return the mean log predictive density of a held-out row under fitted noise, in nats."""
        outputs = self.pruned if pruned else self.sampled
        with torch.no_grad():
            return float(
                predictive_log_likelihood(self.noise(start, pruned=pruned), outputs, self.y).mean()
            )


def mixture(held: Sequence[HeldOut]) -> HeldOut:
    """Return the held-out predictions of several candidates, as draws of one posterior.

    The posterior of several chains is a mixture of fits, and predicts better than one of them. The
    candidates are fits of the same rows as well: noise that is fitted to one network's residuals
    would be too wide around the mixture.

    Args:
        held: What `held_out` returned of one training set, one for each candidate.
    """
    return replace(held[0], sampled=torch.cat([candidate.sampled for candidate in held]))


def held_out(
    recipes: Sequence[TableRecipe],
    make: Callable[[TableRecipe, int], RelevanceModel],
    sets: Sequence[Examples],
    *,
    num_folds: int,
    rule: Rule = masks.median_probability,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
) -> list[list[HeldOut]]:
    """Cross-validate recipes inside each of several training sets.

    All sets and folds are chains of one vectorised run, and so are recipes that differ in prior
    log-odds and noise scale alone.

    Args:
        recipes: The candidates.
        make: Makes the model from a recipe and the number of training rows.
        sets: Training sets of the same size.
        num_folds: Folds in each set; a remainder of rows is trained on in every fold.
        rule: What the pruned networks keep.
        seed: Seed of the folds and of the run.
        callbacks: Called after each step.

    Returns:
        For each recipe one `HeldOut` for each set.

    Raises:
        ValueError: If there are fewer than two folds or fewer rows than folds.
    """
    folds, rest = cross_validation_folds(len(sets[0][0]), num_folds, seed=seed)
    data = [(x[r], y[r]) for x, y in sets for r in rest]
    held: dict[int, list[HeldOut]] = {}
    for together in _runs(recipes):
        models = [make(recipes[i], len(rest[0])) for i in together for _ in data]
        posterior = train(
            recipes[together[0]],
            models,
            data * len(together),
            num_chains=len(models),
            seed=seed,
            callbacks=callbacks,
        ).posterior
        for place, i in enumerate(together):
            chains = range(place * len(data), (place + 1) * len(data))
            held[i] = _collect(recipes[i], posterior, chains, sets, folds, rule)
    return [held[i] for i in range(len(recipes))]


def _runs(recipes: Sequence[TableRecipe]) -> list[list[int]]:
    """Return numbers of recipes that can be chains of one run, in order."""
    runs: dict[TableRecipe, list[int]] = {}
    for i, recipe in enumerate(recipes):
        runs.setdefault(replace(recipe, prior_log_odds=0.0, noise_scale=1.0), []).append(i)
    return list(runs.values())


def _collect(
    recipe: TableRecipe,
    posterior: Posterior,
    chains: range,
    sets: Sequence[Examples],
    folds: Sequence[NDArray[np.int64]],
    rule: Rule,
) -> list[HeldOut]:
    """Return the held-out predictions of one recipe, set by set."""
    held = []
    number = iter(chains)
    for x, y in sets:
        number_drawn = min(NUM_HELD_OUT, max(5, MOST_OUTPUTS // len(x))) if recipe.gated else 1
        sampled, networks, whole = [], [], []
        for fold in folds:
            chain = posterior.chain(next(number))
            sampled.append(evaluate(chain, x[fold], None, num_samples=number_drawn))
            network = chain.network()
            if recipe.gated:
                network = apply_mask(network, chain.edges, rule(chain))
            networks.append(network)
            with torch.no_grad():
                whole.append(Fold(network(x).unsqueeze(0), torch.as_tensor(fold)))
        rows = np.concatenate(folds)
        pruned = torch.cat([fold.outputs[:, fold.held_out] for fold in whole], dim=1)
        drawn = torch.cat(sampled, dim=1)
        held.append(HeldOut(rows, y[rows], drawn, pruned, tuple(networks), tuple(whole)))
    return held
