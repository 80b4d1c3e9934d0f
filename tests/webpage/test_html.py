"""Pages: text is escaped, elements close, and nothing is loaded."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from aslp_jax.webpage.charts import Curve, Frame, curves, histogram
from aslp_jax.webpage.html import (
    Cell,
    Markup,
    element,
    facts,
    figure,
    page,
    picture,
    table,
)
from aslp_jax.webpage.pictures import encode_png
from tests.webpage import pages

HOSTILE = '<script>alert("1")</script>&amp;\'"'


def test_text_is_escaped_wherever_it_stands():
    whole = page(
        HOSTILE,
        element("p", HOSTILE),
        [
            (HOSTILE, facts([(HOSTILE, HOSTILE)])),
            ("table", table(HOSTILE, [HOSTILE], [[Cell(HOSTILE)]])),
            ("figure", figure(element("i", HOSTILE, title=HOSTILE), HOSTILE)),
            ("picture", picture(encode_png(np.zeros((1, 2, 3))), HOSTILE)),
            ("chart", curves(chart(HOSTILE), [1], [Curve(HOSTILE, [0.5], "first")])),
        ],
    )
    found = pages.check(whole)
    assert found.one("h1").text == HOSTILE
    assert pages.tables(found) == {HOSTILE: [{HOSTILE: HOSTILE}]}
    assert found.one("i").attributes["title"] == found.one("i").text == HOSTILE
    assert found.one("img").attributes["alt"] == HOSTILE
    assert HOSTILE in found.one("svg").text
    # Nine places and a label of the table for readers of screens.
    assert whole.count("&lt;script&gt;alert") >= 12


def chart(name: str = "a", low: float = 0.0, high: float = 1.0) -> Frame:
    return Frame("a", name, name, low, high, name)


def test_markup_is_no_text():
    inner = element("b", "x")
    assert element("p", inner, ["<", inner]) == "<p><b>x</b>&lt;<b>x</b></p>"
    assert isinstance(inner, Markup)
    assert element("a", class_="c", data_value=1.5, title=None) == (
        '<a class="c" data-value="1.5"></a>'
    )


def test_a_picture_is_the_pixels_that_were_given():
    pixels = np.random.default_rng(0).random((5, 7, 3))
    with Image.open(io.BytesIO(encode_png(pixels))) as image:
        image.load()
        np.testing.assert_array_equal(np.asarray(image), np.round(255 * pixels))


@pytest.mark.parametrize("epochs", [1, 2, 3, 40, 1000])
def test_a_curve_lies_in_its_chart(epochs):
    values = np.random.default_rng(epochs).random(epochs)
    values[epochs // 3] = math.nan
    lines = [Curve("a", [*values], "first"), Curve("b", [0.5] * epochs, colour="red")]
    found = pages.parse(
        curves(chart(), range(1, epochs + 1), lines, best=(1, 0.5), labels=epochs > 2)
    )
    width, height = map(float, found.one("svg").attributes["viewbox"].split()[2:])
    first, second, *_ = [
        each.attributes["d"]
        for each in found.all("path")
        if "curve" in each.attributes["class"]
    ]
    finite = np.isfinite(values).sum()
    assert first.count("M") + first.count("L") == finite
    assert second.count("M") == 1
    for path in (first, second):
        for point in path.replace("M", "L").split("L")[1:]:
            x, y = map(float, point.replace("h8", "").split())
            assert 0 <= x <= width and 0 <= y <= height
    texts = [each.text for each in found.all("text")]
    assert len(set(texts)) > 5 and "epoch" in texts


def test_ticks_are_round_and_few():
    for low, high in ((0.0, 1.0), (0.46, 0.56), (0.9, 1.0), (0.0, 2.31), (0.0, 3e-6)):
        lines = [Curve("a", [low], "first")]
        found = pages.parse(curves(chart("t", low, high), [1], lines))
        ticks = [
            float(each.text)
            for each in found.all("text")
            if each.attributes.get("text-anchor") == "end"
        ]
        assert 2 <= len(ticks) <= 7, (low, high, ticks)
        assert low - 1e-9 <= min(ticks) and max(ticks) <= high + 1e-9
        steps = np.diff(ticks)
        np.testing.assert_allclose(steps, steps[0], rtol=1e-4)


def test_bars_of_a_histogram_grow_with_their_fractions():
    fractions = [0.5, 0.0, 0.25, 0.125, 0.125]
    found = pages.parse(histogram(chart("h", 0.01, 1.0), fractions))
    heights = [float(each.attributes["height"]) for each in found.all("rect")]
    assert len(heights) == 4  # an empty bin has none
    assert heights[0] > heights[1] > heights[2] == heights[3] > 0
