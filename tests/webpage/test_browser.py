"""Reports in headless Chromium: sorted, accessible, wide and narrow, light and dark."""

import pytest

from aslp_jax.sweeps.grid import Grid
from aslp_jax.sweeps.table1 import page as table1_page
from aslp_jax.sweeps.table1 import report as table1_report
from aslp_jax.sweeps.table1.cells import Cell
from aslp_jax.trainer.report import run_report
from tests.chromium import SIZES, browser, marks, show_as, violations
from tests.sweeps.helpers import ASLP, write_run
from tests.webpage.runs import finished_run

pytestmark = marks()
__all__ = ["browser"]  # a fixture


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    """The reports on a run and on a grid, as a browser finds them."""
    folder = tmp_path_factory.mktemp("pages")
    run = folder / "report.html"
    run.write_text(run_report(finished_run()))
    grid = Grid(folder / "grid", {"dataset": "digits"})
    for seed, accuracy in enumerate((0.9, 0.98, 0.95)):
        write_run(grid, ASLP, seed, thresholding=accuracy, averaging_mean=accuracy / 2)
    lone = Cell("conv2", True, "edge_popup", "none", False)
    write_run(grid, lone, 0, stochastic=False, thresholding=0.1)
    table1_report.write(grid, "digits")
    table1_page.write(grid, "digits")
    return {"run": run.as_uri(), "grid": (grid.path / "report.html").as_uri()}


@pytest.mark.parametrize("name", ["run", "grid"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_is_for_everybody(browser, addresses, name, size, scheme):
    browser.get_log("browser")
    show_as(browser, size, prefers_color_scheme=scheme)
    browser.get(addresses[name])
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= SIZES[size][0]
    colours = browser.execute_script(
        "const style = getComputedStyle(document.body);"
        "return [style.backgroundColor, style.color]"
    )
    light = ["rgb(255, 255, 255)", "rgb(26, 32, 39)"]
    assert (colours == light) == (scheme == "light")
    # Its policy lets it run its own script alone, and it does not break the policy.
    assert browser.get_log("browser") == []
    assert violations(browser) == []


def column(browser, name):
    """The cells of a column of the first table, by its name."""
    return browser.execute_script(
        """const table = document.querySelector("table");
        const heads = Array.from(table.tHead.rows[0].cells);
        const at = heads.findIndex((head) => head.textContent === arguments[0]);
        const rows = Array.from(table.tBodies[0].rows);
        return rows.map((row) => row.cells[at].textContent);
        """,
        name,
    )


def sort(browser, name):
    for button in browser.find_elements("css selector", "table:first-of-type button"):
        if button.text.startswith(name):
            button.click()
            return button.find_element("xpath", "..").get_attribute("aria-sort")
    raise AssertionError(name)


def test_tables_are_sorted_by_any_column(browser, addresses):
    show_as(browser)
    browser.get(addresses["grid"])
    means = column(browser, "mean")
    assert means == ["10.00", "47.17", "94.33"]
    assert sort(browser, "mean") == "ascending"
    assert sort(browser, "mean") == "descending"
    assert column(browser, "mean") == means[::-1]
    assert sort(browser, "name") == "ascending"
    first, *_ = column(browser, "name")
    assert first == "conv2-augmented-edge_popup-none-normal, deterministic"
    # What has no interval stays below, both ways.
    for way in ("ascending", "descending"):
        assert sort(browser, "95 % interval") == way
        *_, last = column(browser, "95 % interval")
        assert last == ""
    browser.get(addresses["run"])
    assert sort(browser, "weights") == "ascending"
    weights = [int(each.replace(",", "")) for each in column(browser, "weights")]
    assert weights == sorted(weights) and len(set(weights)) > 5
