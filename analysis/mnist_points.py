"""Points of the MNIST experiments: gates, priors and settings on the way from large to small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn

from pyro_relevance import Edges, networks
from pyro_relevance.model.model import Noise

__all__ = ["EXPERIMENTS", "Experiment", "Point", "Settings"]


@dataclass(frozen=True)
class Point:
    """A point on the way from large to small, and how it is reached.

    Args:
        method: Name in the record.
        prior_log_odds: Of the gates, in nats, by group; ``"units"`` and ``"weights"`` stand for all
            groups of the kind. Empty for no gates.
        start: Method of the pruned network that this one starts from (same seed); empty for a new
            network.
        limit: Most parameters that are kept. Only where the posterior keeps more, edges with the
            lowest inclusion probability are removed, too.
        num_epochs: Epochs over the training images.
        kl_weight: Factor of the KL at the end of its warm-up. Below 1 the likelihood counts more
            than once, since images are seen at several positions.
        learning_rate: Step size of Adam for the weights.
        gate_learning_rate: Step size of Adam for the gates' log-odds.
        initial_log_odds: Of the gates' posterior, in nats.
        weight_scale: Prior standard deviation of the weights.
    """

    method: str
    prior_log_odds: dict[str, float] = field(default_factory=dict)
    start: str = ""
    limit: int = 266_610
    num_epochs: int = 100
    kl_weight: float = 1.0
    learning_rate: float = 2e-3
    gate_learning_rate: float = 0.1
    initial_log_odds: float = 2.0
    weight_scale: float = 0.3

    @property
    def granularity(self) -> tuple[str, ...]:
        """The granularity of the gates."""
        if "weights" in self.prior_log_odds:
            return ("weight",)
        return ("input", "unit") if "inputs" in self.prior_log_odds else ("unit",)

    @property
    def noise(self) -> Noise:
        """Gates are drawn for each example, for less variance; those of weights cannot be."""
        return "shared" if self.granularity == ("weight",) else "per_example"

    def odds(self, edges: Edges) -> dict[str, float | Tensor]:
        """Return the prior log-odds of each group."""
        given = self.prior_log_odds
        return {g.name: given.get(g.name, given.get(f"{g.granularity}s", 0.0)) for g in edges}


DENSE = "dense, trained the same way"
SMALL = "inputs and units, small"
ACCURATE = "inputs and units, accurate"
WEIGHTS = "weights"
FIRST = ", first cut"
FIRST_UNITS = "units, first cut"
ACCURATE_UNITS = "units, accurate"

_LENET300100 = (
    Point(DENSE),
    Point(
        SMALL + FIRST,
        {"inputs": -88.0, "hidden1.units": -168.0, "hidden2.units": -92.0},
        limit=9600,
        num_epochs=60,
    ),
    Point(
        SMALL,
        {"units": -20.0},
        start=SMALL + FIRST,
        limit=9600,
        num_epochs=200,
        learning_rate=4e-3,
        initial_log_odds=4.0,
    ),
    Point(
        ACCURATE + FIRST,
        {"inputs": -42.0, "hidden1.units": -78.0, "hidden2.units": -50.0},
        limit=30_000,
        num_epochs=60,
    ),
    Point(
        ACCURATE,
        {"units": -10.0},
        start=ACCURATE + FIRST,
        limit=30_000,
        num_epochs=200,
        learning_rate=4e-3,
        initial_log_odds=4.0,
    ),
    Point(
        WEIGHTS,
        {"weights": -7.0},
        start=ACCURATE + FIRST,
        limit=2662,
        num_epochs=200,
        kl_weight=0.55,
        learning_rate=3e-3,
        gate_learning_rate=3e-2,
        initial_log_odds=4.0,
        weight_scale=3.0,
    ),
)
"""Two fits lead to a point. The first finds what matters in LeNet-300-100; the second goes on with
the pruned network and new gates, several times faster."""


_LENET5 = (
    Point(
        FIRST_UNITS,
        {"conv1.units": -60.0, "conv2.units": -200.0, "hidden1.units": -50.0},
        limit=9900,
        num_epochs=10,
    ),
    Point(
        ACCURATE_UNITS,
        {"units": -3.0},
        start=FIRST_UNITS,
        limit=10_000,
        num_epochs=50,
        learning_rate=4e-3,
        initial_log_odds=4.0,
    ),
    Point(
        WEIGHTS,
        {"weights": -5.0},
        start=ACCURATE_UNITS,
        limit=2800,
        num_epochs=50,
        kl_weight=0.55,
        learning_rate=3e-3,
        gate_learning_rate=3e-2,
        initial_log_odds=4.0,
        weight_scale=3.0,
    ),
)
"""LeNet-5-Caffe is pruned once, goes on with the kept units, and then with their weights."""


@dataclass(frozen=True)
class Settings:
    """What the experiment does.

    Args:
        points: The points; one that starts from another stands after it.
        num_seeds: Runs of each.
        num_data: Training images, at most.
        num_validation: Images that ``--validate`` carves from the training images.
        max_shift: Training images move by at most as many pixels, up or down and sideways.
        batch_size: Images in a step.
        warmup: Share of the steps in which the KL weight rises.
        decay: Share of the steps after which the learning rate falls, along a cosine to 1 %.
    """

    points: tuple[Point, ...]
    num_seeds: int = 5
    num_data: int = 60_000
    num_validation: int = 10_000
    max_shift: int = 1
    batch_size: int = 128
    warmup: float = 0.5
    decay: float = 0.4


@dataclass(frozen=True)
class Experiment:
    """A network and what is done with it.

    Args:
        record: Name of the record.
        make_network: Makes the network with initial weights.
        settings: Points and settings.
        widths: Names of the inputs of the first layer and of the units of all layers but the last,
            for the record; ``""`` for those without a metric.
    """

    record: str
    make_network: Callable[[], nn.Module]
    settings: Settings
    widths: tuple[str, ...]


EXPERIMENTS = {
    "lenet300100": Experiment(
        "mnist_lenet300100",
        networks.LeNet300100,
        Settings(_LENET300100),
        ("num_inputs", "num_hidden1", "num_hidden2"),
    ),
    "lenet5": Experiment(
        "mnist_lenet5",
        networks.LeNet5Caffe,
        Settings(_LENET5),
        ("", "num_conv1", "num_conv2", "num_hidden1"),
    ),
}
"""The networks that ``run_mnist`` knows."""
