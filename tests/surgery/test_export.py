"""Exported files: the same function, any batch size, without this library and without pickle."""

from __future__ import annotations

import builtins
import copy
import importlib
import inspect
import json
import logging
import subprocess
import sys
import textwrap
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import fx, nn
from torch.nn import functional as F

from pyro_relevance.data.networks import MLP
from pyro_relevance.edges.find import find_edges
from pyro_relevance.errors import CheckpointError
from pyro_relevance.surgery import export
from pyro_relevance.surgery.export import ExportReceipt, export_onnx, export_torch
from pyro_relevance.surgery.plain_modules import Constant
from pyro_relevance.surgery.pruned_network import PrunedNetwork, load_pruned
from pyro_relevance.surgery.pruning import prune
from pyro_relevance.surgery.steps import GraphNetwork


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        x = F.relu(x + self.norm(self.conv(x)))
        return self.head(F.dropout(x.mean((2, 3)), 0.5, self.training))


IMAGES = torch.randn(3, 3, 5, 5, generator=torch.Generator().manual_seed(0))


def pruned_mlp(dtype=torch.float32):
    network = MLP(5, (4, 3), 2).to(dtype)
    edges = find_edges(network, granularity=("input", "unit", "weight"))
    mask = {group.name: torch.rand(group.shape) < 0.7 for group in edges}
    mask["inputs"] = torch.tensor([True, False, True, True, False])
    return prune(network, edges, mask, example_input=torch.randn(6, 5, dtype=dtype))


def with_receipt(network):
    """A network that is no tree, in the place of a pruned one."""
    return PrunedNetwork(network.eval(), pruned_mlp().receipt)


def _onnx():
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)


# torch.export


@pytest.mark.exact
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_pruned_network_is_the_same_function_in_a_pt2_file(tmp_path, dtype):
    pruned = pruned_mlp(dtype)
    x = torch.randn(6, 5, dtype=dtype)
    before = list(pruned.modules())
    receipt = export_torch(pruned, tmp_path / "small.pt2", example_input=x)
    loaded = torch.export.load(tmp_path / "small.pt2").module()
    assert pruned.training  # as before
    assert all(a is b for a, b in zip(before, pruned.modules(), strict=True))
    expected = copy.deepcopy(pruned).eval()
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    for size in (1, 2, 6, 11):
        x = torch.randn(size, 5, dtype=dtype)
        torch.testing.assert_close(loaded(x), expected(x), rtol=tolerance, atol=tolerance)
    assert receipt.max_difference <= receipt.tolerance == tolerance
    assert receipt.num_bytes == (tmp_path / "small.pt2").stat().st_size
    assert receipt.num_macs == pruned.receipt.after.num_macs
    assert receipt.compared_batch_sizes == (6, 1)
    assert (receipt.format, receipt.dtype) == ("pt2", str(dtype).removeprefix("torch."))
    assert json.loads(json.dumps(receipt.to_dict()))["latency_after"]["median"] > 0
    assert "MACs per example" in str(receipt)
    assert "max |network - file|" in str(receipt)
    assert [path.name for path in tmp_path.iterdir()] == ["small.pt2"]


@pytest.mark.exact
@pytest.mark.parametrize("kind", ["module", "graph module", "loaded", "constant"])
def test_every_kind_of_network_is_exported(tmp_path, kind):
    network = Residual().eval()
    if kind == "graph module":
        network = fx.symbolic_trace(network)
    elif kind == "loaded":
        with_receipt(network).save(tmp_path / "small.safetensors")
        network = load_pruned(tmp_path / "small.safetensors").network
        assert isinstance(network, GraphNetwork)
    elif kind == "constant":
        network = Constant(torch.tensor([1.0, -2.0]))
    receipt = export_torch(network, tmp_path / "small.pt2", example_input=IMAGES[:1])
    assert receipt.compared_batch_sizes == (1, 3)
    loaded = torch.export.load(tmp_path / "small.pt2").module()
    torch.testing.assert_close(loaded(IMAGES), network(IMAGES))


ALONE = """
import pickle, sys

BLOCKED = {"pyro_relevance", "pyro", "safetensors", "torchvision", "arviz"}

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Finder())
import torch

def refuse(*args, **kwargs):
    raise AssertionError("something was unpickled")

inputs, expected = (torch.tensor(eval(text)) for text in sys.argv[2:])
class Unpickler(pickle.Unpickler):
    __init__ = refuse

pickle.load = pickle.loads = torch.load = refuse
pickle.Unpickler = Unpickler
network = torch.export.load(sys.argv[1]).module()
for size in (1, len(inputs)):
    difference = (network(inputs[:size]) - expected[:size]).abs().max()
    assert difference <= 1e-5, difference
assert not BLOCKED & set(sys.modules)
print("same")
"""


@pytest.mark.exact
def test_a_pt2_file_loads_with_torch_alone_and_nothing_is_unpickled(tmp_path):
    pruned = pruned_mlp()
    x = torch.randn(4, 5)
    export_torch(pruned, tmp_path / "small.pt2", example_input=x)
    texts = [str(values.tolist()) for values in (x, pruned.eval()(x))]
    result = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path / "small.pt2"), *texts],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert (result.returncode, result.stdout) == (0, "same\n"), result.stderr


@pytest.mark.contract
def test_a_pt2_file_holds_no_data_of_the_user(tmp_path):
    export_torch(Residual(), tmp_path / "small.pt2", example_input=IMAGES)
    with zipfile.ZipFile(tmp_path / "small.pt2") as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
        assert {name.split("/")[0] for name in archive.namelist()} == {"archive"}
    assert IMAGES.numpy().tobytes()[:64] not in content
    assert __file__.encode() not in content


# The safetensors file without the library


@pytest.mark.exact
def test_the_recipe_in_the_docstring_reads_a_safetensors_file(tmp_path):
    documented = inspect.getdoc(PrunedNetwork.save)
    recipe = textwrap.dedent(documented.split("first::\n")[1].split("\n\nThe architecture")[0])
    pruned = pruned_mlp()
    with torch.no_grad():
        for parameter in pruned.parameters():
            parameter.view(-1)[1:] = 0.0  # many zeros: packed
    pruned.save(tmp_path / "small.safetensors")
    names: dict[str, object] = {"path": tmp_path / "small.safetensors"}
    assert "pyro_relevance" not in recipe
    exec(recipe, names)
    state = names["state"]
    assert json.loads(names["metadata"]["packed"])
    expected = pruned.network.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    assert names["architecture"]["type"] == "Sequential"


@pytest.mark.exact
def test_a_network_that_is_no_tree_is_saved_and_loaded(tmp_path):
    pruned = with_receipt(Residual())
    pruned.save(tmp_path / "small.safetensors")
    loaded = load_pruned(tmp_path / "small.safetensors")
    assert torch.equal(loaded(IMAGES), pruned(IMAGES))
    assert loaded.receipt == pruned.receipt
    # A file may name anything: what is not on the lists is not called.
    architecture = {"type": "Graph", "modules": {}, "tensors": {}, "steps": [
        ["call_function", "os.system", ["true"]], ["output", "output", [None]]]}  # fmt: skip
    metadata = {
        "format": "pyro_relevance.pruned_network", "version": "1", "packed": "{}",
        "architecture": json.dumps(architecture), "receipt": json.dumps(pruned.receipt.to_dict()),
    }  # fmt: skip
    save_file({}, tmp_path / "harmful.safetensors", metadata)
    with pytest.raises(CheckpointError, match=r"is damaged: .*'os\.system'"):
        load_pruned(tmp_path / "harmful.safetensors")


# ONNX


@pytest.mark.exact
@pytest.mark.parametrize("kind", ["pruned", "graph module", "constant"])
def test_an_onnx_file_is_the_same_function(tmp_path, kind):
    _onnx()
    import onnxruntime

    network, x = {
        "pruned": lambda: (pruned_mlp(), torch.randn(6, 5)),
        "graph module": lambda: (fx.symbolic_trace(Residual().eval()), IMAGES),
        "constant": lambda: (Constant(torch.tensor([1.0, -2.0])), IMAGES),
    }[kind]()
    receipt = export_onnx(network, tmp_path / "small.onnx", example_input=x)
    assert receipt.format == "onnx"
    assert receipt.max_difference <= receipt.tolerance == 1e-4
    assert receipt.num_bytes == (tmp_path / "small.onnx").stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]
    session = onnxruntime.InferenceSession(
        tmp_path / "small.onnx", providers=["CPUExecutionProvider"]
    )
    (entry,) = session.get_inputs()
    assert entry.shape[0] == "batch"
    x = torch.cat((x, x))
    (found,) = session.run(None, {entry.name: x.numpy()})
    expected = copy.deepcopy(network).eval()(x)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.contract
@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_the_extra(tmp_path, monkeypatch, missing):
    original = importlib.import_module

    def import_module(name):
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name) if name == "" else builtins

    monkeypatch.setattr(export.importlib, "import_module", import_module)
    message = rf"but '{missing}' cannot be imported.*pip install 'pyro-relevance\[onnx\]'"
    with pytest.raises(ImportError, match=message):
        export_onnx(MLP(2, (3,), 1), tmp_path / "a.onnx", example_input=torch.zeros(1, 2))
    assert not list(tmp_path.iterdir())


# Errors, and what stays as it was


class Fixed(nn.Module):
    def forward(self, x):
        return x.reshape(3, -1)


class Branch(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


@pytest.mark.contract
def test_networks_that_cannot_be_exported_are_refused(tmp_path, capsys):
    path = tmp_path / "a.pt2"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=r"for any batch size, but got one that fixes it.*flatten"):
        export_torch(Fixed(), path, example_input=IMAGES)
    with pytest.raises(ValueError, match=r"that torch\.export can follow, but got Branch"):
        export_torch(Branch(), path, example_input=IMAGES)
    with pytest.raises(CheckpointError, match="they differ by .* Look for random numbers"):
        export_torch(Noise(), path, example_input=IMAGES)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pt2"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.contract
def test_wrong_arguments_are_refused(tmp_path):
    network = MLP(2, (3,), 1)
    with pytest.raises(ValueError, match=r"ends in '\.pt2', but got '.*small\.pt'"):
        export_torch(network, tmp_path / "small.pt", example_input=torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"ends in '\.onnx'"):
        export_onnx(network, tmp_path / "small.pt2", example_input=torch.zeros(1, 2))
    for example in (torch.zeros(0, 2), (torch.zeros(2, 2), torch.zeros(3, 2)), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="with at least one example"):
            export_torch(network, tmp_path / "a.pt2", example_input=example)
    with pytest.raises(ValueError, match=r"that torch\.export can follow, but got MLP"):
        export_torch(network, tmp_path / "a.pt2", example_input=torch.zeros(4, 3))
    with pytest.raises(FileNotFoundError, match="Expected the folder"):
        export_torch(network, tmp_path / "none" / "a.pt2", example_input=torch.zeros(4, 2))


@pytest.mark.contract
def test_pickled_parts_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt2", "w") as archive:
        config = {"config": {"weight": {"use_pickle": True}, "bias": {"use_pickle": False}}}
        archive.writestr("archive/data/weights/model_weights_config.json", json.dumps(config))
        archive.writestr("archive/data/sample_inputs/model.pt", b"PK")
    with pytest.raises(CheckpointError, match=r"pickled parts, but got .*model\.pt, weight\."):
        export._check_unpickled(tmp_path / "a.pt2")


@pytest.mark.contract
def test_the_process_and_the_network_stay_as_they_were(tmp_path):
    network = Residual()
    network.head.weight.requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    disabled, rng = logging.root.manager.disable, torch.random.get_rng_state()
    receipt = export_torch(network, str(tmp_path / "a.pt2"), example_input=(IMAGES,))
    assert isinstance(receipt, ExportReceipt)
    assert network.training
    assert not network.head.weight.requires_grad
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert logging.root.manager.disable == disabled
    assert torch.equal(torch.random.get_rng_state(), rng)
