"""Compared methods in a figure: what is drawn is what the record says."""

from __future__ import annotations

import matplotlib
import pytest

from pyro_relevance import plots
from pyro_relevance.comparison.records import metric
from pyro_relevance.plots.pareto import front


def record():
    def row(name, sizes, errors):
        metrics = {"num_parameters": sizes, "minutes": [1.0, 2.0], "test_error": errors}
        return {"method": name, "metrics": {k: metric(v) for k, v in metrics.items()}}

    return {
        "rows": [
            row("small", [100, 120], [3.0, 4.0]),
            row("large", [10_000, 10_000], [1.0, 2.0]),
            row("beaten", [20_000, 20_000], [5.0, 6.0]),
            {"method": "without time", "metrics": {"test_error": metric([1.0])}},
        ]
    }


@pytest.mark.exact
def test_points_bars_and_front():
    figure = plots.pareto(record())
    left, right = figure.get_axes()
    assert (left.get_xscale(), right.get_xscale()) == ("log", "linear")
    assert left.get_xlabel() == "Parameters"
    assert left.get_ylabel() == "Test error (%)"
    containers = left.containers
    means = [tuple(map(float, c.lines[0].get_xydata()[0])) for c in containers]
    assert means == [(110.0, 3.5), (10_000.0, 1.5), (20_000.0, 5.5)]
    across, up = containers[0].lines[2]
    assert across.get_segments()[0][:, 0].tolist() == [100.0, 120.0]
    assert up.get_segments()[0][:, 1].tolist() == [3.0, 4.0]
    line = left.lines[-1]
    assert line.get_xydata().tolist() == [[110.0, 3.5], [10_000.0, 1.5]]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["small", "large", "beaten"]


@pytest.mark.contract
def test_methods_of_the_front_are_named_beside_their_points():
    figure = plots.pareto(record(), width="single")
    for ax in figure.get_axes():
        names = [text.get_text() for text in ax.texts]
        assert "beaten" not in names
        boxes = [text.get_window_extent() for text in ax.texts]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert [text.get_text() for text in figure.get_axes()[0].texts] == ["small", "large"]
    assert "by parameters: small, large" in plots.caption(figure)


@pytest.mark.contract
def test_it_can_be_saved_and_changes_no_setting(tmp_path):
    before = dict(matplotlib.rcParams)
    plots.save(plots.pareto(record(), x=("minutes",)), tmp_path / "pareto")
    assert (tmp_path / "pareto.png").stat().st_size > 5_000
    assert dict(matplotlib.rcParams) == before


@pytest.mark.contract
def test_an_outlier_does_not_hide_the_others():
    wide = record()
    wide["rows"][2]["metrics"]["test_error"] = metric([50.0, 60.0])
    axes = plots.pareto(wide).get_axes()
    assert [ax.get_yscale() for ax in axes] == ["log", "log"]
    assert plots.pareto(record()).get_axes()[0].get_yscale() == "linear"


@pytest.mark.exact
def test_the_front():
    assert front([(1.0, 1.0)]) == [(1.0, 1.0)]
    assert front([(2.0, 1.0), (1.0, 1.0)]) == [(1.0, 1.0)]
    assert front([(1.0, 3.0), (2.0, 2.0), (2.0, 1.0)]) == [(1.0, 3.0), (2.0, 1.0)]


@pytest.mark.contract
def test_another_record_is_refused():
    with pytest.raises(ValueError, match="a record with the metrics .*'num_macs'"):
        plots.pareto(record(), x=("num_macs",))


@pytest.mark.contract
def test_the_legend_of_many_methods_is_whole():
    rows = record()["rows"]
    many = [{**rows[i % 3], "method": f"method {i}"} for i in range(30)]
    figure = plots.pareto({"rows": many})
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert box.y0 >= figure.bbox.y0
    assert box.y1 <= figure.bbox.y1
