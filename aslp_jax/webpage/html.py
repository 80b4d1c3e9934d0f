"""HTML of a page: elements whose text is escaped, sortable tables, and the page."""

import base64
import hashlib
import html
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "Cell",
    "Markup",
    "Text",
    "element",
    "facts",
    "figure",
    "page",
    "picture",
    "table",
]

_FOLDER = Path(__file__).parent


class Markup(str):
    """HTML as it stands in a page; every other string is escaped on its way there."""

    __slots__ = ()


Text = str | Iterable[str]
"""Content of an element: text, markup, or several of them."""


class Cell(NamedTuple):
    """Cell of a table.

    Attributes:
      text: text or markup for people.
      value: number to sort by; None sorts by the text.
    """

    text: "Text"
    value: float | None = None


def element(name: str, *content: Text, **attributes: str | float | None) -> Markup:
    """Returns an element; text that is no `Markup` is escaped.

    Args:
      name: name of the element.
      *content: content of the element.
      **attributes: values by name; `_` in a name stands for `-`, one at its end for
        nothing. None leaves the attribute out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = "".join(map(_escaped, content))
    if name == "img":  # the only element here that has no end
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{inner}</{name}>")


def _escaped(content: Text) -> str:
    if isinstance(content, Markup):
        return content
    if isinstance(content, str):
        return html.escape(content)
    return "".join(map(_escaped, content))


def table(caption: Text, head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Markup:
    """Returns a table with a caption; the page sorts it by any of its columns.

    Args:
      caption: line above the table.
      head: names of the columns; the first column names the rows.
      rows: cells of each row, as many as there are columns.
    """
    body = [
        element(
            "tr",
            element("th", first.text, scope="row", data_value=first.value),
            *(
                element(
                    "td",
                    cell.text,
                    data_value=cell.value,
                    class_=None if cell.value is None else "number",
                )
                for cell in others
            ),
        )
        for first, *others in rows
    ]
    columns = [element("th", name, scope="col") for name in head]
    return element(
        "div",
        element(
            "table",
            element("caption", caption),
            element("thead", element("tr", columns)),
            element("tbody", body),
        ),
        class_="wide",
        tabindex=0,  # a keyboard can then move what is wider than the window
        role="region",
        aria_label=f"table: {_plain(caption)}",
    )


def _plain(content: Text) -> str:
    return content if isinstance(content, str) else "".join(map(_plain, content))


def facts(pairs: Iterable[tuple[str, Text]]) -> Markup:
    """Returns names with their facts, as a list of descriptions.

    Args:
      pairs: name and fact of each.
    """
    return element(
        "dl",
        *(
            element("div", element("dt", name), element("dd", fact))
            for name, fact in pairs
        ),
    )


def figure(content: Text, caption: Text, *, class_: str | None = None) -> Markup:
    """Returns a figure with a caption.

    Args:
      content: picture or chart, which says itself what it shows.
      caption: line below it.
      class_: class for the style; default: none.
    """
    return element("figure", content, element("figcaption", caption), class_=class_)


def picture(png: bytes, description: str) -> Markup:
    """Returns a picture whose bytes stand in the page.

    Args:
      png: content of a PNG file.
      description: content of the picture in a sentence, for those who do not see it.
    """
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    width, height = struct.unpack(">II", png[16:24])
    return element("img", src=source, alt=description, width=width, height=height)


def page(title: str, introduction: Text, sections: Iterable[tuple[str, Text]]) -> str:
    """Returns a page, with its style and its script in it.

    The page forbids itself to load anything, and to run any other script.

    Args:
      title: heading of the page.
      introduction: content below the heading.
      sections: heading and content of each.
    """
    style, script = (
        (_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; "
        f"script-src {_digest(script)}"
    )
    parts = [
        element("section", element("h2", heading), content)
        for heading, content in sections
    ]
    head = (
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", title),
        element("style", Markup(style)),
    )
    body = (
        element("header", element("h1", title), introduction),
        element("main", parts),
        element("script", Markup(script)),
    )
    whole = element("html", element("head", head), element("body", body), lang="en")
    return f"<!doctype html>\n{whole}\n"


def _digest(source: str) -> str:
    """Returns the source of a style or script as a policy names it."""
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return f"'sha256-{digest}'"
