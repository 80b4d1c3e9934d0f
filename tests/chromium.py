"""Headless Chromium, for the tests of pages."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
SIZES = {"wide": (1280, 900), "narrow": (360, 780)}


def marks() -> list[Any]:
    """Marks of a module whose tests need the browser."""
    for module in ("selenium", "axe_core_python"):
        pytest.importorskip(module, reason=f"{module} is missing")
    return [
        pytest.mark.slow,
        pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing"),
        pytest.mark.skipif(DRIVER is None, reason="chromedriver is missing"),
    ]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome import service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=service.Service(DRIVER))
    yield driver
    driver.quit()


def show_as(browser: Any, size: str = "wide", **features: str) -> None:
    """Sets the window's size, and media features by their names with underscores."""
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1}
    metrics["mobile"] = size == "narrow"
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = [
        {"name": name.replace("_", "-"), "value": value}
        for name, value in features.items()
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})


def violations(browser: Any) -> list[Any]:
    """Returns what makes the open page hard to use for some, as axe finds it."""
    import axe_core_python as axe

    source = Path(axe.__file__).parent / "axe.min.js"
    browser.execute_script(source.read_text())
    found = browser.execute_async_script(
        """const done = arguments[0];
        axe.run(document, { preload: false }).then(({ violations, passes }) =>
          done({
            passes: passes.length,
            violations: violations.map((each) => [
              each.id, each.help, each.nodes.map((node) => node.failureSummary),
            ]),
          }));"""
    )
    assert found["passes"] > 20
    return found["violations"]
