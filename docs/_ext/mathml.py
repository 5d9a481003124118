"""Formulas as MathML, written when the site is built: no script and no network is needed to read them."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

_logger = logging.getLogger(__name__)


def _markup(node: Any, display: str) -> str:
    formula = node.astext().strip()
    try:
        return convert(formula, display=display)
    except Exception as error:
        _logger.warning("formula %r: %r", formula, error, location=node)
        return f"<code>{formula}</code>"


def _inline(translator: Any, node: Any) -> None:
    translator.body.append(_markup(node, "inline"))
    raise nodes.SkipNode


def _block(translator: Any, node: Any) -> None:
    translator.body.append(f'<div class="formula">{_markup(node, "block")}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, Any]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
