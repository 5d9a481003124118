"""Model cards, and folders in the layout of Hugging Face."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

import pyro_relevance as pr
from pyro_relevance.errors import CheckpointError
from tests.damaged_files import Residual

pytestmark = pytest.mark.contract

CARD = pr.ModelCard(
    name="houses",
    license="apache-2.0",
    data="400 rows | of noise",
    metrics={"test RMSE": 3.14159, "rows": "40"},
)


def pruned(network: nn.Module | None = None) -> pr.PrunedNetwork:
    torch.manual_seed(0)
    if network is None:
        network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    x = torch.randn(16, 4)
    edges = pr.find_edges(network.eval(), granularity=("unit", "weight"), example_input=x)
    kept = {group.name: torch.ones(group.shape, dtype=torch.bool) for group in edges}
    for keep in kept.values():
        keep.reshape(-1)[::3] = False
    return pr.prune(network, edges, pr.Mask(kept), example_input=x)


@pytest.mark.parametrize("make", [None, Residual])
def test_a_network_comes_back_as_it_was(tmp_path: Path, make: type | None) -> None:
    small = pruned(None if make is None else make())
    paths = pr.save_pretrained(small, tmp_path / "folder", card=CARD)
    assert {path.name for path in (tmp_path / "folder").iterdir()} == {p.name for p in paths}
    again = pr.from_pretrained(tmp_path / "folder")
    x = torch.randn(5, 4)
    assert torch.equal(again(x), small.eval()(x))
    assert again.receipt == small.receipt
    assert all(parameter.requires_grad for parameter in again.parameters())


def test_the_tensors_are_dense_and_named_as_in_the_state(tmp_path: Path) -> None:
    small = pruned()
    pr.save_pretrained(small, tmp_path, card=CARD)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata()["format"] == "pt"  # which tools of that layout ask for
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    state = small.network.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_what_the_card_says(tmp_path: Path) -> None:
    small = pruned()
    CARD.write(small, tmp_path / "MODEL_CARD.md")
    text = (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8")
    head, body = text.split("---\n")[1:3]
    found = dict(line.split(": ", 1) for line in head.splitlines())
    assert json.loads(found["license"]) == "apache-2.0"
    assert json.loads(found["tags"])[0] == "pyro_relevance"
    before, after = small.receipt.before, small.receipt.after
    assert f"| parameters | {before.num_parameters:,} | {after.num_parameters:,} |" in body
    assert f"| bytes | {before.num_bytes:,} | {after.num_bytes:,} |" in body
    assert "| test RMSE | 3.142 |" in body
    assert "| rows | 40 |" in body
    assert "400 rows | of noise" in body
    assert str(small.receipt) in body


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"license": " "}, "Expected license of a model card as a text, but got ' '"),
        ({"metrics": {}}, "Expected at least one metric"),
        ({"data": None}, "Expected data of a model card as a text, but got None"),
    ],
)
def test_a_card_leaves_nothing_out(changed, words) -> None:
    given = {"name": "a", "license": "b", "data": "c", "metrics": {"d": 1.0}}
    with pytest.raises(ValueError, match=words):
        pr.ModelCard(**{**given, **changed})


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors\. Only local"):
        pr.from_pretrained(tmp_path / "absent")
    pr.save_pretrained(pruned(), tmp_path, card=CARD)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        pr.from_pretrained(tmp_path)


def test_damage_is_told(tmp_path: Path) -> None:
    pr.save_pretrained(pruned(), tmp_path, card=CARD)
    configuration, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    good, tensors = configuration.read_text("utf-8"), weights.read_bytes()
    content = json.loads(good)
    bad = [
        "",
        "[]",
        "{" * 400,
        json.dumps({**content, "model_type": "bert"}),
        json.dumps({**content, "version": "2"}),
        json.dumps({**content, "architecture": {"type": "__class__"}}),
        json.dumps({name: value for name, value in content.items() if name != "digest"}),
    ]
    for text in bad:
        configuration.write_text(text, "utf-8")
        with pytest.raises(CheckpointError, match="damaged or of another kind"):
            pr.from_pretrained(tmp_path)
    configuration.write_text(good, "utf-8")
    assert pr.from_pretrained(tmp_path)(torch.zeros(1, 4)).shape == (1, 1)
    for position in (len(tensors) - 1, len(tensors) // 2, 12):
        wrong = bytearray(tensors)
        wrong[position] ^= 1
        weights.write_bytes(bytes(wrong))
        with pytest.raises(CheckpointError, match="damaged or of another kind"):
            pr.from_pretrained(tmp_path)
