"""Results show themselves in a line and in a table, without arrays."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
import torch

import pyro_relevance as pr
from pyro_relevance.edges.representation.summary import Summary, counted_groups


class Cells(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.exact
def test_a_line_and_a_table() -> None:
    summary = Summary("Thing", ("2 parts", "<3 s"), ("part", "size"), (("<b>", "1"),), ("a & b",))
    assert str(summary) == "Thing(2 parts, <3 s)"
    found = Cells(summary.html())
    assert set(found.tags) == {*("div", "p", "b", "table", "thead", "tbody", "tr", "th", "td")}
    assert found.words == ["Thing", ": 2 parts, <3 s", "part", "size", "<b>", "1", "a & b"]
    assert found.tags.count("b") == 1


@pytest.mark.exact
def test_long_tables_are_cut_and_say_so() -> None:
    rows = tuple((str(i), "x") for i in range(25))
    found = Cells(Summary("Long", (), ("a", "b"), rows).html())
    assert found.tags.count("tr") == 21
    assert "… and 5 more rows." in found.words
    assert counted_groups([(f"g{i}", 1000 * i) for i in range(6)]) == (
        "g0 0, g1 1,000, g2 2,000, g3 3,000, 2 more groups"
    )
    assert counted_groups([]) == "no groups"


@pytest.fixture(scope="module")
def fit():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 20), torch.nn.ReLU(), torch.nn.Linear(20, 1))
    edges = pr.find_edges(
        network, granularity=("input", "unit"), input_labels=["<i>a</i>", "b", "c"]
    )
    x = torch.randn(40, 3)
    model = pr.RelevanceModel(network, edges, likelihood=pr.likelihoods.Gaussian(1.0), num_data=40)
    return pr.fit(model, (x, x[:, 0]), num_epochs=2, num_chains=2, progress=False)


def shown(fit):
    posterior = fit.posterior
    mask = pr.masks.median_probability(posterior.chain(0))
    network = posterior.network()
    receipt = pr.prune(network, posterior.edges, mask, example_input=torch.randn(5, 3)).receipt
    return {"Edges": posterior.edges, "Mask": mask, "Fit": fit, "Posterior": posterior,
            "Receipt": receipt}  # fmt: skip


@pytest.mark.contract
def test_every_result_is_short_and_has_no_array(fit) -> None:
    for name, value in shown(fit).items():
        line = repr(value)
        assert line.startswith(f"{name}(")
        assert len(line) < 160
        assert "tensor" not in line
        assert "\n" not in line
        text = value._repr_html_()
        assert name in Cells(text).words
        assert "tensor" not in text
        assert "table" in Cells(text).tags
        assert "<i>" not in text


@pytest.mark.exact
def test_the_lines_have_the_numbers(fit) -> None:
    found = {name: repr(value) for name, value in shown(fit).items()}
    assert found["Edges"] == "Edges(inputs 3, 0.units 20, 1 skipped)"
    assert found["Posterior"] == "Posterior(2 chains of inputs 3, 0.units 20, MeanFieldGuide, cpu)"
    assert found["Fit"].startswith(f"Fit(2 chains, {fit.num_steps:,} steps, ")
    assert found["Fit"].endswith(f"s, best chain {fit.best_chain})")
    receipt = shown(fit)["Receipt"]
    assert f"{receipt.after.num_nonzero} of 101 parameters" in found["Receipt"]
    words = Cells(fit.posterior._repr_html_()).words
    probability = fit.posterior.inclusion_probability()["inputs"]
    assert f"{float(probability.mean()):.2f}" in words
    words = Cells(fit._repr_html_()).words
    assert f"{fit.history.final_loss()[1]:,.4g}" in words
    mask = shown(fit)["Mask"]
    assert f": {mask.num_kept} of 23 edges kept" in Cells(mask._repr_html_()).words


@pytest.mark.contract
def test_posteriors_without_gates_or_edges_show_themselves(fit) -> None:
    model = fit.posterior.model
    plain = pr.RelevanceModel(
        model.network, model.edges, likelihood=model.likelihood, num_data=40, gate_prior=None
    )
    x = torch.randn(40, 3)
    fitted = pr.fit(plain, (x, x[:, 0]), num_epochs=1, progress=False)
    assert repr(fitted.posterior).startswith("Posterior(1 chain of inputs 3")
    assert "-" in Cells(fitted.posterior._repr_html_()).words
