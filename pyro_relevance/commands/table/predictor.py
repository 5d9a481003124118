"""Predictions for new rows from what a run leaves: encoder, pruned network and fitted noise.

``Predictor`` holds the three in one object, ``load_run`` reads it from a run folder. The folder has
JSON and safetensors; nothing is unpickled.
"""

from __future__ import annotations

import copy
import json
import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from pyro_relevance._files import replacing
from pyro_relevance.comparison.records import read_sealed, sealed
from pyro_relevance.data.tables import Encoder, NumericColumn
from pyro_relevance.data.tables._text import counted, listed
from pyro_relevance.errors import CheckpointError, DataError
from pyro_relevance.model import likelihoods
from pyro_relevance.model.likelihoods import Likelihood
from pyro_relevance.surgery.pruned_network import PrunedNetwork, load_pruned

__all__ = ["FILES", "Predictor", "describe_noise", "load_run"]

MOST_NOISE = 1e6
"""Largest noise scale in a file, in standard deviations of the target."""
FILES = ("encoder.json", "network.safetensors", "record.json")
"""Files of a run folder that predictions need."""


@dataclass(frozen=True, eq=False)
class Predictor:
    """Predicts the target of new rows, in its own units.

    Rows are frames with the columns that the network was trained on, in any order; other columns
    are not looked at. Levels that were not among the training rows, and missing numbers in columns
    that had none, are told by a ``UserWarning``.

    Args:
        encoder: Turns rows into inputs.
        network: The pruned network.
        noise: Fitted noise of new rows around its outputs (standardised target), or ``Categorical``
            for classes.
        failed: Whether the diagnosis says that the fit failed.
    """

    encoder: Encoder
    network: PrunedNetwork
    noise: Likelihood
    failed: bool = False

    @property
    def task(self) -> str:
        """``"regression"`` or ``"classification"``."""
        return self.encoder.task

    @property
    def classes(self) -> NDArray[np.object_]:
        """``(num_classes,)`` labels in the order of ``predict_proba``; empty for regression."""
        return np.array(self.encoder.classes, dtype=object)

    def notes(self, frame: pd.DataFrame) -> tuple[str, ...]:
        """Return one sentence for each column whose new values the training rows did not have.

        Args:
            frame: ``(num_rows, ...)`` with the columns of the encoder.

        Raises:
            DataError: If a column is absent.
        """
        frame = self._named(frame)
        self._require_columns(frame)
        found = [
            f"{listed(levels)} of '{name}' did not occur in the training rows, or too rarely for "
            "an input: zero in all inputs of the column."
            for name, levels in self.encoder.unseen_levels(frame).items()
        ]
        for column in self.encoder.columns:
            if isinstance(column, NumericColumn) and not column.indicator:
                missing = int(frame[column.name].isna().sum())
                if missing:
                    found.append(
                        f"{counted(missing, 'missing value')} of '{column.name}', which had none "
                        f"in the training rows, filled with their median {column.fill:g}."
                    )
        return tuple(found)

    def predict(self, frame: pd.DataFrame) -> NDArray[Any]:
        """Return the predictions, ``(num_rows,)`` float64 in the target's units, or class labels.

        Args:
            frame: ``(num_rows, ...)`` with the columns of the encoder.

        Raises:
            DataError: If a column is absent or a number is not finite or not a number.
        """
        outputs = self._outputs(frame)
        if self.task == "classification":
            labels: NDArray[Any] = self.classes[outputs.argmax(-1).numpy()]
            return labels
        return self._in_units(outputs)

    def predict_interval(
        self, frame: pd.DataFrame, probability: float = 0.89
    ) -> NDArray[np.float64]:
        """Return equal-tailed intervals for the target of each row, in its units.

        The interval is that of the noise fitted to held-out rows. It is as wide in every row, and
        holds for rows like the training rows.

        Args:
            frame: ``(num_rows, ...)`` with the columns of the encoder.
            probability: Probability of the target to lie inside.

        Returns:
            ``(num_rows, 2)``: lower and upper ends.

        Raises:
            ValueError: If the target is a class, or ``probability`` is not in (0, 1).
            DataError: If a column is absent or a number is not finite or not a number.
        """
        if not isinstance(self.noise, likelihoods.StudentT):
            raise ValueError(
                f"Expected a target that is a quantity, but got the classes of "
                f"'{self.encoder.target_name}'. Use predict_proba for their probabilities."
            )
        if not 0.0 < probability < 1.0:
            raise ValueError(f"Expected probability in (0, 1), but got {probability}.")
        scale, degrees = _scale_and_degrees(self.noise)
        half = scale * float(stats.t.ppf(0.5 + probability / 2.0, degrees))
        middle = self._in_units(self._outputs(frame))
        half *= self.encoder.target_scale
        return np.stack([middle - half, middle + half], axis=1)

    def predict_proba(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """Return the probabilities of the classes, ``(num_rows, num_classes)``.

        Args:
            frame: ``(num_rows, ...)`` with the columns of the encoder.

        Raises:
            ValueError: If the target is a quantity.
            DataError: If a column is absent or a number is not finite or not a number.
        """
        if self.task != "classification":
            raise ValueError(
                f"Expected a target of classes, but '{self.encoder.target_name}' is a quantity. "
                "Use predict_interval for its uncertainty."
            )
        probability: NDArray[np.float64] = self._outputs(frame).softmax(-1).numpy()
        return probability

    def save(self, folder: str | os.PathLike[str], **record: Any) -> None:
        """Write the files that `load_run` reads; each completely or not at all.

        Args:
            folder: The folder; made where it is missing.
            **record: Further JSON-able entries of ``record.json``.

        Raises:
            OSError: If the folder cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        content = {**record, "noise": describe_noise(self.noise), "fit_failed": self.failed}
        texts = {
            "encoder.json": self.encoder.to_json(),
            "record.json": json.dumps(sealed(content), indent=1) + "\n",
        }
        self.network.save(folder / "network.safetensors")
        for name, text in texts.items():
            with replacing(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")

    def _outputs(self, frame: pd.DataFrame) -> Tensor:
        frame = self._named(frame)
        for note in self.notes(frame):
            warnings.warn(note, UserWarning, stacklevel=3)
        # In float64, so that a row's prediction does not depend on the rows beside it.
        network = copy.deepcopy(self.network).double()
        with torch.no_grad():
            outputs: Tensor = network(self.encoder.transform_features(frame).double())
        return outputs

    def _in_units(self, outputs: Tensor) -> NDArray[np.float64]:
        values: NDArray[np.float64] = outputs[:, 0].numpy()
        return self.encoder.target_mean + self.encoder.target_scale * values

    def _named(self, frame: pd.DataFrame) -> pd.DataFrame:
        if not isinstance(frame, pd.DataFrame):
            raise TypeError(
                f"Expected a DataFrame with the columns {listed(self.encoder.input_labels)}, but "
                f"got {type(frame).__name__}. Wrap it: pandas.DataFrame(values, columns=...)."
            )
        return frame.rename(columns=str)

    def _require_columns(self, frame: pd.DataFrame) -> None:
        count = {name: list(frame.columns).count(name) for name in self.encoder.input_labels}
        absent = [name for name, number in count.items() if not number]
        repeated = [name for name, number in count.items() if number > 1]
        if repeated:
            raise DataError(
                f"Expected each column once, but got {listed(repeated)} more than once in the "
                "rows. Remove or rename the copies."
            )
        if absent:
            raise DataError(
                f"Expected the columns {listed(self.encoder.input_labels)}, but got rows without "
                f"{listed(absent)}. Add the columns that the network was trained on."
            )


def load_run(folder: str | os.PathLike[str]) -> Predictor:
    """Read what predicts new rows from the run folder of ``pyro-relevance table``.

    Args:
        folder: The run folder, or one that an estimator was saved to.

    Returns:
        Encoder, pruned network and fitted noise in one object.

    Raises:
        FileNotFoundError: If the folder lacks one of the files.
        CheckpointError: If a file is damaged, or the files are of different runs.
    """
    folder = Path(folder)
    absent = [name for name in FILES if not (folder / name).is_file()]
    if absent:
        raise FileNotFoundError(
            f"Expected the run folder of 'pyro-relevance table' with {', '.join(FILES)}, but "
            f"{folder} has no {', '.join(absent)}. Check the path, or run the command first."
        )
    name = "encoder.json"
    try:
        encoder = Encoder.from_json((folder / name).read_text(encoding="utf-8"))
        name = "record.json"
        record = read_sealed(folder / name)
        noise = likelihoods.build(_one_target(record["noise"]))
        failed = bool(record.get("fit_failed", False))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"Expected {folder / name} as 'pyro-relevance table' wrote it, but it is damaged or of "
            f"another version ({error!r}). Run the command again."
        ) from error
    network = load_pruned(folder / "network.safetensors").requires_grad_(False)
    _check_fit(encoder, network, noise, folder)
    return Predictor(encoder, network, noise, failed)


def _one_target(noise: dict[str, object]) -> dict[str, object]:
    """Return a description of noise that makes no large tensors and no infinite intervals."""
    if noise.get("num_targets", 1) != 1:
        raise ValueError(f"expected noise of one target, but got {noise['num_targets']!r}")
    scale = noise.get("noise_scale", 1.0)
    if not isinstance(scale, int | float) or not 0 < scale < MOST_NOISE:
        raise ValueError(f"expected noise of a standardised target, but got a scale of {scale!r}")
    return noise


def describe_noise(noise: Likelihood) -> dict[str, object]:
    """Return a JSON-able description of fitted noise, from which ``likelihoods.build`` makes it.

    Args:
        noise: Fitted noise of new rows, on the standardised target.
    """
    described = likelihoods.describe(noise)
    if isinstance(noise, likelihoods.StudentT):
        scale, degrees = _scale_and_degrees(noise)
        described |= {"noise_scale": scale, "degrees_of_freedom": degrees}
    return described


def _scale_and_degrees(noise: likelihoods.StudentT) -> tuple[float, float]:
    """Return scale and degrees of freedom as they were fitted."""
    scale = math.exp(float(noise.log_scale.detach()))
    return scale, 2.0 + math.exp(float(noise.log_excess.detach()))


def _check_fit(encoder: Encoder, network: PrunedNetwork, noise: Likelihood, folder: Path) -> None:
    """Raise a `CheckpointError` where the files are not of one run."""
    try:
        with torch.no_grad():
            shape = tuple(network(torch.zeros(1, encoder.num_columns)).shape)
    except RuntimeError:
        shape = ()
    kind = likelihoods.StudentT if encoder.task == "regression" else likelihoods.Categorical
    if shape != (1, encoder.num_outputs) or not isinstance(noise, kind):
        raise CheckpointError(
            f"Expected {', '.join(FILES)} of one run in {folder}, but the network does not fit the "
            f"encoder ({encoder.num_columns} inputs, {encoder.num_outputs} outputs, "
            f"{encoder.task}). Run the command again, or use another copy."
        )
