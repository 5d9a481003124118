"""A fitted estimator as a folder: the files that ``load_run`` reads, and no pickle.

What an estimator has beside its predictor is an entry ``estimator`` of ``record.json``.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pyro_relevance.commands.table.predictor import load_run
from pyro_relevance.errors import CheckpointError
from pyro_relevance.posterior.diagnosis import Diagnosis, Finding, Severity
from pyro_relevance.posterior.holdout import GroupTest, HoldoutTest, SetTest, Verdict

__all__ = ["read_fitted", "write_fitted"]


def write_fitted(estimator: Any, folder: Path) -> None:
    """Write a fitted estimator.

    Args:
        estimator: The estimator.
        folder: The folder; made where it is missing.

    Raises:
        TypeError: If a setting or a class label has no form in JSON.
        OSError: If the folder cannot be written.
    """
    content = {
        "kind": type(estimator).__name__,
        "settings": {k: _plain(v) for k, v in estimator.get_params(deep=False).items()},
        "n_features_in": estimator.n_features_in_,
        "feature_names_in": list(getattr(estimator, "feature_names_in_", [])),
        "notes": list(estimator.notes_),
        "holdout_test": asdict(estimator.holdout_test_),
        "diagnosis": asdict(estimator.diagnosis_),
    }
    if hasattr(estimator, "classes_"):
        dtype = estimator.classes_.dtype
        content["classes"] = {"dtype": dtype.str, "values": estimator.classes_.tolist()}
    try:
        json.dumps(content)
    except TypeError as error:
        raise TypeError(
            f"Expected settings and class labels that are numbers, texts or tuples of them, but "
            f"got: {error}. Set random_state to a number or None, and label classes by text."
        ) from error
    estimator.predictor_.save(folder, estimator=content)


def read_fitted(kind: type[Any], folder: Path) -> Any:
    """Return the fitted estimator of a folder.

    Args:
        kind: Its class.
        folder: The folder of `write_fitted`.

    Raises:
        FileNotFoundError: If the folder lacks one of the files.
        CheckpointError: If a file is damaged, or of another kind of estimator.
    """
    predictor = load_run(folder)
    path = folder / "record.json"
    found = json.loads(path.read_text(encoding="utf-8")).get("estimator", {"kind": "a command"})
    if found.get("kind") != kind.__name__:
        raise CheckpointError(
            f"Expected the folder of a saved {kind.__name__}, but {path} is of "
            f"{found.get('kind')}. Use its own load, or pyro_relevance.load_run for predictions."
        )
    try:
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in found["settings"].items()}
        estimator = kind(**settings)
        estimator.n_features_in_ = int(found["n_features_in"])
        if found["feature_names_in"]:
            estimator.feature_names_in_ = np.array(found["feature_names_in"], dtype=object)
        if "classes" in found:
            classes = found["classes"]
            estimator.classes_ = np.array(classes["values"], dtype=np.dtype(classes["dtype"]))
        estimator.notes_ = tuple(found["notes"])
        estimator.holdout_test_ = _tested(found["holdout_test"])
        estimator.diagnosis_ = _diagnosis(found["diagnosis"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"Expected {path} as {kind.__name__}.save wrote it, but it is damaged or of another "
            f"version ({error!r}). Fit and save the estimator again."
        ) from error
    estimator.predictor_ = predictor
    return estimator


def _plain(value: Any) -> Any:
    """Return a setting without NumPy's types."""
    return value.item() if isinstance(value, np.generic) else value


def _tested(content: dict[str, Any]) -> HoldoutTest:
    groups = [GroupTest(**{**g, "verdict": Verdict(g["verdict"])}) for g in content.pop("groups")]
    sets = [
        SetTest(tuple(s["members"]), s["p_value"], Verdict(s["verdict"]))
        for s in content.pop("sets")
    ]
    trees = _nested(content.pop("trees"))
    return HoldoutTest(groups=tuple(groups), sets=tuple(sets), trees=trees, **content)


def _nested(content: Any) -> Any:
    """Return lists within lists as tuples within tuples."""
    return tuple(map(_nested, content)) if isinstance(content, list) else content


def _diagnosis(content: dict[str, Any]) -> Diagnosis:
    findings = [Finding(**{**f, "severity": Severity(f["severity"])}) for f in content["findings"]]
    return Diagnosis(tuple(findings), tuple(content["checked"]))
