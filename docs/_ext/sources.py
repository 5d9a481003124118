"""Links of pages to files of the repository, and figures of tutorials."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Texts of the repository that are pages of the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "analysis/README.md": "experiments.md",
    "data/README.md": "data.md",
}
LINK = re.compile(
    r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)"
)


def rewrite_links(text: str, folder: Path) -> str:
    """Return a page whose links to files outside of ``docs`` lead somewhere in the site.

    Texts lead to their pages, other files are offered for download, folders are named.

    Args:
        text: MyST text.
        folder: The folder that its links start from.
    """

    def replace(found: re.Match[str]) -> str:
        label, target, anchor = found[1], found[2], found[3] or ""
        path = (folder / target).resolve()
        if path.is_relative_to(DOCS):
            inside = path.relative_to(DOCS).as_posix()
            gallery = f"auto/{inside}/index.rst"  # scripts become pages there
            return f"[{label}](/{gallery if path.is_dir() else inside}{anchor})"
        if not path.is_relative_to(ROOT):
            return found[0]
        name = path.relative_to(ROOT).as_posix()
        if name in PAGES:
            return f"[{label}](/{PAGES[name]}{anchor})"
        if path.is_file():
            return f"{{download}}`{label.replace('`', '')} </../{name}>`"
        return label if name in label else f"{label} (`{name}`)"

    return LINK.sub(replace, text)


def _read(app: Any, name: str, source: list[str]) -> None:
    path = Path(app.env.doc2path(name))
    if path.suffix == ".md":
        source[0] = rewrite_links(source[0], path.parent)


def _included(app: Any, path: Path, name: str, source: list[str]) -> None:
    source[0] = rewrite_links(source[0], (Path(app.srcdir) / path).resolve().parent)


def figures(block: Any, variables: Any, configuration: Any) -> str:
    """Save the figures that a block of a tutorial made, and return how they are shown.

    The library's figures belong to no window, so that pyplot does not know them.
    """
    from sphinx_gallery.scrapers import figure_rst  # it changes warning filters

    known = variables.setdefault("shown_figures", [])
    paths = []
    for value in list(variables["example_globals"].values()):
        if isinstance(value, Figure) and not any(value is other for other in known):
            known.append(value)
            path = next(variables["image_path_iterator"])
            value.savefig(path, dpi=160, bbox_inches="tight")
            paths.append(path)
    return figure_rst(paths, configuration["src_dir"])


def _without_back_links(app: Any, error: Exception | None) -> None:
    """Remove links from sources back to the API: they miss names that are public elsewhere."""
    if error is None and app.builder.format == "html":
        for path in Path(app.outdir, "_modules").rglob("*.html"):
            text = path.read_text(encoding="utf-8")
            text = re.sub(r'<a class="viewcode-back"[^>]*>.*?</a>', "", text, flags=re.DOTALL)
            path.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, Any]:
    """Connect the rewriting of links."""
    app.connect("source-read", _read)
    app.connect("include-read", _included)
    app.connect("build-finished", _without_back_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
