"""Damaged files: the same numbers or the library's own error, for each kind of file it writes."""

from __future__ import annotations

import json
import random

import pytest
import torch

import pyro_relevance as pr
from pyro_relevance import _files
from pyro_relevance.data.tables import CategoryColumn, Encoder, NumericColumn
from pyro_relevance.errors import CheckpointError, DataError, DivergenceError
from pyro_relevance.surgery.pruned_network import load_pruned
from pyro_relevance.training.checkpoint import Checkpoint, read_checkpoint
from tests import damaged_files
from tests.small_fits import quick_fit, same

WRITERS = {
    "posterior": damaged_files.write_posterior,
    "pruned": damaged_files.write_pruned,
    "graph": damaged_files.write_graph,
}
ENCODER = Encoder(
    (NumericColumn("a", 1.5, 2.0, 1.0, True), CategoryColumn("b", ("x", "ü"))),
    *("classification", "y", 0.0, 1.0, ("no", "yes"), ("a note",)),
)


def _numbers(kind, path):
    """Load a file and return all its tensors, after a forward pass of what was loaded."""
    if kind == "posterior":
        posterior = pr.load_posterior(path)
        return dict(posterior.state)
    return dict(load_pruned(path).state_dict())


@pytest.fixture(scope="module", params=WRITERS)
def written(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "whole.safetensors"
    WRITERS[request.param](path)
    return request.param, path


@pytest.mark.property
def test_flipped_and_cut_bytes_are_seen(written, tmp_path):
    kind, whole = written
    numbers, path = _numbers(kind, whole), tmp_path / "file"
    refused = 0
    for content in damaged_files.damaged_bytes(whole.read_bytes(), 150, seed=1):
        path.write_bytes(content)
        try:
            assert same(_numbers(kind, path), numbers)
        except CheckpointError:
            refused += 1
    assert refused >= 140  # a byte in the white space of a header changes nothing


@pytest.mark.property
def test_edited_texts_with_a_new_digest(written, tmp_path):
    kind, whole = written
    tensors, content = damaged_files.parts(whole)
    chance, path, refused = random.Random(2), tmp_path / "file", 0
    if kind == "posterior":
        content["description"]["edges"] = json.loads(content["description"]["edges"])
    for _ in range(150):
        changed = damaged_files.edited(content, chance)
        if kind == "posterior" and isinstance(changed.get("description"), dict):
            edges = changed["description"].get("edges")
            if isinstance(edges, dict | list):
                changed["description"]["edges"] = json.dumps(edges)
        damaged_files.write_parts(path, tensors, changed)
        refused += _is_refused(kind, path)
    assert refused > 75


@pytest.mark.property
def test_edited_tensors_with_a_new_digest(written, tmp_path):
    kind, whole = written
    tensors, content = damaged_files.parts(whole)
    chance, path, refused = random.Random(3), tmp_path / "file", 0
    if kind == "posterior":
        content["description"]["edges"] = str(content["description"]["edges"])
    for _ in range(80):
        changed = damaged_files.edited_tensors(tensors, chance)
        damaged_files.write_parts(path, changed, content)
        refused += _is_refused(kind, path)
    assert refused > 60


def _is_refused(kind, path):
    """Whether a file is refused in words; what is accepted has finite numbers only."""
    try:
        numbers = _numbers(kind, path)
    except CheckpointError:
        return True
    assert all(bool(tensor.isfinite().all()) for tensor in numbers.values())
    return False


@pytest.mark.property
def test_edited_states_of_a_run_neither_crash_nor_go_on(tmp_path):
    path = tmp_path / "run"
    where = Checkpoint(path, interval=0.0)

    def interrupt(state):
        if state.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick_fit(num_chains=2, checkpoint=where, callbacks=[interrupt])
    tensors, description = _files.read_tensors(path)
    chance, refused = random.Random(4), 0
    for _ in range(60):
        (tmp_path / "run.previous").unlink(missing_ok=True)
        changed = damaged_files.edited_tensors(tensors, chance)
        _files.write_tensors(path, changed, description)
        try:
            fit = quick_fit(num_chains=2, checkpoint=where)
            assert all(bool(t.isfinite().all()) for t in fit.posterior.state.values())
        except (CheckpointError, DivergenceError):
            refused += 1
    assert refused > 45


@pytest.mark.exact
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("batches/order", lambda t: t + 100, "each example once"),
        ("batches/position", lambda t: t - 100, "a position in an epoch"),
        ("run/step", lambda t: t + 10**6, "step 10000"),
        ("history/loss", lambda t: t[:, :0], "of shape"),
        ("program/model.network.0.weight", lambda t: t[:, :1], "expected torch.float32 of shape"),
        ("generator/cpu", lambda t: torch.full_like(t, 255), "no next word"),
    ],
)
def test_a_state_that_does_not_fit_its_run_is_named(tmp_path, name, change, message):
    where = Checkpoint(tmp_path / "run", interval=0.0)
    quick_fit(num_chains=2, num_epochs=2, checkpoint=where)
    tensors, description = _files.read_tensors(tmp_path / "run")
    tensors[name] = change(tensors[name])
    _files.write_tensors(tmp_path / "run", tensors, description)
    with pytest.raises(CheckpointError, match=f"it does not fit: .*{message}"):
        quick_fit(num_chains=2, num_epochs=2, checkpoint=where)


@pytest.mark.property
def test_damaged_bytes_of_a_checkpoint(tmp_path):
    path = tmp_path / "run"
    quick_fit(num_epochs=1, checkpoint=Checkpoint(path, interval=0.0))
    (tmp_path / "run.previous").unlink(missing_ok=True)
    tensors, description = _files.read_tensors(path)
    refused = 0
    for content in damaged_files.damaged_bytes(path.read_bytes(), 150, seed=5):
        path.write_bytes(content)
        try:
            found = read_checkpoint(path, description["run"])
            assert found is not None
            assert same(found[0], tensors)
        except CheckpointError:
            refused += 1
    assert refused >= 140


@pytest.mark.property
def test_damaged_encoders(tmp_path):
    text = ENCODER.to_json()
    assert Encoder.from_json(text) == Encoder.from_json(text.encode()) == ENCODER
    unchanged = 0
    for content in damaged_files.damaged_bytes(text.encode(), 300, seed=6):
        try:
            assert Encoder.from_json(content) == ENCODER
            unchanged += 1
        except DataError:
            continue
    assert unchanged < 30
    chance, refused = random.Random(7), 0
    for _ in range(300):
        changed = damaged_files.edited(json.loads(text), chance)
        changed["digest"] = _files.digest_of_json(
            {k: v for k, v in changed.items() if k != "digest"}
        )
        try:
            encoder = Encoder.from_json(json.dumps(changed))
            assert encoder.target_scale > 0
            assert encoder.num_columns
        except DataError:
            refused += 1
    assert refused > 150


@pytest.mark.exact
def test_an_encoder_of_an_earlier_release_is_read():
    content = json.loads(ENCODER.to_json())
    del content["digest"]
    assert Encoder.from_json(json.dumps({**content, "version": 1})) == ENCODER
    with pytest.raises(DataError, match="does not fit its digest|digest"):
        Encoder.from_json(json.dumps(content))


@pytest.mark.exact
def test_files_of_an_earlier_release_are_read(written, tmp_path):
    from safetensors.torch import save_file

    kind, whole = written
    tensors, texts = _files.read_safetensors(whole)
    save_file(tensors, tmp_path / "old", metadata=texts)
    assert same(_numbers(kind, tmp_path / "old"), _numbers(kind, whole))
