"""Published methods that are settings of this library, called like the other baselines.

Each of them is a prior, a relaxation and a score, without code of its own:

- Gaussian weights: mean-field posterior over the weights, their signal-to-noise ratio;
- sparse variational dropout: a log-uniform prior over the weights, their signal-to-noise ratio;
- hard concrete gates under an L0 penalty: a penalty of some nats for each edge that is on is a
  prior of as many log-odds (the ELBO also has the entropy of the gates, at most ln 2 for each);
- group normal-Jeffreys: Gaussian weights whose scale has the prior 1/s for each input column (the
  limit of the inverse gamma prior of ``ArdWeights``), scored by the column's signal-to-noise ratio;
- Gumbel-softmax gates without KL: a KL weight of a millionth.

References:
    Molchanov, Ashukha, Vetrov, Variational dropout sparsifies deep neural networks, ICML 2017.
    Louizos, Welling, Kingma, Learning sparse neural networks through L0 regularization, ICLR 2018.
    Louizos, Ullrich, Welling, Bayesian compression for deep learning, NeurIPS 2017, section 4.1.
    Graves, Practical variational inference for neural networks, NeurIPS 2011, section 6.
    Blundell, Cornebise, Kavukcuoglu, Wierstra, Weight uncertainty in neural networks, ICML 2015.
    Jang, Gu, Poole, Categorical reparameterization with Gumbel-softmax, ICLR 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

from pyro_relevance import masks
from pyro_relevance.comparison.baselines.filter_pruning import the_limit
from pyro_relevance.comparison.baselines.recipe import Recipe, length, seeded_network
from pyro_relevance.comparison.baselines.result import BaselineResult, Stage
from pyro_relevance.edges.find import find_edges
from pyro_relevance.edges.gates import sum_over_consumers
from pyro_relevance.masks import Mask
from pyro_relevance.model import guides
from pyro_relevance.model.model import Noise, RelevanceModel
from pyro_relevance.model.priors import (
    ArdWeights,
    GatePrior,
    GaussianWeights,
    IndependentPrior,
    LogUniformWeights,
    PointWeights,
    WeightPrior,
)
from pyro_relevance.model.relaxations import Concrete, HardConcreteGate, Relaxation
from pyro_relevance.posterior import relevance
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.surgery.pruning import prune
from pyro_relevance.training.callbacks import Callback
from pyro_relevance.training.plain import zero_entries
from pyro_relevance.training.schedules import Schedules, cosine, warmup, within
from pyro_relevance.training.svi import Fit, fit

__all__ = ["Configuration", "Score", "configurations", "fit_and_prune", "fit_configuration"]

Score = Literal["inclusion_probability", "expected_magnitude", "signal_to_noise"]
"""What ranks edges. The expected magnitude is the norm of the weights times the probabilities of
their gates: it goes on to rank where the probabilities are all close to 1."""


@dataclass(frozen=True)
class Configuration:
    """The settings that define a method.

    Args:
        granularity: What is gated.
        gate_prior: Prior over the gates; ``None`` for no gates.
        weight_prior: Prior over the weights; ``None`` for the Gaussian one of the recipe.
        relaxation: How gates are relaxed.
        kl_weight: Factor of the KL at the end of its warm-up.
        score: The score that ranks edges.
        noise: See ``fit``.
        gate_learning_rate: Step size of Adam for the gates' log-odds.
        initial_log_odds: Of the gates' posterior, in nats.

    Raises:
        ValueError: If the score is unknown, or the KL weight is not positive.
    """

    granularity: tuple[str, ...]
    gate_prior: GatePrior | None = IndependentPrior(-1.0)
    weight_prior: WeightPrior | None = None
    relaxation: Relaxation = Concrete()
    kl_weight: float = 1.0
    score: Score = "inclusion_probability"
    noise: Noise = "shared"
    gate_learning_rate: float = 3e-2
    initial_log_odds: float = 3.0

    def __post_init__(self) -> None:
        if self.score not in get_args(Score):
            raise ValueError(f"Expected score from {list(get_args(Score))}, got {self.score!r}.")
        if not self.kl_weight > 0:
            raise ValueError(
                f"Expected kl_weight > 0, but got {self.kl_weight}. Use a small number for none."
            )


def configurations(
    prior_log_odds: float, *, units: tuple[str, ...] = ("unit",), weight_scale: float = 1.0
) -> dict[str, Configuration]:
    """Return the configurations by name.

    Args:
        prior_log_odds: Of each gate on a weight, in nats: the strength of the priors that have one.
        units: Granularity of those that gate columns.
        weight_scale: Prior standard deviation of Gaussian weights.
    """
    prior = IndependentPrior(prior_log_odds)
    return {
        "relevance of weights": Configuration(("weight",), prior, score="expected_magnitude"),
        "sparse variational dropout": Configuration(
            ("weight",), None, LogUniformWeights(), score="signal_to_noise"
        ),
        "hard concrete L0": Configuration(
            ("weight",), prior, relaxation=HardConcreteGate(), score="expected_magnitude"
        ),
        "Gaussian weights": Configuration(
            ("weight",), None, GaussianWeights(weight_scale), score="signal_to_noise"
        ),
        "Gaussian weights of units": Configuration(
            units, None, GaussianWeights(weight_scale), score="signal_to_noise"
        ),
        "group normal-Jeffreys": Configuration(
            units, None, ArdWeights(1e-3, 1e-6), score="signal_to_noise"
        ),
        "Gumbel-softmax without KL": Configuration(
            ("weight",), IndependentPrior(0.0), kl_weight=1e-6, score="expected_magnitude"
        ),
    }


def fit_and_prune(
    make_network: Callable[[], nn.Module],
    data: tuple[Tensor, Tensor],
    *,
    recipe: Recipe,
    configuration: Configuration,
    num_epochs: float,
    num_epochs_after: float,
    num_parameters: int | None = None,
    num_macs: int | None = None,
    share: float = 0.6,
    seed: int = 0,
) -> BaselineResult:
    """Fit the posterior, keep the highest-scoring edges within a limit, and retrain the network.

    Args:
        make_network: Makes the network with initial weights.
        data: ``x`` of shape ``(num_data, ...)`` and ``y`` of shape ``(num_data, ...)``.
        recipe: How it is trained.
        configuration: The method.
        num_epochs: Epochs of the fit.
        num_epochs_after: Epochs after pruning.
        num_parameters: Largest number of parameters (that are not zero) after pruning; or
        num_macs: largest number of multiply-accumulates for one example. Exactly one of them.
        share: Share of the time for the fit, where the recipe has a deadline.
        seed: Seed of everything.

    Returns:
        The small network and the mask of the gated edges.

    Raises:
        ValueError: If not exactly one limit is given, or it cannot be reached.
    """
    the_limit(num_parameters, num_macs)  # before any work
    fitted = fit_configuration(
        make_network,
        data,
        recipe=recipe,
        configuration=configuration,
        num_epochs=num_epochs,
        until=recipe.until(share),
        seed=seed,
    )
    posterior, loss = fitted.posterior, float(fitted.history.final_loss()[0])
    num_epochs = recipe.epochs(fitted, data)
    history = [Stage("posterior", "search", num_epochs, fitted.seconds, loss)]
    mask = _within_limit(posterior, configuration.score, num_parameters, num_macs)
    small = prune(posterior.network(), posterior.edges, mask, example_input=data[0][:2])
    trained = recipe.train(
        small.network,
        data,
        num_epochs=num_epochs_after,
        retraining=True,
        until=recipe.deadline,
        zeros=zero_entries(small.network),
        name="retraining",
        seed=seed,
    )
    history.append(Stage.of(trained, "retraining", "retraining"))
    return BaselineResult.of(trained, mask, history, data[0][:2])


def fit_configuration(
    make_network: Callable[[], nn.Module],
    data: tuple[Tensor, Tensor],
    *,
    recipe: Recipe,
    configuration: Configuration,
    num_epochs: float,
    until: float = math.inf,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
) -> Fit:
    """Fit the posterior of a configuration.

    Args:
        make_network: Makes the network with initial weights.
        data: ``x`` of shape ``(num_data, ...)`` and ``y`` of shape ``(num_data, ...)``.
        recipe: How it is trained.
        configuration: The method.
        num_epochs: Number of epochs.
        until: As of ``Recipe.train``.
        callbacks: Called after each step.
        seed: Seed of everything.
    """
    network = seeded_network(make_network, seed)
    edges = find_edges(network, example_input=data[0][:2], granularity=configuration.granularity)
    model = RelevanceModel(
        network,
        edges,
        likelihood=recipe.likelihood,
        num_data=len(data[0]),
        gate_prior=configuration.gate_prior,
        weight_prior=configuration.weight_prior or PointWeights(recipe.weight_scale),
        relaxation=configuration.relaxation,
    )
    return fit(
        model,
        data,
        guide=lambda m: guides.MeanFieldGuide(m, initial_log_odds=configuration.initial_log_odds),
        **length(num_epochs, until),
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        gate_learning_rate=configuration.gate_learning_rate,
        schedules=Schedules(
            kl_weight=warmup(
                0.5, start=1e-3 * configuration.kl_weight, end=configuration.kl_weight
            ),
            learning_rate=within(cosine(1.0, 0.05), 0.4),
        ),
        noise=configuration.noise,
        augment=recipe.augment,
        precision=recipe.precision,
        callbacks=[*recipe.bars("posterior"), *callbacks],
        progress=False,
        seed=seed,
    )


def _within_limit(
    posterior: Posterior, score: Score, num_parameters: int | None, num_macs: int | None
) -> Mask:
    """The highest-scoring edges within a limit."""
    return masks.budget(
        _scores(posterior, score),
        num_parameters=num_parameters,
        num_macs=num_macs,
        edges=posterior.edges,
    )


def _scores(posterior: Posterior, score: Score) -> dict[str, Tensor]:
    if score != "signal_to_noise":
        probability = {name: p[0] for name, p in posterior.inclusion_probability().items()}
        if score == "inclusion_probability":
            return probability
        gated = posterior.edges.fold(dict(posterior.network().named_parameters()), probability)
        squares = {name: gated[name].detach().square() for name in posterior.edges.folded_names}
        return {g.name: sum_over_consumers(squares, g, 0).sqrt() for g in posterior.edges}
    draws = posterior.sample(50, seed=0)
    return relevance.of_chain(relevance.signal_to_noise(draws, posterior.edges), 0)
