"""All that is trained and pruned on an accelerator; skipped on a machine without one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pyro_relevance as pr
from pyro_relevance import guides, likelihoods, masks, priors
from pyro_relevance.commands.main import main
from pyro_relevance.comparison import METHODS, make_task
from pyro_relevance.data.augmentation import InOrder, RandomCrop, RandomFlip
from pyro_relevance.graphs import spaces
from pyro_relevance.posterior.architectures import draw_architectures, expected_cost
from pyro_relevance.search.structure import SearchSettings, search_structure
from tests.search.test_structure import make_table, search_cells
from tests.small_fits import make_model, make_network, regression, same
from tests.small_plans import small_plan

CUDA = torch.device("cuda", 0)
pytestmark = [
    pytest.mark.contract,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
FAST = pr.Precision(autocast=torch.bfloat16, channels_last=True)


def fit_there(model, data, **settings):
    return pr.fit(
        model,
        data,
        **{
            "num_epochs": 6,
            "batch_size": 16,
            "learning_rate": 1e-2,
            "device": CUDA,
            **settings,
        },
    )


def colours(num_data=96, size=16):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num_data, 3, size, size, generator=generator)
    return x, (x[:, 0].mean((1, 2)) > 0).long()


def blocks():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.embed(x.flatten(2).transpose(1, 2))
        return self.head((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_chains": 3},
        {"noise": "per_example"},
        {"num_particles": 2},
        {"guide": guides.LowRankGuide},
        {"granularity": ("input", "unit", "weight")},
        {"weight_prior": priors.GaussianWeights()},
        {"weight_prior": priors.ArdWeights()},
        {"gate_prior": priors.HierarchicalPrior()},
        {"weight_prior": priors.HorseshoeWeights()},
        {"weight_prior": priors.LogUniformWeights()},
        {"gate_prior": priors.DescriptionLengthPrior(0.5)},
        {"likelihood": likelihoods.StudentT()},
        {"relaxation": pr.relaxations.HardConcreteGate()},
        {"network": make_network(batch_norm=True)},
    ],
    ids=lambda settings: ",".join(settings) or "plain",
)
def test_fit_inspect_prune_report_and_store(settings, tmp_path):
    names = ("granularity", "weight_prior", "gate_prior", "likelihood", "relaxation", "network")
    of_model = {name: settings[name] for name in names if name in settings}
    of_fit = {name: value for name, value in settings.items() if name not in names}
    before = torch.cuda.get_rng_state(CUDA)
    fit = fit_there(make_model(**of_model), regression(), **of_fit)
    assert torch.equal(torch.cuda.get_rng_state(CUDA), before)
    posterior, (x, y) = fit.posterior, regression()
    assert posterior.device == CUDA
    again = fit_there(make_model(**of_model), regression(), **of_fit)
    assert same(posterior.state, again.posterior.state)
    predicted = posterior.predict(x, num_samples=5)
    assert bool(torch.isfinite(predicted.mean).all())
    posterior.elbo(x, y, num_samples=2)
    idata = pr.to_arviz(posterior, data=(x, y), num_samples=20)
    assert "posterior" in (idata.children if hasattr(idata, "children") else idata.groups())
    first = posterior.chain(0)
    mask = masks.budget(first, num_parameters=12)
    small = pr.prune(first.network(), first.edges, mask, example_input=x.to(CUDA))
    assert small.receipt.max_difference < 1e-5
    assert next(small.parameters()).device.type == "cuda"
    small.save(tmp_path / "small.safetensors")
    loaded = pr.load_pruned(tmp_path / "small.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), small(x.to(CUDA)).cpu(), rtol=1e-4, atol=1e-5)
    pr.save_posterior(posterior, tmp_path / "fit.safetensors")
    stored = pr.load_posterior(tmp_path / "fit.safetensors", network=first.network().cpu())
    for name, value in posterior.inclusion_probability().items():
        # Where it is a mean over draws, another generator draws others.
        torch.testing.assert_close(
            stored.inclusion_probability()[name], value.cpu(), rtol=0.0, atol=0.02
        )


@pytest.mark.parametrize("make", [blocks, Attention], ids=["convolutions", "attention"])
@pytest.mark.parametrize("precision", [pr.Precision(), FAST], ids=["float32", "bfloat16"])
def test_units_of_image_networks(make, precision, tmp_path):
    x, y = colours()
    network = make().to(CUDA)
    edges = pr.find_edges(network, example_input=x[:2].to(CUDA))
    model = pr.RelevanceModel(network, edges, likelihood=likelihoods.Categorical(), num_data=len(x))
    augment = InOrder((RandomCrop(2), RandomFlip()))
    fit = fit_there(
        model, (x, y), augment=augment, precision=precision, num_epochs=10, batch_size=32
    )
    posterior = fit.posterior
    half = sum(p.numel() for p in network.parameters()) // 2
    mask = masks.budget(posterior, num_parameters=half)
    example = x[:8].to(CUDA)
    small = pr.prune(posterior.network(), edges, mask, example_input=example)
    assert small.receipt.max_difference < 1e-5
    better = pr.fine_tune(
        small,
        (x, y),
        likelihood=likelihoods.Categorical(),
        num_data=len(x),
        num_epochs=2,
        batch_size=32,
        precision=precision,
    ).network
    assert next(better.parameters()).device.type == "cuda"
    pr.export_torch(better.eval(), tmp_path / "small.pt2", example_input=example)


def test_a_step_never_waits_for_the_device():
    x, y = colours()
    network = blocks().to(CUDA)
    model = pr.RelevanceModel(
        network,
        pr.find_edges(network, example_input=x[:2].to(CUDA)),
        likelihood=likelihoods.Categorical(),
        num_data=len(x),
    )

    def watch(state):
        # Losses are recorded at each seventh step; in between nothing may wait.
        mode = "error" if state.step in range(43, 47) else "default"
        torch.cuda.set_sync_debug_mode(mode)

    try:
        fit_there(
            model,
            (x, y),
            num_epochs=500,
            batch_size=32,
            augment=RandomCrop(2),
            precision=FAST,
            callbacks=[watch],
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_run_goes_on_where_it_was_stopped(tmp_path):
    def stop(state):
        if state.step == 9:
            raise KeyboardInterrupt

    whole = fit_there(make_model(), regression())
    checkpoint = pr.Checkpoint(tmp_path / "state", 0.0)
    with pytest.raises(KeyboardInterrupt):
        fit_there(make_model(), regression(), checkpoint=checkpoint, callbacks=[stop])
    rest = fit_there(make_model(), regression(), checkpoint=checkpoint)
    assert same(whole.posterior.state, rest.posterior.state)


@pytest.mark.filterwarnings("ignore::pyro_relevance.errors.CollapseWarning")
def test_structures_are_searched():
    joint = search_structure(
        lambda full: spaces.mlp_space(4, 1, width=8, depth=2),
        make_table(),
        likelihood=likelihoods.Gaussian(0.3),
        settings=SearchSettings(num_epochs=20, batch_size=50, num_epochs_after=2),
        progress=False,
        device=CUDA,
    )
    assert next(joint.network.parameters()).device.type == "cuda"
    assert draw_architectures(joint.posterior, 3)
    expected_cost(joint.posterior, torch.zeros(2, 4, device=CUDA), num_samples=2)
    pr.to_arviz(joint.posterior, num_samples=5)
    runs = [search_cells(device=CUDA) for _ in range(2)]
    # Some sums of the device have no fixed order: not the same bits, but the same search.
    assert runs[0].architecture == runs[1].architecture


@pytest.mark.filterwarnings("ignore::pyro_relevance.errors.CollapseWarning")
@pytest.mark.parametrize("method", METHODS)
def test_methods_of_a_comparison(method):
    task = make_task("boston", device="cuda")
    for result in METHODS[method].run(task, small_plan(method), 0).values():
        assert next(result.network.parameters()).device.type == "cuda"
        assert task.score(result.network.eval(), *task.data.test) > 0


@pytest.mark.filterwarnings("ignore::pyro_relevance.errors.CollapseWarning")
def test_the_commands(tmp_path):
    search = ["search", "--space", "mlp", "--epochs", "20", "--device", "cuda", "--quiet"]
    assert main([*search, "--traceback", "--out", str(tmp_path / "search")]) == 0
    compare = ["compare", "--task", "boston", "--methods", "magnitude", "--budget-minutes", "0.01"]
    compare += ["--seeds", "1", "--device", "cuda", "--quiet", "--traceback"]
    assert main([*compare, "--out", str(tmp_path / "compare")]) == 0
    assert main([*compare[:-1], "--device", "cuda:99", "--out", str(tmp_path / "none")]) == 2
