"""Check that every link of a built site that stays inside it leads somewhere.

Usage: ``python docs/check_links.py docs/_build``. Nothing is asked of the network.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links of a page, and the names that links may lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what a tag links to and what it is called."""
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.links.append(value)
            if value and name in ("id", "name"):
                self.names.add(value)


def dead_links(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield each page and link for which there is no file or no name in its page."""
    pages: dict[Path, Page] = {}
    for path in sorted(folder.resolve().rglob("*.html")):
        if "_static" in path.parts:  # templates of the theme
            continue
        pages[path] = Page()
        pages[path].feed(path.read_text(encoding="utf-8"))
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            if target.is_dir():
                target /= "index.html"
            anchor = unquote(parts.fragment)
            missing = anchor and target in pages and anchor not in pages[target].names
            if not target.is_file() or missing:
                yield path, link


def main() -> int:
    """Print dead links, and return how the process ends."""
    folder = Path(sys.argv[1])
    num_pages = len(list(folder.rglob("*.html")))
    if not num_pages:
        print(f"Expected a built site in {folder}, but it has no page. Run sphinx-build first.")
        return 2
    dead = list(dead_links(folder))
    for path, link in dead:
        print(f"{path.relative_to(folder.resolve())}: {link}")
    print(f"{num_pages} pages, {len(dead)} dead links")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
