"""Settings of the site: `python -m sphinx -W -c docs . build/site` builds it.

The source folder is the repository itself, so that pages stay where they are and their
relative links work in a clone, on GitHub and in the site.
"""

import sys
from pathlib import Path

from sphinx.application import Sphinx

from aslp_jax import __version__

sys.path.insert(0, str(Path(__file__).parent / "_site"))

project = "aslp-jax"
author = "aslp-jax contributors"
copyright = author
release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
    "linked_files",
]
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "aslp_jax/data/README.md",
    "benchmarks/README.md",
    "docs/*.md",
    "docs/notebooks/*.md",
    "docs/reference/*.md",
    "examples/embedded/README.md",
    "results/README.md",
    "results/*/*.md",
]

NAVIGATION = {
    "Start": ["start"],
    "Guides": [
        "library",
        "own_network",
        "training",
        "reports",
        "resuming",
        "scaling",
        "choosing_a_method",
        "budgets",
        "table1",
        "export",
        "../examples/embedded/README",
        "what_can_go_wrong",
    ],
    "Notebooks": [
        "notebooks/discrete_latents",
        "notebooks/nnx_subnetwork",
        "notebooks/few_weights",
        "notebooks/training_to_c",
    ],
    "How it works": ["method", "artefact", "integers"],
    "Reference": [
        "reference/sampling",
        "reference/models",
        "reference/methods",
        "reference/training",
        "reference/networks_and_data",
        "reference/artefact",
        "reference/export",
        "reference/export_parts",
    ],
    "Results": ["results", "gallery", "../results/README", "../benchmarks/README"],
    "Architecture": [
        "architecture",
        "adding_a_method",
        "adding_a_network",
        "../CONTRIBUTING",
        "../CHANGELOG",
    ],
    "Glossary": ["glossary"],
    "FAQ": ["faq"],
}
"""Pages of each part, relative to this folder."""

LINKED_ONLY = ("README", "aslp_jax/data/README")
"""Pages outside of the navigation, as are the tables of single results."""

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_timeout = 300  # seconds, of a cell
nb_execution_raise_on_error = True
nb_execution_in_temp = True  # notebooks write files
nb_merge_streams = True
default_role = "code"  # docstrings have single backticks
suppress_warnings = ["ref.python"]  # one name in several modules
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
add_module_names = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # the signature has them
napoleon_use_rtype = False

html_theme = "furo"
html_title = "aslp-jax"
html_math_renderer = "mathml"
html_static_path = ["_site/static"]
html_css_files = ["site.css"]
templates_path = ["_site/templates"]
html_additional_pages = {"index": "redirect.html"}
html_copy_source = False
html_show_sphinx = False


def setup(app: Sphinx) -> None:
    """Adds the navigation to the first page, which people also read without a site."""
    app.connect("source-read", _add_navigation)


def _add_navigation(app: Sphinx, page: str, content: list[str]) -> None:
    if page == root_doc:
        for part, pages in NAVIGATION.items():
            listed = "\n".join(pages)
            content[0] += (
                f"\n```{{toctree}}\n:hidden:\n:caption: {part}\n\n{listed}\n```\n"
            )
    elif page in LINKED_ONLY or (page.count("/") == 2 and page.startswith("results/")):
        content[0] = f"---\norphan: true\n---\n{content[0]}"
