"""Demo page in headless Chromium: reads digits, refuses files, and is accessible."""

import base64
import functools
import http.server
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aslp_jax
from aslp_jax.data import datasets
from tests.chromium import SIZES, browser, marks, show_as, violations
from tests.demo import drawings
from tests.demo.files import DIGITS, readable, refused

actions = pytest.importorskip("selenium.webdriver.common.actions.action_builder")
inputs = pytest.importorskip("selenium.webdriver.common.actions.pointer_input")
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys

pytestmark = marks()
__all__ = ["browser"]  # a fixture

DEMO = Path(__file__).parents[2] / "docs" / "demo"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(autouse=True)
def silent(browser: Any) -> Iterator[None]:
    """Holds that a test leaves no error in the browser's console."""
    browser.get_log("browser")
    yield
    assert browser.get_log("browser") == []


def open_page(browser: Any, address: str = (DEMO / "index.html").as_uri()) -> None:
    show_as(browser)
    browser.get(address)
    wait(browser, "at('bytes').textContent !== 'none' || at('problem').textContent")


def wait(browser: Any, condition: str = "true") -> None:
    """Waits until a condition holds and the page has shown what it was told."""
    done = browser.execute_async_script(
        f"""
        const done = arguments[0];
        const end = Date.now() + 20000;
        (function look() {{
          if (({condition}) && !waiting) done(true);
          else if (Date.now() > end) done(false);
          else setTimeout(look, 20);
        }})();
        """
    )
    assert done, condition


def text(browser: Any, name: str) -> str:
    return browser.execute_script(f"return at('{name}').textContent")


def digit_read(browser: Any) -> int:
    wait(browser)
    found = re.match(r"It reads (\w+) \((\d)\), probability ", text(browser, "answer"))
    assert found, text(browser, "answer")
    assert WORDS[int(found[2])] == found[1]
    best = browser.execute_script("return document.querySelector('.best').rowIndex - 1")
    assert best == int(found[2])
    return best


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, list[str]]]:
    """Serves the folder as `python -m http.server`; gives its address and requests."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(DEMO))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}/", asked
        serving.shutdown()
        thread.join()


@pytest.mark.parametrize("scheme", ["file", "http"])
def test_all_test_digits_are_read_as_the_library_reads_them(scheme, browser, request):
    if scheme == "file":
        open_page(browser)
    else:
        address, asked = request.getfixturevalue("server")
        open_page(browser, address)
        names = ("style.css", "artefact.js", "network.js", "drawing.js", "data.js")
        assert {*asked} == {"/", *(f"/{name}" for name in (*names, "page.js"))}
    images = datasets.load("digits").test_images
    found = browser.execute_script(
        """return arguments[0].map((base64) => {
          const logits = Array.from(show(bytesOf(base64)));
          return [logits, at("answer").textContent];
        });""",
        [base64.b64encode(image.tobytes()).decode() for image in images],
    )
    wanted = np.asarray(aslp_jax.load(DIGITS)(images))
    assert len(found) == len(wanted) == 360
    np.testing.assert_allclose([each for each, _ in found], wanted, atol=1e-4)
    for (_, answer), row in zip(found, wanted, strict=True):
        best = int(row.argmax())
        assert answer.startswith(f"It reads {WORDS[best]} ({best}), "), answer


def test_the_page_states_what_it_loaded(browser):
    open_page(browser)
    layers = aslp_jax.load(DIGITS).layers.values()
    total = sum(layer.mask.size for layer in layers)
    kept = sum(int(layer.mask.sum()) for layer in layers)
    assert text(browser, "bytes") == f"{DIGITS.stat().st_size:,}"
    assert text(browser, "weights") == f"{total:,}, of which {kept:,} are kept"
    assert text(browser, "dense") == f"{4 * total:,} bytes"
    assert text(browser, "accuracy") == "97.8 %"
    assert re.fullmatch(r"[\d,.]+ ms", text(browser, "drawing-time"))
    assert text(browser, "image-time") == "none"


def test_sample_digits(browser):
    open_page(browser)
    buttons = browser.find_elements("css selector", "#samples button")
    assert [each.accessible_name for each in buttons] == [
        f"Test digit {label}" for label in range(10)
    ]
    read = []
    for label, button in enumerate(buttons):
        button.click()
        read.append(digit_read(browser))
        answer = text(browser, "answer")
        assert answer.endswith(f" The label of this test digit is {label}.")
    assert sum(found != label for label, found in enumerate(read)) == 1
    assert re.fullmatch(r"[\d,.]+ ms", text(browser, "image-time"))
    first = browser.execute_script("return at('first').getAttribute('aria-label')")
    assert re.search(r"first layer: \d+ of 64 filters respond", first)


def draw(browser: Any, strokes: drawings.Strokes, kind: str) -> None:
    """Draws in the middle of the drawing area with a mouse or a finger."""
    canvas = browser.find_element("id", "canvas")
    builder = actions.ActionBuilder(
        browser, mouse=inputs.PointerInput(kind, kind), duration=5
    )
    side = canvas.size["width"]
    for stroke in strokes:
        for i, (x, y) in enumerate(stroke):
            place = (round(side * (0.6 * x - 0.2)), round(side * (0.8 * y - 0.4)))
            builder.pointer_action.move_to(canvas, *place)
            if i == 0:
                builder.pointer_action.pointer_down()
        builder.pointer_action.pointer_up()
    builder.perform()


@pytest.mark.parametrize(
    "kind, size, digits", [("mouse", "wide", (3, 4)), ("touch", "narrow", (2, 7))]
)
def test_drawing_with_a_pointer(kind, size, digits, browser):
    open_page(browser)
    show_as(browser, size)
    for digit in digits:
        draw(browser, drawings.DIGITS[digit], kind)
        assert digit_read(browser) == digit
        assert (
            browser.find_element("id", "answer").get_attribute("aria-busy") == "false"
        )
        browser.find_element("id", "clear").click()
        wait(browser)
        assert text(browser, "answer") == "Draw a digit, or choose one below."
        assert not browser.execute_script("return strokes.length")


def test_drawing_with_the_keyboard(browser):
    open_page(browser)
    page = browser.find_element("tag name", "body")
    page.send_keys(Keys.TAB)
    canvas = browser.switch_to.active_element
    assert canvas.get_attribute("id") == "canvas"
    assert (canvas.aria_role, canvas.accessible_name) == ("application", "Drawing area")
    wait(browser)
    assert text(browser, "pen") == "Pen up, column 12 of 24, row 12 of 24."
    left, right, up, down = (
        *(Keys.ARROW_LEFT, Keys.ARROW_RIGHT),
        *(Keys.ARROW_UP, Keys.ARROW_DOWN),
    )
    # A zero with eight corners.
    canvas.send_keys(up * 8, left * 2, Keys.SPACE)
    assert text(browser, "pen") == "Pen down, column 10 of 24, row 4 of 24."
    canvas.send_keys(right * 4, (right + down) * 3, down * 10, (left + down) * 3)
    assert browser.find_element("id", "answer").get_attribute("aria-busy") == "true"
    canvas.send_keys(left * 4, (left + up) * 3, up * 10, (right + up) * 3, Keys.SPACE)
    assert digit_read(browser) == 0
    assert browser.find_element("id", "answer").get_attribute("aria-busy") == "false"
    canvas.send_keys(Keys.SHIFT, Keys.ARROW_RIGHT)
    assert text(browser, "pen") == "Pen up, column 14 of 24, row 4 of 24."
    canvas.send_keys(Keys.DELETE)
    wait(browser)
    assert text(browser, "answer") == "Draw a digit, or choose one below."
    canvas.send_keys(Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("id") == "clear"


def pick(browser: Any, path: Path) -> None:
    """Opens a file; the page forgets its name when it is done."""
    browser.find_element("id", "picker").send_keys(str(path))
    wait(browser, "at('picker').value === ''")


def test_files_that_are_refused_leave_the_page_as_it_was(browser, tmp_path):
    open_page(browser)
    files = refused()
    for kind in ("flipped", "truncated", "ResNet", "format 2", "kaiming_normal"):
        content, part = files[kind]
        path = tmp_path / "other.aslp"
        path.write_bytes(content)
        pick(browser, path)
        problem = browser.find_element("id", "problem")
        assert problem.is_displayed() and problem.get_attribute("role") == "alert"
        assert problem.text.startswith("other.aslp: ") and part in problem.text
        assert "cannot be read" not in problem.text
        browser.find_element("css selector", "[aria-label='Test digit 3']").click()
        assert digit_read(browser) == 3
    path.write_bytes(readable("few weights"))
    pick(browser, path)
    assert not browser.find_element("id", "problem").is_displayed()
    assert text(browser, "bytes") == f"{path.stat().st_size:,}"
    pick(browser, DIGITS)
    assert digit_read(browser) == 3


def test_a_page_whose_data_are_damaged_says_so(browser, tmp_path):
    folder = tmp_path / "demo"
    shutil.copytree(DEMO, folder)
    data = folder / "data.js"
    script = data.read_text()
    middle = script.index("`") + 30_000
    other = "A" if script[middle] != "A" else "B"
    data.write_text(script[:middle] + other + script[middle + 1 :])
    open_page(browser, (folder / "index.html").as_uri())
    assert text(browser, "problem") == "digits.aslp: is damaged."
    assert text(browser, "answer") == "No network is loaded. Open an artefact below."
    pick(browser, DIGITS)
    draw(browser, drawings.DIGITS[3], "mouse")
    assert digit_read(browser) == 3 and text(browser, "problem") == ""
    data.write_text("")
    open_page(browser, (folder / "index.html").as_uri())
    assert text(browser, "problem").startswith("data.js is missing or damaged")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_hinders_access(scheme, size, browser, tmp_path):
    open_page(browser)
    show_as(browser, size, prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    dark = browser.execute_script("return getComputedStyle(document.body).color")
    assert (dark == "rgb(232, 237, 242)") == (scheme == "dark")
    moving = browser.execute_script(
        "return getComputedStyle(document.querySelector('.fill')).transitionDuration"
    )
    assert moving == "0s"
    assert violations(browser) == []
    browser.find_element("css selector", "[aria-label='Test digit 8']").click()
    damaged = tmp_path / "damaged.aslp"
    damaged.write_bytes(refused()["flipped"][0])
    pick(browser, damaged)
    browser.find_element("id", "canvas").send_keys(Keys.SPACE, Keys.ARROW_DOWN)
    wait(browser)
    assert violations(browser) == []
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= SIZES[size][0]


def test_on_a_phone_the_answer_is_seen_while_drawing(browser):
    open_page(browser)
    show_as(browser, "narrow")
    browser.execute_script("at('canvas').scrollIntoView()")
    draw(browser, drawings.DIGITS[2], "touch")
    box = json.loads(
        browser.execute_script(
            "return JSON.stringify(at('answer').getBoundingClientRect())"
        )
    )
    assert box["top"] > 0 and box["bottom"] < SIZES["narrow"][1] * 0.75
