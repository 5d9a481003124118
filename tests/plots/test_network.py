from __future__ import annotations

import json
import sys

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure

from pyro_relevance import masks, plots
from pyro_relevance.edges.find import find_edges
from pyro_relevance.posterior.arviz import convert as report
from tests.fake_posterior import FEATURES, FakePosterior, fake_history, fake_posterior


def idata_of(posterior, num_samples=20):
    return report.to_arviz(posterior, num_samples=num_samples)


@pytest.fixture(scope="module")
def posterior():
    return fake_posterior((13, 6, 4, 1), ("input", "unit", "weight"))


@pytest.fixture(scope="module")
def idata(posterior):
    return idata_of(posterior)


@pytest.fixture
def mask(posterior):
    return masks.threshold({name: p[0] for name, p in posterior.probability.items()}, 0.4)


def drawn(figure, label):
    found = [artist for artist in figure.axes[0].collections if artist.get_label() == label]
    assert len(found) == 1
    return found[0]


def joint(posterior, chain=0):
    """Products of the probabilities of all gates on each connection, written out."""
    p = {name: values[chain].numpy() for name, values in posterior.probability.items()}
    first, second = p["0.units"], p["2.units"]
    return {
        "0.weight": p["0.weight"] * p["inputs"] * first[:, None],
        "2.weight": p["2.weight"] * first * second[:, None],
        "4.weight": p["4.weight"] * second,
    }


def filled(collection):
    return ~(collection.get_facecolors()[:, :3] == 1).all(axis=1)


@pytest.mark.parametrize("chain", [0, 1])
def test_connections_are_the_products_of_nested_gates(idata, posterior, chain):
    figure = plots.network(idata, chain=chain)
    for name, wanted in joint(posterior, chain).items():
        kept, removed = drawn(figure, f"kept {name}"), drawn(figure, f"pruned {name}")
        np.testing.assert_allclose(kept.get_array(), np.sort(wanted[wanted > 0.5]), rtol=1e-5)
        np.testing.assert_allclose(removed.get_array(), np.sort(wanted[wanted <= 0.5]), rtol=1e-5)


def test_connections_end_at_their_nodes(idata, posterior):
    figure = plots.network(idata, threshold=-1.0)
    wanted = joint(posterior)["0.weight"]
    lines, values = (
        drawn(figure, "kept 0.weight").get_segments(),
        drawn(figure, "kept 0.weight").get_array(),
    )
    sources, targets = (drawn(figure, f"nodes {i}").get_offsets() for i in (0, 1))
    for segment, value in zip(lines, values, strict=True):
        source = np.flatnonzero((sources == segment[0]).all(1))[0]
        target = np.flatnonzero((targets == segment[1]).all(1))[0]
        assert wanted[target, source] == pytest.approx(value, rel=1e-5)


def test_uncertain_connections_fade(idata):
    kept = drawn(plots.network(idata, threshold=-1.0), "kept 0.weight")
    p = kept.get_array()
    np.testing.assert_allclose(kept.get_alpha(), 0.2 + 0.8 * (1 - 4 * p * (1 - p)), rtol=1e-5)


def test_cut_connections_are_dashed_and_thin(idata):
    figure = plots.network(idata)
    kept, removed = drawn(figure, "kept 0.weight"), drawn(figure, "pruned 0.weight")
    assert removed.get_linewidth()[0] < kept.get_linewidth()[0]
    assert kept.get_linestyle()[0][1] is None
    assert removed.get_linestyle()[0][1] is not None


def test_mask_decides_what_is_pruned(idata, posterior, mask):
    figure = plots.network(idata, mask=mask)
    stays = (
        mask["0.weight"] & mask["inputs"] & mask["0.units"][:, None],
        mask["2.weight"] & mask["0.units"] & mask["2.units"][:, None],
        mask["4.weight"] & mask["2.units"],
    )
    for name, kept in zip(("0.weight", "2.weight", "4.weight"), stays, strict=True):
        assert len(drawn(figure, f"kept {name}").get_array()) == int(kept.sum())
        assert len(drawn(figure, f"pruned {name}").get_array()) == int((~kept).sum())
    assert "pruned by the mask" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_nodes_off_every_path_are_hollow():
    posterior = fake_posterior((3, 3, 1), ("unit", "input"), num_chains=1)
    idata = idata_of(posterior)
    units = torch.tensor([True, True, False])
    inputs = torch.tensor([False, True, True])
    figure = plots.network(idata, mask={"0.units": units, "inputs": inputs})
    np.testing.assert_array_equal(filled(drawn(figure, "nodes 0")), inputs)
    np.testing.assert_array_equal(filled(drawn(figure, "nodes 1")), units)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "inputs\n2 of 3 kept" in texts
    assert "hidden 1\n2 of 3 kept" in texts
    assert "outputs\n1 of 1 kept" in texts


def test_everything_pruned_leaves_every_node_hollow(idata):
    figure = plots.network(idata, threshold=1.0)
    assert not any(filled(drawn(figure, f"nodes {i}")).any() for i in range(4))
    figure.draw_without_rendering()


def test_groups_that_the_mask_lacks_are_kept():
    idata = idata_of(fake_posterior((3, 3, 1), ("unit", "input")))
    figure = plots.network(idata, mask={"inputs": np.array([True, True, False])})
    assert filled(drawn(figure, "nodes 1")).all()


def test_inputs_carry_their_names(idata):
    texts = [text.get_text() for text in plots.network(idata).axes[0].texts]
    assert texts[:13] == list(FEATURES)
    named = plots.network(idata, input_labels=[f"x{i}" for i in range(13)])
    assert "x12" in [text.get_text() for text in named.axes[0].texts]


def test_columns_of_one_feature_share_its_name():
    index = [0, 1, 1, 1, 2]
    posterior = fake_posterior((5, 4, 1), ("input",), input_index=index)
    figure = plots.network(idata_of(posterior), threshold=-1.0)
    texts = [text for text in figure.axes[0].texts if text.get_text() in FEATURES]
    assert [text.get_text() for text in texts] == list(FEATURES[:3])
    places = drawn(figure, "nodes 0").get_offsets()
    assert texts[1].xy == (0, pytest.approx(places[1:4, 1].mean()))
    p = posterior.probability["inputs"][0].numpy()[index]
    wanted = np.sort(np.tile(p, 4))
    np.testing.assert_allclose(drawn(figure, "kept 0.weight").get_array(), wanted, rtol=1e-5)


@pytest.mark.parametrize("granularity", [("input",), ("unit",), ("weight",)])
def test_every_granularity_is_drawn(granularity):
    figure = plots.network(idata_of(fake_posterior((4, 3, 2), granularity)))
    sizes = [len(drawn(figure, f"nodes {i}").get_offsets()) for i in range(3)]
    assert sizes == [4, 3, 2]
    total = sum(len(drawn(figure, f"{k} 0.weight").get_array()) for k in ("kept", "pruned"))
    assert total == 12


def test_large_layers_are_thinned_and_say_so():
    figure = plots.network(idata_of(fake_posterior((100, 70, 2), ("unit",)), 3), view="graph")
    assert len(drawn(figure, "nodes 0").get_offsets()) == 60
    note = figure.axes[0].get_title()
    assert "60 of 100 inputs, 60 of 70 hidden 1" in note
    assert "evenly spaced" in note
    assert "of 70 kept" in " ".join(text.get_text() for text in figure.axes[0].texts)
    assert plots.network(idata_of(fake_posterior((9, 3, 1), ("unit",)))).axes[0].get_title() == ""


def test_nothing_reaches_beyond_the_figure():
    for sizes in ((13, 50, 1), (100, 70, 70, 2)):
        figure = plots.network(idata_of(fake_posterior(sizes), 2))
        figure.draw_without_rendering()
        box = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert box.x0 > -0.02
        assert box.y0 > -0.02
        assert box.x1 < width + 0.02
        assert box.y1 < height + 0.02


def test_colour_bar_is_labelled_with_the_probability(idata):
    figure = plots.network(idata)
    assert figure.axes[1].get_ylabel() == "Inclusion probability"
    kept = drawn(figure, "kept 0.weight")
    assert kept.norm(0) == 0
    assert kept.norm(1) == 1
    # what is included is darker than what is not
    assert sum(to_rgb(kept.cmap(1.0))) < sum(to_rgb(kept.cmap(0.0)))


def test_own_axes(idata):
    figure = Figure(figsize=(6, 4), layout="constrained")
    ax = figure.subplots()
    assert plots.network(idata, ax=ax) is figure
    assert figure.axes[0] is ax


def test_correlated_draws_are_multiplied_draw_by_draw():
    posterior = fake_posterior((2, 2, 1), ("input", "unit"), num_chains=1)
    idata = idata_of(posterior, 2)
    dataset = idata["relevance"]
    # input 0 is on in the first draw, unit 0 in the second: never both
    dataset["inputs_inclusion_probability"][:] = [[[1.0, 1.0], [0.0, 1.0]]]
    dataset["layer_0_units_inclusion_probability"][:] = [[[0.0, 1.0], [1.0, 1.0]]]
    figure = plots.network(idata)
    values = np.concatenate(
        [drawn(figure, f"{kind} 0.weight").get_array() for kind in ("pruned", "kept")]
    )
    np.testing.assert_allclose(np.sort(values), [0.0, 0.5, 0.5, 1.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chain": 2}, r"Expected chain in \[0, 1\], but got 2"),
        ({"max_units": 0}, "Expected max_units >= 1, but got 0"),
        ({"input_labels": ["a"]}, "Expected 13 input_labels, but got 1"),
        (
            {"mask": {"inputs": np.ones(3, dtype=bool)}},
            r"Expected mask\['inputs'\] of shape \(13,\), but got \(3,\)",
        ),
    ],
)
def test_wrong_arguments_say_what_was_expected(idata, options, message):
    with pytest.raises(ValueError, match=message):
        plots.network(idata, **options)


def test_other_networks_have_no_graph(idata):
    dataset = report.to_arviz(fake_posterior(), num_samples=2)["relevance"]
    for layers in ("[]", '[{"tensor": "0.weight", "shape": [6, 1, 5, 5]}]'):
        dataset.attrs["pyro_relevance_layers"] = layers
        for view in ("graph", "matrix"):
            with pytest.raises(ValueError, match="Expected a feed-forward network of linear lay"):
                plots.network(_Holder(dataset), view=view)
    dataset.attrs["pyro_relevance_layers"] = "[]"
    with pytest.raises(ValueError, match="Expected a network with weights"):
        plots.network(_Holder(dataset))
    del dataset.attrs["pyro_relevance_groups"]
    with pytest.raises(ValueError, match="attribute 'pyro_relevance_groups'"):
        plots.network(_Holder(dataset))


def image_of(figure, name):
    found = [im for ax in figure.axes for im in ax.images if im.get_label() == f"matrix {name}"]
    assert len(found) == 1
    return np.asarray(found[0].get_array())


def test_crowded_networks_are_matrices():
    posterior = fake_posterior((30, 40, 3), ("input", "weight"))
    figure = plots.network(idata_of(posterior), threshold=0.5)
    p = {name: values[0].numpy() for name, values in posterior.probability.items()}
    first = p["0.weight"] * p["inputs"]
    colours = colormaps["viridis_r"](first)[..., :3]
    shown = image_of(figure, "0.weight")
    kept = first > 0.5
    np.testing.assert_allclose(shown[kept], colours[kept], atol=1e-6)
    np.testing.assert_allclose(shown[~kept], 0.72 + 0.28 * colours[~kept], atol=1e-6)
    # The last layer is turned: hidden units are rows in both.
    assert image_of(figure, "2.weight").shape == (40, 3, 3)
    assert figure.axes[0].get_xlabel().startswith("inputs (")
    assert figure.axes[1].get_ylabel().startswith("hidden 1 (")
    assert f"{int(kept.sum())} of 1,200 kept" in figure.axes[0].get_title()
    assert plots.network(idata_of(posterior), view="graph").axes[0].collections


def test_weights_are_drawn_with_sign_and_size():
    posterior = fake_posterior((4, 6, 1), ("input", "weight"))
    idata = idata_of(posterior)
    figure = plots.network(idata, view="weights", threshold=-1.0)
    weight = [posterior.network[i].weight.detach().numpy() for i in (0, 2)]
    most = max(float(np.abs(w).max()) for w in weight)
    colours = colormaps["RdBu_r"](Normalize(-most, most)(weight[0]))[..., :3]
    np.testing.assert_allclose(image_of(figure, "0.weight"), colours, atol=1e-6)
    assert "sign and size of the weights" in plots.caption(figure)
    with pytest.raises(ValueError, match="Expected weights in 'point_estimates'"):
        plots.network(_Holder(idata["relevance"]), view="weights")


def test_columns_of_one_category_share_a_name_in_matrices():
    index = [0, *([1] * 30), *([2] * 30)]
    posterior = fake_posterior((61, 4, 1), ("input",), input_index=index)
    ax = plots.network(idata_of(posterior)).axes[0]
    assert [text.get_text() for text in ax.get_xticklabels()] == list(FEATURES[:3])
    assert ax.get_xticks().tolist() == [0.0, 15.5, 45.5]


@pytest.fixture(scope="module")
def convolutional():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 3), torch.nn.ReLU(), torch.nn.Conv2d(6, 4, 3), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(64, 3),
    )  # fmt: skip
    edges = find_edges(network, example_input=torch.zeros(1, 1, 8, 8), granularity="unit")
    return FakePosterior(network, edges, 1, fake_history(1))


def test_convolutional_networks_are_layers(convolutional):
    idata = idata_of(convolutional, 3)
    figure = plots.network(idata, threshold=0.5)
    ax = figure.axes[0]
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names == ["0.weight  6×1×3×3", "2.weight  4×6×3×3", "5.weight  3×64"]
    p = {name: values[0].numpy() for name, values in convolutional.probability.items()}
    first, second = p["0.units"], p["2.units"]
    kept = [
        9 * int((first > 0.5).sum()),
        9 * int((first * second[:, None] > 0.5).sum()),
        3 * 16 * int((second > 0.5).sum()),
    ]
    texts = [text.get_text() for text in ax.texts]
    assert texts == [f"{k} of {n}" for k, n in zip(kept, (54, 216, 192), strict=True)]
    bars = {}
    for bar in ax.patches:
        bars.setdefault(round(bar.get_y() + bar.get_height() / 2), []).append(bar.get_width())
    assert all(sum(widths) == pytest.approx(1.0) for widths in bars.values())
    assert f"{sum(kept)} of 462 connections are kept" in plots.caption(figure)
    mask = {
        name: np.zeros(v.shape[1:], dtype=bool) for name, v in convolutional.probability.items()
    }
    texts = [text.get_text() for text in plots.network(idata, mask=mask).axes[0].texts]
    assert texts == ["0 of 54", "0 of 216", "0 of 192"]


def test_many_layers_are_joined_by_name(convolutional):
    dataset = idata_of(convolutional, 2)["relevance"]
    layers = [
        {"tensor": f"layer{k}.{i}.weight", "shape": [2, 2, 1, 1]}
        for k in range(4)
        for i in range(20)
    ]
    dataset.attrs["pyro_relevance_layers"] = json.dumps(layers)
    ax = plots.network(_Holder(dataset)).axes[0]
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names == [f"layer{k}  20 weights" for k in range(4)]
    assert [text.get_text() for text in ax.texts] == ["80 of 80"] * 4


def test_legends_have_the_colours_of_what_they_name(idata):
    figure = plots.network(idata)
    legend = figure.legends[0]
    names = [text.get_text() for text in legend.get_texts()]
    found = dict(zip(names, legend.get_lines(), strict=True))
    assert to_rgb(found["kept"].get_color()) == pytest.approx(colormaps["viridis_r"](0.95)[:3])


def test_captions_count_what_is_kept(idata, mask):
    text = plots.caption(plots.network(idata, mask=mask))
    assert "pruned by the mask" in text
    assert "of 106 connections are kept" in text
    assert plots.caption(Figure()) == ""


def test_posterior_without_gates_is_refused():
    dataset = report.to_arviz(fake_posterior(), num_samples=2)["relevance"]
    names = [name for name in dataset.data_vars if "probability" in name]
    bare = (dataset.to_dataset() if hasattr(dataset, "to_dataset") else dataset).drop_vars(names)
    with pytest.raises(ValueError, match=r"Expected a posterior of gates"):
        plots.network(_Holder(bare))


def test_settings_stay_and_no_window_opens(idata):
    before = mpl.rcParams.copy()
    plots.network(idata).draw_without_rendering()
    assert mpl.rcParams == before
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


class _Holder(dict):
    """The least that plots need of an ArviZ object: groups by name."""

    def __init__(self, dataset):
        super().__init__(relevance=dataset)
        self.children = self
