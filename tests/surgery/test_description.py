"""Architectures as JSON: round trips and refusals."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from pyro_relevance.data.networks import MLP, LeNet300100
from pyro_relevance.surgery.description import build, describe
from pyro_relevance.surgery.plain_modules import Constant, SelectFeatures
from pyro_relevance.surgery.steps import GraphNetwork, Step


def _convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, (3, 5), stride=2, padding=1, bias=False),
        nn.BatchNorm2d(4, eps=1e-3),
        nn.LeakyReLU(0.2),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d((2, 2)),
        nn.Flatten(),
        nn.Sequential(nn.Linear(16, 6), nn.PReLU(6), nn.Dropout(0.3)),
        nn.Softmax(dim=-1),
    )


CASES = {
    "mlp": (MLP(4, (3, 2), 1), (5, 4)),
    "lenet": (LeNet300100(), (2, 1, 28, 28)),
    "convolutional": (_convolutional(), (2, 3, 16, 16)),
    "selection": (nn.Sequential(SelectFeatures([2, 0]), nn.Linear(2, 1)), (5, 3)),
    "constant": (Constant(torch.tensor([1.0, -2.0])), (5, 3)),
    "layer": (nn.Linear(3, 2, bias=False), (5, 3)),
    "norm": (
        nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.BatchNorm1d(4, affine=False)),
        (5, 3),
    ),
}


@pytest.mark.exact
@pytest.mark.parametrize("case", CASES)
def test_a_built_network_is_the_described_one(case):
    network, shape = CASES[case]
    network.eval()
    description = json.loads(json.dumps(describe(network)))
    state = torch.random.get_rng_state()
    built = build(description)
    assert torch.equal(torch.random.get_rng_state(), state)
    built.load_state_dict(network.state_dict())
    x = torch.randn(shape)
    assert torch.equal(built.eval()(x), network(x))
    assert describe(built) == description
    assert list(dict(built.named_modules())) == list(dict(network.named_modules()))


@pytest.mark.contract
def test_empty_layers_build_without_a_warning():
    layer = build(
        {"type": "Linear", "arguments": {"in_features": 0, "out_features": 2, "bias": True}}
    )
    assert layer(torch.zeros(3, 0)).shape == (3, 2)


@pytest.mark.contract
def test_descriptions_of_trees_stay_what_they_were():
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Sequential(nn.BatchNorm1d(3)))
    norm = {"num_features": 3, "eps": 1e-5, "momentum": 0.1, "affine": True}
    assert describe(network) == {
        "type": "Sequential",
        "children": {
            "0": {
                "type": "Linear",
                "arguments": {"in_features": 2, "out_features": 3, "bias": True},
            },
            "1": {"type": "ReLU", "arguments": {}},
            "2": {
                "type": "Sequential",
                "children": {
                    "0": {"type": "BatchNorm1d", "arguments": norm | {"track_running_stats": True}}
                },
            },
        },
    }


def _round_trip(network):
    """The network that is read back from JSON, with the tensors of the described one."""
    text = json.dumps(describe(network), allow_nan=False)
    built = build(json.loads(text))
    built.load_state_dict(network.state_dict())
    assert describe(built) == json.loads(text)
    return built


def _randomised(network):
    for tensor in network.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)
    return network


MODULES = [
    (nn.Conv1d(2, 4, 3, padding="same", padding_mode="circular"), (2, 2, 6)),
    (nn.Conv3d(2, 4, (1, 2, 3), stride=2, groups=2), (2, 2, 5, 5, 5)),
    (nn.ConvTranspose1d(2, 3, 3, stride=2, output_padding=1), (2, 2, 4)),
    (nn.ConvTranspose2d(2, 4, 3, stride=2, groups=2, bias=False), (2, 2, 4, 4)),
    (nn.BatchNorm2d(2, momentum=None), (2, 2, 3, 3)),
    (nn.BatchNorm3d(2, track_running_stats=False), (2, 2, 3, 3, 3)),
    (nn.GroupNorm(2, 4, eps=0.1), (2, 4, 3)),
    (nn.InstanceNorm2d(2, affine=True, track_running_stats=True), (2, 2, 3, 3)),
    (nn.RMSNorm(4), (2, 4)),
    (nn.LocalResponseNorm(2, alpha=0.1), (2, 4, 3)),
    (nn.MaxPool1d(2), (2, 2, 5)),
    (nn.AvgPool3d(2, ceil_mode=True), (2, 2, 5, 5, 5)),
    (nn.AdaptiveMaxPool2d((1, None)), (2, 2, 4, 4)),
    (nn.Dropout3d(0.4), (2, 2, 3, 3, 3)),
    (nn.Upsample(scale_factor=(2.0, 3.0), mode="bilinear", align_corners=True), (1, 1, 2, 2)),
    (nn.PixelShuffle(2), (1, 4, 2, 2)),
    (nn.ChannelShuffle(2), (1, 4, 2, 2)),
    (nn.ZeroPad2d((1, 0, 2, 0)), (1, 1, 2, 2)),
    (nn.ReflectionPad2d(1), (1, 1, 3, 3)),
    (nn.ConstantPad1d(1, 0.5), (1, 1, 3)),
    (nn.Unflatten(1, (2, 3)), (2, 6)),
    (nn.Softmin(dim=1), (2, 3)),
    (nn.GLU(), (2, 4)),
]


@pytest.mark.exact
@pytest.mark.parametrize(("module", "shape"), MODULES, ids=lambda x: type(x).__name__)
def test_standard_modules_make_a_round_trip(module, shape):
    network = _randomised(nn.Sequential(module)).eval()
    x = torch.randn(shape)
    assert torch.equal(_round_trip(network).eval()(x), network(x))


class _Block(nn.Module):
    """Layers, functions, methods, operators, constants, a loose parameter and a hidden buffer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.scale = nn.Parameter(torch.rand(4, 1, 1))
        self.register_buffer("shift", torch.rand(4, 1, 1, dtype=torch.float64), persistent=False)
        self.unused = nn.Linear(2, 3)
        self.head = nn.Linear(16, 2)

    def forward(self, x, weight=None, *others):
        y = self.norm(self.conv(x))
        y = self.act(y) + y * self.scale + self.shift.to(torch.float32)
        y += torch.tensor([0.5, -1.0]).sum()
        y = F.dropout(F.pad(y, (1, 1), value=-float("inf")), 0.5, self.training)
        y = F.max_pool2d(F.leaky_relu(y, 0.1), 2, ceil_mode=True)
        a, b = y.chunk(2, 1)
        y = torch.cat(
            [
                a,
                b.clamp(min=-1.0, max=2.0),
                a[..., 1:, :].mean((2, 3), keepdim=True).expand(-1, -1, a.shape[2], a.size(3)),
            ],
            dim=1,
        )
        y = F.adaptive_avg_pool2d(y.contiguous(memory_format=torch.channels_last), (2, 2))
        y = F.interpolate(y[:, :4], scale_factor=2.0).permute(0, 2, 3, 1).flatten(1)[:, ::4]
        return {"head": self.head(y), "pair": (y.view(y.shape[0], -1), -y)}


def _same(a, b):
    return torch.equal(a["head"], b["head"]) and all(map(torch.equal, a["pair"], b["pair"]))


@pytest.mark.exact
@pytest.mark.parametrize("kind", ["module", "traced", "inside a tree"])
def test_any_traceable_network_makes_a_round_trip(kind):
    network = _randomised(_Block()).eval()
    with torch.no_grad():
        network.conv.bias.sub_(0.5)
    x = torch.randn(3, 3, 6, 6)
    expected = network(x.clone())
    if kind == "traced":
        network = fx.symbolic_trace(network)
    elif kind == "inside a tree":
        network = nn.Sequential(nn.Identity(), network)
    built = _round_trip(network).eval()
    assert _same(built(x.clone()), expected)
    assert _same(copy.deepcopy(built)(x.clone()), expected)
    assert _same(pickle.loads(pickle.dumps(built))(x.clone()), expected)
    assert list(built.state_dict().keys() ^ network.state_dict().keys()) == []


@pytest.mark.exact
def test_describing_changes_nothing_and_follows_evaluation_mode():
    network = _Block()
    before = copy.deepcopy(network.state_dict())
    built = _round_trip(network)
    assert network.training
    assert not hasattr(network, "_tensor_constant0")
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert built.training
    # Batch normalisation does what it did; the function keeps the flag it was given.
    built(torch.randn(4, 3, 6, 6))
    assert built.norm.num_batches_tracked == 1
    (step,) = [step for step in built.steps if step.target == "torch.nn.functional.dropout"]
    assert step.kwargs["training"] is False


class _TwoInputs(nn.Module):
    def forward(self, x, y):
        return x - y


class _Scaled(nn.Module):
    def forward(self, x, scale=2.0):
        return x * scale


@pytest.mark.contract
def test_inputs_are_given_by_position():
    built = _round_trip(_TwoInputs())
    x, y = torch.randn(4, 3), torch.randn(4, 3)
    assert torch.equal(built(x, y), x - y)
    with pytest.raises(TypeError, match="Expected an input 'y', but got 1 inputs"):
        built(x)
    assert torch.equal(_round_trip(_Scaled())(x), 2 * x)
    assert torch.equal(_round_trip(_Scaled())(x, 3.0), 3 * x)
    assert torch.equal(fx.symbolic_trace(built)(x, y), x - y)


@pytest.mark.exact
def test_graphs_of_aten_operators_make_a_round_trip():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    x = torch.randn(2, 3, 6, 6)
    built = _round_trip(make_fx(network)(x))
    assert any(step.target.startswith("torch.ops.aten.convolution") for step in built.steps)
    assert torch.equal(built(x), network(x))


def _torchvision(name):
    models = pytest.importorskip("torchvision").models
    options = {"init_weights": False} if name == "googlenet" else {}
    return _randomised(getattr(models, name)(**options)).eval()


@pytest.mark.exact
@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "mobilenet_v2",
        "densenet121",
        "googlenet",
        pytest.param("vgg11", marks=pytest.mark.slow),
    ],
)
def test_well_known_networks_make_a_round_trip(name):
    network = _torchvision(name)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(_round_trip(network).eval()(x), network(x))


@st.composite
def _blocks(draw):
    """A small network of convolutions with residual and dense connections."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    plan = []
    modules, channels = nn.ModuleDict(), [draw(st.integers(1, 3))]
    for i in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["plain", "add", "cat", "mul"]))
        kernel = draw(st.sampled_from([1, 3]))
        before = channels[-1]
        after = before if kind in ("add", "mul") else draw(st.integers(1, 4))
        layers = [nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=draw(st.booleans()))]
        layers += [nn.BatchNorm2d(after)] if draw(st.booleans()) else []
        act = draw(st.sampled_from([nn.ReLU(inplace=True), nn.SiLU(), nn.Hardswish(), None]))
        layers += [act] if act is not None else []
        modules[f"b{i}"] = nn.Sequential(*layers)
        plan.append((f"b{i}", kind, draw(st.booleans())))
        channels.append(before + after if kind == "cat" else after)
    modules["head"] = nn.Linear(channels[-1], 2)
    return _Planned(modules, plan), channels[0]


class _Planned(nn.Module):
    def __init__(self, parts, plan):
        super().__init__()
        self.parts, self.plan = parts, plan

    def forward(self, x):
        for name, kind, pooled in self.plan:
            y = self.parts[name](x)
            if kind == "add":
                x = F.relu(x + y)
            elif kind == "mul":
                x = x * y.sigmoid()
            else:
                x = torch.cat((x, y), 1) if kind == "cat" else y
            x = F.avg_pool2d(x, 2, padding=1) if pooled else x
        return self.parts["head"](x.mean(dim=(2, 3)))


@pytest.mark.property
@settings(max_examples=15)
@given(case=_blocks())
def test_small_convolutional_networks_make_a_round_trip(case):
    network, num_channels = case
    _randomised(network).eval()
    x = torch.randn(2, num_channels, 7, 5)
    assert torch.equal(_round_trip(network).eval()(x), network(x))


class _Own(nn.Sequential):
    def forward(self, x):
        return super().forward(x) * 2


class _OwnLinear(nn.Linear):
    pass


@pytest.mark.exact
def test_own_classes_are_described_by_what_they_compute():
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    loose = nn.Sequential(nn.Linear(2, 2))
    loose.scale = nn.Parameter(torch.ones(1))
    x = torch.randn(3, 2)
    for network in (_Own(nn.Linear(2, 2)), nn.Sequential(_OwnLinear(2, 2)), tied, loose):
        assert torch.equal(_round_trip(network)(x), network(x))


@pytest.mark.contract
@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            nn.Sequential(nn.Linear(2, 2), nn.RNN(2, 2)),
            r"but got RNN as module '1'\. Write the network .* save it with export_torch",
        ),
        (
            nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))),
            "but got ParametrizedLinear as module '0'",
        ),
    ],
)
def test_unknown_modules_are_named(network, message):
    with pytest.raises(ValueError, match=message):
        describe(network)


class _Branch(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class _Foreign(nn.Module):
    def forward(self, x):
        return torch.linalg.svdvals(x)


@pytest.mark.contract
def test_what_cannot_be_followed_is_refused():
    with pytest.raises(ValueError, match=r"tracing _Branch as module '0' failed.*export_torch"):
        describe(nn.Sequential(_Branch()))
    with pytest.raises(ValueError, match=r"Expected functions of torch on tensors, but got .*svdv"):
        describe(_Foreign())
    wrong = nn.Sequential(nn.Linear(3, 2))
    wrong[0].in_features = 4
    with pytest.raises(
        ValueError, match=r"but got '0\.weight' of shape \(2, 3\) where the setting"
    ):
        describe(wrong)


@pytest.mark.contract
def test_hooks_are_refused():
    hooked = nn.Sequential(nn.Linear(2, 2))
    hooked[0].register_forward_hook(lambda module, inputs, output: output * 2)
    for network, name in ((hooked, "0"), (_Own(hooked), "0.0")):
        with pytest.raises(
            ValueError, match=f"Expected modules without hooks, but got one on module '{name}'"
        ):
            describe(network)


@pytest.mark.contract
@pytest.mark.parametrize(
    "description",
    [{}, {"type": "os.system", "arguments": {}}, {"type": "Linear", "arguments": {"command": "x"}}],
)
def test_damaged_descriptions_are_refused(description):
    with pytest.raises(ValueError, match=r"Expected a description made by describe\(\)"):
        build(description)


STEP = ["placeholder", "x"]
HARMFUL = {
    "foreign function": ["call_function", "os.system", ["true"]],
    "foreign function of torch": ["call_function", "torch.load", ["file"]],
    "function behind a module": ["call_function", "torch.nn.functional.torch.load", ["file"]],
    "builtin": ["call_function", "builtins.eval", ["1"]],
    "attribute": ["call_function", "builtins.getattr", [{"result": 0}, "__class__"]],
    "attribute of a text": ["call_function", "builtins.getattr", ["a", "shape"]],
    "operator": ["call_function", "operator.methodcaller", ["save"]],
    "operator that reads a file": ["call_function", "torch.ops.aten.from_file.default", ["f"]],
    "unknown overload": ["call_function", "torch.ops.aten.add.nothing", []],
    "data type": ["call_function", "torch.float", [{"result": 0}]],
    "method": ["call_method", "numpy", [{"result": 0}]],
    "private method": ["call_method", "__reduce__", [{"result": 0}]],
    "method of a text": ["call_method", "split", ["a b"]],
    "missing module": ["call_module", "layer", [{"result": 0}]],
    "attribute as a tensor": ["get_attr", "forward"],
    "later step": ["call_function", "operator.neg", [{"result": 1}]],
    "unknown step": ["call", "operator.neg", [{"result": 0}]],
    "unknown argument": ["call_function", "operator.neg", [{"code": "1"}]],
    "no function": ["call_function", 3, []],
}


@pytest.mark.contract
@pytest.mark.parametrize("step", HARMFUL.values(), ids=HARMFUL)
def test_building_refuses_what_is_not_on_the_lists(step):
    steps = [STEP, step, ["output", "output", [{"result": 1}]]]
    with pytest.raises(ValueError, match="Expected"):
        build({"type": "Graph", "modules": {}, "tensors": {}, "steps": steps})


@pytest.mark.contract
def test_a_graph_needs_an_output_and_free_names():
    with pytest.raises(ValueError, match="Expected steps that end in an output"):
        GraphNetwork([Step("placeholder", "x")], {}, {})
    graph = {"type": "Graph", "tensors": {}, "steps": [STEP, ["output", "output", [None]]]}
    linear = describe(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="already exists"):
        build(graph | {"modules": {"forward": linear}})
