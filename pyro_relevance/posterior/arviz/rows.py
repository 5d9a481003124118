"""The rows of a data set as ArviZ groups: observed, scored, replicated, predicted; in one unit.

Targets leave the scale of the network here: ``value = mean + scale * y``. A density of the value is
``1 / scale`` of that of y, so every log likelihood is given in the unit of the values too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pyro_relevance._random import seeded, substream

if TYPE_CHECKING:
    import xarray as xr

    from pyro_relevance.model.likelihoods import Likelihood
    from pyro_relevance.posterior.posterior import Posterior

__all__ = ["Features", "HeldOutDraws", "TargetUnits", "prediction_datasets", "row_datasets"]

_Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class TargetUnits:
    """How targets of the network become targets in their own unit: ``mean + scale * y``.

    Args:
        mean: Mean that was subtracted, in the target's unit.
        scale: Standard deviation that was divided by, in the target's unit.
        unit: Name of the unit, for the attributes; may be empty.

    Raises:
        ValueError: If ``scale`` is not positive and finite.
    """

    mean: float = 0.0
    scale: float = 1.0
    unit: str = ""

    def __post_init__(self) -> None:
        """Check the scale."""
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(
                f"Expected a positive scale of the target, but got {self.scale}. Pass the standard "
                "deviation that the targets were divided by."
            )

    @property
    def trivial(self) -> bool:
        """Whether targets stay as they are."""
        return self.mean == 0.0 and self.scale == 1.0

    def values(self, y: Tensor) -> _Array:
        """Return targets in their own unit; whole numbers stay whole where nothing changes."""
        array = y.detach().cpu().numpy()
        return array if self.trivial else self.mean + self.scale * array.astype(np.float64)

    def log_density(self, log_likelihood: Tensor, num_targets: int) -> npt.NDArray[np.float64]:
        """Return log densities of targets in their own unit, in nats."""
        scored = log_likelihood.detach().cpu().numpy().astype(np.float64)
        return scored - num_targets * math.log(self.scale)


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Names and scales of the network's inputs: ``value = mean + scale * x``.

    Args:
        names: Name of each column of the inputs.
        mean: What was subtracted from each column, in the column's unit.
        scale: What each column was divided by, in the column's unit.

    Raises:
        ValueError: If the lengths differ.
    """

    names: Sequence[str]
    mean: Sequence[float]
    scale: Sequence[float]

    def __post_init__(self) -> None:
        """Check the lengths."""
        if not len(self.names) == len(self.mean) == len(self.scale):
            raise ValueError(
                f"Expected as many means and scales as names, but got {len(self.names)} names, "
                f"{len(self.mean)} means and {len(self.scale)} scales."
            )


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutDraws:
    """Outputs for training rows from networks that were not trained on them: cross-validation.

    Args:
        rows: ``(num_rows,)`` numbers of the rows in ``data``, each at most once.
        outputs: ``(num_chains, num_samples, num_rows, num_outputs)`` raw outputs; a chain is one
            cross-validation, whatever fold a row was in.
    """

    rows: npt.NDArray[np.int64]
    outputs: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Writing:
    """What all groups about rows share.

    Args:
        posterior: The fitted result.
        num_samples: Draws in each chain.
        seed: Seed of the draws.
        likelihood: Distribution of new targets; ``None`` for that of each chain.
        target: Unit of the targets.
        features: Names and scales of the inputs.
    """

    posterior: Posterior
    num_samples: int
    seed: int
    likelihood: Likelihood | None = None
    target: TargetUnits = field(default_factory=TargetUnits)
    features: Features | None = None


def row_datasets(
    writing: Writing, x: Tensor, y: Tensor, held_out: HeldOutDraws | None
) -> dict[str, xr.Dataset]:
    """Replicated, scored and observed ``y`` of the training rows, and their inputs.

    Args:
        writing: What all groups share.
        x: ``(num_data, ...)`` inputs of the training rows.
        y: ``(num_data, ...)`` their targets.
        held_out: Outputs of networks that did not see the rows; ``None`` for draws of the
            posterior, which did.
    """
    import xarray as xr

    if held_out is None:
        obs = np.arange(len(y))
        sample, scored = _of_posterior(writing, x, y)[:2]
    else:
        order = np.argsort(held_out.rows)
        obs = np.asarray(held_out.rows)[order]
        x, y = x[obs], y[obs]
        sample, scored = _of_held_out(writing, held_out.outputs[:, :, order], y)
    observed = _flat(writing.target.values(y))
    coords = _coords(scored.shape, "obs", obs)
    dims = ("obs", "output")[: observed.ndim]
    about = {"rows": "posterior" if held_out is None else "held out in cross-validation"}
    unit = {"units": writing.target.unit} if writing.target.unit else {}
    replicated = writing.target.values(sample).reshape(*sample.shape[:2], *observed.shape)
    density = writing.target.log_density(scored, _num_targets(observed))
    groups = {
        "posterior_predictive": xr.Dataset(
            {"y": (("chain", "draw", *dims), replicated, unit)}, coords, about
        ),
        "log_likelihood": xr.Dataset(
            {"y": (("chain", "draw", "obs"), density, {"units": "nats"})}, coords, about
        ),
        "observed_data": xr.Dataset({"y": (dims, observed, unit)}, {"obs": obs}),
    }
    if writing.features is not None:
        groups["constant_data"] = _inputs(writing, x, "obs", obs)
    return groups


def prediction_datasets(writing: Writing, x: Tensor, y: Tensor | None) -> dict[str, xr.Dataset]:
    """Targets drawn for new rows, their expected values, and the inputs of the rows.

    Args:
        writing: What all groups share.
        x: ``(num_new, ...)`` inputs.
        y: ``(num_new, ...)`` their targets where they are known: scored and kept beside.
    """
    import xarray as xr

    drawn, scored, mean = _of_posterior(writing, x, y)
    unit = {"units": writing.target.unit} if writing.target.unit else {}
    new = np.arange(len(x))
    values = {"y": writing.target.values(drawn)}
    # Class probabilities are no targets: they have no unit and keep their own axis.
    classes = mean.shape != drawn.shape
    values["y_mean"] = mean.detach().cpu().numpy() if classes else writing.target.values(mean)
    variables: dict[str, Any] = {}
    for name, array in values.items():
        if array.ndim == 4 and array.shape[-1] == 1:
            array = array[..., 0]
        last = ("class",) if classes and name == "y_mean" else ("output",)
        dims = ("chain", "draw", "new_obs", *(last if array.ndim == 4 else ()))
        variables[name] = (dims, array, {} if last == ("class",) else unit)
    constant = _inputs(writing, x, "new_obs", new)
    if y is not None and scored is not None:
        observed = _flat(writing.target.values(y))
        density = writing.target.log_density(scored, _num_targets(observed))
        dims = ("chain", "draw", "new_obs")
        variables["log_likelihood"] = (dims, density, {"units": "nats"})
        errors = _errors(writing, variables["y_mean"][1], observed)
        variables["loss"] = (dims[:2], -density.mean(-1), {"units": "nats"})
        variables["error"] = (dims[:2], errors, unit)
        constant["y"] = (("new_obs", "output")[: observed.ndim], observed, unit)
    coords = _coords(drawn.shape, "new_obs", new)
    return {
        "predictions": xr.Dataset(variables, coords),
        "predictions_constant_data": constant,
    }


def _of_posterior(writing: Writing, x: Tensor, y: Tensor | None) -> tuple[Tensor, Any, Tensor]:
    """Targets drawn, log likelihood (``None`` without targets) and expected targets."""
    options: dict[str, Any] = {"num_samples": writing.num_samples, "seed": writing.seed}
    if writing.likelihood is not None:
        options["likelihood"] = writing.likelihood
    predicted = writing.posterior.predict(x, **options)
    scored = None if y is None else writing.posterior.log_likelihood(x, y, **options)
    return predicted.sample, scored, predicted.mean


def _errors(writing: Writing, mean: _Array, observed: _Array) -> _Array:
    """RMSE of each draw, or its share of wrong classes, ``(chain, draw)``."""
    law = writing.likelihood or writing.posterior.chain(0).likelihood
    if law.task == "classification":
        chosen = mean.argmax(-1) if mean.ndim > observed.ndim + 2 else mean > 0.5
        return np.asarray((chosen != observed).mean(-1))
    squares = (mean - observed) ** 2
    return np.asarray(np.sqrt(squares.reshape(*squares.shape[:2], -1).mean(-1)))


def _of_held_out(writing: Writing, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Targets drawn and log likelihood under given outputs."""
    law = writing.likelihood or writing.posterior.likelihood
    flat = outputs.flatten(0, 1)
    with torch.no_grad(), seeded(substream(writing.seed, "held-out", 0), outputs.device):
        drawn = torch.stack([law(output).sample() for output in flat])
        scored = torch.stack([law(output).log_prob(y) for output in flat])
    leading = outputs.shape[:2]
    return drawn.reshape(*leading, *drawn.shape[1:]), scored.reshape(*leading, len(y))


def _inputs(writing: Writing, x: Tensor, dim: str, rows: _Array) -> xr.Dataset:
    """The inputs of rows in their own units, and how they were scaled."""
    import xarray as xr

    array = x.detach().cpu().numpy()
    features, target = writing.features, writing.target
    scalars = {"target_mean": ((), target.mean), "target_scale": ((), target.scale)}
    if features is None:
        names = [f"x_dim_{i}" for i in range(array.ndim - 1)]
        return xr.Dataset({"x": ((dim, *names), array), **scalars}, {dim: rows})
    if array.ndim != 2 or array.shape[1] != len(features.names):
        raise ValueError(
            f"Expected inputs with the {len(features.names)} columns of features, but got shape "
            f"{array.shape}."
        )
    mean, scale = (np.asarray(part, dtype=np.float64) for part in (features.mean, features.scale))
    columns = {"feature_mean": (("feature",), mean), "feature_scale": (("feature",), scale)}
    return xr.Dataset(
        {"x": ((dim, "feature"), mean + scale * array), **columns, **scalars},
        {dim: rows, "feature": np.asarray(list(features.names), dtype=np.str_)},
    )


def _coords(shape: Sequence[int], dim: str, rows: _Array) -> dict[str, _Array]:
    return {"chain": np.arange(shape[0]), "draw": np.arange(shape[1]), dim: rows}


def _flat(observed: _Array) -> _Array:
    """Targets as ``(num_rows,)``, or ``(num_rows, num_targets)`` of several."""
    if observed.ndim > 1:
        observed = observed.reshape(len(observed), -1)
        observed = observed[:, 0] if observed.shape[1] == 1 else observed
    return observed


def _num_targets(observed: _Array) -> int:
    return 1 if observed.ndim == 1 else observed.shape[1]
