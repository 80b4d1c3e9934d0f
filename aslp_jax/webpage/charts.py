"""Charts of a page, as SVG: curves over epochs, and histograms.

Colours are those of the page's style, so that a chart follows light and dark.
matplotlib would take longer to plot one chart than all of them take here.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from aslp_jax.webpage.html import Markup, element

__all__ = ["Curve", "Frame", "curves", "histogram", "spread"]

_WIDTH, _HEIGHT = 480, 270
"""Size of a chart in its own units; a window scales it."""

_LABEL_GAP = 15
"""Distance of labels below one another."""


class Curve(NamedTuple):
    """Curve of a chart.

    Attributes:
      name: name for people.
      values: one number an epoch; one that is not finite leaves a gap.
      class_: class for the style: "first", "second" or "whole"; None with a colour.
      colour: colour of the line; None with a class.
    """

    name: str
    values: Sequence[float]
    class_: str | None = None
    colour: str | None = None


class Frame(NamedTuple):
    """Text and axes of a chart.

    Attributes:
      name: name that no other chart of the page has, of letters and hyphens.
      title: title for people.
      description: content of the chart in a sentence, for those who do not see it.
      low: lowest number of the y axis.
      high: highest number of the y axis, above `low`.
      unit: text below the title: quantity and unit of the y axis.
      percent: True to show numbers as percent; default: as they are.
    """

    name: str
    title: str
    description: str
    low: float
    high: float
    unit: str
    percent: bool = False


class _Plane(NamedTuple):
    """Place of numbers in a chart."""

    x: tuple[float, float]
    y: tuple[float, float]
    left: float
    right: float
    top: float
    bottom: float

    def across(self, value: float) -> float:
        low, high = self.x
        part = (value - low) / (high - low) if high > low else 0.5
        return self.left + part * (self.right - self.left)

    def up(self, value: float) -> float:
        low, high = self.y
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)


def curves(
    frame: Frame,
    epochs: Sequence[int],
    lines: Sequence[Curve],
    *,
    best: tuple[int, float] | None = None,
    labels: bool = False,
) -> Markup:
    """Returns a chart of curves over epochs.

    Args:
      frame: text and axes.
      epochs: numbers of the epochs, in order, at least one.
      lines: curves, each with a number an epoch.
      best: epoch and value of a point to mark; default: none.
      labels: True to name each curve at its end, on the right; False above the chart.
    """
    height = max(_HEIGHT, 70 + _LABEL_GAP * len(lines)) if labels else _HEIGHT
    right = _WIDTH - (132 if labels else 14)
    span = (float(epochs[0]), float(epochs[-1]))
    plane = _Plane(span, (frame.low, frame.high), 48, right, 50, height - 34)
    parts = [*_axes(frame, plane), *_epoch_ticks(plane, epochs)]
    for line in lines:
        parts.append(_stroke(_path(plane, epochs, line.values), line))
    if best is not None and math.isfinite(best[1]):
        x, y = _round(plane.across(best[0])), _round(plane.up(best[1]))
        parts.append(element("circle", class_="best", r=4.5, cx=x, cy=y))
    parts += _labels(plane, lines) if labels else _legend(plane, lines)
    return _chart(frame, height, parts)


def histogram(frame: Frame, fractions: Sequence[float]) -> Markup:
    """Returns a histogram of numbers from 0 to 1, with a logarithmic y axis.

    Args:
      frame: text and axes; `low` is above 0.
      fractions: fraction of the numbers in each bin, bins of one width.
    """
    logs = (math.log10(frame.low), math.log10(frame.high))
    plane = _Plane((0.0, 1.0), logs, 56, _WIDTH - 14, 50, _HEIGHT - 34)
    parts = []
    for power in range(math.ceil(logs[0]), math.floor(logs[1]) + 1):
        parts += _grid_line(plane, float(power), f"{100 * 10.0**power:g}")
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(_tick(plane.across(part), plane.bottom + 16, f"{100 * part:g}"))
    middle = (plane.left + plane.right) / 2
    parts.append(_text(middle, _HEIGHT - 3, "keep-probability (%)", anchor="middle"))
    width = (plane.right - plane.left) / len(fractions)
    for index, fraction in enumerate(fractions):
        if fraction > frame.low:
            top = plane.up(math.log10(min(fraction, frame.high)))
            parts.append(
                element(
                    "rect",
                    class_="bar",
                    x=_round(plane.left + index * width),
                    y=_round(top),
                    width=_round(0.9 * width),
                    height=_round(plane.bottom - top),
                )
            )
    return _chart(frame, _HEIGHT, parts)


def spread(heights: np.ndarray, *, gap: float) -> np.ndarray:
    """Returns heights in [0, 1] moved apart as little as needed, in their order.

    Args:
      heights: float `[labels]`, wanted heights.
      gap: least distance of neighbours; `gap * (labels - 1)` is at most 1.

    Returns:
      float `[labels]`.
    """
    order = np.argsort(heights, kind="stable")
    steps = gap * np.arange(len(heights))
    # Minus the steps, "a gap apart" means "not decreasing". The nearest sequence that
    # does not decrease lies between the running maximum and its mirror image.
    wanted = heights[order] - steps
    upper = np.maximum.accumulate(wanted)
    lower = np.minimum.accumulate(wanted[::-1])[::-1]
    placed = np.clip((upper + lower) / 2, 0.0, 1.0 - steps[-1]) + steps
    result = np.empty_like(heights)
    result[order] = placed
    return result


def _chart(frame: Frame, height: float, parts: Sequence[Markup]) -> Markup:
    about = (f"{frame.name}-title", f"{frame.name}-text")
    return element(
        "svg",
        element("title", frame.title, id=about[0]),
        element("desc", frame.description, id=about[1]),
        element("g", _text(0, 14, frame.title), _text(0, 32, frame.unit, "tick")),
        parts,
        viewBox=f"0 0 {_WIDTH} {height:g}",
        role="img",
        aria_labelledby=" ".join(about),
    )


def _axes(frame: Frame, plane: _Plane) -> list[Markup]:
    step = _step(frame.high - frame.low)
    first = math.ceil(frame.low / step - 1e-9)
    last = math.floor(frame.high / step + 1e-9)
    factor = 100 if frame.percent else 1
    parts = []
    for index in range(first, last + 1):
        parts += _grid_line(plane, index * step, f"{factor * index * step:.6g}")
    return parts


def _step(extent: float) -> float:
    """Returns a round step that divides an extent into about four."""
    power = 10.0 ** math.floor(math.log10(extent / 4))
    least = 0.999 * extent / 5  # what is rounded is no reason for a longer step
    return next(power * step for step in (1, 2, 5, 10) if power * step >= least)


def _grid_line(plane: _Plane, value: float, text: str) -> list[Markup]:
    height = _round(plane.up(value))
    return [
        element("path", class_="grid", d=f"M{plane.left} {height}H{plane.right}"),
        _text(plane.left - 6, plane.up(value) + 4, text, "tick", anchor="end"),
    ]


def _epoch_ticks(plane: _Plane, epochs: Sequence[int]) -> list[Markup]:
    first, last = epochs[0], epochs[-1]
    step = max(1, round(_step(max(1, last - first))))
    inner = range(-(-first // step) * step, last + 1, step)
    bottom = plane.bottom + 16
    middle = (plane.left + plane.right) / 2
    return [
        *(_tick(plane.across(epoch), bottom, str(epoch)) for epoch in inner),
        _text(middle, plane.bottom + 31, "epoch", anchor="middle"),
    ]


def _path(plane: _Plane, epochs: Sequence[int], values: Sequence[float]) -> str:
    points, start = [], "M"
    for epoch, value in zip(epochs, values, strict=True):
        if not math.isfinite(value):
            start = "M"
            continue
        x, y = plane.across(epoch), plane.up(value)
        points.append(f"{start}{x:.1f} {y:.1f}")
        start = "L"
    if len(points) == 1:
        # A path of one point is invisible.
        points.append("h8")
    return "".join(points)


def _stroke(path: str, line: Curve) -> Markup:
    style = f"curve {line.class_ or ''}".strip()
    return element("path", d=path, class_=style, stroke=line.colour)


def _legend(plane: _Plane, lines: Sequence[Curve]) -> list[Markup]:
    parts, right = [], plane.right
    for line in reversed(lines):
        start = right - 7.2 * len(line.name)
        parts += [
            _text(start, 14, line.name),
            _stroke(f"M{start - 32:.1f} 10h26", line),
        ]
        right = start - 46
    return parts


def _labels(plane: _Plane, lines: Sequence[Curve]) -> list[Markup]:
    extent = plane.bottom - plane.top
    places = [plane.bottom - plane.up(line.values[-1]) for line in lines]
    ends = np.array(places) / extent
    gap = min(_LABEL_GAP / extent, 1 / len(lines))
    parts = []
    for line, height in zip(lines, spread(ends, gap=gap), strict=True):
        y = plane.bottom - height * extent
        end = plane.up(line.values[-1])
        parts += [
            _stroke(
                f"M{plane.right:.1f} {end:.1f}L{plane.right + 18:.1f} {y:.1f}", line
            ),
            _text(plane.right + 22, y + 4, _short(line.name), "label"),
        ]
    return parts


def _short(name: str) -> str:
    # The end of a path tells layers apart better than its start.
    return name if len(name) <= 16 else f"...{name[-14:]}"


def _tick(x: float, y: float, text: str) -> Markup:
    return _text(x, y, text, "tick", anchor="middle")


def _text(
    x: float,
    y: float,
    text: str,
    class_: str | None = None,
    *,
    anchor: str | None = None,
) -> Markup:
    place = {"x": _round(x), "y": _round(y)}
    return element("text", text, class_=class_, text_anchor=anchor, **place)


def _round(value: float) -> str:
    return f"{value:.1f}"
