"""Digits as strokes, as a person draws them: lists of points [x, y] from 0 to 1."""

import numpy as np

Strokes = list[list[list[float]]]


def arc(
    middle: tuple[float, float],
    radii: tuple[float, float],
    angles: tuple[float, float],
) -> list[list[float]]:
    """Returns an arc from one angle to another, in degrees; 90 points down."""
    turn = np.radians(np.linspace(*angles, 20))
    x, y = middle[0] + radii[0] * np.cos(turn), middle[1] + radii[1] * np.sin(turn)
    return np.stack([x, y], 1).tolist()


DIGITS: dict[int, Strokes] = {
    0: [arc((0.3, 0.5), (0.3, 0.5), (-90, 270))],
    1: [[[0.1, 0.25], [0.3, 0], [0.3, 1]]],
    2: [[*arc((0.3, 0.28), (0.28, 0.28), (-180, 30)), [0.02, 1], [0.6, 1]]],
    3: [
        arc((0.25, 0.26), (0.3, 0.26), (-150, 90))
        + arc((0.25, 0.74), (0.34, 0.26), (-90, 150))
    ],
    4: [[[0.4, 0], [0, 0.65], [0.6, 0.65]], [[0.45, 0.35], [0.35, 1]]],
    5: [
        [
            *([0.55, 0], [0.1, 0], [0.06, 0.42]),
            *arc((0.27, 0.68), (0.3, 0.31), (-110, 140)),
        ]
    ],
    6: [
        [
            *([0.45, 0], [0.15, 0.3], [0.02, 0.65]),
            *arc((0.3, 0.72), (0.28, 0.27), (-180, 180)),
        ]
    ],
    7: [[[0, 0.02], [0.58, 0], [0.25, 1]], [[0, 0.5], [0.6, 0.5]]],
    8: [
        arc((0.3, 0.25), (0.22, 0.25), (90, -270))
        + arc((0.3, 0.75), (0.28, 0.25), (-90, 270))
    ],
    9: [[*arc((0.3, 0.28), (0.27, 0.28), (0, -360)), [0.57, 0.28], [0.5, 1]]],
}


def placed(strokes: Strokes, size: float, left: float, top: float) -> Strokes:
    """Returns strokes scaled and moved."""
    return [[[left + size * x, top + size * y] for x, y in each] for each in strokes]


def varied(strokes: Strokes, rng: np.random.Generator) -> Strokes:
    """Returns strokes as another hand draws them: slanted, stretched, shaken."""
    slant, wide = rng.normal(0, 0.1), np.exp(rng.normal(0, 0.12))
    shake = rng.normal(0, 0.02, 4)

    def move(x: float, y: float) -> list[float]:
        across = wide * (
            x - slant * (y - 0.5) + shake[0] * np.sin(5 * y) + shake[1] * x
        )
        down = y + shake[2] * np.sin(5 * x) + shake[3] * np.cos(4 * y)
        return [float(0.25 + 0.5 * across), float(0.2 + 0.6 * down)]

    return [[move(x, y) for x, y in stroke] for stroke in strokes]
