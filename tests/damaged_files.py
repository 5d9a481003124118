"""Files of each kind that the library writes, and ways to damage them."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pyro_relevance as pr
from pyro_relevance import _files
from pyro_relevance.surgery.pruned_network import PrunedNetwork
from pyro_relevance.surgery.receipt import Receipt
from tests.small_fits import make_model, quick_fit

VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 3, 2**40, 2**62, 2**70, 0.5, -0.5, 1e308, float("nan")),
    *(float("inf"), "", "os", "__class__", "__init__", "../x", "a" * 5000, "\ud800", [], {}),
    *([[]], [None], {"kind": "os"}, {"type": "Graph"}, {"result": -1}, [10**9] * 3),
)


class Residual(nn.Module):
    """A network that is described by its operations."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 1)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        """Return two layers with a sum in between."""
        y = torch.relu(self.first(x)) * self.scale + x
        return self.second(y.clamp(min=-5.0).reshape(x.shape[0], -1))


def write_posterior(path: Path) -> None:
    """Write a posterior of two chains, with gates and a latent scale."""
    model = make_model(weight_prior=pr.priors.GaussianWeights(0.5))
    fit = quick_fit(model, num_chains=2, num_epochs=2, guide=pr.guides.LowRankGuide)
    pr.save_posterior(fit.posterior, path)


def write_pruned(path: Path) -> None:
    """Write a small tree of modules with zeros, so that a tensor of it is packed."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    with torch.no_grad():
        network[0].weight[:, 1:] = 0.0
    _write_network(network.eval(), path)


def write_graph(path: Path) -> None:
    """Write a network as a list of operations."""
    torch.manual_seed(0)
    _write_network(Residual().eval(), path)


def _write_network(network: nn.Module, path: Path) -> None:
    receipt = Receipt.measured(
        network, network, torch.zeros(2, 4), max_difference=0.0, notes=["none"]
    )
    PrunedNetwork(network, receipt).save(path)


def parts(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a file, and its texts with those that are JSON as values."""
    tensors, texts = _files.read_safetensors(path)
    return tensors, {name: _value(text) for name, text in texts.items()}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def write_parts(path: Path, tensors: dict[str, Tensor], content: dict[str, Any]) -> None:
    """Write what `parts` returned, perhaps changed, with a digest that fits."""
    texts = {
        name: value if isinstance(value, str) and value.isascii() else json.dumps(value)
        for name, value in content.items()
    }
    _files.save_safetensors(path, tensors, texts)


def damaged_bytes(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield copies with flipped bytes, and truncated or extended ones."""
    chance = random.Random(seed)
    for index in range(count):
        if index % 5 == 4:
            cut = content[: chance.randrange(len(content))]
            yield cut if chance.random() < 0.7 else content + cut[:9]
            continue
        changed = bytearray(content)
        for _ in range(chance.choice((1, 1, 1, 2, 5))):
            # Half of the faults in the head of the file, where one byte says most.
            top = len(changed) if chance.random() < 0.5 else min(len(changed), 3000)
            changed[chance.randrange(top)] ^= 1 << chance.randrange(8)
        yield bytes(changed)


def edited(content: Any, chance: random.Random) -> Any:
    """Return a copy of a JSON value with one value in it replaced, removed or put twice."""
    content = copy.deepcopy(content)
    holder, key = chance.choice(list(_places(content)))
    action = chance.random()
    if action < 0.15:
        del holder[key]
    elif action < 0.2 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    else:
        holder[key] = copy.deepcopy(chance.choice(VALUES))
    return content


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items: Any = ()
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))[:8]
    for key, item in items:
        yield value, key
        yield from _places(item)


def edited_tensors(tensors: dict[str, Tensor], chance: random.Random) -> dict[str, Tensor]:
    """Return tensors of which one has other numbers, another shape, type or name, or is gone."""
    name = chance.choice(sorted(tensors))
    tensor = tensors[name]
    changes: list[Callable[[Tensor], Tensor]] = [
        lambda t: t.reshape(-1)[: t.numel() // 2],
        lambda t: t.unsqueeze(0),
        lambda t: torch.cat([t.reshape(-1), t.reshape(-1)]),
        lambda t: t.double() if t.dtype != torch.float64 else t.long(),
        lambda t: t.to(torch.uint8),
        lambda t: torch.full_like(t, float("nan")) if t.is_floating_point() else t - 7,
        lambda t: torch.full_like(t, float("inf")) if t.is_floating_point() else t + 100,
        lambda t: t.new_zeros(0),
    ]
    changed = dict(tensors)
    action = chance.randrange(len(changes) + 2)
    if action < len(changes):
        changed[name] = changes[action](tensor)
    else:
        del changed[name]
        if action > len(changes):
            changed[chance.choice(("state/os", "x", f"{name}.x", "program/__class__"))] = tensor
    return changed
