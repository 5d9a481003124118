from __future__ import annotations

import os
import subprocess
import sys

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from pyro_relevance import plots


@pytest.fixture(scope="module")
def figure():
    figure = Figure(figsize=(3, 2))
    figure.text(0.5, 0.5, "relevance")
    return figure


def test_both_files_are_written_and_settings_stay(figure, tmp_path):
    before = mpl.rcParams.copy()
    pdf, png = plots.save(figure, tmp_path / "fig.v1")
    assert mpl.rcParams == before
    assert sorted(os.listdir(tmp_path)) == ["fig.v1.pdf", "fig.v1.png"]
    assert pdf.read_bytes().startswith(b"%PDF")
    image = mpl.image.imread(png)
    assert image.shape[:2] == (600, 900)


def test_text_stays_text_in_the_pdf(figure, tmp_path):
    pdf, _ = plots.save(figure, tmp_path / "figure")
    content = pdf.read_bytes()
    assert b"/CIDFontType2" in content or b"/TrueType" in content
    assert b"/Subtype /Type3" not in content


def test_the_same_figure_is_the_same_file(figure, tmp_path):
    first, _ = plots.save(figure, tmp_path / "first")
    second, _ = plots.save(figure, tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()


def test_failed_write_leaves_the_previous_files(figure, tmp_path, monkeypatch):
    paths = plots.save(figure, tmp_path / "figure")
    before = [path.read_bytes() for path in paths]
    original = Figure.savefig

    def fail(self, path, **options):
        if options.get("format") == "png":
            path.write(b"half")
            raise OSError("no space left on device")
        original(self, path, **options)

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="no space left"):
        plots.save(figure, tmp_path / "figure")
    assert [path.read_bytes() for path in paths] == before
    assert len(os.listdir(tmp_path)) == 2


def test_wrong_paths_say_what_to_do(figure, tmp_path):
    with pytest.raises(ValueError, match=r"Expected a path without suffix, but got .*a\.pdf"):
        plots.save(figure, tmp_path / "a.pdf")
    with pytest.raises(FileNotFoundError, match="Expected the folder of"):
        plots.save(figure, tmp_path / "none" / "a")


def test_plots_load_neither_pyplot_nor_arviz():
    code = (
        "import sys, types; package = types.ModuleType('pyro_relevance');"
        f"package.__path__ = [{os.path.dirname(os.path.dirname(plots.__file__))!r}];"
        "sys.modules['pyro_relevance'] = package; import pyro_relevance.plots;"
        "print([name in sys.modules for name in ('torch', 'matplotlib.pyplot', 'arviz')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[False, False, False]"
