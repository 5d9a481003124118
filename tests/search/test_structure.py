"""Searches in one call, and what is told where they end badly."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import pyro
import pytest
import torch

from pyro_relevance import find_edges, likelihoods, load_posterior, load_pruned
from pyro_relevance._random import seeded, substream
from pyro_relevance.commands.main import main
from pyro_relevance.errors import CollapseWarning
from pyro_relevance.graphs import Graph, canonical, is_connected, mode, spaces
from pyro_relevance.model.priors import CategoricalPrior, PointWeights
from pyro_relevance.posterior.architectures import chain_probability, draw_architectures
from pyro_relevance.posterior.arviz import convert as report
from pyro_relevance.search import structure
from pyro_relevance.search.collapse import structure_report, warn_of_collapse
from pyro_relevance.search.structure import SearchSettings, search_structure
from pyro_relevance.search.tasks import SearchData, default_settings, make_space


def make_table(num_data=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_data, 4, generator=generator)
    noise = 0.1 * torch.randn(num_data, generator=generator)
    return x, torch.sin(2 * x[:, 0]) + 0.5 * x[:, 1] + noise


def make_images(num_data=200):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num_data, 3, 8, 8, generator=generator)
    return x, (x[:, 0].mean((1, 2)) > 0).long()


def cells(full):
    return spaces.nasbench201_space(2, channels=4, num_cells=1, affine=full, statistics=full)


SHARED = SearchSettings(
    shared=True,
    num_epochs=3,
    num_epochs_after=1,
    batch_size=32,
    num_candidates=8,
    num_finalists=4,
    held_out=0.3,
)


def search_cells(settings=SHARED, **more):
    """Search the cells for `make_images`."""
    return search_structure(
        cells,
        make_images(),
        likelihood=likelihoods.Categorical(),
        settings=settings,
        progress=False,
        **more,
    )


@pytest.mark.exact
def test_structure_units_and_weights_are_found_together():
    settings = SearchSettings(
        num_epochs=120, batch_size=50, learning_rate=1e-2, gate_learning_rate=5e-2
    )
    result = search_structure(
        lambda full: spaces.mlp_space(4, 1, width=16, depth=2),
        make_table(),
        likelihood=likelihoods.Gaussian(0.3),
        settings=settings,
        progress=False,
    )
    x, y = make_table(1000, seed=1)
    with torch.no_grad():
        error = (result.network(x)[:, 0] - y).square().mean().sqrt()
    assert float(error) < 0.2  # noise 0.1, standard deviation of the target 0.85
    assert result.network.receipt.max_difference < 1e-5
    assert result.network.receipt.after.num_parameters < 250
    scores = [value for _, value in result.candidates]
    assert scores == sorted(scores, reverse=True)
    assert result.architecture == result.candidates[0][0]


@pytest.mark.contract
def test_cells_are_halved_and_trained_from_fresh_weights(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)  # three passes decide nothing
        runs = [search_cells(folder=tmp_path) for _ in range(2)]
    result, resumed = runs
    assert [epochs for _, epochs, _ in result.trials] == [1] * 4 + [2] * 2
    finalists = [a for a, _ in result.candidates[:4]]
    assert [a for a, _, _ in result.trials[:4]] == finalists
    first = sorted(result.trials[:4], key=lambda trial: -trial[2])
    assert {a for a, _, _ in result.trials[4:]} == {a for a, _, _ in first[:2]}
    assert result.architecture == max(result.trials[4:], key=lambda trial: trial[2])[0]
    assert any("Trained further for 1 epochs" in note for note in result.network.receipt.notes)
    # The second search found the checkpoints of the first: all stages were there.
    assert resumed.architecture == result.architecture
    x = make_images()[0]
    assert torch.equal(resumed.network(x), result.network(x))


def probabilities(edges, **chosen):
    """All edges as ``chosen["every"]`` unless given, with probability 0.96."""
    table = {}
    for group in edges.operations:
        name = chosen.get(group.name.replace("cell.", "").replace(".", "_"), chosen["every"])
        hot = torch.full(group.shape, 0.01)
        hot[list(group.labels).index(name)] = 0.96
        table[group.name] = hot
    return table


@pytest.mark.exact
def test_bad_end_points_are_told_with_numbers():
    network = cells(False)
    edges = find_edges(network, granularity="operation")
    dead = structure_report(network, edges, probabilities(edges, every="none"))
    assert not dead.connected
    assert dead.none == 1.0
    assert "100% of the edges are none" in dead.faults[0]
    skips = structure_report(network, edges, probabilities(edges, every="skip_connect"))
    assert skips.parameter_free == 1.0
    assert "operations without parameters" in skips.faults[0]
    sound = structure_report(network, edges, probabilities(edges, every="nor_conv_3x3"))
    assert sound.faults == ()
    assert sound.relative_entropy == pytest.approx(0.139, abs=0.001)
    half = probabilities(edges, every="nor_conv_1x1", n0_n1="none", n1_n2="none", n1_n3="none")
    assert structure_report(network, edges, half).free == ("cell.n0.n1", "cell.n1.n2", "cell.n1.n3")
    undecided = {g.name: torch.full((5,), 0.2) for g in edges.operations}
    with pytest.warns(CollapseWarning, match="100% of the entropy of the uniform distribution"):
        warn_of_collapse(structure_report(network, edges, undecided))
    warn_of_collapse(sound)


@pytest.mark.exact
@pytest.mark.filterwarnings("ignore::pyro_relevance.errors.CollapseWarning")
@pytest.mark.parametrize("num_effective", [10, 10_000])
def test_tempering_the_evidence_leaves_the_prior_of_the_weights_alone(num_effective, monkeypatch):
    """Divided by the examples, KL weight times log prior is what it is without tempering."""
    seen = {}

    def stopped(model, data, *, optimisation, **settings):
        seen["model"], seen["kl_weight"] = model, optimisation.schedules.kl_weight(0.5)
        raise InterruptedError

    monkeypatch.setattr(structure, "fit", stopped)
    settings = replace(SHARED, num_effective=num_effective, weight_scale=0.3)
    with pytest.raises(InterruptedError):
        search_cells(settings)
    num_train = 140  # 30 % of 200 are held out
    assert seen["kl_weight"] == max(1.0, num_train / num_effective)
    values = {"w": torch.tensor([0.2, -1.5])}
    slope = []
    for prior in (seen["model"].weight_prior, PointWeights(0.3)):
        w = {"w": values["w"].clone().requires_grad_()}
        trace = pyro.poutine.trace(prior.sample).get_trace(w)
        slope.append(torch.autograd.grad(trace.log_prob_sum(), w["w"])[0])
    torch.testing.assert_close(seen["kl_weight"] * slope[0], slope[1])


@pytest.mark.contract
def test_a_dead_network_is_never_returned():
    settings = SearchSettings(
        shared=True,
        num_epochs=1,
        num_epochs_after=1,
        batch_size=32,
        operation_prior=CategoricalPrior({"none": 1e3}),
        gate_learning_rate=5.0,
        warm_up=0.0,
        num_effective=1,
    )
    with pytest.warns(CollapseWarning, match="no path leads from input to output"):
        result = search_cells(settings)
    assert not result.report.connected
    assert is_connected(cells(False), result.architecture)
    assert len(result.network(torch.randn(3, 3, 8, 8)).unique()) > 2


@pytest.mark.contract
@pytest.mark.filterwarnings("ignore::pyro_relevance.errors.CollapseWarning")
def test_finalists_can_be_draws_and_short_trainings_a_share_of_a_pass():
    settings = replace(SHARED, finalists="draws", num_epochs_trial=0.25, num_finalists=2)
    result = search_cells(settings)
    assert [epochs for _, epochs, _ in result.trials] == [0.25] * 2
    assert all(is_connected(cells(False), architecture) for architecture, _, _ in result.trials)
    seed = substream(settings.seed, "finalists")
    drawn = draw_architectures(result.posterior, 20, seed=seed)
    network = result.posterior.network()
    forms = [canonical(network, a) for a in drawn if is_connected(network, a)]
    expected = list(dict.fromkeys(forms))[:2]
    assert [canonical(network, a) for a, _, _ in result.trials] == expected


@pytest.mark.contract
@pytest.mark.filterwarnings("ignore::pyro_relevance.errors.CollapseWarning")
def test_a_search_over_the_mixture_derives_the_mode_of_its_posterior():
    settings = replace(
        SHARED,
        evaluation="mixture",
        finalists="probable",
        num_finalists=1,
        num_epochs=4,
        gate_learning_rate=0.3,
    )
    result = search_cells(settings)
    assert result.trials == ()
    network, edges = result.posterior.network(), result.posterior.edges
    probability = chain_probability(result.posterior)
    assert result.architecture == mode(edges, probability, network=network)
    # All operations were computed at each step, so weights of all of them have moved.
    with seeded(substream(settings.seed, "network")):
        start = dict(cells(False).named_parameters())
    moved = dict(network.named_parameters())
    assert all(not torch.equal(moved[name], value) for name, value in start.items())
    several = search_cells(replace(settings, num_finalists=2, num_epochs_trial=0.25))
    assert [a for a, _, _ in several.trials][0] == result.architecture


@pytest.mark.exact
def test_full_sizes_are_those_of_the_papers():
    data = SearchData("x", make_images(), make_images(), likelihoods.Categorical(), 10, None)
    full = make_space("darts", data, size="full")(True)
    assert len(full.cells) == 20
    assert full.stem[0].out_channels == 3 * 36
    cells_of_stage = make_space("nasbench201", data, size="full")(True)
    assert sum(isinstance(m, Graph) and m.structure == "cell" for m in cells_of_stage) == 15
    assert default_settings("darts", "full").num_epochs_after == 600
    with pytest.raises(ValueError, match="Expected a space with size 'full'"):
        default_settings("mlp", "full")


@pytest.mark.contract
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finalists": "worst"}, "Expected finalists from"),
        ({"evaluation": "all"}, "Expected evaluation from"),
        ({"num_epochs_trial": 0}, "Expected num_epochs_trial > 0"),
        ({"warm_up": 1.0}, r"Expected warm_up in \[0, 1\)"),
        ({"held_out": 0.0}, r"Expected held_out in \(0, 1\)"),
        ({"num_candidates": 0}, "Expected num_candidates >= 1"),
        ({"shared": True}, "Expected num_epochs_after >= 1 where shared=True"),
    ],
)
def test_wrong_settings_are_told(changes, message):
    with pytest.raises(ValueError, match=message):
        SearchSettings(**changes)


@pytest.mark.contract
def test_the_command_writes_a_run_folder(tmp_path, capsys):
    arguments = ["search", "--space", "mlp", "--epochs", "2", "--quiet", "--out", str(tmp_path)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)
        assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "space mlp, 455 training and 51 test examples" in text
    assert {path.name for path in tmp_path.iterdir()} == {
        "posterior.nc",
        "posterior.safetensors",
        "network.safetensors",
        "record.json",
        "report.txt",
        "mlp.pdf",
        "mlp.png",
    }
    assert load_pruned(tmp_path / "network.safetensors")(torch.zeros(2, 13)).shape == (2, 1)
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["rows"][0]["metrics"]["rmse"]["mean"] > 0
    relevance = report.load(tmp_path / "posterior.nc")["relevance"]
    dims = relevance["mlp_operation_probability"].dims
    assert dims == ("chain", "draw", "source", "target", "operation")
    network = spaces.mlp_space(13, 1)
    posterior = load_posterior(tmp_path / "posterior.safetensors", network=network)
    assert posterior.edges.operations[0].name == "mlp.a1.h1"
    assert main(["search", "--space", "lenet", "--quiet", "--out", str(tmp_path)]) == 2
    assert "but got a table" in capsys.readouterr().err
    assert main(["search", "--space", "mlp", "--size", "full", "--quiet"]) == 2
    assert "Expected a space with size 'full'" in capsys.readouterr().err
    assert main(["search", "--space", "mlp", "--device", "abacus", "--quiet"]) == 2
    assert "Expected --device to name a device of this machine" in capsys.readouterr().err
    assert main(["search", "--space", "mlp", "--data", "x.csv", "--quiet"]) == 2
    assert "Expected --data FILE and --target COLUMN" in capsys.readouterr().err
