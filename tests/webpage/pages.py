"""A page as a parser of HTML reads it."""

import dataclasses
import html.parser
from typing import Any

VOID = {"meta", "img", "br", "hr", "link", "input"}


@dataclasses.dataclass
class Node:
    """An element: its name, attributes and content, in the order of the page."""

    name: str
    attributes: dict[str, str | None]
    content: list[Any] = dataclasses.field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(
            each if isinstance(each, str) else each.text for each in self.content
        )

    def all(self, *names: str) -> list["Node"]:
        """The elements of these names within this one."""
        found = []
        for each in self.content:
            if isinstance(each, Node):
                found += [each] * (each.name in names) + each.all(*names)
        return found

    def one(self, name: str) -> "Node":
        (found,) = self.all(name)
        return found


class _Parser(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Node("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, dict(attrs))
        assert len(node.attributes) == len(attrs), (tag, attrs)
        self.open[-1].content.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().name == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].content.append(data)


def parse(text: str) -> Node:
    """Returns a page; every element that is opened must be closed in its order."""
    parser = _Parser()
    parser.feed(text)
    parser.close()
    (root,) = parser.open
    return root


def rows(table: Node) -> list[dict[str, str]]:
    """The rows of a table, each by the names of the columns."""
    head = [cell.text for cell in table.one("thead").all("th")]
    return [
        dict(zip(head, [cell.text for cell in row.all("th", "td")], strict=True))
        for row in table.one("tbody").all("tr")
    ]


def tables(page: Node) -> dict[str, list[dict[str, str]]]:
    """The tables of a page by their captions."""
    return {each.one("caption").text: rows(each) for each in page.all("table")}


def facts(page: Node) -> dict[str, str]:
    """The facts of a page by their names."""
    names, found = page.all("dt"), page.all("dd")
    return {name.text: fact.text for name, fact in zip(names, found, strict=True)}


def check(text: str) -> Node:
    """Checks what holds for every page, and returns it parsed.

    It loads nothing, runs its own script alone, and says what its pictures show.
    """
    page = parse(text)
    assert text.startswith('<!doctype html>\n<html lang="en">')
    everything = page.all(*{each.name for each in walk(page)})
    for each in everything:
        for name, value in each.attributes.items():
            assert not name.startswith("on") and name != "style", (each.name, name)
            if name in ("src", "href") and each.name != "a":
                assert str(value).startswith("data:image/png;base64,")
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert not page.all("link", "iframe", "object", "embed", "base", "form")
    policy = next(
        each.attributes["content"]
        for each in page.all("meta")
        if each.attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert str(policy).startswith("default-src 'none'; img-src data:; style-src 'sha")
    ids = [each.attributes["id"] for each in everything if "id" in each.attributes]
    assert len(ids) == len(set(ids))
    assert page.one("h1").text == page.one("head").one("title").text
    assert len(page.all("h2")) == len(page.all("section")) > 0
    for each in page.all("img"):
        assert each.attributes["alt"]
    for each in page.all("svg"):
        assert each.attributes["role"] == "img"
        labels = str(each.attributes["aria-labelledby"]).split()
        named = {node.attributes.get("id"): node for node in each.all("title", "desc")}
        assert all(named[label].text for label in labels)
    for each in page.all("table"):
        assert each.one("caption").text
        assert {cell.attributes["scope"] for cell in each.all("th")} == {"col", "row"}
    return page


def walk(node: Node) -> list[Node]:
    """An element with all within it."""
    inner = [walk(each) for each in node.content if isinstance(each, Node)]
    return [node, *(each for part in inner for each in part)]
