"""The page of a run: whole, closed to the network, and readable without seeing it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import pyro_relevance as pr
from pyro_relevance.commands.main import main
from pyro_relevance.commands.report.content import Content, read_content
from pyro_relevance.commands.report.page import latex_tables, write_report
from pyro_relevance.commands.table.files import write_run
from pyro_relevance.commands.table.run import run_table
from pyro_relevance.errors import CheckpointError
from tests.commands.test_predict import SETTINGS

EVIL = "<script>alert('1')</script>"
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """Elements of a page with their attributes and text, in order; nesting is checked."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.elements:
            self.elements[-1][2].append(data)

    def of(self, *tags: str) -> list[tuple[str, dict[str, str | None], str]]:
        return [(t, a, "".join(text).strip()) for t, a, text in self.elements if t in tags]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run with a column, a class and a target of hostile names."""
    folder = tmp_path_factory.mktemp("report")
    generator = np.random.default_rng(0)
    lines = [f'size,"{EVIL}",100%_$x,a & b']
    for _ in range(60):
        x = generator.normal(size=3)
        target = "<b>yes</b>" if 2 * x[0] + x[1] > 0 else "no"
        lines.append(",".join([*(f"{value:.4f}" for value in x), target]))
    file = folder / "things.csv"
    file.write_text("\n".join(lines) + "\n")
    run = run_table(pr.tables.read_table(file, target="a & b"), SETTINGS, progress=False)
    write_run(run, folder / "run", command=f"pyro-relevance table '{EVIL}'")
    return folder / "run"


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    status = main(["report", str(folder)])
    assert status == (3 if read_content(folder).failed else 0)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.mark.contract
def test_nothing_is_loaded_from_elsewhere(text: str, page: Page) -> None:
    assert "http:" not in text
    assert "https:" not in text
    assert not page.of("script", "link", "iframe", "object", "embed", "base", "form")
    for _, attributes, _ in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "srcset", "data", "action", "poster", "background"):
                assert str(value).startswith("data:image/png;base64,")
            if name == "href":
                assert str(value).startswith("#")
    assert not re.search(r"@import|url\(", text)
    (policy,) = [a for _, a, _ in page.of("meta") if "http-equiv" in a]
    assert str(policy["content"]).startswith("default-src 'none'")


@pytest.mark.contract
def test_texts_of_the_user_are_text(text: str, page: Page) -> None:
    assert "<script" not in text
    assert "<b>yes</b>" not in text
    shown = " ".join(words for _, _, words in page.of("th", "td", "title", "h1", "code"))
    for name in (EVIL, "100%_$x", "a & b", "<b>yes</b>"):
        assert name in shown


@pytest.mark.contract
def test_it_is_readable_without_seeing_it(page: Page) -> None:
    ((_, attributes, _),) = page.of("html")
    assert attributes["lang"] == "en"
    assert page.of("title")[0][2] == "Relevance for a & b"
    levels = [int(tag[1]) for tag, _, _ in page.of("h1", "h2", "h3")]
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    for _, found, words in page.of("th"):
        assert found["scope"] in ("col", "row")
        assert words
    assert len(page.of("caption")) == len(page.of("table")) >= 7
    names = {a["id"] for _, a, _ in page.elements if "id" in a}
    for _, found, words in page.of("a"):
        assert words
        assert str(found["href"])[1:] in names
    for _, found, _ in page.elements:
        if "aria-labelledby" in found:
            assert found["aria-labelledby"] in names
    ids = [a["id"] for _, a, _ in page.elements if "id" in a]
    assert len(ids) == len(set(ids))


@pytest.mark.contract
def test_every_figure_has_a_text_that_says_what_it_shows(page: Page) -> None:
    pictures = page.of("img")
    assert len(pictures) >= 5
    for _, attributes, _ in pictures:
        assert len(str(attributes["alt"])) > 40
        assert int(str(attributes["width"])) > 100
    assert len(page.of("figcaption")) == len(pictures)


@pytest.mark.contract
def test_colours_of_text_can_be_read(text: str) -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    known = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", text))
    for ink in ("ink", "soft", "link"):
        for paper in ("paper", "shade"):
            dark, light = sorted(luminance(known[name]) for name in (ink, paper))
            assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.exact
def test_the_page_has_the_numbers_of_the_record(folder: Path, page: Page) -> None:
    record = json.loads((folder / "record.json").read_text())
    cells = [words for _, _, words in page.of("td")]
    for row in record["rows"]:
        error, se = row["metrics"]["test_error"]["mean"], row["se_over_test_rows"]["test_error"]
        assert f"{error:.4g} ± {se:.2g}" in cells
        assert f"{row['classes']['auc']:.3g}" in cells
    kinds = {row["method"]: row["kind"] for row in record["rows"]}
    assert [k for k, kind in kinds.items() if kind == "baseline"] == [
        *("constant", "logistic", "boosting")
    ]
    assert record["versions"]["torch"] in cells
    prose = " ".join(words for _, _, words in page.of("p", "li", "strong"))
    for sentence in (record["report"]["verdict"], record["report"]["relevant"]):
        assert sentence in prose
    assert "most probable one is predicted: " in prose


@pytest.mark.contract
def test_a_fit_that_failed_is_not_praised(folder: Path, tmp_path: Path) -> None:
    record = json.loads((folder / "record.json").read_text())
    record["fit_failed"] = True
    record["report"]["verdict"] = "The fit failed: do not use its relevances."
    (tmp_path / "record.json").write_text(json.dumps(record))
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "x.html")]) == 3
    page = Page((tmp_path / "x.html").read_text(encoding="utf-8"))
    assert not [a for _, a, _ in page.of("table") if a["id"] == "table-sizes"]
    prose = " ".join(words for _, _, words in page.of("p", "li", "strong", "b"))
    assert "do not use these relevances" in prose
    assert "left out: the fit failed" in prose
    assert "× fewer" not in prose
    assert not page.of("img")  # the folder has none
    assert "sizes" not in (tmp_path / "x.tex").read_text()


@pytest.mark.contract
def test_latex_is_escaped_and_balanced(folder: Path, text: str) -> None:
    tex = (folder / "report.tex").read_text(encoding="utf-8")
    assert tex == latex_tables(read_content(folder))
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") >= 5
    assert r"100\%\_\$x" in tex
    assert r"\textless{}script\textgreater{}" in tex
    for line in tex.splitlines():
        if line.endswith(r"\\"):
            free = re.sub(r"\\[&%$#_{}]", "", line)
            assert not re.search(r"[#_^~<>]", free), line
    for block in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end", tex, re.DOTALL):
        rows = [row for row in block[1].splitlines() if row.endswith(r"\\")]
        assert rows
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(block[0])}


@pytest.mark.contract
def test_a_regression_has_no_tables_of_classes(folder: Path) -> None:
    record = json.loads((folder / "record.json").read_text())
    record["report"] |= {"task": "regression", "classes": [], "decision": [], "decided": None}
    for row in record["rows"]:
        del row["classes"]
        for part in ("metrics", "se_over_test_rows"):
            row[part]["rmse"] = row[part].pop("test_error")
    content = Content(record)
    assert [table.key for table in content.tables()][:2] == ["inputs", "models"]
    assert not {"classes", "confusion"} & {table.key for table in content.tables()}
    assert content.models().header[2] == "Test RMSE ± SE"
    assert "an RMSE of" in content.expected


@pytest.mark.contract
@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"fit_failed": false, "report": {}}'])
def test_damaged_records_say_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(CheckpointError, match="Run the command 'table' again"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.contract
def test_wrong_places_say_what_to_do(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "let the run end first" in capsys.readouterr().err
    with pytest.raises(ValueError, match="ends in .html"):
        write_report(folder, tmp_path / "page.pdf")


@pytest.mark.contract
def test_it_works_in_a_fresh_process(folder: Path, text: str, tmp_path: Path) -> None:
    shutil.copy(folder / "record.json", tmp_path / "record.json")
    program = (
        f"import sys; sys.path[:] = {sys.path!r}\nimport pyro_relevance as pr\n"
        "assert callable(pr.report.load)\n"
        "from pyro_relevance.commands.main import main\nsys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "report", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode in (0, 3), done.stderr
    assert (tmp_path / "report.html").is_file()
