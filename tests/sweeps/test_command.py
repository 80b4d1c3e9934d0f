"""Command of a grid: that of one of its jobs, without the number of the job."""

import html
import sys

import pytest

from aslp_jax.sweeps.command import given
from aslp_jax.sweeps.page import write_page

GRID = "table1 --seeds 3 --cells 'conv2-plain-*' --out '/shared/my grid'"


@pytest.mark.parametrize("job", [[], ["--job", "7"], ["--job=7"]])
@pytest.mark.parametrize(
    ("program", "typed"),
    [("/opt/aslp-jax", "aslp-jax"), ("/a/aslp_jax/__main__.py", "python -m aslp_jax")],
)
def test_the_page_repeats_the_command_of_the_grid(
    job, program, typed, tmp_path, monkeypatch
):
    words = ["table1", "--seeds", "3", *job, "--cells", "conv2-plain-*"]
    monkeypatch.setattr(sys, "argv", [program, *words, "--out", "/shared/my grid"])
    assert given() == f"{typed} {GRID}"
    write_page(tmp_path, "Grid", "", [])
    page = html.unescape((tmp_path / "report.html").read_text())
    assert f"<code>{typed} {GRID}</code>" in page
