r"""Pruning of small weights within a single training, along a cubic schedule.

References:
    Zhu, Gupta, To prune, or not to prune: exploring the efficacy of pruning for model compression,
    2017 (ICLR 2018 workshop), section 3, eq. (1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pyro_relevance.comparison.baselines.magnitude import kept_weights, smallest_weights
from pyro_relevance.comparison.baselines.recipe import Recipe, seeded_network
from pyro_relevance.comparison.baselines.result import BaselineResult, Stage
from pyro_relevance.training.callbacks import TrainingState
from pyro_relevance.training.plain import set_zeros

__all__ = ["GradualPruning", "gradual_magnitude_pruning"]

FEWEST = 20
"""Prunings of a run that is long enough for them."""


def gradual_magnitude_pruning(
    make_network: Callable[[], nn.Module],
    data: tuple[Tensor, Tensor],
    *,
    recipe: Recipe,
    density: float | Mapping[str, float],
    num_epochs: float,
    start: float = 0.1,
    end: float = 0.6,
    interval: int = 40,
    seed: int = 0,
) -> BaselineResult:
    r"""Prune the smallest weights little by little while the network is trained, once.

    Step t keeps the share

    .. math:: d_t = 1 - (1 - d)\Bigl(1 - \bigl(1 - \tfrac{t - t_0}{t_1 - t_0}\bigr)^3\Bigr)

    of the weights, those of the largest absolute value. A pruned weight stays zero. Biases are
    kept. The learning rate is that of the recipe, without a restart.

    Args:
        make_network: Makes the network with initial weights.
        data: ``x`` of shape ``(num_data, ...)`` and ``y`` of shape ``(num_data, ...)``.
        recipe: How it is trained.
        density: Share d of the weights that is kept in the end, of all layers together; or of each
            layer, by its name.
        num_epochs: Epochs of the training.
        start: Share of the training before pruning starts (step :math:`t_0`).
        end: Share of the training after which nothing more is pruned (step :math:`t_1`). Shares are
            those of the learning rate: of time where the recipe has a deadline.
        interval: Steps between two prunings, at most; fewer where the run is too short for 20.
        seed: Seed of everything.

    Returns:
        The network, whose pruned weights are zeros, and the mask of its weights.

    Raises:
        ValueError: If a density is not in (0, 1] or names an unknown layer, or a number is out of
            range.

    References:
        Zhu and Gupta 2017, eq. (1), with initial sparsity 0.
    """
    network = seeded_network(make_network, seed)
    smallest_weights(network, density)  # checks the densities before any work
    pruning = GradualPruning(density, start=start, end=end, interval=interval)
    trained = recipe.train(
        network,
        data,
        num_epochs=num_epochs,
        until=recipe.deadline,
        name="gradual",
        callbacks=[pruning],
        seed=seed,
    )
    stage = Stage.of(trained, "training with pruning", "training")
    return BaselineResult.of(trained, kept_weights(trained.network), [stage], data[0][:2])


class GradualPruning:
    """A callback that sets the smallest weights to zero, more and more of them.

    Args:
        density: As of `gradual_magnitude_pruning`, as are the others.
        start: See above.
        end: See above.
        interval: See above.

    Raises:
        ValueError: If not 0 <= start < end <= 1, or the interval is not positive.
    """

    def __init__(
        self,
        density: float | Mapping[str, float],
        *,
        start: float = 0.1,
        end: float = 0.6,
        interval: int = 40,
    ) -> None:
        if not 0 <= start < end <= 1:
            raise ValueError(
                f"Expected 0 <= start < end <= 1, but got {start} and {end}. They are shares of "
                "the steps."
            )
        if interval < 1:
            raise ValueError(f"Expected interval >= 1, but got {interval}.")
        self.density = density
        self.start, self.end, self.interval = start, end, interval
        self.load({})

    def __call__(self, state: TrainingState) -> None:
        """Prune where it is time to, and write the zeros of earlier prunings again."""
        done = min(1.0, max(0.0, (state.progress - self.start) / (self.end - self.start)))
        if done == 0:
            self.last = state.step
        elif self._is_due(state, done):
            self.last, self.done = state.step, done
            self.zeros = smallest_weights(state.model.network, self.density_after(done))
        set_zeros(state.model.network, self.zeros)

    def density_after(self, done: float) -> float | dict[str, float]:
        """Return the density after a share of pruning: exactly the last one after all of it.

        Args:
            done: The share :math:`(t - t_0)/(t_1 - t_0)`, in [0, 1].
        """
        if isinstance(self.density, Mapping):
            return {name: _density(value, done) for name, value in self.density.items()}
        return _density(self.density, done)

    def _is_due(self, state: TrainingState, done: float) -> bool:
        several = int((self.end - self.start) * state.num_steps / FEWEST)
        waited = state.step - self.last >= min(self.interval, max(1, several))
        return self.done < 1 and (waited or done == 1)

    def state(self) -> dict[str, Tensor]:
        """Return the state that an interrupted run needs to go on."""
        numbers = {"last": torch.tensor(self.last), "done": torch.tensor(self.done).double()}
        return {**numbers, **{f"zeros/{name}": zeros for name, zeros in self.zeros.items()}}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned; nothing starts again."""
        self.last = int(state["last"]) if state else 0
        self.done = float(state["done"]) if state else 0.0
        self.zeros = {
            name.removeprefix("zeros/"): entries
            for name, entries in state.items()
            if name.startswith("zeros/")
        }


def _density(last: float, done: float) -> float:
    """The formula above, in the form that is exact at both ends."""
    return last + (1 - last) * (1 - done) ** 3
