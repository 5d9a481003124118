"""Writes the page and the LaTeX tables; every text of the user is escaped for both."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import jinja2

from pyro_relevance._files import replacing
from pyro_relevance.commands.report.content import Content, Table, read_content
from pyro_relevance.commands.report.figures import pictures_of

__all__ = ["latex_tables", "write_report"]

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": r"$-$",
    "–": "--",
    "…": r"\dots{}",
}


def write_report(
    folder: str | os.PathLike[str], out: str | os.PathLike[str] | None = None
) -> list[Path]:
    """Write the report of a finished run: one HTML page that needs nothing else, and LaTeX tables.

    Args:
        folder: Run folder of ``pyro-relevance table``.
        out: The HTML file; by default ``report.html`` in the folder. The LaTeX file has the same
            name, ending in ``.tex``.

    Returns:
        The paths of the HTML and of the LaTeX file, each written completely or not at all.

    Raises:
        FileNotFoundError: If the folder is not that of a finished run.
        CheckpointError: If its record is damaged or of another version.
        ValueError: If ``out`` does not end in ``.html``.
    """
    folder = Path(folder)
    page = folder / "report.html" if out is None else Path(out)
    if page.suffix != ".html":
        raise ValueError(f"Expected a file that ends in .html, but got {page}. Name it so.")
    content = read_content(folder)
    html = (
        _templates(html=True)
        .get_template("report.html.jinja")
        .render(content=content, pictures=pictures_of(folder, content.report["classes"]))
    )
    texts = {page: html, page.with_suffix(".tex"): latex_tables(content)}
    for path, text in texts.items():
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return list(texts)


def latex_tables(content: Content) -> str:
    """Return the tables of results for LaTeX, each in an environment of its own.

    Args:
        content: What the record says.
    """
    template = _templates(html=False).get_template("report.tex.jinja")
    return template.render(content=content, tables=content.tables(), columns=_columns)


def _columns(table: Table) -> str:
    """Return the alignment: text to the left, and what follows a name to the right."""
    return "l" + "r" * (len(table.header) - 1)


@cache
def _templates(*, html: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pyro_relevance.commands.report", "templates"),
        autoescape=html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # LaTeX has braces of its own.
        **({} if html else {"variable_start_string": "<<", "variable_end_string": ">>"}),  # type: ignore[arg-type]
        finalize=None if html else _tex,
    )
    return environment


def _tex(value: object) -> str:
    """Escape what is special to LaTeX; line breaks would end a row."""
    text = re.sub(r"\s+", " ", str(value))
    return "".join(_SPECIAL.get(letter, letter) for letter in text)
