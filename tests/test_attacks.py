"""Crafted files: nothing but registered code runs, whatever a file says, and memory is bounded."""

from __future__ import annotations

import builtins
import copy
import importlib
import json
import os
import pickle
import resource
import subprocess
import sys

import pytest
import torch

import pyro_relevance as pr
from pyro_relevance import _files
from pyro_relevance.data.tables import Encoder
from pyro_relevance.errors import CheckpointError, DataError
from pyro_relevance.surgery.building import build_without_memory
from pyro_relevance.surgery.pruned_network import load_pruned
from tests import damaged_files

MEMORY = 200 * 2**20
HUGE = 10**12
LINEAR = {"type": "Linear", "arguments": {"in_features": 4, "out_features": 1, "bias": True}}


def _nested(levels):
    """A list in a list in a list ..., as text: Python's own writer would not follow it."""
    return "[" * levels + "]" * levels


def _deep_tree(levels):
    tree = LINEAR
    for _ in range(levels):
        tree = {"type": "Sequential", "children": {"0": tree}}
    return tree


def _kinds(part, *names):
    return {f"{part} is {n}": ((part, "kind"), n) for n in names}


# Places in the description of a posterior, and what stands there instead.
POSTERIOR = {
    **_kinds("relaxation", "__init__", "__class__", "__dir__", "dataclass", "os", "Protocol"),
    **_kinds("gate_prior", "__import__", "math", "torch.load", "GatePrior", "check_positive"),
    **_kinds("weight_prior", "__builtins__", "os.system", "Mapping", "../priors/point"),
    **_kinds("likelihood", "nn", "describe", "build", "_Location", "__getattr__"),
    **_kinds("guide", "AutoregressiveGuide", "RelevanceGuide", "default_guide", "eval"),
    "arguments of another class": (("relaxation",), {"kind": "Concrete", "name": "os"}),
    "a class as its own argument": (
        ("relaxation",),
        {"kind": "Hardening", "below": {"kind": "os"}},
    ),
    "dunder argument": (("relaxation",), {"kind": "Concrete", "__class__": "os"}),
    "text as a number": (("gate_prior",), {"kind": "IndependentPrior", "prior_log_odds": "os"}),
    "list as a kind": (("relaxation", "kind"), ["Concrete"]),
    "mapping as a kind": (("guide", "kind"), {"MeanFieldGuide": 1}),
    "huge rank": (("guide", "rank"), HUGE),
    "no rank": (("guide", "rank"), 0),
    "a scale that overflows": (("weight_prior", "initial_scale"), 1e308),
    "huge number of targets": (("likelihood", "num_targets"), HUGE),
    "flag as a number of data": (("num_data",), True),
    "part is a text": (("weight_prior",), "os"),
    "unknown part": (("loader",), {"kind": "os"}),
    "tensor of another type": (
        ("gate_prior",),
        {"kind": "IndependentPrior", "prior_log_odds": {"tensor": [1.0], "dtype": "storage"}},
    ),
    "ragged tensor": (
        ("gate_prior",),
        {"kind": "IndependentPrior", "prior_log_odds": {"tensor": [[1.0], []], "dtype": "bool"}},
    ),
    "network of a foreign class": (("network",), {"type": "os.system", "arguments": {}}),
    "edges are no text": (("edges",), {"groups": []}),
    "edges are code": (("edges",), "__import__('os')"),
    "edges nested": (("edges",), _nested(100_000)),
    "huge group of edges": (
        ("edges",),
        json.dumps(
            {
                **dict.fromkeys(("skipped", "buffers", "structure"), []),
                "shapes": {"0.weight": [5, 4]},
                "positions": {},
                "groups": [
                    {
                        **dict.fromkeys(("consumers", "producers"), []),
                        **{"name": "g", "granularity": "unit", "shape": [HUGE], "labels": None},
                    }
                ],
            }
        ),
    ),
    "network nested": (("network",), _deep_tree(300)),
    "huge network": (
        ("network",),
        {
            "type": "Linear",
            "arguments": {"in_features": HUGE, "out_features": HUGE, "bias": False},
        },
    ),
}

STEP, OUTPUT = ["placeholder", "x"], ["output", "output", [{"result": 1}]]
X = {"result": 0}


def _graph(step, **parts):
    graph = {"type": "Graph", "modules": {}, "tensors": {}, "steps": [STEP, step, OUTPUT]}
    return {**graph, **parts}


IDENTITY = ["call_function", "operator.neg", [X]]
# Architectures of a pruned network.
NETWORK = {
    "foreign class": {"type": "os.system", "arguments": {"command": "true"}},
    "module of torch that loads": {"type": "torch.hub.load", "arguments": {}},
    "type is a list": {"type": ["Linear"], "arguments": {}},
    "private type": {"type": "__class__", "arguments": {}},
    "device as an argument": {
        "type": "Linear",
        "arguments": {**LINEAR["arguments"], "device": "x"},
    },
    "text as a size": {"type": "Linear", "arguments": {**LINEAR["arguments"], "in_features": "4"}},
    "unknown padding": {
        "type": "Conv1d",
        "arguments": {
            "in_channels": 1,
            "out_channels": 1,
            "kernel_size": 1,
            "padding": "__class__",
        },
    },
    "huge layer": {"type": "Linear", "arguments": {**LINEAR["arguments"], "in_features": HUGE}},
    "huge selection": {"type": "SelectFeatures", "arguments": {"num_features": 10**10}},
    "huge constant": {"type": "Constant", "arguments": {"shape": [10**5, 10**5, 10**5]}},
    "negative constant": {"type": "Constant", "arguments": {"shape": [-1]}},
    "deep tree": _deep_tree(300),
    "path as a name": {"type": "Sequential", "children": {"../../etc/passwd": LINEAR}},
    "backslash in a name": {"type": "Sequential", "children": {"a\\b": LINEAR}},
    "dunder as a name": {"type": "Sequential", "children": {"__class__": LINEAR}},
    "method as a name": {"type": "Sequential", "children": {"forward": LINEAR}},
    "dots as a name": _graph(IDENTITY, modules={"a..b": LINEAR}),
    "long name": _graph(IDENTITY, modules={".".join("a" * 2000): LINEAR}),
    "dunder module": _graph(IDENTITY, modules={"__dict__.x": LINEAR}),
    "system": _graph(["call_function", "os.system", ["true"]]),
    "eval": _graph(["call_function", "builtins.eval", ["1"]]),
    "load": _graph(["call_function", "torch.load", ["file"]]),
    "private function": _graph(["call_function", "torch.__dict__", [X]]),
    "library of operators": _graph(["call_function", "torch.ops.load_library", ["x.so"]]),
    "operators by a dunder": _graph(["call_function", "torch.ops.__class__.mro.x", [X]]),
    "overload by a dunder": _graph(["call_function", "torch.ops.aten.add.__class__", [X, X]]),
    "file": _graph(["call_function", "torch.ops.aten.from_file.default", ["f"]]),
    "attribute": _graph(["call_function", "builtins.getattr", [X, "__class__"]]),
    "method": _graph(["call_method", "numpy", [X]]),
    "private method": _graph(["call_method", "__reduce_ex__", [X, 2]]),
    "hook": _graph(["call_method", "register_hook", [X, X]]),
    "method caller": _graph(["call_function", "operator.methodcaller", ["save"]]),
    "huge repeat": _graph(["call_function", "operator.mul", [[0], 10**12]]),
    "huge power": _graph(["call_function", "operator.pow", [10, 10**12]]),
    "huge shift": _graph(["call_function", "operator.lshift", [1, 10**12]]),
    "huge tensor": _graph(IDENTITY, tensors={"t": {"dtype": "float32", "shape": [10**7, 10**7]}}),
    "values for a huge tensor": _graph(
        IDENTITY, tensors={"t": {"dtype": "float32", "shape": [10**9], "values": [0.0]}}
    ),
    "texts as values": _graph(
        IDENTITY, tensors={"t": {"dtype": "float32", "shape": [1], "values": ["os"]}}
    ),
    "unknown type of a tensor": _graph(IDENTITY, tensors={"t": {"dtype": "load", "shape": [1]}}),
    "module called by a path": _graph(["call_module", "../x", [X]]),
    "tensor by a dunder": _graph(["get_attr", "__dict__"]),
    "device of files": _graph(["call_function", "operator.neg", [{"device": "/dev/sda"}]]),
    "unknown object": _graph(["call_function", "operator.neg", [{"object": "os"}]]),
    "a million steps of another kind": _graph(["call", "x", []], steps=[["call", "x"]] * 200_000),
}
# Texts of files that are no JSON of this library.
TEXTS = {
    "nested lists": _nested(100_000),
    "nested objects": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "millions of lists": "[" + "[]," * 2_000_000 + "[]]",
    "a long number": '{"type": ' + "9" * 5000 + "}",
    "half of a pair": '{"type": "\\ud800", "arguments": {}}',
    "twice the same name": '{"type": "ReLU", "type": "Linear", "arguments": {}}',
    "no text": "",
}


class Escaped(BaseException):
    """A file reached code that it must not reach; no handler of an exception hides it."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A sound posterior and a sound pruned network, each loaded once."""
    folder = tmp_path_factory.mktemp("sound")
    damaged_files.write_posterior(folder / "posterior")
    damaged_files.write_graph(folder / "pruned")
    pr.load_posterior(folder / "posterior")
    load_pruned(folder / "pruned")
    return folder


@pytest.fixture(autouse=True)
def _canaries(files, monkeypatch):
    """Fail where code outside of the lists runs, a module changes, or memory is taken."""

    def escape(*arguments, **settings):
        raise Escaped(arguments)

    run = builtins.eval

    def evaluate(source, *spaces):
        if isinstance(source, str):
            raise Escaped(source)
        return run(source, *spaces)  # annotations in the library's own source, compiled by typing

    known = {n: m for n, m in sys.modules.items() if n.split(".")[0] in ("pyro_relevance", "os")}
    before = {name: dict(vars(module)) for name, module in known.items()}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with monkeypatch.context() as patch:
        for owner, name in (
            *((os, "system"), (os, "popen"), (subprocess, "Popen"), (pickle, "loads")),
            *((torch, "load"), (torch.ops, "load_library")),
            *((importlib, "import_module"), (builtins, "open")),
        ):
            patch.setattr(owner, name, escape)
        patch.setattr(builtins, "eval", evaluate)
        yield
    for name, module in known.items():
        after = {k: v for k, v in vars(module).items() if k in before[name]}
        assert all(after[key] is value for key, value in before[name].items()), name
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * 1024 < MEMORY


def _refused(load, path):
    with pytest.raises(CheckpointError, match="Expected") as refused:
        load(path)
    assert len(str(refused.value)) < 3000


@pytest.mark.contract
@pytest.mark.parametrize("attack", POSTERIOR)
def test_crafted_posteriors_are_refused(files, tmp_path, attack, monkeypatch):
    tensors, description = _files.read_tensors(files / "posterior")
    *way, last = POSTERIOR[attack][0]
    changed = copy.deepcopy(description)
    holder = changed
    for key in way:
        holder = holder[key]
    holder[last] = POSTERIOR[attack][1]
    text = _text(changed)
    _files.save_safetensors(tmp_path / "file", tensors, {"description": text})
    _refused(pr.load_posterior, tmp_path / "file")


def _text(content):
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)  # to write what the library must refuse to read
    try:
        return json.dumps(content)
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.contract
@pytest.mark.parametrize("attack", [*NETWORK, *TEXTS])
def test_crafted_networks_are_refused(files, tmp_path, attack):
    tensors, texts = _files.read_safetensors(files / "pruned")
    text = TEXTS[attack] if attack in TEXTS else _text(NETWORK[attack])
    _files.save_safetensors(tmp_path / "file", tensors, {**texts, "architecture": text})
    _refused(load_pruned, tmp_path / "file")


BY_SIZE = {"huge layer", "huge tensor", "deep tree", "huge selection", "huge constant"}
"""What is refused by its size in the file, or by the tensors beside it, not by what it says."""


@pytest.mark.contract
@pytest.mark.parametrize("attack", sorted(NETWORK.keys() - BY_SIZE))
def test_crafted_networks_are_refused_by_what_they_say(attack):
    with pytest.raises(ValueError, match="Expected|expected"):
        build_without_memory(NETWORK[attack])


@pytest.mark.contract
@pytest.mark.parametrize("attack", TEXTS)
def test_crafted_texts_are_refused_everywhere(files, tmp_path, attack):
    tensors, _ = _files.read_safetensors(files / "posterior")
    _files.save_safetensors(tmp_path / "file", tensors, {"description": TEXTS[attack]})
    _refused(pr.load_posterior, tmp_path / "file")
    _, texts = _files.read_safetensors(files / "pruned")
    for name in ("packed", "receipt"):
        _files.save_safetensors(tmp_path / "file", tensors, {**texts, name: TEXTS[attack]})
        _refused(load_pruned, tmp_path / "file")
    with pytest.raises(DataError, match="Expected the JSON text of an encoder"):
        Encoder.from_json(TEXTS[attack])


@pytest.mark.contract
@pytest.mark.parametrize(
    ("packed", "message"),
    [
        ({"first.weight": [10**6, 10**6]}, "of shape|architecture"),
        ({"first.weight": [2**62, 4]}, "shape"),
        ({"first.weight": [-4, -4]}, "shape"),
        ({"first.weight": "4"}, "shape"),
        ({"../first": [4, 4]}, "architecture"),
        ([], "shapes of packed tensors"),
    ],
)
def test_crafted_packing_is_refused(files, tmp_path, packed, message):
    tensors, texts = _files.read_safetensors(files / "pruned")
    text = json.dumps(packed)
    _files.save_safetensors(tmp_path / "file", tensors, {**texts, "packed": text})
    with pytest.raises(CheckpointError, match=message):
        load_pruned(tmp_path / "file")
