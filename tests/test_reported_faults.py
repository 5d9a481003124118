"""Faults that users of pruning tools reported, one by one: none of them happens here.

Each test names the thread (GitHub ``owner/repository#number``) in which the fault is described.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pyro_relevance as pr
from pyro_relevance.edges.size import masked_cost
from tests.edges.coupling.test_coupling import (
    Depthwise,
    Grouped,
    Residual,
    check,
    conv,
    make,
    random_mask,
    shake,
    without,
)
from tests.small_fits import make_model, quick_fit, regression


def units(network, x):
    return pr.find_edges(network, example_input=x, granularity="unit")


class Flattened(nn.Module):
    """Convolution, flattened, two linear layers."""

    def __init__(self):
        super().__init__()
        self.conv, self.hidden, self.classifier = (
            nn.Conv2d(1, 4, 3), nn.Linear(4 * 4 * 4, 6), nn.Linear(6, 3)
        )  # fmt: skip

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return self.classifier(F.relu(self.hidden(x.view(-1, 4 * 4 * 4))))


@pytest.mark.exact
def test_flattened_channels_and_the_final_layer():
    """1. VainF/Torch-Pruning#451, #57: sizes of the linear layer do not fit; classes are pruned."""
    network, x = Flattened(), torch.randn(3, 1, 10, 10)
    edges = units(network, x)
    assert edges.names == ("conv.units", "hidden.units")
    assert [item.name for item in edges.skipped] == ["classifier.units"]
    pruned = check(network, edges, random_mask(edges, 0.5), x)
    assert pruned(x).shape == (3, 3)


class Decoder(nn.Module):
    """A linear layer whose units become channels of nine pixels."""

    def __init__(self):
        super().__init__()
        self.code, self.up = nn.Linear(5, 4 * 9), nn.ConvTranspose2d(4, 2, 3)

    def forward(self, x):
        return self.up(F.relu(self.code(x)).view(-1, 4, 3, 3))


@pytest.mark.exact
def test_a_reshape_between_a_linear_layer_and_a_transposed_convolution():
    """2. VainF/Torch-Pruning#125: a view changes what a channel is; an index is out of range."""
    network, x = Decoder(), torch.randn(3, 5)
    edges = units(network, x)
    assert edges["code.units"].num_edges == 4  # nine units of the linear layer each
    pruned = check(network, edges, {"code.units": torch.tensor([1, 0, 1, 0]).bool()}, x)
    assert pruned(x).shape == (3, 2, 5, 5)
    shapes = {tuple(parameter.shape) for parameter in pruned.parameters()}
    assert {(18, 5), (2, 2, 3, 3)} <= shapes


@pytest.mark.exact
@pytest.mark.parametrize("kind", [Grouped, Depthwise])
def test_grouped_convolutions_stay_divisible(kind):
    """3. VainF/Torch-Pruning#145, #9, #328: sizes of ResNeXt and MobileNet stop being divisible."""
    network, x = make(kind), torch.randn(2, 3, 6, 6)
    edges = units(network, x)
    name, grouped = next(
        (name, module)
        for name, module in network.named_modules()
        if getattr(module, "groups", 1) > 1
    )
    width = grouped.in_channels // grouped.groups
    for _ in range(4):
        pruned = check(network, edges, random_mask(edges, 0.5), x)
        narrow = pruned.network.get_submodule(name)
        assert narrow.groups < grouped.groups
        assert narrow.in_channels == width * narrow.groups
        assert narrow.out_channels % narrow.groups == 0


class SingleChannel(nn.Module):
    """Convolutions with one channel: on one side, and on both."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 1, 3)
        self.second = nn.Conv2d(1, 1, 3)
        self.third = nn.Conv2d(1, 4, 3)
        self.classifier = nn.Linear(4, 2)

    def forward(self, x):
        x = self.third(F.relu(self.second(F.relu(self.first(x)))))
        return self.classifier(F.relu(x).mean((2, 3)))


@pytest.mark.exact
def test_one_output_channel_is_not_depthwise():
    """4. VainF/Torch-Pruning#126, #179, microsoft/nni#5736: taken for a depthwise convolution."""
    network, x = SingleChannel(), torch.randn(2, 3, 9, 9)
    edges = units(network, x)
    # Three groups of their own: nothing ties what a convolution reads to what it makes.
    assert {group.name: group.num_edges for group in edges} == {
        "first.units": 1, "second.units": 1, "third.units": 4,
    }  # fmt: skip
    mask = {group.name: torch.ones(group.shape, dtype=torch.bool) for group in edges}
    mask["third.units"][:2] = False
    assert check(network, edges, mask, x).network.third.out_channels == 2


@pytest.mark.exact
@pytest.mark.parametrize("on_empty", ["remove", "keep"])
def test_a_layer_without_channels(on_empty):
    """5. VainF/Torch-Pruning#8: a layer that is pruned to nothing crashes."""
    network, x = make(Residual), torch.randn(2, 3, 6, 6)
    edges = units(network, x)
    mask = without(edges, "block1.0.units")
    pruned = pr.prune(network, edges, mask, example_input=x, on_empty=on_empty)
    torch.testing.assert_close(pruned(x), pr.apply_mask(network, edges, mask)(x))
    left = {"remove": 0, "keep": 1}[on_empty]
    assert f"block1.0.units: {left} of 6 kept." in pruned.receipt.notes


class TwoBlocks(nn.Module):
    """Two residual blocks on one stream."""

    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two = conv(3, 8), conv(8, 8), conv(8, 8)
        self.classifier = nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.one(x)
        return self.classifier((x + self.two(x)).mean((2, 3)))


@pytest.mark.exact
def test_skip_connections_tie_what_they_add():
    """6. VainF/Torch-Pruning#3, marcoancona/TorchPruner#1: residual blocks had to be left alone."""
    network, x = TwoBlocks().eval(), torch.randn(2, 3, 6, 6)
    shake(network)
    edges = units(network, x)
    assert [(group.name, group.num_edges) for group in edges] == [("stem.0.units", 8)]
    producers = {slot.tensor for slot in edges["stem.0.units"].producers}
    assert {"stem.0.weight", "one.0.weight", "two.0.weight", "two.1.running_mean"} <= producers
    pruned = check(network, edges, {"stem.0.units": torch.arange(8) < 3}, x)
    assert pruned.network.two[0].weight.shape == (3, 3, 3, 3)


@pytest.mark.exact
def test_a_shift_of_batch_norm_is_not_lost():
    """7. microsoft/nni#2130: a zeroed channel comes out of BatchNorm as its shift, not as zero."""
    network, x = make(Residual), torch.randn(2, 3, 6, 6)
    edges = units(network, x)
    mask = {group.name: torch.arange(group.num_edges) != 0 for group in edges}
    zeroed = make(Residual)
    zeroed.load_state_dict(network.state_dict())
    with torch.no_grad():  # what a mask on the convolution's output would do
        zeroed.stem[0].weight[0] = 0
        zeroed.block1[0].weight[0] = 0
        zeroed.block2.weight[0] = 0
        zeroed.block2.bias[0] = 0
    pruned = check(network, edges, mask, x)
    assert not torch.allclose(zeroed(x), pruned(x), atol=1e-3)
    torch.testing.assert_close(pruned(x), pr.apply_mask(network, edges, mask)(x))


@pytest.mark.exact
def test_each_channel_has_one_gate():
    """8. microsoft/nni#2666, #5298, #5406, #3318: masks of layers that share channels conflict."""
    network, x = make(Residual), torch.randn(2, 3, 6, 6)
    edges = units(network, x)
    owners = {}
    for group in edges:
        for slot in (*group.producers, *group.consumers):
            size = edges.shapes[slot.tensor][slot.dim]
            for place, gate in enumerate(slot.index or range(size)):
                if gate >= 0:
                    owners.setdefault((slot.tensor, slot.dim, place), set()).add((group.name, gate))
    assert owners
    assert all(len(gates) == 1 for gates in owners.values())


@pytest.mark.exact
def test_the_pruned_network_is_really_smaller(tmp_path):
    """9. pytorch/pytorch#36214, #43552, microsoft/nni#2225, #3273: masks that save nothing."""
    network, x = make(Residual), torch.randn(2, 3, 6, 6)
    edges = units(network, x)
    sizes = []
    for share in (1.0, 0.5):
        mask = {group.name: torch.arange(group.num_edges) < share * group.num_edges
                for group in edges}  # fmt: skip
        pruned = check(network, edges, mask, x)
        pruned.save(tmp_path / "small.safetensors")
        content = sum(t.numel() * t.element_size() for t in pruned.state_dict().values())
        stored = (tmp_path / "small.safetensors").stat().st_size
        sizes.append((sum(p.numel() for p in pruned.parameters()), content, stored))
        assert pruned.receipt.after.num_parameters == sizes[-1][0]
        assert pruned.receipt.after.num_macs == masked_cost(edges, mask).num_macs
    assert all(small < large for small, large in zip(sizes[1], sizes[0], strict=True))
    assert sizes[1][0] < 0.5 * sizes[0][0]


@pytest.mark.contract
def test_the_receipt_has_the_latency_of_the_users_batch_beside_the_operations():
    """10. VainF/Torch-Pruning#33, #149: no faster after real pruning, at the batch in use."""
    network, x = make(Residual), torch.randn(5, 3, 6, 6)
    edges = units(network, x)
    receipt = check(network, edges, random_mask(edges, 0.5), x).receipt
    assert receipt.batch_size == 5
    assert receipt.latency_before.lower <= receipt.latency_before.median
    assert receipt.speedup == receipt.latency_before.median / receipt.latency_after.median
    text = str(receipt)
    assert "ms per pass of 5" in text
    assert f"{receipt.after.num_macs:,}" in text


FRESH = """
import sys
import torch
sys.modules["pyro"] = None
import pyro_relevance as pr
x, y = torch.load(sys.argv[2], weights_only=True)
print(bool(torch.equal(pr.load_pruned(sys.argv[1])(x), y)))
"""
ALONE = """
import sys
import torch
sys.modules["pyro_relevance"] = None
x, y = torch.load(sys.argv[2], weights_only=True)
print(bool(torch.allclose(torch.export.load(sys.argv[1]).module()(x), y, atol=1e-6)))
"""


@pytest.mark.exact
@pytest.mark.parametrize("way", ["safetensors", "pt2"])
def test_the_file_loads_in_another_process_without_pruning_again(way, tmp_path):
    """11. microsoft/nni#3984, #4780: the speed-up has to be run again at each load.

    12. jacobgil/pytorch-pruning#26, dwofk/fast-depth#29, VainF/Torch-Pruning#436: sizes in the file
    do not fit the network, and the advice is to pickle the whole module.
    """
    network, x = make(Residual), torch.randn(2, 3, 6, 6)
    edges = units(network, x)
    pruned = check(network, edges, random_mask(edges, 0.5), x)
    path = tmp_path / f"small.{way}"
    if way == "safetensors":
        pruned.save(path)
    else:
        pr.export_torch(pruned, path, example_input=x)
    torch.save((x, pruned(x).detach()), tmp_path / "expected.pt")
    code = FRESH if way == "safetensors" else ALONE
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(tmp_path / "expected.pt")],
        capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.statistical
def test_the_damage_of_pruning_is_shown_before_it():
    """13. VainF/Torch-Pruning#347: accuracy falls silently, and fine-tuning does not bring it back.

    The first two of four inputs matter. The mask that removes the first one says that it removes
    what is relevant, and its likelihood under the posterior is that of the network after pruning.
    """
    x, y = regression()
    posterior = quick_fit(
        make_model(gate_prior=pr.priors.IndependentPrior(-2.0)), num_epochs=150
    ).posterior
    everything = pr.Mask.all_kept(posterior.edges)
    kept = {name: keep.clone() for name, keep in everything.items()}
    kept["inputs"][0] = False
    probability = {name: p[0] for name, p in posterior.inclusion_probability().items()}
    harmful = pr.Mask(kept, inclusion_probability=probability)
    harmless = pr.Mask(
        kept | {"inputs": torch.tensor([True, True, False, False])},
        inclusion_probability=probability,
    )
    assert harmful.risk.expected_false_omissions > 0.9
    assert harmless.risk.expected_false_omissions < 0.5
    values = []
    for mask in (harmful, harmless):
        predicted = posterior.log_likelihood(x, y, mask=mask).mean()
        pruned = pr.prune(posterior.network(), posterior.edges, mask, example_input=x)
        with torch.no_grad():
            outputs = pruned.eval()(x)
            realised = posterior.chain(0).model.likelihood(outputs).log_prob(y).mean()
        values.append((float(predicted), float(realised)))
    (bad_before, bad_after), (good_before, good_after) = values
    assert bad_before < good_before - 1.0  # nats per example, known before anything is pruned
    assert bad_after < good_after - 1.0
    assert abs(bad_before - bad_after) < 0.2 * abs(bad_after)
