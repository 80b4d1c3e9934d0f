"""The site: it builds without a warning and is whole without a network."""

import functools
import html.parser
import importlib
import importlib.util
import re
import subprocess
import sys
import urllib.parse
import zlib
from pathlib import Path

import pytest

from tests.test_project import LIBRARY, is_public, module_name

ROOT = Path(__file__).parents[1]
PACKAGES = ("sphinx", "myst_parser", "myst_nb", "furo", "latex2mathml")
NOT_RUN = (
    *("-D", "nb_execution_mode=off"),
    # That of conf.py; and only a run says in which language a notebook is.
    *("-D", "suppress_warnings=ref.python,myst-nb.lexer"),
)
"""Flags of a build that shows notebooks without running them."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, PACKAGES)),
        reason='needs the packages of the site: pip install -e ".[docs]"',
    ),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Builds the site with the command of CONTRIBUTING.md, in another folder.

    Notebooks are shown and not run here: test_notebooks.py runs them.
    """
    out = tmp_path_factory.mktemp("site")
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (command,) = re.findall(r"^python (-m sphinx [^#\n]*?) build/site", text, re.M)
    done = subprocess.run(
        [sys.executable, *command.split(), *NOT_RUN, str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return out


class Page(html.parser.HTMLParser):
    """A page's anchors, links, and the files that it loads."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loaded = set(), set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given.get("id"), given.get("name")} - {None}
        if tag == "a" and given.get("href"):
            self.links.add(given["href"])
        elif tag == "link" and given.get("rel") != "canonical":
            self.loaded.add(given["href"])
        elif given.get("src"):
            self.loaded.add(given["src"])


@functools.cache
def read(path):
    return Page(path.read_text())


def test_links_lead_somewhere_and_nothing_is_loaded_from_outside(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    for path in pages:
        page = read(path)
        for link in page.loaded | page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme in ("http", "https"):
                assert link not in page.loaded, (path, link)
                continue
            if parts.scheme == "data":
                continue
            target = path.parent / urllib.parse.unquote(parts.path)
            target = target.resolve() if parts.path else path
            assert target.is_relative_to(site) and target.exists(), (path, link)
            if parts.fragment and target.suffix == ".html":
                anchor = urllib.parse.unquote(parts.fragment)
                assert anchor in read(target).anchors, (path, link)


def test_every_part_and_page_is_in_the_navigation(site):
    text = (site / "docs" / "index.html").read_text()
    parts = re.findall(r'class="caption-text">([^<]*)<', text)
    assert parts[:9] == [
        "Start",
        "Guides",
        "Notebooks",
        "How it works",
        "Reference",
        "Results",
        "Architecture",
        "Glossary",
        "FAQ",
    ]
    links = read(site / "docs" / "index.html").links
    for page in (ROOT / "docs").rglob("*.md"):
        path = page.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        assert path in links or path == "index.html", path


def test_the_demo_is_a_part_of_the_site(site):
    for path in (ROOT / "docs" / "demo").glob("*.*"):
        assert (site / "docs" / "demo" / path.name).read_bytes() == path.read_bytes()
    assert "demo/index.html" in read(site / "docs" / "start.html").links


def test_equations_are_mathml(site):
    text = (site / "docs" / "method.html").read_text()
    source = (ROOT / "docs" / "method.md").read_text()
    assert text.count('display="block"') == source.count("$$") / 2 > 5
    assert "<mfrac>" in text and "\\frac" not in text and "$" not in text


def test_search_finds_names_and_words(site):
    index = (site / "searchindex.js").read_text()
    for word in ('"stgs"', '"erdo', "docs/reference/sampling"):
        assert word in index, word


def test_every_public_name_is_in_the_reference(site):
    listed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    lines = zlib.decompress(listed).decode().splitlines()
    documented = {found for line in lines for found in resolve(line.split()[0])}
    modules = [*filter(is_public, map(module_name, LIBRARY))]
    # Packages of which some modules alone are public; their docstrings list them.
    for package in ("artefact", "data", "ops"):
        about = importlib.import_module(f"aslp_jax.{package}").__doc__
        inner = re.findall(r"`(aslp_jax\.[\w.]+)`", about.partition("Internal:")[0])
        modules += [f"aslp_jax.{package}", *inner]
    for module in map(importlib.import_module, modules):
        for name in set(getattr(module, "__all__", ())) - {"__version__"}:
            found = (name, id(getattr(module, name)))
            assert found in documented, f"{module.__name__}.{name}"


def resolve(full):
    """Yields name and identity of a documented object, if it is one of a module."""
    home, _, name = full.rpartition(".")
    try:
        yield name, id(getattr(importlib.import_module(home), name))
    except (AttributeError, ImportError, ValueError):  # an attribute, a page, ...
        return
