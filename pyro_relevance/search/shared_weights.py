"""Values of architectures under the weights that they share, without a training of their own."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from pyro_relevance.graphs.architectures import Architecture, choose
from pyro_relevance.graphs.graph import MixedOperation
from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.model.precision import Precision
from pyro_relevance.posterior.evaluation import mean_log_likelihood

__all__ = ["SharedWeights"]


class SharedWeights:
    """Mean held-out log likelihood of architectures under the weights of one relaxed network.

    Only the operations of the architecture are computed. Weights should have been trained along
    random paths, so that they serve all architectures alike.

    Args:
        network: The relaxed network; it is copied.
        likelihood: Distribution of the target.
        held_out: ``x`` of shape ``(num_data, ...)`` and ``y`` of shape ``(num_data, ...)``,
            examples that the weights were not trained on, on the device of the network.
        precision: How the network is computed.
        batch_size: Examples that are computed at once; where layers normalise with the statistics
            of the batch, values depend on it.

    Raises:
        ValueError: If the network has no relaxed graph, there are no examples or not as many
            targets, or ``batch_size`` is not positive.
    """

    def __init__(
        self,
        network: nn.Module,
        likelihood: Likelihood,
        held_out: tuple[Tensor, Tensor],
        *,
        precision: Precision = Precision(),  # noqa: B008 (a frozen value)
        batch_size: int = 500,
    ) -> None:
        sizes = [len(part) for part in held_out]
        if batch_size < 1 or sizes[0] == 0 or sizes[0] != sizes[1]:
            raise ValueError(
                f"Expected as many held-out inputs as targets and a positive batch_size, but got "
                f"{sizes[0]}, {sizes[1]} and {batch_size}."
            )
        self._network = copy.deepcopy(network).eval()
        mixed = [m for m in self._network.modules() if isinstance(m, MixedOperation)]
        if not mixed:
            raise ValueError(
                f"Expected a network with relaxed graphs, but {type(network).__name__} has none."
            )
        for module in mixed:
            module.skip_zeros = True
        precision.prepare(self._network)
        self._likelihood = likelihood
        self._held_out = precision.arrange(held_out[0]), held_out[1]
        self._precision, self._batch_size = precision, batch_size

    def __call__(self, architecture: Architecture) -> float:
        """Return the mean log likelihood of a held-out example, in nats.

        Args:
            architecture: A choice of operations.

        Raises:
            ArchitectureError: If it does not fit the network.
        """
        choose(self._network, architecture)
        return mean_log_likelihood(
            self._network,
            self._likelihood,
            self._held_out,
            precision=self._precision,
            batch_size=self._batch_size,
        )
