"""The kinds of cases of ``tests.fuzz``: how each is made, tried, and what it may say."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import pyro_relevance as pr
from pyro_relevance import _files
from pyro_relevance.data.tables import CategoryColumn, Encoder, NumericColumn, regular_csv
from pyro_relevance.errors import CheckpointError, DataError, EdgeError, SurgeryError
from pyro_relevance.surgery.pruned_network import PrunedNetwork
from pyro_relevance.surgery.receipt import Receipt
from pyro_relevance.training.checkpoint import Checkpoint, read_checkpoint
from tests import damaged_files
from tests.small_fits import quick_fit, same

Case = Callable[[Path, random.Random], str]
"""Tries one case in a folder and returns ``"same"`` or ``"accepted"``; else it raises."""


@dataclass(frozen=True)
class Form:
    """A kind of cases.

    Args:
        name: Its name.
        case: Tries one.
        refusals: The errors that are answers.
    """

    name: str
    case: Case
    refusals: tuple[type[Exception], ...]


class WrongNumbersError(Exception):
    """A damaged file was accepted with other numbers."""


def _one_damaged(content: bytes, chance: random.Random) -> bytes:
    seed = chance.randrange(2**31)
    return list(damaged_files.damaged_bytes(content, 1 + chance.randrange(5), seed))[-1]


def _require_finite(numbers: dict[str, Tensor]) -> str:
    if not all(bool(tensor.isfinite().all()) for tensor in numbers.values()):
        raise WrongNumbersError("numbers that are not finite")
    return "accepted"


def _file(
    kind: str, write: Callable[[Path], None], load: Callable[[Path], dict[str, Tensor]]
) -> Callable[[Path], Form]:
    """Return what makes the form of a kind of tensor file."""

    def make(place: Path) -> Form:
        whole = place / "whole.safetensors"
        write(whole)
        content, numbers = whole.read_bytes(), load(whole)
        tensors, texts = damaged_files.parts(whole)

        def case(folder: Path, chance: random.Random) -> str:
            path, way = folder / "file.safetensors", chance.random()
            if way < 0.5:
                path.write_bytes(_one_damaged(content, chance))
                if not same(load(path), numbers):
                    raise WrongNumbersError("other numbers")
                return "same"
            if way < 0.8:
                damaged_files.write_parts(path, tensors, _edited(texts, chance))
            else:
                described = _as_text(dict(texts))
                changed = damaged_files.edited_tensors(tensors, chance)
                damaged_files.write_parts(path, changed, described)
            return _require_finite(load(path))

        return Form(kind, case, (CheckpointError,))

    return make


def _edited(texts: dict[str, Any], chance: random.Random) -> Any:
    """Edit the texts of a file; edges are JSON inside of JSON."""
    texts = json.loads(json.dumps(texts))
    inner = texts.get("description")
    if isinstance(inner, dict) and isinstance(inner.get("edges"), str):
        inner["edges"] = json.loads(inner["edges"])
    return _as_text(damaged_files.edited(texts, chance))


def _as_text(texts: Any) -> Any:
    inner = texts.get("description") if isinstance(texts, dict) else None
    if isinstance(inner, dict) and isinstance(inner.get("edges"), dict | list):
        texts = {**texts, "description": {**inner, "edges": json.dumps(inner["edges"])}}
    return texts


def _load_posterior(path: Path) -> dict[str, Tensor]:
    return dict(pr.load_posterior(path).state)


def _load_network(path: Path) -> dict[str, Tensor]:
    return dict(pr.load_pruned(path).state_dict())


def checkpoint(place: Path) -> Form:
    """Return the form of states of a run: bytes are read, edited ones are gone on from."""
    path = place / "run"

    def interrupt(state: Any) -> None:
        if state.step == 5:
            raise KeyboardInterrupt

    try:
        quick_fit(num_chains=2, checkpoint=Checkpoint(path, interval=0.0), callbacks=[interrupt])
    except KeyboardInterrupt:
        content = path.read_bytes()
    tensors, description = _files.read_tensors(path)

    def case(folder: Path, chance: random.Random) -> str:
        file = folder / "run"
        for name in ("run", "run.previous"):
            (folder / name).unlink(missing_ok=True)
        if chance.random() < 0.9:
            file.write_bytes(_one_damaged(content, chance))
            found = read_checkpoint(file, description["run"])
            if found is None or not same(found[0], tensors):
                raise WrongNumbersError("other numbers")
            return "same"
        changed = damaged_files.edited_tensors(tensors, chance)
        _files.write_tensors(file, changed, description)
        fit = quick_fit(num_chains=2, checkpoint=Checkpoint(file, interval=0.0))
        return _require_finite(dict(fit.posterior.state))

    return Form("checkpoint", case, (CheckpointError, pr.errors.DivergenceError))


ENCODER = Encoder(
    (NumericColumn("a", 1.5, 2.0, 1.0, True), CategoryColumn("b", ("x", "ü"))),
    *("regression", "y", 0.5, 2.0, (), ("a note",)),
)


def encoder(place: Path) -> Form:
    """Return the form of encoders."""
    text = ENCODER.to_json()

    def case(folder: Path, chance: random.Random) -> str:
        if chance.random() < 0.6:
            if Encoder.from_json(_one_damaged(text.encode(), chance)) != ENCODER:
                raise WrongNumbersError("another encoder")
            return "same"
        changed = damaged_files.edited(json.loads(text), chance)
        changed["digest"] = _files.digest_of_json(
            {name: value for name, value in changed.items() if name != "digest"}
        )
        found = Encoder.from_json(json.dumps(changed))
        if not (found.target_scale > 0 and found.num_columns):
            raise WrongNumbersError("no encoder")
        return "accepted"

    return Form("encoder", case, (DataError,))


def run_folder(place: Path) -> Form:
    """Return the form of run folders, which predict."""
    frame = pd.DataFrame({"a": [0.5, -1.0, np.nan], "b": ["x", "ü", "x"]})
    network = nn.Sequential(nn.Linear(ENCODER.num_columns, 3), nn.Tanh(), nn.Linear(3, 1))
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    receipt = Receipt.measured(
        network, network, torch.zeros(2, ENCODER.num_columns), max_difference=0.0, notes=["none"]
    )
    pruned = PrunedNetwork(network.eval().requires_grad_(False), receipt)
    noise = pr.likelihoods.StudentT(4.0, noise_scale=0.3)
    whole = place / "whole"
    pr.Predictor(ENCODER, pruned, noise, False).save(whole)

    def answers(folder: Path) -> dict[str, Tensor]:
        run = pr.load_run(folder)
        low, high = run.predict_interval(frame).T
        return {
            "mean": torch.as_tensor(run.predict(frame)),
            "low": torch.as_tensor(low.copy()),
            "high": torch.as_tensor(high.copy()),
        }

    expected, names = answers(whole), sorted(path.name for path in whole.iterdir())

    def case(folder: Path, chance: random.Random) -> str:
        shutil.rmtree(folder / "run", ignore_errors=True)
        shutil.copytree(whole, folder / "run")
        file = folder / "run" / chance.choice(names)
        if chance.random() < 0.05:
            file.unlink()
        elif file.name == "record.json" and chance.random() < 0.5:
            content = json.loads(file.read_text())
            del content["digest"]
            changed = damaged_files.edited(content, chance)
            changed["digest"] = _files.digest_of_json(changed)
            file.write_text(json.dumps(changed))
            return _require_finite(answers(folder / "run"))
        else:
            file.write_bytes(_one_damaged(file.read_bytes(), chance))
        if not same(answers(folder / "run"), expected):
            raise WrongNumbersError("other predictions")
        return "same"

    return Form("run folder", case, (CheckpointError, FileNotFoundError))


CELLS = ["", "NA", "?", "1", "2.5", "-3e4", "1e400", "inf", "x", '"', '"a,b"', "ü", "\x00", "1,5"]
CELLS += ["12.3%", "$1.20", "3.2 kg", "007", "2020-01-31", "31.12.2020", "1.234,5", "1,234.5"]
CELLS += ["nan", "True", " 4 ", "9" * 400, "=1+1", "\ufeff", "1_000", "0x10", "١٢", "a" * 3000]


def _table(chance: random.Random) -> bytes:
    """Return the text of a table that may be odd in many ways."""
    separator = chance.choice([",", ",", ",", ";", "\t", " "])
    number = chance.choice([1, 2, 3, 5, 8])
    names = [chance.choice(["a", "b", "größe", "x y", "", "1", f"c{i}"]) for i in range(number)]
    names = [name + str(i) if chance.random() < 0.9 else name for i, name in enumerate(names)]
    rows, odd = [], chance.choice([0.0, 0.0, 0.01, 0.1])
    for _ in range(chance.choice([0, 19, 30, 30, 60, 60, 60])):
        row = [f"{chance.gauss(0, 10):.3f}" for _ in range(number + 1)]
        if chance.random() < odd:
            row[chance.randrange(len(row))] = chance.choice(CELLS)
        if chance.random() < odd / 20:
            row.pop()
        rows.append(row)
    if rows and chance.random() < 0.5:
        column = chance.randrange(number + 1)
        kind = chance.sample(CELLS, 3)
        for row in rows:
            if column < len(row):
                row[column] = chance.choice(kind)
    lines = [separator.join(row) for row in [[*names, "y"], *rows]]
    text = chance.choice(["\n", "\n", "\r\n", "\r"]).join(lines)
    coding = chance.choice([*["utf-8"] * 6, "utf-8-sig", "cp1252", "utf-16", "utf-32"])
    content = text.encode(coding, errors="replace")
    if chance.random() < 0.2 and content:
        content = _one_damaged(content, chance)
    return content


def csv(place: Path) -> Form:
    """Return the form of tables; what the fast way reads, the slow way reads too."""

    def read(path: Path) -> Any:
        return pr.tables.read_table(path, target="y")

    def case(folder: Path, chance: random.Random) -> str:
        path = folder / "table.csv"
        path.write_bytes(_table(chance))
        bounds = regular_csv.MIN_BYTES, regular_csv.HEAD_LINES
        try:
            slow = read(path)
            regular_csv.MIN_BYTES, regular_csv.HEAD_LINES = 1, 0
            fast = read(path)
        finally:
            regular_csv.MIN_BYTES, regular_csv.HEAD_LINES = bounds
        if not (slow.features.equals(fast.features) and slow.target.equals(fast.target)):
            raise WrongNumbersError("two ways of reading differ")
        numbers = slow.features.select_dtypes("number").to_numpy()
        if np.isinf(numbers).any() or slow.target.isna().any() or slow.num_rows < 20:
            raise WrongNumbersError("no checked table")
        return "accepted"

    return Form("csv", case, (DataError,))


class _Odd(nn.Module):
    """A layer that does one of several things in forward."""

    def __init__(self, kind: int) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """Return something of the same shape."""
        ways: list[Callable[[Tensor], Tensor]] = [
            lambda t: t + 1,
            lambda t: torch.relu(t) * t.sigmoid(),
            lambda t: t.flip(-1),
            lambda t: torch.cat([t[:, :1], t[:, 1:]], dim=1),
            lambda t: t / (1 + t.abs().sum(-1, keepdim=True)),
            lambda t: t.softmax(-1),
            lambda t: t.clamp(-1, 1).neg().exp(),
            lambda t: t.sort(-1).values,
        ]
        return ways[self.kind](x)


def _network(chance: random.Random) -> nn.Module:
    torch.manual_seed(chance.randrange(2**31))
    width, layers = 3, []
    for _ in range(chance.randrange(1, 5)):
        kind = chance.randrange(8)
        if kind < 3:
            new = chance.randrange(1, 6)
            layers.append(nn.Linear(width, new, bias=chance.random() < 0.7))
            width = new
        elif kind == 3:
            layers.append(nn.BatchNorm1d(width))
        elif kind == 4:
            layers.append(nn.LayerNorm(width))
        elif kind == 5:
            layers.append(chance.choice([nn.ReLU(), nn.GELU(), nn.PReLU(), nn.Softplus()]))
        elif kind == 6:
            layers.append(nn.Dropout(0.2))
        else:
            layers.append(_Odd(chance.randrange(8)))
    layers.append(nn.Linear(width, 1))
    return nn.Sequential(*layers)


def network(place: Path) -> Form:
    """Return the form of random networks under random masks: pruned is masked, or told."""

    def case(folder: Path, chance: random.Random) -> str:
        network = _network(chance).eval()
        levels = chance.sample(["input", "unit", "weight"], chance.randrange(1, 4))
        example = torch.randn(4, 3)
        edges = pr.find_edges(network, granularity=tuple(levels), example_input=example)
        kept = {group.name: torch.rand(group.shape) < chance.random() for group in edges.groups}
        mask = pr.Mask(kept, rule="at random")
        pruned = pr.prune(network, edges, mask, example_input=example)
        masked = pr.apply_mask(network, edges, mask)
        with torch.no_grad():
            difference = (pruned(example) - masked(example)).abs().max()
        if not float(difference) <= 1e-4:
            raise WrongNumbersError(f"a difference of {float(difference):.1e}")
        return "accepted"

    return Form("network", case, (EdgeError, SurgeryError))


FORMS: dict[str, Callable[[Path], Form]] = {
    "posterior": _file("posterior", damaged_files.write_posterior, _load_posterior),
    "pruned": _file("pruned", damaged_files.write_pruned, _load_network),
    "graph": _file("graph", damaged_files.write_graph, _load_network),
    "checkpoint": checkpoint,
    "encoder": encoder,
    "run folder": run_folder,
    "csv": csv,
    "network": network,
}
