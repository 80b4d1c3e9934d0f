"""Files that pages link to, copied into the site at their paths in the repository.

The site has the folders of the repository, so a relative link works in both. Sphinx
alone would rename each file by a hash, without the files beside it.
"""

import os
import shutil
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

_FOLDERS = ["docs/demo"]
"""Folders that are copied whole: their pages load the files beside them."""


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the two steps with Sphinx."""
    app.connect("doctree-read", _link, priority=400)  # before Sphinx collects them
    app.connect("build-finished", _copy_folders)
    return {"parallel_read_safe": True}


def _link(app: Sphinx, document: nodes.document) -> None:
    """Makes each link to a file a plain one, and copies the file."""
    page = Path(app.env.doc2path(app.env.docname))
    for link in list(document.findall(addnodes.download_reference)):
        source = (page.parent / link["reftarget"]).resolve()
        if link["reftarget"].startswith("/"):  # from the root of the repository
            source = Path(app.srcdir, link["reftarget"].lstrip("/"))
        target = Path(app.outdir, source.relative_to(app.srcdir))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        address = os.path.relpath(source, page.parent).replace(os.sep, "/")
        link.replace_self(nodes.reference("", "", *link.children, refuri=address))


def _copy_folders(app: Sphinx, failure: Exception | None) -> None:
    for folder in _FOLDERS if failure is None else ():
        shutil.copytree(
            Path(app.srcdir, folder), Path(app.outdir, folder), dirs_exist_ok=True
        )
