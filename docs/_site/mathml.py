"""Equations as MathML, which browsers draw without a script and without a network."""

import latex2mathml.converter
from docutils import nodes
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the renderer `mathml` with Sphinx."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline(translator: nodes.NodeVisitor, node: nodes.math) -> None:
    translator.body.append(latex2mathml.converter.convert(node.astext()))
    raise nodes.SkipNode


def _display(translator: nodes.NodeVisitor, node: nodes.math_block) -> None:
    equation = latex2mathml.converter.convert(node.astext(), display="block")
    translator.body.append(f'<div class="math">{equation}</div>')
    raise nodes.SkipNode
