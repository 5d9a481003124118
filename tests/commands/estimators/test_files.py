"""A fitted estimator as a folder, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyro_relevance as pr
from pyro_relevance.commands.estimators import RelevanceClassifier, RelevanceRegressor
from pyro_relevance.comparison.records import sealed
from pyro_relevance.errors import CheckpointError
from tests.commands.estimators import test_base, test_classifier


@pytest.fixture(scope="module", params=["regression", "text", "numbers"])
def fitted(request: pytest.FixtureRequest) -> Any:
    frame, y = test_base.rows()
    if request.param == "regression":
        return RelevanceRegressor(**test_base.SMALL).fit(frame, y)
    target = np.where(y > 10.0, *(("high", "low") if request.param == "text" else (2, 1)))
    return RelevanceClassifier(**test_classifier.SMALL).fit(frame, target)


@pytest.mark.exact
def test_what_was_saved_is_what_is_loaded(fitted: Any, tmp_path: Path) -> None:
    fitted.save(tmp_path / "new")
    names = {"encoder.json", "network.safetensors", "record.json"}
    assert {path.name for path in (tmp_path / "new").iterdir()} == names
    loaded = type(fitted).load(tmp_path / "new")
    frame, _ = test_base.rows()
    assert loaded.get_params() == fitted.get_params()
    assert loaded.feature_names_in_.tolist() == fitted.feature_names_in_.tolist()
    assert loaded.feature_importances_.tolist() == fitted.feature_importances_.tolist()
    assert loaded.relevant_.tolist() == fitted.relevant_.tolist()
    for name in ("holdout_test_", "diagnosis_", "notes_", "n_features_in_"):
        assert getattr(loaded, name) == getattr(fitted, name)
    predicted = pr.load_run(tmp_path / "new").predict(frame)
    if hasattr(fitted, "classes_"):
        assert loaded.classes_.dtype == fitted.classes_.dtype
        assert loaded.predict(frame).tolist() == fitted.predict(frame).tolist()
        shares = fitted.predict_proba(frame)
        np.testing.assert_allclose(loaded.predict_proba(frame), shares, rtol=1e-9)
        assert predicted.tolist() == [str(label) for label in fitted.predict(frame)]
    else:
        np.testing.assert_allclose(loaded.predict(frame), fitted.predict(frame), rtol=1e-9)
        np.testing.assert_allclose(predicted, fitted.predict(frame), rtol=1e-9)


@pytest.mark.exact
def test_sets_that_cannot_be_told_apart_are_kept(tmp_path: Path) -> None:
    frame, y = test_base.rows()
    frame = frame[["noise", "size"]].assign(copy=frame["size"])
    made = RelevanceRegressor(**test_base.SMALL).fit(frame, y)
    made.save(tmp_path)
    loaded = RelevanceRegressor.load(tmp_path)
    assert loaded.holdout_test_ == made.holdout_test_
    assert loaded.holdout_test_.inseparable == (("size", "copy"),)
    assert loaded.holdout_test_.at_rate(0.2) == made.holdout_test_.at_rate(0.2)


@pytest.mark.contract
def test_folders_of_others_are_refused(fitted: Any, tmp_path: Path) -> None:
    fitted.predictor_.save(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"but .*record\.json is of a command"):
        type(fitted).load(tmp_path / "run")
    fitted.save(tmp_path / "own")
    other = RelevanceClassifier if isinstance(fitted, RelevanceRegressor) else RelevanceRegressor
    with pytest.raises(CheckpointError, match=f"Expected the folder of a saved {other.__name__}"):
        other.load(tmp_path / "own")
    path = tmp_path / "own" / "record.json"
    text = path.read_text().replace('"checked"', '"looked"')
    path.write_text(text)
    with pytest.raises(CheckpointError, match="its content does not fit its digest"):
        type(fitted).load(tmp_path / "own")
    record = {k: v for k, v in json.loads(text).items() if k not in ("digest", "schema")}
    path.write_text(json.dumps(sealed(record)))
    with pytest.raises(CheckpointError, match=r"save wrote it, but it is damaged"):
        type(fitted).load(tmp_path / "own")


@pytest.mark.contract
def test_a_setting_without_a_form_in_json_is_told(fitted: Any, tmp_path: Path) -> None:
    seed = fitted.random_state
    fitted.set_params(random_state=np.random.RandomState(0))
    try:
        with pytest.raises(TypeError, match="Set random_state to a number or None"):
            fitted.save(tmp_path / "new")
    finally:
        fitted.set_params(random_state=seed)
    assert not (tmp_path / "new").exists()
